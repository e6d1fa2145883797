//! The only way to know what time it is, so that tests and simulations can own time.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

/// Where the impure parts get the time from. Pure parts take a `Timestamp` argument instead.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The wall clock's reading.
    fn now(&self) -> Timestamp;
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

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
