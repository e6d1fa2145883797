//! What pages show, each kept for a while beside the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;

use super::fresh::Fresh;

/// So many people do not look at different pages at once; more are not kept, whoever asks for them.
const KEPT: usize = 32;

/// Values by what they are about.
pub(super) struct Shelf<K, T> {
    kept: Mutex<HashMap<K, Arc<Fresh<T>>>>,
    lasts: SignedDuration,
}

impl<K: Clone + Eq + Hash, T> Shelf<K, T> {
    /// Empty; see [`Fresh::for_as_long_as`].
    pub(super) fn of_what_lasts(lasts: SignedDuration) -> Self {
        Self {
            kept: Mutex::default(),
            lasts,
        }
    }

    /// The place of the value about that. Where there are too many, the oldest value goes that nobody works on.
    pub(super) fn of(&self, about: &K) -> Arc<Fresh<T>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while KEPT <= kept.len() && !kept.contains_key(about) {
            let idle = kept.iter().filter(|(_, fresh)| !fresh.is_at_work());
            let oldest = idle.min_by_key(|(_, fresh)| fresh.last().map(|(from, _)| from));
            let Some(oldest) = oldest.map(|(about, _)| about.clone()) else {
                break;
            };
            kept.remove(&oldest);
        }
        let place = kept.entry(about.clone());
        Arc::clone(place.or_insert_with(|| Arc::new(Fresh::for_as_long_as(self.lasts))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::fixtures::t;

    #[test]
    fn no_more_are_kept_than_people_look_at_and_what_is_being_worked_out_stays() {
        let shelf: Shelf<usize, usize> = Shelf::of_what_lasts(SignedDuration::from_secs(2));
        let at_work = shelf.of(&0).begin(t(0));
        for n in 1..=2 * KEPT {
            let second = i64::try_from(n).unwrap();
            shelf.of(&n).begin(t(second)).unwrap().done(n, t(second));
        }
        assert_eq!(shelf.kept.lock().unwrap().len(), KEPT);
        let last = |n: usize| shelf.of(&n).last().map(|(_, value)| *value);
        assert_eq!(last(2 * KEPT), Some(2 * KEPT));
        assert!(at_work.is_some() && shelf.of(&0).is_at_work());
        assert_eq!(last(1), None);
    }
}
