//! Metric families whose samples are worked out at the scrape, and their encoding together with the registered ones.

use jiff::Timestamp;
use prometheus::core::{Atomic, Collector, GenericCounterVec, GenericGaugeVec};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Error, GaugeVec, Opts, TextEncoder};

/// The families of one scrape.
#[derive(Default)]
pub(super) struct Page {
    families: Vec<MetricFamily>,
}

impl Page {
    /// Adds a gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        self.gauges(name, help, &[], [([], value)])
    }

    /// Adds a gauge with a sample for each set of label values. Without samples it is left out.
    pub(super) fn gauges<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str; N],
        samples: impl IntoIterator<Item = ([&'a str; N], f64)>,
    ) -> Result<(), Error> {
        let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
        for (values, value) in samples {
            set(&gauges, &values, value)?;
        }
        self.families(gauges.collect());
        Ok(())
    }

    /// Adds a counter with a sample for each set of label values. Without samples it is left out.
    pub(super) fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str; N],
        samples: impl IntoIterator<Item = ([&'a str; N], f64)>,
    ) -> Result<(), Error> {
        let counters = CounterVec::new(Opts::new(name, help), labels)?;
        for (values, value) in samples {
            count(&counters, &values, value)?;
        }
        self.families(counters.collect());
        Ok(())
    }

    /// Adds families gathered elsewhere.
    pub(super) fn families(&mut self, families: Vec<MetricFamily>) {
        self.families
            .extend(families.into_iter().filter(|f| !f.get_metric().is_empty()));
    }

    /// The text format, sorted by name.
    pub(super) fn encode(mut self) -> Result<String, Error> {
        self.families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&self.families)
    }
}

fn set<A: Atomic<T = f64>>(gauges: &GenericGaugeVec<A>, values: &[&str], value: f64) -> Result<(), Error> {
    gauges.get_metric_with_label_values(values)?.set(value);
    Ok(())
}

fn count<A: Atomic<T = f64>>(counters: &GenericCounterVec<A>, values: &[&str], value: f64) -> Result<(), Error> {
    counters.get_metric_with_label_values(values)?.inc_by(value);
    Ok(())
}

/// Seconds since 1970, with milliseconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of this age are exact in 53 bits"
)]
pub(super) fn unix(t: Timestamp) -> f64 {
    t.as_millisecond() as f64 / 1000.0
}

/// A number of things; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 of anything here")]
pub(super) fn number(count: usize) -> f64 {
    count as f64
}
