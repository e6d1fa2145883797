//! Metric families whose samples are worked out at the scrape, written down as they are: of a large organisation they are
//! more than a hundred thousand lines.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use jiff::Timestamp;
use prometheus::proto::MetricFamily;
use prometheus::{Error, TextEncoder};

use super::openmetrics;

/// The families of one scrape by name. Those without a sample are left out.
#[derive(Default)]
pub(super) struct Page {
    families: BTreeMap<String, Family>,
}

struct Family {
    kind: &'static str,
    help: String,
    /// One for each sample; both formats write them alike.
    lines: String,
}

/// What the samples are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
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
        self.add("gauge", name, help, labels, samples)
    }

    /// Adds a counter with a sample for each set of label values.
    pub(super) fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str; N],
        samples: impl IntoIterator<Item = ([&'a str; N], f64)>,
    ) -> Result<(), Error> {
        self.add("counter", name, help, labels, samples)
    }

    fn add<'a, const N: usize>(
        &mut self,
        kind: &'static str,
        name: &str,
        help: &str,
        labels: &[&str; N],
        samples: impl IntoIterator<Item = ([&'a str; N], f64)>,
    ) -> Result<(), Error> {
        let mut named: Vec<(usize, &str)> = labels.iter().copied().enumerate().collect();
        named.sort_unstable_by_key(|(_, label)| *label);
        let mut lines = String::new();
        for (values, value) in samples {
            lines.push_str(name);
            let mut before = '{';
            for (place, label) in &named {
                lines.push(before);
                lines.push_str(label);
                lines.push_str("=\"");
                push_escaped(&mut lines, values.get(*place).copied().unwrap_or_default(), true);
                lines.push('"');
                before = ',';
            }
            if before == ',' {
                lines.push('}');
            }
            lines.push(' ');
            push_number(&mut lines, value);
            lines.push('\n');
        }
        let family = Family {
            kind,
            help: help.to_owned(),
            lines,
        };
        match self.families.insert(name.to_owned(), family) {
            None => Ok(()),
            Some(_) => Err(Error::AlreadyReg),
        }
    }

    /// These families and the gathered ones, sorted by name.
    ///
    /// # Errors
    /// Never in practice: a `String` takes everything.
    pub(super) fn encode(self, mut gathered: Vec<MetricFamily>, format: Format) -> Result<String, Error> {
        gathered.sort_by(|a, b| b.name().cmp(a.name()));
        let room = self.families.values().map(|family| family.lines.len() + 512).sum();
        let mut out = String::with_capacity(room);
        let kept = self.families.into_iter().filter(|(_, family)| !family.lines.is_empty());
        for (name, family) in kept {
            while let Some(other) = gathered.pop_if(|other| other.name() < name.as_str()) {
                write_gathered(&mut out, other, format)?;
            }
            family.write(&mut out, &name, format).map_err(unwritten)?;
        }
        while let Some(other) = gathered.pop() {
            write_gathered(&mut out, other, format)?;
        }
        if format == Format::OpenMetrics {
            out.push_str(openmetrics::END);
        }
        Ok(out)
    }
}

fn unwritten(error: fmt::Error) -> Error {
    Error::Msg(error.to_string())
}

fn write_gathered(out: &mut String, family: MetricFamily, format: Format) -> Result<(), Error> {
    match format {
        Format::Text => TextEncoder::new().encode_utf8(&[family], out),
        Format::OpenMetrics => openmetrics::encode(out, &family).map_err(unwritten),
    }
}

impl Family {
    fn write(&self, out: &mut String, name: &str, format: Format) -> fmt::Result {
        match format {
            Format::Text => {
                write!(out, "# HELP {name} ")?;
                push_escaped(out, &self.help, false);
                writeln!(out, "\n# TYPE {name} {}", self.kind)?;
            }
            Format::OpenMetrics => {
                openmetrics::head(out, name, self.kind, &self.help)?;
            }
        }
        out.push_str(&self.lines);
        Ok(())
    }
}

fn push_escaped(out: &mut String, text: &str, quotes: bool) {
    let special = |c: u8| matches!(c, b'\\' | b'\n') || quotes && c == b'"';
    if !text.bytes().any(special) {
        out.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\\' => out.push_str("\\\\"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

fn push_number(out: &mut String, value: f64) {
    if value == 0.0 {
        out.push('0');
    } else if value.is_infinite() {
        out.push_str(if 0.0 < value { "+Inf" } else { "-Inf" });
    } else {
        // A `String` takes everything.
        write!(out, "{value}").unwrap_or_default();
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
