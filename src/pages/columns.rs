//! Access hours as a chart: a column for each day, week or month, against standing access and duty.
//!
//! Horizontal places are percents and heights are pixels, so that text stays readable at any width.

use jiff::SignedDuration;

use crate::text::figure;

/// The chart's floor and how high it can grow, in CSS pixels.
const FLOOR: f64 = 188.0;
const TALLEST: f64 = 168.0;
/// A page as narrow as a phone has room for so many labels.
const LABELS: usize = 4;
/// Of the place of a column, the rest parts it from the next one.
const BROAD: f64 = 0.8;

/// What one column shows.
pub(crate) struct Bar {
    pub(crate) on_duty: SignedDuration,
    pub(crate) overhang: SignedDuration,
    pub(crate) duty: SignedDuration,
    pub(crate) standing: SignedDuration,
    /// Below the column, where there is room for it.
    pub(crate) label: String,
    /// For those who point at it.
    pub(crate) title: String,
}

/// Where a rectangle stands, in CSS pixels.
pub(crate) struct Block {
    pub(crate) y: String,
    pub(crate) height: String,
}

/// One column.
pub(crate) struct Column {
    pub(crate) x: String,
    pub(crate) end: String,
    pub(crate) standing: Block,
    pub(crate) duty: Block,
    pub(crate) over: Block,
    /// Where the line of duty is; `None` where there was no duty.
    pub(crate) baseline: Option<i64>,
    pub(crate) label: String,
    pub(crate) title: String,
}

/// The chart.
pub(crate) struct Chart {
    /// What the upper line means.
    pub(crate) highest: String,
    pub(crate) width: String,
    pub(crate) columns: Vec<Column>,
}

/// The least round number of hours that is not lower: 1, 2, 4, 5 or 8 and noughts.
fn round_up(time: SignedDuration) -> SignedDuration {
    let steps = (0..12).flat_map(|power| [1_i64, 2, 4, 5, 8].map(|step| step * 10_i64.pow(power)));
    let mut hours = steps.map(SignedDuration::from_hours);
    hours.find(|round| time <= *round).unwrap_or(time)
}

/// Draws it.
pub(crate) fn chart(bars: Vec<Bar>) -> Chart {
    let tallest = |bar: &Bar| bar.standing.max(bar.on_duty + bar.overhang).max(bar.duty);
    let highest = round_up(bars.iter().map(tallest).max().unwrap_or_default());
    let scale = |time: SignedDuration| TALLEST * time.as_secs_f64() / highest.as_secs_f64();
    let block = |base: f64, height: f64| Block {
        y: format!("{:.1}", FLOOR - base - height),
        height: format!("{height:.1}"),
    };
    let count = bars.len().max(1);
    let step = 100.0 / f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let every = count.div_ceil(LABELS);
    let columns = bars.into_iter().enumerate().map(|(n, bar)| {
        let x = step * f64::from(u32::try_from(n).unwrap_or(0));
        #[expect(clippy::cast_possible_truncation, reason = "pixels of a chart that is 210 high")]
        let baseline = (FLOOR - scale(bar.duty)).round() as i64;
        Column {
            x: format!("{x:.3}"),
            end: format!("{:.3}", x + step * BROAD),
            standing: block(0.0, scale(bar.standing)),
            duty: block(0.0, scale(bar.on_duty)),
            over: block(scale(bar.on_duty), scale(bar.overhang)),
            baseline: (!bar.duty.is_zero()).then_some(baseline),
            label: if n % every == 0 { bar.label } else { String::new() },
            title: bar.title,
        }
    });
    Chart {
        columns: columns.collect(),
        highest: figure(highest),
        width: format!("{:.3}", step * BROAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(hours: i64) -> SignedDuration {
        SignedDuration::from_hours(hours)
    }

    #[test]
    fn the_upper_line_is_round_and_nothing_is_above_it() {
        let shown = [
            (0, 1),
            (1, 1),
            (3, 4),
            (84, 100),
            (384, 400),
            (401, 500),
            (12_345, 20_000),
        ];
        for (time, round) in shown {
            assert_eq!(round_up(hours(time)), hours(round), "{time}");
        }
        let chart = chart(vec![Bar {
            on_duty: hours(30),
            overhang: hours(10),
            duty: hours(40),
            standing: hours(100),
            label: "Nov 1".to_owned(),
            title: String::new(),
        }]);
        assert_eq!(chart.highest, "100");
        let column = &chart.columns[0];
        assert_eq!((&*column.standing.y, &*column.standing.height), ("20.0", "168.0"));
        assert_eq!((&*column.duty.y, &*column.duty.height), ("137.6", "50.4"));
        assert_eq!(
            (&*column.over.y, &*column.over.height),
            ("120.8", "16.8"),
            "on top of duty"
        );
        assert_eq!(column.baseline, Some(121));
    }

    #[test]
    fn labels_leave_each_other_room() {
        for (count, labelled) in [(1, 1), (4, 4), (7, 4), (28, 4), (31, 4)] {
            let bar = |n: usize| Bar {
                on_duty: hours(1),
                overhang: hours(0),
                duty: hours(0),
                standing: hours(0),
                label: n.to_string(),
                title: String::new(),
            };
            let chart = chart((0..count).map(bar).collect());
            assert_eq!(chart.columns.len(), count);
            let labels = chart.columns.iter().filter(|c| !c.label.is_empty()).count();
            assert_eq!(labels, labelled, "{count}");
            assert!(chart.columns.iter().all(|c| c.baseline.is_none()));
        }
    }
}
