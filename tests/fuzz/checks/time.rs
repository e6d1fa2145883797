//! Times: providers' instants, cron windows, and turns made into shifts.

use std::collections::{BTreeMap, BTreeSet};

use dutybound::{
    model::{Interval, SourceUserState},
    policy::window::{CronWindow, WindowLength, parse_cron},
    schedule::{
        normalise::{self, Turn},
        wire::Instant,
    },
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// An instant as providers write it: whatever RFC 3339 allows is read, exactly, and never as later than it says.
pub(crate) fn instant(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let read = Instant::parse(text);
    if let Err(error) = &read {
        super::assert_harmless(&error.to_string());
    }
    if let Ok(Instant(t)) = read {
        assert_eq!(
            Instant::parse(&t.to_string()),
            Ok(Instant(t)),
            "{t} is what we write ourselves"
        );
        assert!(text.len() <= 100, "{text:?} is no instant");
    }
    if text.len() <= 100
        && let Some(nanoseconds) = rfc3339(text)
        && let Ok(expected) = Timestamp::from_nanosecond(nanoseconds)
    {
        assert_eq!(read, Ok(Instant(expected)), "{text:?}");
    }
}

/// RFC 3339 by hand, with a `T`, without leap seconds; nanoseconds since 1970, digits after them cut.
fn rfc3339(text: &str) -> Option<i128> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let separated = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !separated
        .iter()
        .all(|(at, byte)| text.as_bytes().get(*at) == Some(byte))
    {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let leap = i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
    let lengths = [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month - 1).ok()?)?;
    if !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanosecond = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        nanosecond = format!("{:0<9.9}", &fraction[..digits]).parse().ok()?;
        rest = &fraction[digits..];
    }
    let offset = match rest.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - 5;
            let (hours, minutes) = (number(at, at + 2)?, number(at + 3, at + 5)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -60 } else { 60 }
        }
        _ => return None,
    };
    let before = |year: i64| year * 365 + (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    let month = usize::try_from(month - 1).ok()?;
    let days = before(year) - before(1970) + lengths[..month].iter().sum::<i64>() + day - 1;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(i128::from(seconds) * 1_000_000_000 + nanosecond)
}

/// Zones in which clocks do odd things; what is no zone's name stands for one of them.
const ZONES: [&str; 12] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/St_Johns",
    "Pacific/Apia",
    "Africa/Casablanca",
    "America/Santiago",
    "Asia/Tehran",
    "Antarctica/Troll",
    "Pacific/Chatham",
];

/// A window over a range, as `ZONE LENGTH START HOURS` and the pattern in the second line.
pub(crate) fn window(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Some((header, pattern)) = text.split_once('\n') else {
        return;
    };
    let Ok(cron) = parse_cron(pattern) else {
        return;
    };
    let [zone, length, start, hours] = header.split(' ').collect::<Vec<_>>()[..] else {
        return;
    };
    let other = zone.bytes().map(usize::from).sum::<usize>() % ZONES.len();
    let zone = TimeZone::get(zone).unwrap_or_else(|_| TimeZone::get(ZONES[other]).expect("a zone of the list"));
    // Policy files may say up to 31 days, for which a pattern that fires every minute is only slower.
    let bounds = SignedDuration::from_mins(1)..=SignedDuration::from_hours(48);
    let length = match (length.parse(), dutybound::document::duration(length)) {
        (Ok(time), _) => WindowLength::Until(time),
        (_, Ok(length)) if bounds.contains(&length) => WindowLength::For(length),
        _ => return,
    };
    let (Ok(start), Ok(hours)) = (start.parse::<Timestamp>(), hours.parse::<u8>()) else {
        return;
    };
    let at = |hours: i64| start.checked_add(SignedDuration::from_hours(hours));
    let (Ok(middle), Ok(end)) = (at(i64::from(hours) / 2), at(i64::from(hours))) else {
        return;
    };
    let window = CronWindow { cron, length, zone };
    // Each search of a pattern that never fires takes as long as all the rest.
    if window.next_start(start).is_none() {
        return;
    }
    let intervals = |from, to| {
        let range = Interval::new(from, to);
        range.map_or(Vec::new(), |range| {
            let found = window.intervals(range);
            in_order(&window, range, &found);
            found
        })
    };
    let whole = intervals(start, end);
    // Cut anywhere, a range shows the same windows.
    let halves: BTreeSet<Interval> = [intervals(start, middle), intervals(middle, end)]
        .concat()
        .into_iter()
        .collect();
    assert_eq!(whole, Vec::from_iter(halves), "cut at {middle}");
    for one in &whole {
        let before = one.start() - SignedDuration::from_nanos(1);
        assert_eq!(window.next_start(before), Some(one.start()));
    }
    if let Some((first, second)) = window.overlap(start) {
        assert!(first.intersect(&second).is_some());
    }
    if let Some((changed, by_clock)) = window.next_clock_change(start) {
        assert_ne!(window.zone.to_datetime(changed.end()), by_clock);
    }
}

