//! A value that is worked out when somebody asks, once for all who ask, and kept for a while.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// How much longer a value lasts than it took, so that no more than a fifth of the time goes into working it out.
const REST: i32 = 4;

/// A value with from when it is and until when it counts as fresh.
#[derive(Debug)]
pub(super) struct Kept<T> {
    from: Timestamp,
    until: Timestamp,
    value: Arc<T>,
}

/// The last value, when it was asked for, and who works out the next one.
#[derive(Debug)]
pub(super) struct Fresh<T> {
    kept: watch::Sender<Option<Kept<T>>>,
    lasts: SignedDuration,
    /// The instant for which somebody is at work.
    at_work: Mutex<Option<Timestamp>>,
}

impl<T> Fresh<T> {
    /// Nothing yet; values count as fresh for so long, or longer if they are costly.
    pub(super) fn for_as_long_as(lasts: SignedDuration) -> Self {
        Self {
            kept: watch::Sender::new(None),
            lasts,
            at_work: Mutex::new(None),
        }
    }

    /// The kept value, if it is fresh at `now`.
    pub(super) fn current(&self, now: Timestamp) -> Option<Arc<T>> {
        let kept = self.kept.borrow();
        let kept = kept.as_ref()?;
        (kept.from <= now && now < kept.until).then(|| Arc::clone(&kept.value))
    }

    /// The kept value, fresh or not, and from when it is.
    pub(super) fn last(&self) -> Option<(Timestamp, Arc<T>)> {
        let kept = self.kept.borrow();
        kept.as_ref().map(|kept| (kept.from, Arc::clone(&kept.value)))
    }

    /// Whether somebody works out the next value, so that no failure is known of.
    pub(super) fn is_at_work(&self) -> bool {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Takes the work upon the caller, unless somebody has it already.
    pub(super) fn begin(self: &Arc<Self>, now: Timestamp) -> Option<Work<T>> {
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        if at_work.is_some() {
            return None;
        }
        *at_work = Some(now);
        Some(Work {
            of: Arc::clone(self),
            at: now,
        })
    }

    /// Ends when the work under way does, well or not.
    pub(super) fn next(&self) -> watch::Receiver<Option<Kept<T>>> {
        self.kept.subscribe()
    }
}

/// The duty to work out a value. Dropped without one, the next who asks gets it.
#[derive(Debug)]
pub(super) struct Work<T> {
    of: Arc<Fresh<T>>,
    at: Timestamp,
}

impl<T> Work<T> {
    /// Hands the value to everybody who waits; it was worked out by `now`.
    pub(super) fn done(self, value: T, now: Timestamp) {
        let lasts = self.of.lasts.max(self.at.duration_until(now).saturating_mul(REST));
        let value = Kept {
            from: self.at,
            until: now.saturating_add(lasts).unwrap_or(Timestamp::MAX),
            value: Arc::new(value),
        };
        self.of.kept.send_replace(Some(value));
    }
}

impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        *self.of.at_work.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // Whoever waits looks again; after a failure there is nothing new to see.
        self.of.kept.send_modify(|_| ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::fixtures::t;

    #[test]
    fn one_works_while_the_others_wait_and_a_failure_frees_the_place() {
        let fresh = Arc::new(Fresh::for_as_long_as(SignedDuration::from_secs(60)));
        let work = fresh.begin(t(0)).unwrap();
        assert!(fresh.begin(t(0)).is_none());
        drop(work);
        assert!(fresh.current(t(0)).is_none());
        fresh.begin(t(1)).unwrap().done("a", t(1));
        assert_eq!(fresh.current(t(60)).as_deref(), Some(&"a"));
        assert!(fresh.current(t(61)).is_none() && fresh.last().is_some());
        // A clock that was set back must not keep a value for ever.
        assert!(fresh.current(t(0)).is_none());
        assert!(fresh.begin(t(61)).is_some());
    }

    #[test]
    fn what_is_costly_lasts_longer_and_stays_to_be_seen_while_the_next_is_worked_out() {
        let fresh = Arc::new(Fresh::for_as_long_as(SignedDuration::from_secs(2)));
        fresh.begin(t(0)).unwrap().done("costly", t(10));
        assert_eq!(fresh.current(t(49)).as_deref(), Some(&"costly"));
        assert!(fresh.current(t(50)).is_none() && !fresh.is_at_work());
        let work = fresh.begin(t(50));
        assert!(work.is_some() && fresh.is_at_work());
        assert_eq!(fresh.last().map(|(from, value)| (from, *value)), Some((t(0), "costly")));
    }
}
