//! Turns what stands and what comes into the rows that the templates show.

use jiff::Timestamp;

use super::words::{First, Name, When, when};
use crate::commands::status::ScheduleStatus;
use crate::forecast::page::{Chart, Day, chart, days};
use crate::forecast::{Forecast, Holding};
use crate::ledger::AccessRow;
use crate::model::{EntitlementId, Person};
use crate::text::{basis, clean};

/// More rows than these nobody reads.
const SCHEDULES: usize = 200;
const CHARTS: usize = 20;

/// What is due at `at` of that access; of several holdings at once the first.
fn due<'a>(ahead: &'a Forecast, row: &AccessRow, at: Timestamp) -> Option<&'a Holding> {
    let from = ahead.holdings.partition_point(|h| h.entitlement < row.entitlement);
    let mut of_entitlement = ahead
        .holdings
        .iter()
        .skip(from)
        .take_while(|h| h.entitlement == row.entitlement);
    of_entitlement.find(|h| h.person == row.person && h.held.contains(at))
}

/// One grant that stands.
pub(super) struct Held {
    pub(super) entitlement: Name,
    pub(super) person: String,
    pub(super) why: Vec<String>,
    pub(super) since: When,
    pub(super) until: When,
}

/// A grant in words. It ends when its last cause does, or, where turns follow on each other, the last of them.
pub(super) fn held(row: &AccessRow, ahead: &Forecast, at: Timestamp) -> Held {
    let open: Vec<_> = row
        .causes
        .iter()
        .filter(|c| c.ended_at.is_none())
        .map(|c| &c.cause)
        .collect();
    let recorded = open.iter().max_by_key(|c| c.held.end());
    let (end, known) = match (due(ahead, row, at), recorded) {
        (Some(due), Some(cause)) if due.held.end() < cause.held.end() && !due.end_known => {
            (cause.held.end(), cause.end_known)
        }
        (Some(due), _) => (due.held.end(), due.end_known),
        (None, Some(cause)) => (cause.held.end(), cause.end_known),
        (None, None) => (at, true),
    };
    let mut until = when(end, at);
    if !known && end != Timestamp::MAX {
        until.away = format!("at least; {}", until.away);
    }
    let mut why: Vec<String> = open
        .iter()
        .map(|c| clean(&format!("{} ({})", basis(c), c.right.rule)))
        .collect();
    if open.is_empty() {
        why.push("no cause any more; due to be revoked".to_owned());
        until = When {
            exact: String::new(),
            shown: "being revoked".to_owned(),
            away: String::new(),
        };
    }
    Held {
        entitlement: Name::from(&row.entitlement),
        person: row.person.as_str().to_owned(),
        why,
        since: when(row.granted_at, at),
        until,
    }
}

/// At one instant one entitlement changes hands.
pub(super) struct HandOff {
    pub(super) at: When,
    pub(super) entitlement: Name,
    pub(super) gets: Vec<String>,
    pub(super) loses: Vec<String>,
}

/// The hand-offs ahead, the next first, and when the first of them is.
pub(super) fn hand_offs(ahead: &Forecast, at: Timestamp, most: usize) -> (Option<When>, Vec<HandOff>) {
    // Borrowed, because few of them are shown.
    let mut changes: Vec<(Timestamp, &EntitlementId, usize, &Person)> = Vec::new();
    let granted = ahead.holdings.iter().filter(|h| h.kept_from.is_none());
    for h in granted {
        let edges = [(h.held.start(), true), (h.held.end(), h.end_known)];
        for ((t, known), slot) in edges.into_iter().zip(0..) {
            if known && at < t && t < ahead.period.end() {
                changes.push((t, &h.entitlement, slot, &h.person));
            }
        }
    }
    changes.sort_unstable();
    changes.dedup();
    let first = changes.first().map(|change| when(change.0, at));
    let rows = changes.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).take(most);
    let rows = rows.filter_map(|of| {
        let (t, id, ..) = of.first()?;
        let names = |slot: usize| {
            of.iter()
                .filter(move |change| change.2 == slot)
                .map(|change| change.3.as_str().to_owned())
        };
        Some(HandOff {
            at: when(*t, at),
            entitlement: Name::from(*id),
            gets: names(0).collect(),
            loses: names(1).collect(),
        })
    });
    (first, rows.collect())
}

/// The coming week, an entitlement a chart.
pub(super) struct Charts {
    pub(super) charts: Vec<Chart>,
    pub(super) days: Vec<Day>,
    /// How many more there would be.
    pub(super) more: usize,
}

/// The charts of the first entitlements.
pub(super) fn charts(ahead: &Forecast) -> Charts {
    // Those of an entitlement stand together.
    let mut by_entitlement = ahead.holdings.chunk_by(|a, b| a.entitlement == b.entitlement);
    let of_one = |mine: &[Holding]| {
        let first = mine.first()?;
        Some(chart(
            &first.entitlement,
            &mine.iter().collect::<Vec<_>>(),
            ahead.period,
        ))
    };
    Charts {
        charts: by_entitlement.by_ref().take(CHARTS).filter_map(of_one).collect(),
        days: days(ahead.period),
        more: by_entitlement.count(),
    }
}

/// How current a schedule is.
pub(super) struct Schedule {
    pub(super) name: String,
    pub(super) state: &'static str,
    pub(super) read: Option<When>,
}

/// The first schedules; where not all fit, those that fail.
pub(super) fn schedules(schedules: &[ScheduleStatus], at: Timestamp) -> First<Schedule> {
    let mut schedules: Vec<_> = schedules.iter().collect();
    if SCHEDULES < schedules.len() {
        schedules.sort_by_key(|s| s.failure.is_none());
    }
    First::of(schedules, SCHEDULES).map(|s| Schedule {
        name: clean(&s.schedule),
        state: match (&s.failure, s.read_at) {
            (Some(_), _) => "failing",
            (None, None) => "never read",
            (None, Some(_)) => "ok",
        },
        read: s.read_at.map(|t| when(t, at)),
    })
}
