//! Access hours of a period as a table, JSON, CSV and a page to mail, against standing access and duty.

use std::collections::BTreeMap;
use std::io::{self, Write};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::accounting::{
    Ending, Kind, Measure, Outlasted, Part, Record, Sessions, Sums, Unheld, endings, measure, outlasted, standing,
};
use crate::config::Identity;
use crate::desired::Snapshots;
use crate::ledger::{AccessRow, LedgerError, PolicyInForce, Restoration};
use crate::model::{EntitlementId, Interval, Person};
use crate::policy::Policy;

mod csv;
mod notes;
mod page;
mod period;
mod read;
mod text;

pub use period::{Calendar, Last};
pub use read::read;

/// What one line of the report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// An entitlement.
    Entitlement,
    /// All entitlements that a project owns.
    Project,
    /// Everything that a person held.
    Person,
    /// What earned it: being on call, a window, a membership. Overhang counts to what it belongs to; what is not held
    /// is not told apart.
    Cause,
}

impl GroupBy {
    /// `None` where lines are about something else.
    fn name(self, entitlement: &EntitlementId, person: &Person) -> Option<String> {
        match self {
            Self::Entitlement => Some(entitlement.to_string()),
            Self::Project => Some(entitlement.project.to_string()),
            Self::Person => Some(person.to_string()),
            Self::Cause => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Entitlement => "entitlement",
            Self::Project => "project",
            Self::Person => "person",
            Self::Cause => "cause",
        }
    }
}

/// How the report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table with hours, for people.
    Text,
    /// One JSON document with seconds.
    Json,
    /// Comma-separated values with seconds, for spreadsheets; no total line, which a sum would count again.
    Csv,
    /// One HTML page with charts that needs no other file and no script, to mail or to put anywhere.
    Html,
}

/// What the report is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// From when until when.
    pub period: Interval,
    /// Access and standing access are counted to here and not beyond.
    pub now: Timestamp,
    /// What a line is about.
    pub group_by: GroupBy,
    /// How it is written.
    pub format: Format,
    /// In which zone days begin.
    pub zone: TimeZone,
}

/// What standing access is worked out from; see [`standing`].
#[derive(Debug, Clone, Copy)]
pub struct Baseline<'a> {
    /// The policy in force now, also for a period in the past.
    pub policy: &'a Policy,
    /// The stored snapshots.
    pub snapshots: &'a Snapshots,
    /// The operator's mapping of people.
    pub identities: &'a [Identity],
}

impl Baseline<'_> {
    fn standing(&self, span: Option<Interval>) -> BTreeMap<(EntitlementId, Person), SignedDuration> {
        span.map_or_else(BTreeMap::new, |span| {
            standing(self.policy, self.snapshots, self.identities, span)
        })
    }
}

/// What the ledger says about a period.
#[derive(Debug)]
pub struct OnRecord {
    /// Access that overlaps the period, or the time before it in which role sessions may have begun.
    pub rows: Vec<AccessRow>,
    /// Duty without access.
    pub unheld: Vec<Unheld>,
    /// How long role sessions live.
    pub sessions: Sessions,
    /// Every time that the ledger turned out to be an older copy.
    pub restorations: Vec<Restoration>,
    /// Since when there is a record.
    pub begins: Timestamp,
    /// The policies that were in force, each with since when, the oldest first.
    pub policies: Vec<(Timestamp, PolicyInForce)>,
}

impl OnRecord {
    fn measured(&self) -> Record<'_> {
        Record {
            rows: &self.rows,
            unheld: &self.unheld,
            sessions: &self.sessions,
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It cannot be written down.
    #[error("the report cannot be written")]
    Write(#[from] io::Error),
}

/// Writes the report.
///
/// # Errors
/// When `out` cannot be written.
pub fn report(
    on_record: &OnRecord,
    baseline: Option<Baseline<'_>>,
    request: &Request,
    out: &mut dyn Write,
) -> io::Result<()> {
    let touches =
        |r: &&Restoration| r.is_gap() && r.lost_from < request.period.end() && request.period.start() < r.found_at;
    let restorations = on_record.restorations.iter();
    let lost = restorations.filter(touches).map(Restoration::loss).collect();
    let sight = Sight::new(on_record, baseline, request);
    let notes = notes::notes(on_record, baseline, request.period, sight.counted);
    let report = Report::new(&sight, request.group_by, lost, notes);
    match request.format {
        Format::Text => text::write(&report, &request.zone, out),
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)
        }
        Format::Csv => csv::write(&report, out),
        Format::Html => out.write_all(
            page::page(&sight, &report, request)
                .map_err(io::Error::other)?
                .as_bytes(),
        ),
    }
}

