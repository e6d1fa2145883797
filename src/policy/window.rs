//! Membership windows: a cron pattern for the starts, and a length that is elapsed or wall-clock time.

use std::{fmt, str::FromStr as _};

use croner::Cron;
use jiff::{
    SignedDuration, Timestamp, Zoned, civil,
    tz::{AmbiguousOffset, TimeZone},
};

use crate::{model::Interval, text::span};

/// When a membership rule holds.
#[derive(Debug, Clone, PartialEq)]
pub struct CronWindow {
    /// When windows start, in `zone`.
    pub cron: Cron,
    /// How long each lasts.
    pub length: WindowLength,
    /// The zone of the pattern and of `until`.
    pub zone: TimeZone,
}

impl fmt::Display for CronWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.zone.iana_name().unwrap_or("its own zone");
        match self.length {
            WindowLength::For(length) => write!(f, "{:?} for {} in {zone}", self.cron.as_str(), span(length)),
            WindowLength::Until(time) => write!(f, "{:?} until {time} in {zone}", self.cron.as_str()),
        }
    }
}

/// The two ways to say how long a window lasts. They differ on the nights of a DST change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowLength {
    /// Elapsed time after the start.
    For(SignedDuration),
    /// The next time at which a clock in the zone shows this. On a night on which the clock skips it, the moment of
    /// the skip.
    Until(civil::Time),
}

/// A clock shows the same time again after at most a day and the largest change of clocks, rounded up.
const LONGEST_WAIT_FOR_CLOCK: SignedDuration = SignedDuration::from_hours(50);

/// Reads a cron pattern of five fields, or six with a fixed second in front.
///
/// # Errors
/// What is wrong with it.
pub fn parse_cron(pattern: &str) -> Result<Cron, String> {
    let fields: Vec<&str> = pattern.split_whitespace().collect();
    if !(5..=6).contains(&fields.len()) {
        return Err(format!(
            "a pattern has five fields (minute, hour, day of month, month, day of week), this one has {}",
            fields.len()
        ));
    }
    // croner takes `MON,` for `MON`; a person may have meant more.
    let dangling = |field: &&&str| field.starts_with(',') || field.ends_with(',') || field.contains(",,");
    if let Some(field) = fields.iter().find(dangling) {
        return Err(format!("the list `{field}` has a comma too many"));
    }
    if fields.len() == 6 && fields[0].parse::<u8>().is_err() {
        return Err("with six fields the first is the second, and it must be one number".to_owned());
    }
    Cron::from_str(pattern).map_err(|error| {
        let text = error.to_string();
        let text = text.trim_end_matches('.');
        let detail = text.split_once(": ").map_or(text, |(_, detail)| detail);
        match wrong_field(&fields) {
            Some((name, field)) => format!("the {name}, `{field}`, is not understood: {detail}"),
            None => detail.to_owned(),
        }
    })
}

/// Which field alone is wrong, in words, and what it says.
fn wrong_field<'a>(fields: &[&'a str]) -> Option<(&'static str, &'a str)> {
    let names = ["second", "minute", "hour", "day of month", "month", "day of week"];
    let names = &names[names.len().checked_sub(fields.len())?..];
    let is_wrong = |(place, field): &(usize, &&str)| {
        let mut alone = vec!["*"; fields.len()];
        alone[*place] = *field;
        Cron::from_str(&alone.join(" ")).is_err()
    };
    let (place, field) = fields.iter().enumerate().find(is_wrong)?;
    Some((names.get(place)?, field))
}

impl CronWindow {
    /// Every window that overlaps `range`, whole, in the order of their starts. Windows may overlap each other.
    ///
    /// Takes time in proportion to the number of starts in `range`, so a range is a horizon and not all of time.
    #[must_use]
    pub fn intervals(&self, range: Interval) -> Vec<Interval> {
        let reach = match self.length {
            WindowLength::For(length) => length,
            WindowLength::Until(_) => LONGEST_WAIT_FOR_CLOCK,
        };
        let from = range.start().checked_sub(reach).unwrap_or(Timestamp::MIN);
        let mut windows = Vec::new();
        let mut after = from;
        while let Some(start) = self.next_start(after) {
            if start >= range.end() {
                break;
            }
            if let Some(window) = self.window_from(start)
                && window.intersect(&range).is_some()
            {
                windows.push(window);
            }
            after = start;
        }
        windows
    }

