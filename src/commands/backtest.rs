//! `backtest`: what a policy would have granted over past shifts; reads schedules and writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Table, presets};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::accounting::standing;
use crate::config::Config;
use crate::desired::Snapshots;
use crate::forecast::{Forecast, Gap, GapKind, forecast, when};
use crate::ledger::StoredSnapshots;
use crate::model::{EntitlementId, Interval, spans::length};
use crate::policy::Policy;
use crate::poll::{self, Sources};
use crate::text::clean;

/// What one policy would have led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backtest {
    /// The policy's revision.
    pub policy: String,
    /// By entitlement.
    pub lines: Vec<Line>,
    /// All of them.
    pub total: Line,
    /// Times at which somebody would have been missing.
    pub gaps: Vec<Gap>,
}

/// The figures of one entitlement, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Line {
    /// Which; all when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entitlement: Option<EntitlementId>,
    /// Access held, everybody's added.
    pub held_seconds: i64,
    /// Standing access of everybody who could have held it.
    pub standing_seconds: i64,
    /// Different people who would have held it.
    pub people: usize,
    /// Most grants that would have stood at once.
    pub peak: usize,
    /// Time during which nobody would have held it; of the total, anything.
    pub nobody_seconds: i64,
}

/// Reads the shifts of a past period. Where a provider does not give them, the returned lines say so.
pub async fn read(
    policies: &[&Policy],
    sources: &Sources,
    period: Interval,
    now: Timestamp,
) -> (Snapshots, Vec<String>) {
    let schedules: BTreeSet<_> = policies.iter().flat_map(|policy| policy.schedules()).collect();
    let mut stored = StoredSnapshots::default();
    let window = poll::window(period.start(), period.duration(), None);
    let mut notes = poll::read_into(&mut stored, sources, &schedules, window, now).await;
    notes.sort();
    (stored.newest(&schedules), notes)
}

/// Works out what the policy would have granted.
#[must_use]
pub fn backtest(config: &Config, policy: &Policy, snapshots: &Snapshots, period: Interval) -> Backtest {
    let forecast = forecast(policy, snapshots, &config.identities, &None, period);
    let mut could: BTreeMap<EntitlementId, SignedDuration> = BTreeMap::new();
    for ((entitlement, _), time) in standing(policy, snapshots, &config.identities, period) {
        let sum = could.entry(entitlement).or_default();
        *sum = sum.saturating_add(time);
    }
    let lines: Vec<Line> = policy
        .entitlements()
        .map(|e| line(&forecast, &e.id, could.get(&e.id).copied().unwrap_or_default()))
        .collect();
    let people: BTreeSet<_> = forecast.holdings.iter().map(|h| &h.person).collect();
    let everywhere: Vec<Interval> = forecast.holdings.iter().map(|h| h.held).collect();
    let total = Line {
        entitlement: None,
        held_seconds: lines.iter().map(|l| l.held_seconds).sum(),
        standing_seconds: lines.iter().map(|l| l.standing_seconds).sum(),
        people: people.len(),
        peak: peak(&everywhere),
        nobody_seconds: (period.duration() - length(&everywhere)).as_secs(),
    };
    Backtest {
        policy: policy.revision.clone(),
        lines,
        total,
        gaps: forecast.gaps,
    }
}

fn line(forecast: &Forecast, id: &EntitlementId, could: SignedDuration) -> Line {
    let mine: Vec<_> = forecast.holdings.iter().filter(|h| h.entitlement == *id).collect();
    let spans: Vec<Interval> = mine.iter().map(|h| h.held).collect();
    let held = spans.iter().map(|span| span.duration().as_secs()).sum();
    let whole = forecast.period.duration().as_secs();
    Line {
        entitlement: Some(id.clone()),
        held_seconds: held,
        standing_seconds: could.as_secs(),
        people: mine.iter().map(|h| &h.person).collect::<BTreeSet<_>>().len(),
        peak: peak(&spans),
        nobody_seconds: whole - length(&spans).as_secs(),
    }
}

