//! The forecast as one HTML page that needs no other file and no script.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use jiff::{SignedDuration, Timestamp};

use super::{Forecast, Gap, GapKind, Holding, when};
use crate::model::{EntitlementId, Interval, Person};
use crate::pages::filters;
use crate::text::{clean, instant};

/// Heights in CSS pixels: the drawing is as wide as its place, so that text keeps its size on a phone.
const HEAD: i64 = 18;
const ROW: i64 = 38;
/// The least distance of two dates that do not touch, in percent of the width of a phone.
const DATE: f64 = 14.0;

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

/// One gap, in words.
pub(crate) struct GapLine {
    pub(crate) what: &'static str,
    pub(crate) when: String,
    pub(crate) message: String,
    pub(crate) concerns: String,
}

/// A midnight, and its date where there is room.
pub(crate) struct Day {
    pub(crate) x: String,
    pub(crate) label: String,
}

/// The timeline of one entitlement.
pub(crate) struct Chart {
    pub(crate) entitlement: String,
    pub(crate) height: i64,
    pub(crate) rows: Vec<Row>,
    pub(crate) turns: Vec<TurnLine>,
}

/// One person's line.
pub(crate) struct Row {
    pub(crate) y: i64,
    pub(crate) person: String,
    pub(crate) bars: Vec<Bar>,
}

/// One turn; places are percents of the width.
pub(crate) struct Bar {
    pub(crate) x: String,
    pub(crate) width: String,
    pub(crate) kept: bool,
    pub(crate) title: String,
}

/// One turn, in words.
pub(crate) struct TurnLine {
    pub(crate) person: String,
    pub(crate) from: String,
    pub(crate) until: String,
    pub(crate) because: String,
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

pub(crate) fn gap_line(gap: &Gap) -> GapLine {
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

fn x_of(t: Timestamp, period: Interval) -> f64 {
    let whole = period.duration().as_secs_f64().max(1.0);
    let after = period.start().duration_until(t).as_secs_f64().clamp(0.0, whole);
    100.0 * after / whole
}

/// A line at each midnight, and its date where the one before it leaves room.
pub(crate) fn days(period: Interval) -> Vec<Day> {
    let day = SignedDuration::from_hours(24);
    let since_midnight = period.start().as_second().rem_euclid(day.as_secs());
    let mut midnight = period
        .start()
        .saturating_add(SignedDuration::from_secs(day.as_secs() - since_midnight));
    let (mut days, mut labelled) = (Vec::new(), -DATE);
    while let Ok(t) = midnight {
        if period.end() <= t {
            break;
        }
        let x = x_of(t, period);
        let room = DATE <= x - labelled && x + DATE <= 100.0;
        if room {
            labelled = x;
        }
        let label = if room {
            t.strftime("%a %d").to_string()
        } else {
            String::new()
        };
        days.push(Day {
            x: format!("{x:.3}"),
            label,
        });
        midnight = t.checked_add(day);
    }
    days
}

pub(crate) fn chart(id: &EntitlementId, mine: &[&Holding], period: Interval) -> Chart {
    let mut of_person: BTreeMap<&Person, Vec<&Holding>> = BTreeMap::new();
    for holding in mine {
        of_person.entry(&holding.person).or_default().push(holding);
    }
    let mut rows = Vec::new();
    let mut y = HEAD;
    // Whose turn is first comes first.
    for person in mine.iter().map(|h| &h.person) {
        let Some(turns) = of_person.remove(person) else {
            continue;
        };
        let bars = turns.into_iter().map(|h| {
            let (x, end) = (x_of(h.held.start(), period), x_of(h.held.end(), period));
            Bar {
                x: format!("{x:.3}"),
                // What is too short to be seen is still shown, by its outline.
                width: format!("{:.3}", end - x),
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
        person: h.person.as_str().to_owned(),
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
