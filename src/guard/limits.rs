//! Counts surprises against the operator's limits, over the whole plan and before the first write.

use std::collections::BTreeMap;

use super::{Conditions, Guard, Refusal};
use crate::identity_center::ChangeKind;
use crate::model::EntitlementId;
use crate::plan::{Change, Foresight, Plan};

/// Which surprises are more than the limits allow.
pub(super) struct Limited {
    pass: BTreeMap<ChangeKind, String>,
    entitlements: BTreeMap<(ChangeKind, EntitlementId), String>,
}

impl Limited {
    pub(super) fn count(plan: &Plan, c: &Conditions<'_>) -> Self {
        let mut limited = Self {
            pass: BTreeMap::new(),
            entitlements: BTreeMap::new(),
        };
        let rules = [
            (
                ChangeKind::Grant,
                "grants",
                c.limits.surprising_grants,
                c.limits.surprising_grants_per_entitlement,
            ),
            (
                ChangeKind::Revoke,
                "revokes",
                c.limits.surprising_revokes,
                c.limits.surprising_revokes_per_entitlement,
            ),
        ];
        for (kind, word, per_pass, per_entitlement) in rules {
            let surprises: Vec<_> = plan
                .changes
                .iter()
                .filter(|change| change.kind == kind && matches!(change.foresight, Foresight::Surprising(_)))
                .collect();
            if exceeds(surprises.len(), per_pass) {
                limited.pass.insert(
                    kind,
                    format!(
                        "{} surprising {word} in one pass, the limit is {per_pass}",
                        surprises.len()
                    ),
                );
            }
            let percent = u64::from(c.limits.surprising_revokes_percent);
            let share = surprises.len() as u64 * 100;
            if kind == ChangeKind::Revoke && c.owned >= 10 && share > percent * c.owned as u64 {
                limited.pass.entry(kind).or_insert_with(|| {
                    format!(
                        "{} surprising revokes of {} grants owned, the limit is {percent} %",
                        surprises.len(),
                        c.owned
                    )
                });
            }
            let mut counts: BTreeMap<&EntitlementId, usize> = BTreeMap::new();
            for change in &surprises {
                *counts.entry(&change.entitlement).or_default() += 1;
            }
            for (entitlement, count) in counts.into_iter().filter(|(_, n)| exceeds(*n, per_entitlement)) {
                limited.entitlements.insert(
                    (kind, entitlement.clone()),
                    format!("{count} surprising {word} of {entitlement} in one pass, the limit is {per_entitlement}"),
                );
            }
        }
        limited
    }

    pub(super) fn refusal(&self, change: &Change) -> Option<Refusal> {
        let Foresight::Surprising(why) = &change.foresight else {
            return None;
        };
        let arithmetic = self
            .pass
            .get(&change.kind)
            .or_else(|| self.entitlements.get(&(change.kind, change.entitlement.clone())))?;
        Refusal::new(Guard::Limit, format!("{arithmetic}; {why}"))
            .map(|r| r.until("the schedule still saying so after the notice period".to_owned()))
    }
}

fn exceeds(count: usize, limit: u32) -> bool {
    u32::try_from(count).map_or(true, |count| limit < count)
}
