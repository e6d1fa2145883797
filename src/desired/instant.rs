//! Who should hold what at one instant, and how that is looked up in causes that are sorted. Pure.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::model::{Cause, EntitlementId, Person};

/// Who should hold what at one instant, with every cause.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Sorted without duplicates, so that those of one entitlement stand together, and among them those of one person.
    pub(super) causes: Vec<Arc<Cause>>,
}

impl Desired {
    /// Whether nobody should hold anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    /// Every entitlement that somebody should hold, sorted, with these people, sorted, and why each of them should.
    pub fn entitlements(
        &self,
    ) -> impl Iterator<Item = (&EntitlementId, impl Iterator<Item = (&Person, &[Arc<Cause>])> + Clone)> + Clone {
        let is_same = |a: &Arc<Cause>, b: &Arc<Cause>| {
            Arc::ptr_eq(&a.right, &b.right) || a.right.entitlement == b.right.entitlement
        };
        self.causes.chunk_by(is_same).map(|causes| {
            let people = causes.chunk_by(|a, b| a.person == b.person);
            (
                &causes[0].right.entitlement,
                people.map(|causes| (&causes[0].person, causes)),
            )
        })
    }

    /// Why the person should hold the entitlement; empty where they should not.
    #[must_use]
    pub fn causes_of(&self, entitlement: &EntitlementId, person: &Person) -> &[Arc<Cause>] {
        of_person(&self.causes, entitlement, person)
    }

    /// Whether the person should hold the entitlement.
    #[must_use]
    pub fn calls_for(&self, entitlement: &EntitlementId, person: &Person) -> bool {
        !self.causes_of(entitlement, person).is_empty()
    }

    /// Whether anybody should hold the entitlement.
    #[must_use]
    pub fn calls_for_anybody(&self, entitlement: &EntitlementId) -> bool {
        !of_entitlement(&self.causes, entitlement).is_empty()
    }

    /// Adds a cause, and says whether it is new.
    pub fn add(&mut self, cause: &Arc<Cause>) -> bool {
        let place = self.causes.binary_search(cause);
        if let Err(place) = place {
            self.causes.insert(place, Arc::clone(cause));
        }
        place.is_err()
    }
}

/// Those of one entitlement among causes that are sorted.
pub(super) fn of_entitlement<'a>(sorted: &'a [Arc<Cause>], entitlement: &EntitlementId) -> &'a [Arc<Cause>] {
    stretch(sorted, |cause| cause.right.entitlement.cmp(entitlement))
}

/// Those of one person's entitlement.
pub(super) fn of_person<'a>(
    sorted: &'a [Arc<Cause>],
    entitlement: &EntitlementId,
    person: &Person,
) -> &'a [Arc<Cause>] {
    stretch(sorted, |cause| {
        let by_entitlement = cause.right.entitlement.cmp(entitlement);
        by_entitlement.then_with(|| cause.person.cmp(person))
    })
}

/// Those of which `place` says that they stand neither before nor after what is looked for.
fn stretch(sorted: &[Arc<Cause>], place: impl Fn(&Cause) -> Ordering) -> &[Arc<Cause>] {
    let (_, rest) = sorted.split_at(sorted.partition_point(|cause| place(cause).is_lt()));
    let end = rest.iter().position(|cause| place(cause).is_gt());
    let (these, _) = rest.split_at(end.unwrap_or(rest.len()));
    these
}
