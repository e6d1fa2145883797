//! What an edit of the policy changes: who gains and loses what and when, how many hours that is, who must consent. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use serde::Serialize;

use crate::forecast::{Forecast, Gap};
use crate::model::{
    EntitlementId, Interval, Person,
    spans::{length, without},
};
use crate::policy::Policy;

mod consent;
mod edits;
mod render;
mod statements;
#[cfg(test)]
mod tests;

pub use consent::Consent;
pub use edits::Edit;
pub use statements::{Becomes, StatementEdit};

/// One side of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// What it leads to in the period.
    pub forecast: &'a Forecast,
    /// How long each person could hold each entitlement at most in the period; see [`crate::accounting::standing`].
    pub standing: &'a BTreeMap<(EntitlementId, Person), SignedDuration>,
}

/// Everything that an edit changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The time compared.
    pub period: Interval,
    /// The revision compared with.
    pub before: String,
    /// The revision compared.
    pub after: String,
    /// What was written differently, by project.
    pub edits: Vec<Edit>,
    /// Statements that appear, vanish, or get tighter or looser, by project and name.
    pub statements: Vec<StatementEdit>,
    /// Who holds something at other times than before, sorted by entitlement and person.
    pub people: Vec<PersonLine>,
    /// Entitlements whose hours change, sorted.
    pub hours: Vec<HoursLine>,
    /// All of them together.
    pub total: HoursLine,
    /// Gaps in coverage that the edit brings.
    pub new_gaps: Vec<Gap>,
    /// Gaps that it closes.
    pub closed_gaps: Vec<Gap>,
    /// Whose agreement the edit needs.
    pub consent: Vec<Consent>,
}

/// How one person's access to one entitlement changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PersonLine {
    /// Which entitlement.
    pub entitlement: EntitlementId,
    /// Who.
    pub person: Person,
    /// What it is in AWS, where the edit makes something else of it: then all of the former is lost and all of the new
    /// gained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub becomes: Option<Change<String>>,
    /// Times at which they hold it by the edited policy only.
    pub gains: Vec<Interval>,
    /// Times at which they held it by the former policy only.
    pub loses: Vec<Interval>,
    /// Whether any rule could let them hold it before and after, whatever the schedules say.
    pub could: Change<bool>,
}

/// Before and after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Change<T> {
    /// By the former policy.
    pub before: T,
    /// By the edited one.
    pub after: T,
}

/// Access a week, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoursLine {
    /// Which entitlement; all when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entitlement: Option<EntitlementId>,
    /// Access that is due to be held.
    pub held: Change<i64>,
    /// What standing access would be.
    pub standing: Change<i64>,
}

/// Compares what two policies lead to under the same schedules.
#[must_use]
pub fn compare(before: Side<'_>, after: Side<'_>) -> Comparison {
    let period = after.forecast.period;
    let people = people(before, after);
    let (hours, total) = hours(before, after, period);
    let gaps = |these: Side<'_>, those: Side<'_>| -> Vec<Gap> {
        let key = |g: &Gap| {
            (
                g.kind,
                g.during,
                g.entitlements.clone(),
                g.person.clone(),
                g.schedule.clone(),
            )
        };
        let known: BTreeSet<_> = those.forecast.gaps.iter().map(key).collect();
        let fresh = these.forecast.gaps.iter().filter(|g| !known.contains(&key(g)));
        fresh.cloned().collect()
    };
    let statements = statements::statements(before.policy, after.policy);
    let mut edits = edits::edits(before.policy, after.policy);
    edits.extend(statements.iter().map(StatementEdit::as_edit));
    // Those of a project stay in the order of its file.
    edits.sort_by(|a, b| a.project.cmp(&b.project));
    Comparison {
        period,
        before: before.policy.revision.clone(),
        after: after.policy.revision.clone(),
        consent: consent::consent(before.policy, after.policy, &edits, &people),
        edits,
        statements,
        people,
        hours,
        total,
        new_gaps: gaps(after, before),
        closed_gaps: gaps(before, after),
    }
}

impl Comparison {
    /// Whether the edit changes nothing that anybody should look at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.people.is_empty() && self.new_gaps.is_empty() && self.closed_gaps.is_empty()
    }
}

type Cell = (EntitlementId, Person);

fn spans(forecast: &Forecast) -> BTreeMap<Cell, Vec<Interval>> {
    let mut spans: BTreeMap<Cell, Vec<Interval>> = BTreeMap::new();
    for holding in &forecast.holdings {
        let cell = (holding.entitlement.clone(), holding.person.clone());
        spans.entry(cell).or_default().push(holding.held);
    }
    spans
}