/// The most that overlap at one instant.
fn peak(spans: &[Interval]) -> usize {
    // An end sorts before a start at the same instant, because the instant of an end is no longer inside.
    let mut edges: Vec<(Timestamp, bool)> = spans
        .iter()
        .flat_map(|s| [(s.start(), true), (s.end(), false)])
        .collect();
    edges.sort();
    let (mut most, mut now) = (0, 0_usize);
    for (_, begins) in edges {
        now = if begins { now + 1 } else { now.saturating_sub(1) };
        most = most.max(now);
    }
    most
}

/// For a terminal; `against` is what the policy in force would have led to, where another one is tested.
#[must_use]
pub fn text(period: Interval, tested: &Backtest, against: Option<&Backtest>, notes: &[String]) -> String {
    let mut out = String::new();
    let mut say = |line: &str| {
        let _infallible = writeln!(out, "{}", line.trim_end());
    };
    say(&format!("Backtest {}, in UTC", when(period)));
    if against.is_some() {
        say("The last column is what would have been held by the policy in force.");
    }
    for note in notes {
        say(&format!("  ! {}", clean(note)));
    }
    say("");
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut header = vec![
        "entitlement",
        "held h",
        "standing h",
        "share",
        "people",
        "peak",
        "nobody h",
    ];
    if against.is_some() {
        header.push("in force h");
    }
    table.set_header(header);
    for line in tested.lines.iter().chain([&tested.total]) {
        let name = line
            .entitlement
            .as_ref()
            .map_or_else(|| "total".to_owned(), |id| clean(&id.to_string()));
        let mut cells = vec![Cell::new(name)];
        let figures = [
            hours(line.held_seconds),
            hours(line.standing_seconds),
            share(line),
            line.people.to_string(),
            line.peak.to_string(),
            hours(line.nobody_seconds),
        ];
        cells.extend(figures.map(right));
        if let Some(against) = against {
            let mut theirs = against.lines.iter().chain([&against.total]);
            let same = theirs.find(|other| other.entitlement == line.entitlement);
            cells.push(right(
                same.map_or_else(|| "-".to_owned(), |other| hours(other.held_seconds)),
            ));
        }
        table.add_row(cells);
    }
    for line in table.lines() {
        say(&line);
    }
    let gone = against.iter().flat_map(|a| &a.lines).filter(|theirs| {
        0 < theirs.held_seconds && !tested.lines.iter().any(|line| line.entitlement == theirs.entitlement)
    });
    for theirs in gone {
        if let Some(id) = &theirs.entitlement {
            let held = hours(theirs.held_seconds);
            say(&format!(
                "  {} is not in it; by the policy in force {held} h would have been held",
                clean(&id.to_string())
            ));
        }
    }
    let gaps: Vec<&Gap> = tested.gaps.iter().filter(|g| g.kind != GapKind::MinHolders).collect();
    say(&format!("\nGaps ({})", gaps.len()));
    for gap in gaps {
        let more = match gap.more {
            0 => String::new(),
            n => format!(", and {n} more times"),
        };
        say(&format!("  {}{more}", when(gap.during)));
        say(&format!("      {}", clean(&gap.message)));
    }
    out
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn hours(seconds: i64) -> String {
    format!("{}.{}", seconds / 3600, seconds % 3600 / 360)
}

fn share(line: &Line) -> String {
    if line.standing_seconds == 0 {
        return "-".to_owned();
    }
    let per_mille = i128::from(line.held_seconds) * 1000 / i128::from(line.standing_seconds);
    format!("{}.{} %", per_mille / 10, per_mille % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_counts_a_hand_off_once() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let span = |from, to| Interval::new(at(from), at(to)).unwrap();
        assert_eq!(peak(&[]), 0);
        assert_eq!(peak(&[span(0, 5), span(5, 9)]), 1);
        assert_eq!(peak(&[span(0, 5), span(4, 9), span(4, 5), span(8, 12)]), 3);
    }
}
