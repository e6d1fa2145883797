//! Which span of time a report is about: calendar periods begin and end at midnight in a zone.

use jiff::civil::{Date, ISOWeekDate, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

use crate::model::Interval;

/// A unit of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday.
    Week,
    /// From the first to the first.
    Month,
}

impl Unit {
    fn times(self, n: i64) -> Span {
        match self {
            Self::Day => n.days(),
            Self::Week => n.weeks(),
            Self::Month => n.months(),
        }
    }

    fn first_day(self, date: Date) -> Result<Date, jiff::Error> {
        match self {
            Self::Day => Ok(date),
            Self::Week => date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()),
            Self::Month => Ok(date.first_of_month()),
        }
    }
}

/// A number of complete calendar units before now, such as `week`, `month`, `4w` or `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    count: i64,
    unit: Unit,
}

impl std::str::FromStr for Last {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let last = |count, unit| Ok(Self { count, unit });
        match text {
            "day" => return last(1, Unit::Day),
            "week" => return last(1, Unit::Week),
            "month" => return last(1, Unit::Month),
            _ => {}
        }
        let units = [('d', Unit::Day), ('w', Unit::Week), ('m', Unit::Month)];
        for (letter, unit) in units {
            let count = text.strip_suffix(letter).and_then(|count| count.parse().ok());
            if let Some(count) = count.filter(|count| (1..=999).contains(count)) {
                return last(count, unit);
            }
        }
        Err("not a period; write day, week or month, or a number of them such as 30d, 4w or 3m".to_owned())
    }
}

impl Last {
    /// The units that ended last before `now`.
    ///
    /// # Errors
    /// When the period lies outside what the calendar knows.
    pub fn before(self, now: Timestamp, zone: &TimeZone) -> Result<Interval, String> {
        let reach = || -> Result<(Date, Date), jiff::Error> {
            let end = self.unit.first_day(now.to_zoned(zone.clone()).date())?;
            Ok((end.checked_sub(self.unit.times(self.count))?, end))
        };
        let (from, to) = reach().map_err(|error| error.to_string())?;
        between(from, to, zone)
    }
}

/// A stretch of the calendar, such as `2026`, `2026-Q4`, `2026-11`, `2026-W47` or `2026-11-21`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    from: Date,
    to: Date,
}

impl std::str::FromStr for Calendar {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("not a calendar period: {text:?}; write 2026, 2026-Q4, 2026-11, 2026-W47 or 2026-11-21");
        let number = |text: &str| {
            text.parse::<i8>()
                .ok()
                .filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
        };
        let (year, rest) = text.split_once('-').unwrap_or((text, ""));
        let year: i16 = year
            .parse()
            .ok()
            .filter(|year| (1970..=9998).contains(year))
            .ok_or_else(bad)?;
        let found = if rest.is_empty() {
            Date::new(year, 1, 1).map(|from| (from, 12.months()))
        } else if let Some(quarter) = rest.strip_prefix('Q').and_then(number).filter(|q| (1..=4).contains(q)) {
            Date::new(year, quarter * 3 - 2, 1).map(|from| (from, 3.months()))
        } else if let Some(week) = rest.strip_prefix('W').and_then(number) {
            ISOWeekDate::new(year, week, Weekday::Monday).map(|monday| (monday.date(), 1.week()))
        } else if let Some(month) = number(rest) {
            Date::new(year, month, 1).map(|from| (from, 1.month()))
        } else {
            text.parse::<Date>().map(|from| (from, 1.day()))
        };
        let (from, span) = found.map_err(|_| bad())?;
        let to = from.checked_add(span).map_err(|_| bad())?;
        Ok(Self { from, to })
    }
}

impl Calendar {
    /// From midnight to midnight in the zone.
    ///
    /// # Errors
    /// When the zone's rules leave nothing between.
    pub fn in_zone(self, zone: &TimeZone) -> Result<Interval, String> {
        between(self.from, self.to, zone)
    }
}

