//! How long we go on asking: exponential backoff with jitter, bounded in total.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::failure::Failure;

/// Bounds of the backoff.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// All attempts and pauses of one look together.
    pub(super) look: Duration,
    /// All attempts and pauses of one change together.
    pub(super) change: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(30),
            change: Duration::from_secs(60),
        }
    }
}

/// A host that nobody can reach stays unreachable; people at a terminal should not wait long to hear it.
const UNREACHABLE: Duration = Duration::from_secs(10);

/// What is left of one request's time.
pub(super) struct Patience {
    pauses: ExponentialBackoff,
    total: Duration,
    spent: Duration,
    /// Requests sent so far.
    pub(super) tries: u32,
    /// Whether an earlier attempt may have been carried out.
    pub(super) outcome_unknown: bool,
}

impl Patience {
    pub(super) fn new(total: Duration) -> Self {
        Self {
            pauses: ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(400))
                .with_max_delay(Duration::from_secs(8))
                .with_factor(2.0)
                .with_jitter()
                .without_max_times()
                .build(),
            total,
            spent: Duration::ZERO,
            tries: 0,
            outcome_unknown: false,
        }
    }

    /// How long to pause before the next attempt; `None` when this failure is final.
    pub(super) fn after(&mut self, failure: &Failure) -> Option<Duration> {
        self.tries += 1;
        self.outcome_unknown |= failure.outcome_unknown;
        self.spent += failure.took;
        if !failure.retry {
            return None;
        }
        let pause = self.pauses.next()?.max(failure.retry_after.unwrap_or_default());
        self.spent += pause;
        let total = if failure.never_sent {
            self.total.min(UNREACHABLE)
        } else {
            self.total
        };
        (self.spent <= total).then_some(pause)
    }
}
