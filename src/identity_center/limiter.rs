//! One process-wide limit on requests to AWS, over both services.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;

/// Who may go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Changes: somebody is waiting for access.
    Change,
    /// Asking how changes stand.
    Poll,
    /// Everything that only looks.
    Look,
}

/// Spaces permits evenly, so that no second ever holds more than the limit, not even when requests are delayed
/// on their way: AWS allows 20 requests a second for the whole instance and counts them as they arrive.
///
/// First come, first served among equals. A change waits behind at most one look and one poll, because each sort queues
/// among itself first and only the foremost of each queues at the gate; there everybody's turn comes.
pub struct Limiter {
    gap: SignedDuration,
    clock: Arc<dyn Clock>,
    looks: tokio::sync::Mutex<()>,
    polls: tokio::sync::Mutex<()>,
    gate: tokio::sync::Mutex<()>,
    next: Mutex<Timestamp>,
}

impl Limiter {
    /// `requests_per_second` of 0 counts as 1.
    #[must_use]
    pub fn new(requests_per_second: u32, clock: Arc<dyn Clock>) -> Self {
        let nanos = 1_000_000_000_i64.div_euclid(i64::from(requests_per_second.max(1))) + 1;
        Self {
            gap: SignedDuration::from_nanos(nanos),
            clock,
            looks: tokio::sync::Mutex::new(()),
            polls: tokio::sync::Mutex::new(()),
            gate: tokio::sync::Mutex::new(()),
            next: Mutex::new(Timestamp::MIN),
        }
    }

    /// Returns when one request may be sent.
    pub async fn acquire(&self, priority: Priority) {
        let _queueing = match priority {
            Priority::Change => None,
            Priority::Poll => Some(self.polls.lock().await),
            Priority::Look => Some(self.looks.lock().await),
        };
        let _at_the_gate = self.gate.lock().await;
        let wait = self.reserve();
        if !wait.is_zero() {
            self.clock.sleep(wait).await;
        }
    }

    /// Takes the next slot and tells how long to wait for it. Nobody else waits at the same time, so an honest wait
    /// never exceeds one gap; the bound keeps a wall clock that was set back from stopping everything.
    fn reserve(&self) -> Duration {
        let now = self.clock.now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = now.duration_until(*next).clamp(SignedDuration::ZERO, self.gap);
        *next = now
            .checked_add(wait)
            .and_then(|slot| slot.checked_add(self.gap))
            .unwrap_or(now);
        wait.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity_center::tests::SimClock;

    #[tokio::test]
    async fn no_second_holds_more_than_the_limit() {
        let clock = Arc::new(SimClock::default());
        let limiter = Limiter::new(19, clock.clone());
        let mut permits = Vec::new();
        for n in 0..100 {
            // A pause, as between passes, must not be saved up for a burst.
            if n == 50 {
                clock.advance(Duration::from_secs(30));
            }
            limiter.acquire(Priority::Look).await;
            permits.push(clock.now());
        }
        for (i, start) in permits.iter().enumerate() {
            let within = permits[i..]
                .iter()
                .filter(|t| start.duration_until(**t) < SignedDuration::from_secs(1))
                .count();
            assert!(within <= 19, "{within} permits in the second after {start}");
        }
        let first_half = permits[0].duration_until(permits[49]);
        assert!(
            first_half < SignedDuration::from_millis(2_600),
            "{first_half:?}: slower than 19 a second"
        );
    }

    #[tokio::test]
    async fn a_clock_set_back_stops_nothing() {
        let clock = Arc::new(SimClock::default());
        let limiter = Limiter::new(10, clock.clone());
        limiter.acquire(Priority::Look).await;
        clock.set("2020-01-01T00:00:00Z");
        let before = clock.now();
        limiter.acquire(Priority::Look).await;
        assert!(before.duration_until(clock.now()) <= SignedDuration::from_millis(101));
    }

    #[tokio::test]
    async fn a_change_overtakes_queued_looks_and_polls() {
        let clock = Arc::new(SimClock::default());
        let limiter = Arc::new(Limiter::new(10, clock));
        let order = Arc::new(Mutex::new(Vec::new()));
        let held = limiter.gate.lock().await;
        let mut tasks = tokio::task::JoinSet::new();
        for (name, priority) in [
            ("look 1", Priority::Look),
            ("look 2", Priority::Look),
            ("poll 1", Priority::Poll),
            ("poll 2", Priority::Poll),
            ("look 3", Priority::Look),
            ("change", Priority::Change),
        ] {
            let (limiter, order) = (limiter.clone(), order.clone());
            tasks.spawn(async move {
                limiter.acquire(priority).await;
                order.lock().unwrap().push(name);
            });
        }
        // On this single-threaded runtime one yield runs every task up to the place where it waits.
        tokio::task::yield_now().await;
        drop(held);
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!(
            *order.lock().unwrap(),
            ["look 1", "poll 1", "change", "look 2", "poll 2", "look 3"]
        );
    }
}
