//! Writes events as JSON lines, CSV or OCSF.

use std::io::{self, Write};

use super::ocsf;
use crate::ledger::ExportedEvent;
use crate::text::clean;

/// How events are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line, for each event.
    Jsonl,
    /// A table for spreadsheets, one row for each event.
    Csv,
    /// One OCSF event a line: access that begins, ends or could not be changed (class 3005), and orders (class 3001).
    Ocsf,
}

/// The columns of the table.
const COLUMNS: [&str; 25] = [
    "seq",
    "time",
    "kind",
    "person",
    "entitlement",
    "account",
    "permission_set_arn",
    "group_id",
    "principal",
    "asked",
    "intent",
    "reference",
    "outcome",
    "detail",
    "policy",
    "context",
    "basis",
    "schedule",
    "duty",
    "rule",
    "member",
    "added_by",
    "says",
    "table_row",
    "hash",
];

/// Writes to a stream.
pub enum Exporter<W: Write> {
    /// Lines of JSON.
    Jsonl(W),
    /// The table.
    Csv(Box<csv::Writer<W>>),
    /// OCSF; with the ledger's name.
    Ocsf(W, String),
}

impl<W: Write> Exporter<W> {
    /// Begins, with the table's head.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(format: Format, out: W, ledger: &str) -> io::Result<Self> {
        Ok(match format {
            Format::Jsonl => Self::Jsonl(out),
            Format::Ocsf => Self::Ocsf(out, ledger.to_owned()),
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(out);
                csv.write_record(COLUMNS)?;
                Self::Csv(Box::new(csv))
            }
        })
    }

    /// Writes an event, where the format has a place for it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, event: &ExportedEvent) -> io::Result<()> {
        match self {
            Self::Jsonl(out) => line(out, event),
            Self::Ocsf(out, ledger) => match ocsf::event(event, ledger) {
                Some(event) => line(out, &event),
                None => Ok(()),
            },
            Self::Csv(csv) => Ok(csv.write_record(record(event).iter().map(|cell| for_spreadsheet(cell)))?),
        }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(self) -> io::Result<()> {
        match self {
            Self::Jsonl(mut out) | Self::Ocsf(mut out, _) => out.flush(),
            Self::Csv(mut csv) => csv.flush(),
        }
    }
}

fn line(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn record(event: &ExportedEvent) -> [String; COLUMNS.len()] {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    // One cell for all causes, in the same order in each column.
    let causes = |of: &dyn Fn(&crate::ledger::ExportedCause) -> String| {
        let cells: Vec<String> = event.causes.iter().map(of).collect();
        cells.join("; ")
    };
    [
        event.seq.to_string(),
        event.time.to_string(),
        event.kind.clone(),
        text(&event.person),
        text(&event.entitlement),
        text(&event.account),
        text(&event.permission_set_arn),
        text(&event.group_id),
        text(&event.principal),
        text(&event.asked),
        event.intent.map(|id| id.to_string()).unwrap_or_default(),
        text(&event.reference),
        text(&event.outcome),
        text(&event.detail),
        text(&event.policy),
        text(&event.context),
        causes(&|cause| cause.basis.to_owned()),
        causes(&|cause| text(&cause.schedule)),
        causes(&|cause| format!("{}/{}", cause.duty_from, cause.duty_to)),
        causes(&|cause| cause.rule.clone()),
        causes(&|cause| text(&cause.member)),
        causes(&|cause| text(&cause.added_by)),
        crate::ledger::write_json(&event.says),
        match event.row {
            Some(row) => format!("{} {row}", event.table),
            None => String::new(),
        },
        event.hash.clone(),
    ]
}

/// Keeps a spreadsheet from taking a cell for a formula, and a terminal from obeying it.
fn for_spreadsheet(cell: &str) -> String {
    let cell = clean(cell);
    if cell.trim_start().starts_with(['=', '+', '-', '@']) {
        format!("'{cell}")
    } else {
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for formula in ["=1+1", "+1", "-1", "@sum", " =1", "\t=1", "\r\n=1"] {
            let cell = for_spreadsheet(formula);
            assert!(
                !cell.trim_start().starts_with(['=', '+', '-', '@', '\t', '\r']),
                "{cell:?}"
            );
        }
        assert_eq!(for_spreadsheet("alice@example.com"), "alice@example.com");
    }
}
