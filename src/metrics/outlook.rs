//! What the policy and the schedules show ahead: who could hold what, and when nobody will be on call.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use prometheus::Error;

use super::page::{Page, number};
use crate::accounting::standing;
use crate::config::Identity;
use crate::desired::Snapshots;
use crate::forecast::{GapKind, uncovered};
use crate::model::{EntitlementId, Interval};
use crate::policy::Policy;

/// Who could hold what is worked out again this often at least, for memberships that begin or end.
const RECOUNT: SignedDuration = SignedDuration::from_mins(5);

#[derive(Default)]
pub(super) struct Outlook {
    counted: Option<(String, Timestamp)>,
    could: BTreeMap<EntitlementId, usize>,
    gaps: usize,
}

impl Outlook {
    pub(super) fn look(
        &mut self,
        policy: &Policy,
        snapshots: &Snapshots,
        identities: &[Identity],
        horizon: SignedDuration,
        now: Timestamp,
    ) {
        let reach = |span| Interval::new(now, now.checked_add(span).unwrap_or(Timestamp::MAX));
        let gaps = reach(horizon)
            .map(|period| uncovered(policy, snapshots, period))
            .unwrap_or_default();
        let gaps = gaps.iter().filter(|gap| gap.kind == GapKind::NobodyOnCall);
        self.gaps = gaps.map(|gap| gap.more + 1).sum();
        let stands = |(revision, at): &(String, Timestamp)| {
            *revision == policy.revision && *at <= now && at.duration_until(now) < RECOUNT
        };
        if self.counted.as_ref().is_some_and(stands) {
            return;
        }
        let moment = reach(SignedDuration::from_millis(1));
        let could = moment.map(|moment| standing(policy, snapshots, identities, moment));
        self.could.clear();
        for ((entitlement, _), time) in could.unwrap_or_default() {
            let count = self.could.entry(entitlement).or_default();
            *count += usize::from(!time.is_zero());
        }
        self.counted = Some((policy.revision.clone(), now));
    }

    pub(super) fn families(&self, page: &mut Page, policy: &Policy) -> Result<(), Error> {
        if self.counted.is_none() {
            return Ok(());
        }
        let of = |id: &EntitlementId| self.could.get(id).copied().unwrap_or_default();
        page.gauges(
            "dutybound_standing_people",
            "People who could ever earn the entitlement under the policy in force: standing access is that many, all the time.",
            &["project", "entitlement"],
            policy.entitlements().map(|e| (super::labels(&e.id), number(of(&e.id)))),
        )?;
        page.gauge(
            "dutybound_upcoming_gaps",
            "Times within the horizon at which a schedule that earns something has nobody on call, as of the last pass.",
            number(self.gaps),
        )
    }
}
