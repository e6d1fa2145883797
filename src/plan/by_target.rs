//! Maps by target and, within it, by user. A large organisation has far fewer targets than grants, so that what is looked
//! up once a target is not looked up once a grant.

use std::collections::BTreeMap;

use super::Key;
use crate::model::{PrincipalId, ResolvedTarget};

/// What is known of the users of one target.
pub(super) type Here<'a, T> = BTreeMap<&'a PrincipalId, T>;

/// Sorted by target, then user, as [`Key`] is.
pub(super) struct ByTarget<'a, T> {
    targets: BTreeMap<&'a ResolvedTarget, Here<'a, T>>,
    nothing: Here<'a, T>,
}

impl<'a, T> ByTarget<'a, T> {
    pub(super) fn new() -> Self {
        Self {
            targets: BTreeMap::new(),
            nothing: BTreeMap::new(),
        }
    }

    /// What is known of one target's users.
    pub(super) fn of(&self, target: &ResolvedTarget) -> &Here<'a, T> {
        self.targets.get(target).unwrap_or(&self.nothing)
    }

    /// Takes out what is known of one target's users, for [`Self::put`] to bring back.
    pub(super) fn take(&mut self, target: &ResolvedTarget) -> Here<'a, T> {
        self.targets.remove(target).unwrap_or_default()
    }

    pub(super) fn put(&mut self, target: &'a ResolvedTarget, here: Here<'a, T>) {
        if !here.is_empty() {
            self.targets.insert(target, here);
        }
    }

    /// The users of one target, to be changed.
    pub(super) fn at(&mut self, target: &'a ResolvedTarget) -> &mut Here<'a, T> {
        self.targets.entry(target).or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a ResolvedTarget, &Here<'a, T>)> {
        self.targets.iter().map(|(target, here)| (*target, here))
    }
}

impl<'a, T> FromIterator<(&'a Key, T)> for ByTarget<'a, T> {
    /// From pairs that are sorted by key.
    fn from_iter<I: IntoIterator<Item = (&'a Key, T)>>(pairs: I) -> Self {
        let mut targets = Vec::new();
        let mut pairs = pairs.into_iter().peekable();
        while let Some(((target, principal), value)) = pairs.next() {
            let mut here = vec![(principal, value)];
            while let Some(((_, principal), value)) = pairs.next_if(|(key, _)| key.0 == *target) {
                here.push((principal, value));
            }
            debug_assert!(
                targets.last().is_none_or(|(before, _)| *before < target),
                "pairs are sorted"
            );
            targets.push((target, here.into_iter().collect()));
        }
        // A map is built from what is sorted in one go; key by key it would search for each one's place.
        Self {
            targets: targets.into_iter().collect(),
            nothing: Here::new(),
        }
    }
}
