//! What Prometheus sees of the sinks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, GaugeVec, IntCounterVec, Opts};

use crate::clock::Clock;

/// The figures of all sinks. Lag is worked out at the scrape, so that a sink that hangs shows.
pub struct Figures {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    sent: IntCounterVec,
    failures: IntCounterVec,
    lost: IntCounterVec,
    lag_events: GaugeVec,
    lag_seconds: GaugeVec,
}

#[derive(Default)]
struct State {
    head: Option<i64>,
    sinks: BTreeMap<String, Standing>,
}

#[derive(Default)]
struct Standing {
    confirmed: i64,
    /// When the oldest event that is not confirmed was recorded.
    oldest: Option<Timestamp>,
}

impl Figures {
    /// # Errors
    /// Never in practice: names and labels are constants that the prometheus crate checks.
    pub fn new(clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["sink"]);
        let gauge = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &["sink"]);
        Ok(Self {
            clock,
            state: Mutex::default(),
            sent: counter(
                "dutybound_sink_sent_events_total",
                "Events that the sink's receiver confirmed.",
            )?,
            failures: counter(
                "dutybound_sink_failures_total",
                "Tries to send events, or to keep what was confirmed, that failed.",
            )?,
            lost: counter(
                "dutybound_sink_lost_events_total",
                "Events that were removed from the ledger before the sink took them.",
            )?,
            lag_events: gauge(
                "dutybound_sink_lag_events",
                "Events of the ledger that the sink has not confirmed.",
            )?,
            lag_seconds: gauge(
                "dutybound_sink_lag_seconds",
                "Age of the oldest event that the sink has not confirmed.",
            )?,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sink begins with what it confirmed before.
    pub(crate) fn begin(&self, sink: &str, confirmed: i64) {
        for counter in [&self.sent, &self.failures, &self.lost] {
            counter.with_label_values(&[sink]).inc_by(0);
        }
        let oldest = None;
        self.state()
            .sinks
            .insert(sink.to_owned(), Standing { confirmed, oldest });
    }

    /// The chain ends with this event, recorded then.
    pub(crate) fn head(&self, seq: i64, at: Timestamp) {
        let mut state = self.state();
        state.head = Some(seq);
        for standing in state.sinks.values_mut().filter(|standing| standing.confirmed < seq) {
            standing.oldest.get_or_insert(at);
        }
    }

    /// A batch is being sent.
    pub(super) fn waiting(&self, sink: &str, oldest: Option<Timestamp>) {
        if let Some(standing) = self.state().sinks.get_mut(sink)
            && oldest.is_some()
        {
            standing.oldest = oldest;
        }
    }

    pub(super) fn confirmed(&self, sink: &str, events: usize, reached: i64) {
        let events = u64::try_from(events).unwrap_or(u64::MAX);
        self.sent.with_label_values(&[sink]).inc_by(events);
        if let Some(standing) = self.state().sinks.get_mut(sink) {
            *standing = Standing {
                confirmed: reached,
                oldest: None,
            };
        }
    }

    pub(super) fn failure(&self, sink: &str) {
        self.failures.with_label_values(&[sink]).inc();
    }

    pub(super) fn lost(&self, sink: &str, events: i64) {
        let events = u64::try_from(events).unwrap_or_default();
        self.lost.with_label_values(&[sink]).inc_by(events);
    }
}

/// For registration with a Prometheus registry.
pub struct FiguresCollector(pub Arc<Figures>);

impl Collector for FiguresCollector {
    fn desc(&self) -> Vec<&Desc> {
        let f = &self.0;
        let counters = [&f.sent, &f.failures, &f.lost].into_iter().flat_map(Collector::desc);
        let gauges = [&f.lag_events, &f.lag_seconds].into_iter().flat_map(Collector::desc);
        counters.chain(gauges).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "no ledger has 2^53 events")]
    fn collect(&self) -> Vec<MetricFamily> {
        let f = &self.0;
        let now = f.clock.now();
        {
            let state = f.state();
            for (sink, standing) in &state.sinks {
                let Some(head) = state.head else { break };
                let lag = head.saturating_sub(standing.confirmed).max(0);
                f.lag_events.with_label_values(&[sink]).set(lag as f64);
                let age = standing
                    .oldest
                    .map_or(0.0, |oldest| oldest.duration_until(now).as_secs_f64());
                f.lag_seconds.with_label_values(&[sink]).set(age.max(0.0));
            }
        }
        let counters = [&f.sent, &f.failures, &f.lost].into_iter().flat_map(Collector::collect);
        let gauges = [&f.lag_events, &f.lag_seconds].into_iter().flat_map(Collector::collect);
        counters
            .chain(gauges)
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}
