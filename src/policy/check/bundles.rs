//! Rotations whose hand-offs one group would do at once.

use super::World;
use crate::{
    diagnostics::Report,
    model::{EntitlementId, Target},
    policy::bundles::bundles,
};

pub(super) fn group_would_do(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts {
        let is_assignment = |id: &EntitlementId| {
            let mut own = draft.entitlements.iter().flatten();
            own.any(|e| e.id == *id && matches!(e.target, Target::Assignment { .. }))
        };
        let rules = draft.rules().map(|(_, rule)| rule);
        for bundle in bundles(rules, |rule| is_assignment(&rule.entitlement)) {
            let mut written = draft.rules();
            let first = bundle.rules.first();
            if let Some((entry, _)) = written.find(|(_, rule)| first.is_some_and(|first| rule.origin == first.origin)) {
                report.push(draft.warning(code, entry.span(), bundle.cost()).hint(bundle.advice()));
            }
        }
    }
}
