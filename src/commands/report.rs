//! Access hours of a period as a table, JSON and CSV, against what standing access would have been.

use std::collections::BTreeMap;
use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::accounting::{Figures, Phase, account, standing};
use crate::config::Identity;
use crate::desired::Snapshots;
use crate::ledger::{AccessRow, Restoration};
use crate::model::{EntitlementId, Interval, Person};
use crate::policy::Policy;
use crate::text::{hours, instant};

/// The widest line that the table takes.
const WIDTH: u16 = 100;

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
}

impl GroupBy {
    fn name(self, entitlement: &EntitlementId, person: &Person) -> String {
        match self {
            Self::Entitlement => entitlement.to_string(),
            Self::Project => entitlement.project.to_string(),
            Self::Person => person.to_string(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Entitlement => "entitlement",
            Self::Project => "project",
            Self::Person => "person",
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
}

/// What the report is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// From when until when.
    pub period: Interval,
    /// Access and standing access are counted to here and not beyond.
    pub now: Timestamp,
    /// What a line is about.
    pub group_by: GroupBy,
    /// How it is written.
    pub format: Format,
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

/// Writes the report. `rows` are the ledger's intervals that overlap the period, [`crate::ledger::Ledger::access_in`],
/// `restorations` tell which parts of the record are lost.
///
/// # Errors
/// When `out` cannot be written.
pub fn report(
    rows: &[AccessRow],
    restorations: &[Restoration],
    baseline: Option<Baseline<'_>>,
    request: &Request,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut report = Report::new(rows, baseline, request);
    let touches =
        |r: &&Restoration| r.is_gap() && r.lost_from < request.period.end() && request.period.start() < r.found_at;
    report.record_lost = restorations.iter().filter(touches).map(Restoration::loss).collect();
    match request.format {
        Format::Text => report.text(request, out),
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)
        }
        Format::Csv => report.csv(request, out),
    }
}

#[derive(Serialize)]
struct Report {
    period: Interval,
    counted_to: Timestamp,
    group_by: GroupBy,
    /// Which parts of the record are lost, so that the figures may be too small.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    record_lost: Vec<String>,
    rows: Vec<Line>,
    total: Line,
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
    figures: Figures,
    #[serde(skip)]
    standing: Option<SignedDuration>,
}

/// Rounded to whole seconds each.
#[derive(Serialize)]
struct Seconds {
    held_seconds: i64,
    on_call_seconds: i64,
    window_seconds: i64,
    membership_seconds: i64,
    overhang_seconds: i64,
    lead_linger_seconds: i64,
    late_seconds: i64,
    standing_seconds: Option<i64>,
}

impl Report {
    fn new(rows: &[AccessRow], baseline: Option<Baseline<'_>>, request: &Request) -> Self {
        let period = request.period;
        let account = account(rows, period, request.now);
        let counted = Interval::new(period.start(), period.end().min(request.now));
        let mut held = account.grouped(|entitlement, person| request.group_by.name(entitlement, person));
        let mut could: BTreeMap<String, SignedDuration> = BTreeMap::new();
        if let (Some(b), Some(counted)) = (baseline, counted) {
            for ((entitlement, person), time) in standing(b.policy, b.snapshots, b.identities, counted) {
                let sum = could.entry(request.group_by.name(&entitlement, &person)).or_default();
                *sum = sum.saturating_add(time);
            }
        }
        for name in could.keys() {
            held.entry(name.clone()).or_default();
        }
        let standing_of = |time: Option<&SignedDuration>| baseline.map(|_| time.copied().unwrap_or_default());
        let total = could
            .values()
            .fold(SignedDuration::ZERO, |sum, time| sum.saturating_add(*time));
        Self {
            period,
            counted_to: counted.map_or(period.start(), |c| c.end()),
            group_by: request.group_by,
            record_lost: Vec::new(),
            total: Line::new(None, account.total(), standing_of(Some(&total))),
            rows: held
                .into_iter()
                .map(|(name, figures)| {
                    let standing = standing_of(could.get(&name));
                    Line::new(Some(name), figures, standing)
                })
                .collect(),
        }
    }

    fn text(&self, request: &Request, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::DynamicFullWidth)
            .set_width(WIDTH);
        table.set_header([
            request.group_by.word(),
            "held h",
            "on call",
            "window",
            "member",
            "overhang",
            "standing h",
            "share",
        ]);
        for line in self.rows.iter().chain([&self.total]) {
            let name = line.name.as_deref().map_or_else(|| "total".to_owned(), printable);
            let mut cells = vec![Cell::new(name)];
            for time in [
                line.figures.held(),
                line.figures.of(Phase::OnCall),
                line.figures.of(Phase::Window),
                line.figures.of(Phase::Membership),
                line.figures.overhang(),
            ] {
                cells.push(right(hours(time)));
            }
            cells.push(right(line.standing.map_or_else(|| "-".to_owned(), hours)));
            cells.push(right(
                line.share
                    .map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0)),
            ));
            table.add_row(cells);
        }
        writeln!(
            out,
            "access hours from {} to {}",
            instant(self.period.start()),
            instant(self.counted_to)
        )?;
        for lost in &self.record_lost {
            writeln!(out, "NOTE  {}", printable(lost))?;
        }
        writeln!(out)?;
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn csv(&self, request: &Request, out: &mut dyn Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record([
            request.group_by.word(),
            "held_seconds",
            "on_call_seconds",
            "window_seconds",
            "membership_seconds",
            "overhang_seconds",
            "lead_linger_seconds",
            "late_seconds",
            "standing_seconds",
        ])?;
        for line in &self.rows {
            let s = &line.seconds;
            let mut record = vec![for_spreadsheet(line.name.as_deref().unwrap_or_default())];
            record.extend(
                [
                    s.held_seconds,
                    s.on_call_seconds,
                    s.window_seconds,
                    s.membership_seconds,
                    s.overhang_seconds,
                    s.lead_linger_seconds,
                    s.late_seconds,
                ]
                .map(|seconds| seconds.to_string()),
            );
            record.push(
                s.standing_seconds
                    .map_or_else(String::new, |seconds| seconds.to_string()),
            );
            csv.write_record(record)?;
        }
        csv.flush()
    }
}

impl Line {
    fn new(name: Option<String>, figures: Figures, standing: Option<SignedDuration>) -> Self {
        let share = standing
            .filter(|time| !time.is_zero())
            .map(|time| figures.held().as_secs_f64() / time.as_secs_f64());
        Self {
            name,
            seconds: Seconds {
                held_seconds: whole(figures.held()),
                on_call_seconds: whole(figures.of(Phase::OnCall)),
                window_seconds: whole(figures.of(Phase::Window)),
                membership_seconds: whole(figures.of(Phase::Membership)),
                overhang_seconds: whole(figures.overhang()),
                lead_linger_seconds: whole(figures.of(Phase::LeadLinger)),
                late_seconds: whole(figures.of(Phase::Late)),
                standing_seconds: standing.map(whole),
            },
            share,
            figures,
            standing,
        }
    }
}

fn whole(time: SignedDuration) -> i64 {
    time.round(jiff::Unit::Second).unwrap_or(time).as_secs()
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
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

/// Besides, keeps a spreadsheet from taking a name for a formula.
fn for_spreadsheet(name: &str) -> String {
    let name = printable(name);
    if name.starts_with(['=', '+', '-', '@']) {
        format!("'{name}")
    } else {
        name
    }
}

#[cfg(test)]
mod tests;