/// Windows come in the order of their starts, each touches the range, and each has the length that was asked for.
pub(crate) fn in_order(window: &CronWindow, range: Interval, found: &[Interval]) {
    assert!(
        found.windows(2).all(|pair| pair[0].start() < pair[1].start()),
        "{found:?}"
    );
    for one in found {
        assert!(one.intersect(&range).is_some(), "{one} lies outside {range}");
        match window.length {
            WindowLength::For(length) => assert_eq!(one.duration(), length, "{one}"),
            WindowLength::Until(time) => {
                let shown = window.zone.to_datetime(one.end()).time();
                let before = one.end() - SignedDuration::from_nanos(1);
                let skipped = window
                    .zone
                    .following(before)
                    .next()
                    .is_some_and(|t| t.timestamp() == one.end());
                assert!(shown == time || skipped, "{one} ends at {shown}");
                assert!(one.duration() <= SignedDuration::from_hours(50), "{one}");
            }
        }
    }
}

/// Turns in records of five bytes: user, start, end, level, and a line break or anything else. The first record is
/// what was queried and what was asked for, each as start and end. A byte is an hour; `_` is a bound that is not given.
pub(crate) fn normalise(input: &[u8]) {
    let hour = |byte: u8| Timestamp::constant(1_767_225_600, 0) + SignedDuration::from_hours(i64::from(byte));
    let bound = |byte: u8| (byte != b'_').then(|| hour(byte));
    let mut records = input.chunks(5);
    let Some([queried_start, queried_end, asked_start, asked_end, ..]) = records.next() else {
        return;
    };
    let (Some(queried), Some(asked)) = (
        Interval::new(hour(*queried_start), hour(*queried_end)),
        Interval::new(hour(*asked_start), hour(*asked_end)),
    ) else {
        return;
    };
    let mut turns = Vec::new();
    for record in records {
        let [user, start, end, level, ..] = record else {
            break;
        };
        turns.push(Turn {
            user_id: char::from(*user).to_string(),
            start: bound(*start),
            end: bound(*end),
            level: (*level >= b'1').then(|| u32::from((level - b'1') % 4)),
            permanent: *level == b'!',
            via_override: (level % 2 == 1).then(|| "override".to_owned()),
        });
    }
    let result = normalise::normalise(&turns, asked, queried);
    let Some(core) = asked.intersect(&queried) else {
        assert_eq!(result, None);
        return;
    };
    let normalised = result.expect("what was asked for was queried");
    let window = normalised.window;
    assert!(window.end() == core.end() && window.start() <= core.start(), "{window}");
    assert!(window.start() >= queried.start(), "{window} begins before {queried}");
    covered(&turns, &normalised, queried);

    let mut backwards = turns.clone();
    backwards.reverse();
    let again = normalise::normalise(&backwards, asked, queried);
    assert_eq!(again.as_ref(), Some(&normalised), "the order of rows says nothing");

    let mut merged: Vec<Turn> = Vec::new();
    for piece in &normalised.pieces {
        merged.push(Turn {
            start: Some(piece.interval.start()),
            end: Some(piece.interval.end()),
            ..piece.turn.clone()
        });
    }
    let again = normalise::normalise(&merged, asked, queried).expect("the same window");
    let spans = |n: &normalise::Normalised| -> Vec<(Key, Interval)> {
        n.pieces
            .iter()
            .map(|piece| (key(&piece.turn), piece.interval))
            .collect()
    };
    assert_eq!((again.window, again.reversed), (window, 0));
    assert_eq!(spans(&again), spans(&normalised), "once more changes nothing");

    let count = normalised.pieces.len();
    let shifts = normalised.shifts(&BTreeMap::new());
    assert_eq!(shifts.len(), count, "nobody is dropped");
    assert!(shifts.is_sorted());
    assert!(shifts.iter().all(|shift| shift.user.state == SourceUserState::Deleted));
}

type Key = (String, Option<u32>, bool);

fn key(turn: &Turn) -> Key {
    (turn.user_id.clone(), turn.level, turn.permanent)
}

/// At every hour of the window exactly those are on call whom some turn says to be, and no bound is invented.
fn covered(turns: &[Turn], normalised: &normalise::Normalised, queried: Interval) {
    let mut rows: Vec<(Key, Interval)> = Vec::new();
    for turn in turns {
        let (start, end) = (turn.start.unwrap_or(Timestamp::MIN), turn.end.unwrap_or(Timestamp::MAX));
        rows.extend(Interval::new(start, end).map(|interval| (key(turn), interval)));
    }
    assert_eq!(normalised.reversed, turns.len() - rows.len());
    let mut t = normalised.window.start();
    while t < normalised.window.end() {
        let said: BTreeSet<&Key> = rows.iter().filter(|(_, i)| i.contains(t)).map(|(key, _)| key).collect();
        let pieces = normalised.pieces.iter().filter(|piece| piece.interval.contains(t));
        let kept: Vec<Key> = pieces.map(|piece| key(&piece.turn)).collect();
        assert!(said.into_iter().eq(&kept), "at {t}: {kept:?} of {rows:?}");
        t += SignedDuration::from_hours(1);
    }
    for piece in &normalised.pieces {
        let same = || rows.iter().filter(|(other, _)| *other == key(&piece.turn));
        let (start, end) = (piece.interval.start(), piece.interval.end());
        assert!(
            piece.interval.intersect(&normalised.window) == Some(piece.interval),
            "{piece:?}"
        );
        if piece.start_known {
            assert!(
                start != queried.start() && same().any(|(_, i)| i.start() == start),
                "{piece:?}"
            );
        }
        if piece.end_known {
            assert!(end != queried.end() && same().any(|(_, i)| i.end() == end), "{piece:?}");
        }
    }
}
