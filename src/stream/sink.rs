//! What every receiver can do: take a batch, or say why not.

use std::time::Duration;

use async_trait::async_trait;

use super::batch::Batch;

/// A receiver.
#[async_trait]
pub(super) trait Sink: Send + Sync {
    /// Sends a batch and waits until the receiver confirmed all of it. Part of a batch that was refused may have arrived.
    async fn send(&mut self, batch: &Batch) -> Result<(), Refusal>;
}

/// Why a batch is not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) again: Again,
    /// For people.
    pub(super) reason: String,
}

/// When a batch is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Soon, and less often the longer it lasts.
    Soon,
    /// As the receiver asked.
    After(Duration),
    /// Seldom: the receiver will say the same until somebody changes something.
    Seldom,
    /// In smaller parts.
    Smaller,
}

impl Refusal {
    pub(super) fn soon(reason: impl Into<String>) -> Self {
        Self {
            again: Again::Soon,
            reason: reason.into(),
        }
    }
}
