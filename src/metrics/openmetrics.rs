//! OpenMetrics 1.0 text, which the prometheus crate does not write, from the families that it gathers.

use std::fmt::{self, Write};

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// The media type.
pub(super) const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The units that names end with.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// The mark that nothing is missing.
pub(super) const END: &str = "# EOF\n";

/// Writes what stands above the samples of a family, and returns its name.
///
/// # Errors
/// Never: a `String` takes everything.
pub(super) fn head<'a>(out: &mut String, name: &'a str, kind: &str, help: &str) -> Result<&'a str, fmt::Error> {
    // A counter's family is named without what its samples end with.
    let name = match kind {
        "counter" => name.strip_suffix("_total").unwrap_or(name),
        _ => name,
    };
    writeln!(out, "# TYPE {name} {kind}")?;
    if let Some(unit) = UNITS.iter().find(|unit| name.ends_with(&format!("_{unit}"))) {
        writeln!(out, "# UNIT {name} {unit}")?;
    }
    writeln!(out, "# HELP {name} {}", Escaped(help))?;
    Ok(name)
}

/// Writes a family.
///
/// # Errors
/// Never: a `String` takes everything.
pub(super) fn encode(out: &mut String, family: &MetricFamily) -> fmt::Result {
    let kind = family.get_field_type();
    let word = match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        // Nothing here makes any of these, and their samples would need other names.
        MetricType::SUMMARY | MetricType::UNTYPED => return Ok(()),
    };
    let name = head(out, family.name(), word, family.help())?;
    for metric in family.get_metric() {
        match kind {
            MetricType::COUNTER => sample(out, name, "_total", metric, None, metric.get_counter().get_value())?,
            MetricType::GAUGE => sample(out, name, "", metric, None, metric.get_gauge().get_value())?,
            _ => histogram(out, name, metric)?,
        }
    }
    Ok(())
}

fn histogram(out: &mut String, name: &str, metric: &Metric) -> fmt::Result {
    let histogram = metric.get_histogram();
    let count = |n: u64| super::page::number(usize::try_from(n).unwrap_or(usize::MAX));
    for bucket in histogram
        .get_bucket()
        .iter()
        .filter(|bucket| bucket.upper_bound().is_finite())
    {
        // With a point even where it is whole: labels of buckets are compared as text.
        let bound = format!("{:?}", bucket.upper_bound());
        sample(
            out,
            name,
            "_bucket",
            metric,
            Some(&bound),
            count(bucket.cumulative_count()),
        )?;
    }
    let all = count(histogram.get_sample_count());
    sample(out, name, "_bucket", metric, Some("+Inf"), all)?;
    sample(out, name, "_sum", metric, None, histogram.get_sample_sum())?;
    sample(out, name, "_count", metric, None, all)
}

fn sample(out: &mut String, name: &str, suffix: &str, metric: &Metric, le: Option<&str>, value: f64) -> fmt::Result {
    write!(out, "{name}{suffix}")?;
    let labels = metric
        .get_label()
        .iter()
        .map(|label: &LabelPair| (label.name(), label.value()));
    let mut before = '{';
    for (label, value) in labels.chain(le.map(|le| ("le", le))) {
        write!(out, "{before}{label}=\"{}\"", Escaped(value))?;
        before = ',';
    }
    let end = if before == ',' { "}" } else { "" };
    if value == f64::INFINITY {
        writeln!(out, "{end} +Inf")
    } else if value == f64::NEG_INFINITY {
        writeln!(out, "{end} -Inf")
    } else {
        writeln!(out, "{end} {value}")
    }
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Whether a scraper that sends this `Accept` header would rather have OpenMetrics than the text format.
pub(super) fn wanted(accept: &str) -> bool {
    let (mut open, mut text) = (0.0_f64, 0.0_f64);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut quality = 1.0_f64;
        let mut known = true;
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key.trim().to_ascii_lowercase().as_str() {
                // What cannot be read is no preference.
                "q" => {
                    quality = value
                        .trim()
                        .parse()
                        .ok()
                        .filter(|q| (0.0..=1.0).contains(q))
                        .unwrap_or(0.0)
                }
                "version" if media.ends_with("/openmetrics-text") => known = value.trim().trim_matches('"') == "1.0.0",
                _ => {}
            }
        }
        match media.as_str() {
            "application/openmetrics-text" if known => open = open.max(quality),
            "text/plain" | "text/*" | "*/*" => text = text.max(quality),
            _ => {}
        }
    }
    0.0 < open && text <= open
}

#[cfg(test)]
mod tests {
    use prometheus::{Counter, Encoder, Gauge, Histogram, HistogramOpts, Opts, Registry, TextEncoder};

    use super::*;

    #[test]
    fn what_prometheus_asks_for_is_what_it_gets() {
        for yes in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.2",
            "application/openmetrics-text",
        ] {
            assert!(wanted(yes), "{yes}");
        }
        for no in [
            "",
            "*/*",
            "text/plain;version=0.0.4",
            "text/html, application/xhtml+xml, */*;q=0.8",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0;q=0.9,text/plain;q=0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.3,text/plain;q=0.5",
            "application/openmetrics-text;q=NaN",
        ] {
            assert!(!wanted(no), "{no}");
        }
    }

    #[test]
    fn names_units_bounds_and_escapes_are_as_the_standard_demands() {
        let registry = Registry::new();
        let counter =
            Counter::with_opts(Opts::new("a_seconds_total", "Says \"a\\b\".").const_label("l", "x\"\\\ny")).unwrap();
        counter.inc_by(1.5);
        let gauge = Gauge::new("b", "B.").unwrap();
        gauge.set(f64::INFINITY);
        let histogram = Histogram::with_opts(HistogramOpts::new("c_seconds", "C.").buckets(vec![0.5, 1.0])).unwrap();
        histogram.observe(0.7);
        registry.register(Box::new(counter)).unwrap();
        registry.register(Box::new(gauge)).unwrap();
        registry.register(Box::new(histogram)).unwrap();
        let families = registry.gather();
        let expected = r#"# TYPE a_seconds counter
# UNIT a_seconds seconds
# HELP a_seconds Says \"a\\b\".
a_seconds_total{l="x\"\\\ny"} 1.5
# TYPE b gauge
# HELP b B.
b +Inf
# TYPE c_seconds histogram
# UNIT c_seconds seconds
# HELP c_seconds C.
c_seconds_bucket{le="0.5"} 0
c_seconds_bucket{le="1.0"} 1
c_seconds_bucket{le="+Inf"} 1
c_seconds_sum 0.7
c_seconds_count 1
# EOF
"#;
        let mut written = String::new();
        for family in &families {
            encode(&mut written, family).unwrap();
        }
        assert_eq!(written + END, expected);
        // Every sample is in the text format, too.
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text).unwrap();
        let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples(expected), samples(&String::from_utf8(text).unwrap()));
    }
}
