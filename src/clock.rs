//! The only way to know what time it is, so that tests and simulations can own time.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

/// Where the impure parts get the time from. Pure parts take a `Timestamp` argument instead.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The wall clock's reading.
    fn now(&self) -> Timestamp;
    /// Time passed since some fixed moment on a clock that nobody sets. The difference to the wall clock tells when that
    /// was set, or the host was asleep.
    fn monotonic(&self) -> Duration {
        Duration::try_from(Timestamp::UNIX_EPOCH.duration_until(self.now())).unwrap_or_default()
    }
    /// Returns once `duration` has passed on this clock.
    async fn sleep(&self, duration: Duration);
}

/// The host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