fn midnight(date: Date, zone: &TimeZone) -> Result<Timestamp, jiff::Error> {
    // From noon, because there are nights on which midnight is skipped.
    Ok(date.at(12, 0, 0, 0).to_zoned(zone.clone())?.start_of_day()?.timestamp())
}

fn between(from: Date, to: Date, zone: &TimeZone) -> Result<Interval, String> {
    let ends = || Ok((midnight(from, zone)?, midnight(to, zone)?));
    let (start, end) = ends().map_err(|error: jiff::Error| error.to_string())?;
    Interval::new(start, end).ok_or_else(|| format!("there is no time between {from} and {to}"))
}

/// Cuts a period at midnights of the zone into at most about 60 parts: days, weeks or months.
///
/// # Errors
/// When the period lies outside what the calendar knows.
pub(super) fn parts(period: Interval, zone: &TimeZone) -> Result<(Unit, Vec<Interval>), jiff::Error> {
    let days = period.duration().as_hours() / 24;
    let unit = match days {
        0..=62 => Unit::Day,
        63..=430 => Unit::Week,
        _ => Unit::Month,
    };
    let mut date = unit.first_day(period.start().to_zoned(zone.clone()).date())?;
    let (mut from, mut parts) = (period.start(), Vec::new());
    while from < period.end() {
        date = date.checked_add(unit.times(1))?;
        let to = midnight(date, zone)?.min(period.end());
        parts.extend(Interval::new(from, to));
        from = to.max(from);
    }
    Ok((unit, parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    fn calendar(text: &str) -> (String, i64) {
        let period = text.parse::<Calendar>().unwrap().in_zone(&berlin()).unwrap();
        (period.start().to_string(), period.duration().as_hours())
    }

    #[test]
    fn calendar_periods_are_as_long_as_the_clock_change_makes_them() {
        assert_eq!(calendar("2026-W13"), ("2026-03-22T23:00:00Z".to_owned(), 167));
        assert_eq!(calendar("2026-10-25"), ("2026-10-24T22:00:00Z".to_owned(), 25));
        assert_eq!(calendar("2026-10"), ("2026-09-30T22:00:00Z".to_owned(), 31 * 24 + 1));
        assert_eq!(calendar("2026-Q1"), ("2025-12-31T23:00:00Z".to_owned(), 90 * 24 - 1));
        assert_eq!(calendar("2026").1, 365 * 24);
        for bad in [
            "",
            "2026-13",
            "2026-W60",
            "2026-Q5",
            "2026-02-30",
            "26",
            "2026-+1",
            "last week",
        ] {
            assert!(bad.parse::<Calendar>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_units_are_complete() {
        // A Saturday.
        let now: Timestamp = "2026-11-21T07:00:00Z".parse().unwrap();
        let last = |text: &str| {
            let period = text.parse::<Last>().unwrap().before(now, &berlin()).unwrap();
            period.to_string()
        };
        assert_eq!(last("week"), "[2026-11-08T23:00:00Z, 2026-11-15T23:00:00Z)");
        assert_eq!(last("4w"), "[2026-10-18T22:00:00Z, 2026-11-15T23:00:00Z)");
        assert_eq!(last("month"), "[2026-09-30T22:00:00Z, 2026-10-31T23:00:00Z)");
        assert_eq!(last("day"), "[2026-11-19T23:00:00Z, 2026-11-20T23:00:00Z)");
        for bad in ["", "0w", "-1w", "w", "4", "4y", "1000d", "4 w"] {
            assert!(bad.parse::<Last>().is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_are_whole_and_touch() {
        for (text, count) in [("2026-W13", 7), ("2026-Q1", 14), ("2026-03-29", 1), ("2026-10", 31)] {
            let period = text.parse::<Calendar>().unwrap().in_zone(&berlin()).unwrap();
            let (_, parts) = parts(period, &berlin()).unwrap();
            assert_eq!(parts.len(), count, "{text}");
            assert_eq!(
                (parts[0].start(), parts[count - 1].end()),
                (period.start(), period.end())
            );
            assert!(parts.windows(2).all(|pair| pair[0].end() == pair[1].start()));
        }
    }
}