/// Everything that the figures are made of.
struct Sight<'a> {
    period: Interval,
    /// The part of the period that is past and on record.
    counted: Option<Interval>,
    record: Record<'a>,
    baseline: Option<Baseline<'a>>,
    measure: Measure,
    standing: BTreeMap<(EntitlementId, Person), SignedDuration>,
    now: Timestamp,
}

impl<'a> Sight<'a> {
    fn new(on_record: &'a OnRecord, baseline: Option<Baseline<'a>>, request: &Request) -> Self {
        let (period, now, record) = (request.period, request.now, on_record.measured());
        let counted = Interval::new(period.start().max(on_record.begins), period.end().min(now));
        Self {
            period,
            counted,
            record,
            baseline,
            measure: measure(record, period, now),
            standing: baseline.map(|b| b.standing(counted)).unwrap_or_default(),
            now,
        }
    }

    /// A line for each name, sorted by name.
    fn lines(&self, by: GroupBy) -> Vec<Line> {
        if by == GroupBy::Cause {
            let total = self.measure.total();
            let of_kind = |kind: Kind| Line::of_kind(kind, &total);
            return Kind::ALL.map(of_kind).into();
        }
        let name = |entitlement: &EntitlementId, person: &Person| by.name(entitlement, person).unwrap_or_default();
        let mut held = self.measure.grouped(name);
        let mut could: BTreeMap<String, SignedDuration> = BTreeMap::new();
        for ((entitlement, person), time) in &self.standing {
            let sum = could.entry(name(entitlement, person)).or_default();
            *sum = sum.saturating_add(*time);
        }
        for name in could.keys() {
            held.entry(name.clone()).or_default();
        }
        let standing_of = |name: &str| self.baseline.map(|_| could.get(name).copied().unwrap_or_default());
        held.iter()
            .map(|(name, sums)| Line::new(Some(name), sums, standing_of(name)))
            .collect()
    }

    fn total(&self) -> Line {
        let times = self.standing.values();
        let could = times.fold(SignedDuration::ZERO, |sum, time| sum.saturating_add(*time));
        Line::new(None, &self.measure.total(), self.baseline.map(|_| could))
    }
}

#[derive(Serialize)]
struct Report {
    period: Interval,
    /// Nothing before this instant is on record.
    counted_from: Timestamp,
    counted_to: Timestamp,
    group_by: GroupBy,
    /// Which parts of the record are lost, so that the figures may be too small.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    record_lost: Vec<String>,
    /// What else to know about the figures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    rows: Vec<Line>,
    total: Line,
    /// Where a role session may have outlasted the time between two turns of one person.
    outlasted: Vec<Outlasted>,
    /// Every access that ended in the period, with until when it was effective.
    endings: Vec<Ending>,
}

#[derive(Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(flatten)]
    seconds: Seconds,
    /// Of standing access, as a fraction.
    share: Option<f64>,
    #[serde(skip)]
    sums: Sums,
    #[serde(skip)]
    standing: Option<SignedDuration>,
}

