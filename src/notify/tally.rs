//! Counts messages, for Prometheus.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

/// How a try to deliver a message ended, or the message itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The destination has it.
    Delivered,
    /// A try failed; the message is tried again.
    Failed,
    /// The destination will never take it.
    Refused,
    /// It grew too old, or too many waited.
    Dropped,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::Refused, Self::Dropped];

    fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

/// A shared count. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Tally {
    messages: IntCounterVec,
    queued: IntGaugeVec,
}

impl Tally {
    /// Counts of nothing yet, for these destinations.
    ///
    /// # Errors
    /// Never in practice: names and labels are constants that the prometheus crate checks.
    pub fn new<'a>(destinations: impl IntoIterator<Item = &'a String>) -> Result<Self, prometheus::Error> {
        let messages = IntCounterVec::new(
            Opts::new(
                "dutybound_notifications_total",
                "Messages to people by destination and outcome: delivered, failed (a try; it is tried again), refused (never taken), \
                 dropped (too old, or too many).",
            ),
            &["destination", "outcome"],
        )?;
        let queued = IntGaugeVec::new(
            Opts::new(
                "dutybound_notifications_queued",
                "Messages to people that wait to be delivered, by destination.",
            ),
            &["destination"],
        )?;
        for destination in destinations {
            queued.get_metric_with_label_values(&[destination])?;
            for outcome in Outcome::ALL {
                messages.get_metric_with_label_values(&[destination.as_str(), outcome.as_str()])?;
            }
        }
        Ok(Self { messages, queued })
    }

    /// For registration with a Prometheus registry.
    #[must_use]
    pub fn collectors(&self) -> [Box<dyn Collector>; 2] {
        [Box::new(self.messages.clone()), Box::new(self.queued.clone())]
    }

    pub(super) fn count(&self, destination: &str, outcome: Outcome, count: u64) {
        self.messages
            .with_label_values(&[destination, outcome.as_str()])
            .inc_by(count);
    }

    pub(super) fn queued<'a>(&self, destinations: impl Iterator<Item = &'a String>, waiting: &BTreeMap<String, u64>) {
        for destination in destinations {
            let count = waiting.get(destination).copied().unwrap_or_default();
            self.queued
                .with_label_values(&[destination])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