fn people(before: Side<'_>, after: Side<'_>) -> Vec<PersonLine> {
    let (old, new) = (spans(before.forecast), spans(after.forecast));
    let could = |side: Side<'_>| -> BTreeSet<Cell> {
        let cells = side.standing.iter().filter(|(_, time)| SignedDuration::ZERO < **time);
        cells.map(|(cell, _)| cell.clone()).collect()
    };
    let (could_before, could_after) = (could(before), could(after));
    let cells: BTreeSet<&Cell> = old
        .keys()
        .chain(new.keys())
        .chain(&could_before)
        .chain(&could_after)
        .collect();
    let none = Vec::new();
    cells
        .into_iter()
        .map(|cell| {
            let (was, is) = (old.get(cell).unwrap_or(&none), new.get(cell).unwrap_or(&none));
            let becomes = becomes(before.policy, after.policy, &cell.0);
            let kept = becomes.is_none();
            PersonLine {
                entitlement: cell.0.clone(),
                person: cell.1.clone(),
                becomes,
                gains: without(is, if kept { was } else { &none }),
                loses: without(was, if kept { is } else { &none }),
                could: Change {
                    before: could_before.contains(cell) || !was.is_empty(),
                    after: could_after.contains(cell) || !is.is_empty(),
                },
            }
        })
        .filter(|line| {
            let moves = !line.gains.is_empty() || !line.loses.is_empty();
            moves || line.becomes.is_some() || line.could.before != line.could.after
        })
        .collect()
}

/// What the entitlement is in AWS before and after, where the edit makes something else of it.
fn becomes(before: &Policy, after: &Policy, id: &EntitlementId) -> Option<Change<String>> {
    let (was, is) = (before.entitlement(id)?, after.entitlement(id)?);
    (was.target != is.target).then(|| Change {
        before: was.target.to_string(),
        after: is.target.to_string(),
    })
}

fn hours(before: Side<'_>, after: Side<'_>, period: Interval) -> (Vec<HoursLine>, HoursLine) {
    let sums = |side: Side<'_>| {
        let mut held: BTreeMap<EntitlementId, SignedDuration> = BTreeMap::new();
        for ((entitlement, _), spans) in spans(side.forecast) {
            let sum = held.entry(entitlement).or_default();
            *sum = sum.saturating_add(length(&spans));
        }
        let mut standing: BTreeMap<EntitlementId, SignedDuration> = BTreeMap::new();
        for ((entitlement, _), time) in side.standing {
            let sum = standing.entry(entitlement.clone()).or_default();
            *sum = sum.saturating_add(*time);
        }
        (held, standing)
    };
    let ((held_before, standing_before), (held_after, standing_after)) = (sums(before), sums(after));
    let names: BTreeSet<&EntitlementId> = [&held_before, &standing_before, &held_after, &standing_after]
        .into_iter()
        .flat_map(BTreeMap::keys)
        .collect();
    let a_week = |time: SignedDuration| a_week(time, period);
    let of = |map: &BTreeMap<EntitlementId, SignedDuration>, id| a_week(map.get(id).copied().unwrap_or_default());
    let all = |map: &BTreeMap<EntitlementId, SignedDuration>| {
        let sum = map.values().copied();
        a_week(sum.fold(SignedDuration::ZERO, SignedDuration::saturating_add))
    };
    let lines = names.into_iter().map(|id| HoursLine {
        entitlement: Some(id.clone()),
        held: Change {
            before: of(&held_before, id),
            after: of(&held_after, id),
        },
        standing: Change {
            before: of(&standing_before, id),
            after: of(&standing_after, id),
        },
    });
    let changed = |line: &HoursLine| line.held.before != line.held.after || line.standing.before != line.standing.after;
    let total = HoursLine {
        entitlement: None,
        held: Change {
            before: all(&held_before),
            after: all(&held_after),
        },
        standing: Change {
            before: all(&standing_before),
            after: all(&standing_after),
        },
    };
    (lines.filter(changed).collect(), total)
}

/// A time in the period as seconds a week.
fn a_week(time: SignedDuration, period: Interval) -> i64 {
    const WEEK: i128 = 7 * 86_400;
    let whole = i128::from(period.duration().as_secs().max(1));
    i64::try_from(i128::from(time.as_secs()) * WEEK / whole).unwrap_or(i64::MAX)
}
