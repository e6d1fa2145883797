//! Remembers since when each change has been planned. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Change, Key};
use crate::identity_center::ChangeKind;

/// When each change that is still to be made was first planned, in which direction. Copies share it: while a large
/// organisation is only observed, there are a hundred thousand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedSince(Arc<BTreeMap<Key, (ChangeKind, Timestamp)>>);

impl PlannedSince {
    /// Since when it has been planned. How long a grant took to come says nothing of how long its revoke has been due.
    #[must_use]
    pub fn of(&self, key: &Key, kind: ChangeKind) -> Option<Timestamp> {
        self.0.get(key).filter(|(known, _)| *known == kind).map(|(_, at)| *at)
    }

    /// Notes that these changes are planned or under way at `at`, and forgets all others except those whose turn has come:
    /// they are not planned while they are looked at, and may be again after that.
    pub fn keep<'a>(
        &mut self,
        changes: impl IntoIterator<Item = &'a Change>,
        in_flight: &BTreeMap<Key, ChangeKind>,
        at: Timestamp,
    ) {
        let begun = in_flight.iter().filter_map(|(key, kind)| {
            let since = self.of(key, *kind)?;
            Some((key.clone(), (*kind, since)))
        });
        let kept = changes.into_iter().map(|change| {
            let key = change.key();
            let since = self.of(&key, change.kind).unwrap_or(at);
            (key, (change.kind, since))
        });
        self.0 = Arc::new(begun.chain(kept).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EntitlementId, PrincipalId, ResolvedTarget};
    use crate::plan::Foresight;

    #[test]
    fn a_revoke_that_follows_its_grant_is_due_from_when_it_is_planned_itself() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let change = |kind, principal: &str| Change {
            kind,
            entitlement: EntitlementId::try_from("payments/admin".to_owned()).unwrap(),
            person: None,
            target: ResolvedTarget::Group { group_id: "g".into() },
            principal: PrincipalId(principal.into()),
            due: at(0),
            causes: Vec::new(),
            rests_on: Default::default(),
            foresight: Foresight::Predicted,
            context: None,
        };
        let (grant, revoke) = (change(ChangeKind::Grant, "alice"), change(ChangeKind::Revoke, "alice"));
        let other = change(ChangeKind::Grant, "bob");
        let (mut since, none) = (PlannedSince::default(), BTreeMap::new());
        since.keep([&grant, &other], &none, at(10));
        since.keep([&grant, &other], &none, at(20));
        assert_eq!(since.of(&grant.key(), ChangeKind::Grant), Some(at(10)));
        assert_eq!(since.of(&grant.key(), ChangeKind::Revoke), None);
        // Its turn has come, and it is planned again because AWS shows something else.
        since.keep([&other], &BTreeMap::from([(grant.key(), ChangeKind::Grant)]), at(25));
        since.keep([&grant], &none, at(26));
        assert_eq!(since.of(&grant.key(), ChangeKind::Grant), Some(at(10)));
        since.keep([&revoke], &none, at(30));
        assert_eq!(since.of(&grant.key(), ChangeKind::Revoke), Some(at(30)));
        assert_eq!(
            since.of(&other.key(), ChangeKind::Grant),
            None,
            "it is not planned any more"
        );
    }
}