    /// The first start of a window strictly after `after`; `None` when the pattern never fires again.
    #[must_use]
    pub fn next_start(&self, after: Timestamp) -> Option<Timestamp> {
        // croner works in whole seconds. Cutting the fraction off and searching exclusively cannot lose a start,
        // because starts are whole seconds too. Before 1970 fractions are negative, and cutting must not go forwards.
        let second = after.as_second() - i64::from(after.subsec_nanosecond() < 0);
        let whole = Timestamp::from_second(second).ok()?;
        let origin = whole.to_zoned(self.zone.clone());
        let found: Zoned = self.cron.find_next_occurrence(&origin, false).ok()?;
        // Never backwards, whatever the clocks do: the callers' loops end by it.
        (found.timestamp() > after).then(|| found.timestamp())
    }

    /// The window that starts at `start`.
    fn window_from(&self, start: Timestamp) -> Option<Interval> {
        let end = match self.length {
            WindowLength::For(length) => start.checked_add(length).ok()?,
            WindowLength::Until(time) => self.clock_shows(time, start)?,
        };
        Interval::new(start, end)
    }

    fn clock_shows(&self, time: civil::Time, after: Timestamp) -> Option<Timestamp> {
        let mut day = self.zone.to_datetime(after).date();
        for _ in 0..4 {
            let shown = day.to_datetime(time);
            let ambiguous = self.zone.to_ambiguous_timestamp(shown);
            let candidates = match ambiguous.offset() {
                AmbiguousOffset::Unambiguous { offset } => [offset.to_timestamp(shown).ok(), None],
                AmbiguousOffset::Fold { before, after } => {
                    [before.to_timestamp(shown).ok(), after.to_timestamp(shown).ok()]
                }
                AmbiguousOffset::Gap { after, .. } => {
                    // Read with the later offset, a skipped time lies before the skip.
                    let before_skip = after.to_timestamp(shown).ok()?;
                    [self.zone.following(before_skip).next().map(|t| t.timestamp()), None]
                }
            };
            let first = candidates.into_iter().flatten().filter(|t| *t > after).min();
            if first.is_some() {
                return first;
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    /// The first window after `now` and within 400 days that elapsed time ends at another hour than the clock would,
    /// because the clocks change meanwhile: the window, and the civil time at which it would otherwise end.
    #[must_use]
    pub fn next_clock_change(&self, now: Timestamp) -> Option<(Interval, civil::DateTime)> {
        let WindowLength::For(length) = self.length else {
            return None;
        };
        let horizon = now.checked_add(SignedDuration::from_hours(400 * 24)).ok()?;
        for change in self.zone.following(now).take_while(|t| t.timestamp() < horizon) {
            let at = change.timestamp();
            let around = Interval::new(at, at.checked_add(SignedDuration::from_secs(1)).ok()?)?;
            for window in self.intervals(around) {
                let start = self.zone.to_datetime(window.start());
                let by_clock = start.checked_add(length).ok()?;
                if window.start() < at && self.zone.to_datetime(window.end()) != by_clock {
                    return Some((window, by_clock));
                }
            }
        }
        None
    }

    /// The first two windows among the next 40 after `from` that overlap each other.
    #[must_use]
    pub fn overlap(&self, from: Timestamp) -> Option<(Interval, Interval)> {
        let mut earlier: Option<Interval> = None;
        let mut after = from;
        for _ in 0..40 {
            let start = self.next_start(after)?;
            let window = self.window_from(start)?;
            if let Some(earlier) = earlier
                && earlier.intersect(&window).is_some()
            {
                return Some((earlier, window));
            }
            earlier = Some(window);
            after = start;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(cron: &str, length: &str, zone: &str) -> CronWindow {
        let length = match length.parse() {
            Ok(time) if length.contains(':') => WindowLength::Until(time),
            _ => WindowLength::For(length.parse().unwrap()),
        };
        CronWindow {
            cron: parse_cron(cron).unwrap(),
            length,
            zone: TimeZone::get(zone).unwrap(),
        }
    }

    /// The windows that overlap the days from `from` to `to` in UTC, as `start/end` with offsets.
    fn shown(w: &CronWindow, from: &str, to: &str) -> Vec<String> {
        let at = |day: &str| format!("{day}T00:00:00Z").parse().unwrap();
        w.intervals(Interval::new(at(from), at(to)).unwrap())
            .iter()
            .map(|i| {
                let text = |t: Timestamp| t.to_zoned(w.zone.clone()).strftime("%m-%dT%H:%M%:z").to_string();
                format!("{}/{}", text(i.start()), text(i.end()))
            })
            .collect()
    }

    #[test]
    fn elapsed_and_wall_clock_differ_on_the_nights_of_berlin() {
        let elapsed = window("0 22 * * *", "8h", "Europe/Berlin");
        let clock = window("0 22 * * *", "06:00", "Europe/Berlin");
        let (spring, autumn) = (("2026-03-29", "2026-03-30"), ("2026-10-25", "2026-10-26"));
        assert_eq!(
            shown(&elapsed, spring.0, spring.1),
            [
                "03-28T22:00+01:00/03-29T07:00+02:00",
                "03-29T22:00+02:00/03-30T06:00+02:00"
            ]
        );
        assert_eq!(
            shown(&clock, spring.0, spring.1),
            [
                "03-28T22:00+01:00/03-29T06:00+02:00",
                "03-29T22:00+02:00/03-30T06:00+02:00"
            ]
        );
        assert_eq!(
            shown(&elapsed, autumn.0, autumn.1),
            [
                "10-24T22:00+02:00/10-25T05:00+01:00",
                "10-25T22:00+01:00/10-26T06:00+01:00"
            ]
        );
        assert_eq!(
            shown(&clock, autumn.0, autumn.1),
            [
                "10-24T22:00+02:00/10-25T06:00+01:00",
                "10-25T22:00+01:00/10-26T06:00+01:00"
            ]
        );
    }

    #[test]
    fn a_start_that_the_clock_skips_is_moved_and_one_that_it_repeats_happens_once() {
        let w = window("30 2 * * *", "1h", "Europe/Berlin");
        assert_eq!(
            shown(&w, "2026-03-29", "2026-03-30"),
            ["03-29T03:00+02:00/03-29T04:00+02:00"]
        );
        assert_eq!(
            shown(&w, "2026-10-25", "2026-10-26"),
            ["10-25T02:30+02:00/10-25T02:30+01:00"]
        );
    }

    #[test]
    fn an_end_that_the_clock_skips_is_the_skip() {
        let w = window("0 1 * * *", "02:30", "Europe/Berlin");
        assert_eq!(
            shown(&w, "2026-03-29", "2026-03-30")[0],
            "03-29T01:00+01:00/03-29T03:00+02:00"
        );
        assert_eq!(
            shown(&w, "2026-10-25", "2026-10-26"),
            ["10-25T01:00+02:00/10-25T02:30+02:00"]
        );
        let w = window("0 1 * * *", "02:10", "Australia/Lord_Howe");
        assert_eq!(
            shown(&w, "2026-10-03", "2026-10-04"),
            ["10-04T01:00+10:30/10-04T02:30+11:00"]
        );
    }

    #[test]
    fn new_york_and_lord_howe() {
        let w = window("0 22 * * SAT", "8h", "America/New_York");
        assert_eq!(
            shown(&w, "2026-03-08", "2026-03-09"),
            ["03-07T22:00-05:00/03-08T07:00-04:00"]
        );
        assert_eq!(
            shown(&w, "2026-11-01", "2026-11-02"),
            ["10-31T22:00-04:00/11-01T05:00-05:00"]
        );
        // Half an hour forth in October, half an hour back in April.
        let w = window("0 22 * * SAT", "8h", "Australia/Lord_Howe");
        assert_eq!(
            shown(&w, "2026-10-03", "2026-10-04"),
            ["10-03T22:00+10:30/10-04T06:30+11:00"]
        );
        assert_eq!(
            shown(&w, "2026-04-04", "2026-04-05"),
            ["04-04T22:00+11:00/04-05T05:30+10:30"]
        );
    }

    #[test]
    fn leap_day_and_year_end() {
        let w = window("0 12 29 2 *", "24h", "UTC");
        assert_eq!(
            shown(&w, "2028-02-29", "2028-03-01"),
            ["02-29T12:00+00:00/03-01T12:00+00:00"]
        );
        assert_eq!(shown(&w, "2026-01-01", "2028-02-29"), [""; 0]);
        let w = window("0 22 31 12 *", "06:00", "Asia/Kolkata");
        assert_eq!(
            shown(&w, "2027-01-01", "2027-01-02"),
            ["12-31T22:00+05:30/01-01T06:00+05:30"]
        );
    }

    #[test]
    fn a_range_sees_windows_that_it_only_touches_inside() {
        let w = window("0 9 * * *", "1h", "UTC");
        let at = |t: &str| t.parse::<Timestamp>().unwrap();
        let count = |a: &str, b: &str| w.intervals(Interval::new(at(a), at(b)).unwrap()).len();
        assert_eq!(count("2026-05-05T09:59:59.5Z", "2026-05-05T23:00:00Z"), 1);
        assert_eq!(count("2026-05-05T10:00:00Z", "2026-05-05T23:00:00Z"), 0);
        assert_eq!(count("2026-05-05T08:00:00Z", "2026-05-05T09:00:00Z"), 0);
        assert_eq!(count("2026-05-05T08:00:00Z", "2026-05-05T09:00:00.001Z"), 1);
        assert_eq!(count("2026-05-05T09:00:00Z", "2026-05-05T09:00:00.001Z"), 1);
        assert_eq!(count("2026-05-05T09:00:00.5Z", "2026-05-05T09:30:00Z"), 1);
    }

    #[test]
    fn a_start_just_after_a_fraction_of_a_second_is_found_before_1970_too() {
        let w = window("0 9 * * *", "1h", "UTC");
        for day in ["1969-05-05", "2026-05-05"] {
            let at = |time: &str| format!("{day}T{time}Z").parse::<Timestamp>().unwrap();
            assert_eq!(w.next_start(at("08:59:59.999999999")), Some(at("09:00:00")));
        }
    }

    #[test]
    fn overlaps_and_clock_changes_are_found() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        assert!(window("0 9 * * *", "25h", "UTC").overlap(now).is_some());
        assert!(window("0 9 * * *", "24h", "UTC").overlap(now).is_none());
        assert!(window("0 9 * * *", "09:00", "UTC").overlap(now).is_none());
        let (w, by_clock) = window("0 22 * * *", "8h", "Europe/Berlin")
            .next_clock_change(now)
            .unwrap();
        assert_eq!(w.start().to_string(), "2026-10-24T20:00:00Z");
        assert_eq!(by_clock.to_string(), "2026-10-25T06:00:00");
        assert!(
            window("0 9 * * MON-FRI", "9h", "Europe/Berlin")
                .next_clock_change(now)
                .is_none()
        );
        assert!(
            window("0 22 * * *", "06:00", "Europe/Berlin")
                .next_clock_change(now)
                .is_none()
        );
        assert!(
            window("0 22 * * *", "8h", "Asia/Kolkata")
                .next_clock_change(now)
                .is_none()
        );
    }

    #[test]
    fn patterns_that_mislead_are_refused() {
        for bad in [
            "0 9 * * MON,",
            "0 9 * *",
            "0 0 9 * * * 2027",
            "* 0 9 * * *",
            "@daily",
            "",
            "61 9 * * *",
            "0 9 * * FOO",
        ] {
            assert!(parse_cron(bad).is_err(), "{bad}");
        }
        assert!(parse_cron("30 0 9 * * MON-FRI").is_ok());
        for (bad, field) in [
            ("0 9 * * FUNDAY", "the day of week, `FUNDAY`, is not understood: "),
            ("0 25 * * *", "the hour, `25`, is not understood: "),
            ("0 0 9 * 13 *", "the month, `13`, is not understood: "),
        ] {
            let said = parse_cron(bad).unwrap_err();
            assert!(said.starts_with(field), "{bad}: {said}");
        }
    }
}