/// Rounded to whole seconds each.
#[derive(Serialize)]
struct Seconds {
    /// On duty and overhang.
    held_seconds: i64,
    /// Held on duty, by what earned it.
    on_call_seconds: i64,
    window_seconds: i64,
    membership_seconds: i64,
    /// Held off duty.
    overhang_seconds: i64,
    lead_seconds: i64,
    linger_seconds: i64,
    late_seconds: i64,
    /// The baseline of duty: on duty, with access and without.
    duty_seconds: Option<i64>,
    /// On duty without access.
    uncovered_seconds: Option<i64>,
    uncovered_why_seconds: BTreeMap<String, i64>,
    /// How often access was taken away.
    revokes: Option<u32>,
    /// For how long after that role sessions may have lived on, at the most; not part of what was held.
    tail_seconds: Option<i64>,
    /// Of how many revokes that is not known.
    revokes_without_tail: Option<u32>,
    /// The baseline of standing access.
    standing_seconds: Option<i64>,
}

impl Report {
    fn new(sight: &Sight<'_>, group_by: GroupBy, record_lost: Vec<String>, notes: Vec<String>) -> Self {
        let rows: Vec<&AccessRow> = sight.record.rows.iter().collect();
        let mut ends = endings(&rows, sight.record.sessions);
        let past = |ending: &Ending| sight.period.contains(ending.revoked_at) && ending.revoked_at <= sight.now;
        let outlasted = outlasted(&ends, sight.period);
        ends.retain(past);
        ends.sort_by(|a, b| (a.revoked_at, &a.entitlement, &a.person).cmp(&(b.revoked_at, &b.entitlement, &b.person)));
        Self {
            period: sight.period,
            counted_from: sight.counted.map_or(sight.period.start(), |c| c.start()),
            counted_to: sight.counted.map_or(sight.period.start(), |c| c.end()),
            group_by,
            record_lost,
            notes,
            rows: sight.lines(group_by),
            total: sight.total(),
            outlasted,
            endings: ends,
        }
    }
}

impl Line {
    fn new(name: Option<&str>, sums: &Sums, standing: Option<SignedDuration>) -> Self {
        let held = &sums.held;
        let share = standing
            .filter(|time| !time.is_zero())
            .map(|time| held.held().as_secs_f64() / time.as_secs_f64());
        Self {
            name: name.map(str::to_owned),
            seconds: Seconds {
                held_seconds: whole(held.held()),
                on_call_seconds: whole(held.of(Kind::OnCall, Part::Duty)),
                window_seconds: whole(held.of(Kind::Window, Part::Duty)),
                membership_seconds: whole(held.of(Kind::Membership, Part::Duty)),
                overhang_seconds: whole(held.overhang()),
                lead_seconds: whole(held.part(Part::Lead)),
                linger_seconds: whole(held.part(Part::Linger)),
                late_seconds: whole(held.part(Part::Late)),
                duty_seconds: Some(whole(sums.duty())),
                uncovered_seconds: Some(whole(sums.uncovered())),
                uncovered_why_seconds: sums
                    .uncovered_why
                    .iter()
                    .map(|(why, t)| (why.clone(), whole(*t)))
                    .collect(),
                revokes: Some(sums.revokes),
                tail_seconds: Some(whole(sums.tail)),
                revokes_without_tail: Some(sums.revokes_without_tail),
                standing_seconds: standing.map(whole),
            },
            share,
            sums: sums.clone(),
            standing,
        }
    }

    /// Of one kind of cause only what was held is known.
    fn of_kind(kind: Kind, total: &Sums) -> Self {
        let mut line = Self::new(Some(kind.as_str()), &total.only(kind), None);
        let seconds = &mut line.seconds;
        (seconds.duty_seconds, seconds.uncovered_seconds, seconds.tail_seconds) = (None, None, None);
        (seconds.revokes, seconds.revokes_without_tail) = (None, None);
        line
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("total")
    }
}

fn whole(time: SignedDuration) -> i64 {
    time.round(jiff::Unit::Second).unwrap_or(time).as_secs()
}

/// Of standing access, for people.
fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

/// Shows control, formatting and other invisible characters as escapes, so that a name cannot act on a terminal.
fn printable(name: &str) -> String {
    name.chars()
        .flat_map(|c| {
            let shown = matches!(c, '"' | '\'' | '\\');
            let (plain, escaped) = if shown {
                (Some(c), None)
            } else {
                (None, Some(c.escape_debug()))
            };
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

#[cfg(test)]
mod tests;
