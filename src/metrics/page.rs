//! Metric families whose samples are worked out at the scrape.

use jiff::Timestamp;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Error, GaugeVec, Opts, Registry};

/// The families of one scrape. Those without a sample are left out.
#[derive(Default)]
pub(super) struct Page {
    registry: Registry,
}

impl Page {
    /// Adds a gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        self.gauges(name, help, &[], [([], value)])
    }

    /// Adds a gauge with a sample for each set of label values.
    pub(super) fn gauges<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str; N],
        samples: impl IntoIterator<Item = ([&'a str; N], f64)>,
    ) -> Result<(), Error> {
        let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
        for (values, value) in samples {
            gauges.get_metric_with_label_values(&values)?.set(value);
        }
        self.registry.register(Box::new(gauges))
    }

    /// Adds a counter with a sample for each set of label values.
    pub(super) fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str; N],
        samples: impl IntoIterator<Item = ([&'a str; N], f64)>,
    ) -> Result<(), Error> {
        let counters = CounterVec::new(Opts::new(name, help), labels)?;
        for (values, value) in samples {
            counters.get_metric_with_label_values(&values)?.inc_by(value);
        }
        self.registry.register(Box::new(counters))
    }

    /// Everything, sorted.
    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
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

/// 1 for yes, 0 for no.
pub(super) fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}
