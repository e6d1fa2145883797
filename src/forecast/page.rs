//! The forecast as one HTML page that needs no other file and no script.

use std::collections::BTreeSet;

use askama::Template;
use jiff::{SignedDuration, Timestamp};

use super::{Forecast, Gap, GapKind, Holding, when};
use crate::model::{EntitlementId, Interval, Person};
use crate::text::{clean, instant};

/// Where the bars begin and end, in the drawing's own units; names stand before them.
const LEFT: i64 = 260;
const RIGHT: i64 = 1000;
const HEAD: i64 = 18;
const ROW: i64 = 22;
/// The least distance of two dates that do not touch.
const DATE: i64 = 48;

#[derive(Template)]
#[template(path = "forecast.html", config = "src/pages/askama.toml")]
struct Page {
    from: String,
    to: String,
    notes: Vec<String>,
    gaps: Vec<GapLine>,
    days: Vec<Day>,
    charts: Vec<Chart>,
}

struct GapLine {
    what: &'static str,
    when: String,
    message: String,
    concerns: String,
}

struct Day {
    x: i64,
    label: String,
}

struct Chart {
    entitlement: String,
    height: i64,
    rows: Vec<Row>,
    turns: Vec<TurnLine>,
}

struct Row {
    y: i64,
    person: String,
    bars: Vec<Bar>,
}

struct Bar {
    x: i64,
    width: i64,
    kept: bool,
    title: String,
}

struct TurnLine {
    person: String,
    from: String,
    until: String,
    because: String,
}

/// Writes the page.
///
/// # Errors
/// [`askama::Error`], which only a defect of the template could cause.
pub fn page(forecast: &Forecast, notes: &[String]) -> Result<String, askama::Error> {
    let period = forecast.period;
    let entitlements: BTreeSet<&EntitlementId> = forecast.holdings.iter().map(|h| &h.entitlement).collect();
    let page = Page {
        from: instant(period.start()),
        to: instant(period.end()),
        notes: notes.iter().map(|note| clean(note)).collect(),
        gaps: forecast.gaps.iter().map(gap_line).collect(),
        days: days(period),
        charts: entitlements
            .into_iter()
            .map(|id| {
                let mine: Vec<&Holding> = forecast.holdings.iter().filter(|h| h.entitlement == *id).collect();
                chart(id, &mine, period)
            })
            .collect(),
    };
    page.render()
}

fn gap_line(gap: &Gap) -> GapLine {
    let names: Vec<String> = gap.entitlements.iter().map(|id| clean(&id.to_string())).collect();
    let more = match gap.more {
        0 => String::new(),
        n => format!(", and {n} more times"),
    };
    GapLine {
        what: match gap.kind {
            GapKind::NotRead => "Not known",
            GapKind::NobodyOnCall => "Nobody on call",
            GapKind::NotQualified => "Will not qualify",
            GapKind::MembershipEnds => "Membership ends",
            GapKind::PersonUnknown => "Not in Identity Center",
            GapKind::MinHolders => "Too few holders",
            GapKind::Invariant => "Against a statement",
        },
        when: when(gap.during) + &more,
        message: clean(&gap.message),
        concerns: names.join(", "),
    }
}

fn x_of(t: Timestamp, period: Interval) -> i64 {
    let whole = period.duration().as_secs().max(1);
    let after = period.start().duration_until(t).as_secs().clamp(0, whole);
    LEFT + (RIGHT - LEFT) * after / whole
}

/// A line at each midnight, and its date where the one before it leaves room.
fn days(period: Interval) -> Vec<Day> {
    let day = SignedDuration::from_hours(24);
    let since_midnight = period.start().as_second().rem_euclid(day.as_secs());
    let mut midnight = period
        .start()
        .saturating_add(SignedDuration::from_secs(day.as_secs() - since_midnight));
    let (mut days, mut labelled) = (Vec::new(), LEFT - DATE);
    while let Ok(t) = midnight {
        if period.end() <= t {
            break;
        }
        let x = x_of(t, period);
        let room = DATE <= x - labelled && x + DATE <= RIGHT;
        if room {
            labelled = x;
        }
        let label = if room {
            t.strftime("%a %d").to_string()
        } else {
            String::new()
        };
        days.push(Day { x, label });
        midnight = t.checked_add(day);
    }
    days
}

fn chart(id: &EntitlementId, mine: &[&Holding], period: Interval) -> Chart {
    let mut people: Vec<&Person> = Vec::new();
    for holding in mine {
        if !people.contains(&&holding.person) {
            people.push(&holding.person);
        }
    }
    let mut rows = Vec::new();
    let mut y = HEAD;
    for person in people {
        let turns = mine.iter().filter(|h| h.person == *person);
        let bars = turns.map(|h| {
            let (x, end) = (x_of(h.held.start(), period), x_of(h.held.end(), period));
            Bar {
                x,
                // What is too short to be seen is still shown.
                width: (end - x).max(2),
                kept: h.kept_from.is_some(),
                title: format!("{}: {}", clean(person.as_str()), when(h.held)),
            }
        });
        rows.push(Row {
            y,
            person: clean(person.as_str()),
            bars: bars.collect(),
        });
        y += ROW;
    }
    let turns = mine.iter().map(|h| TurnLine {
        person: clean(h.person.as_str()),
        from: instant(h.held.start()),
        until: if h.end_known {
            instant(h.held.end())
        } else {
            "beyond".to_owned()
        },
        because: match h.kept_from {
            Some(kind) => format!("{}, but {}", clean(&h.earned_by()), kind.as_str().replace('_', " ")),
            None => clean(&h.earned_by()),
        },
    });
    Chart {
        entitlement: clean(&id.to_string()),
        height: y + 4,
        turns: turns.collect(),
        rows,
    }
}
