//! The report as comma-separated values that no spreadsheet takes for formulas.

use std::io::{self, Write};

use super::{Report, printable};

pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record([
        report.group_by.word(),
        "held_seconds",
        "on_call_seconds",
        "window_seconds",
        "membership_seconds",
        "overhang_seconds",
        "lead_seconds",
        "linger_seconds",
        "late_seconds",
        "duty_seconds",
        "uncovered_seconds",
        "revokes",
        "tail_seconds",
        "revokes_without_tail",
        "standing_seconds",
    ])?;
    for line in &report.rows {
        let s = &line.seconds;
        let figures = [
            Some(s.held_seconds),
            Some(s.on_call_seconds),
            Some(s.window_seconds),
            Some(s.membership_seconds),
            Some(s.overhang_seconds),
            Some(s.lead_seconds),
            Some(s.linger_seconds),
            Some(s.late_seconds),
            s.duty_seconds,
            s.uncovered_seconds,
            s.revokes.map(i64::from),
            s.tail_seconds,
            s.revokes_without_tail.map(i64::from),
            s.standing_seconds,
        ];
        let figures = figures.map(|figure| figure.map_or_else(String::new, |figure| figure.to_string()));
        csv.write_record([for_spreadsheet(line.name())].iter().chain(&figures))?;
    }
    csv.flush()
}

/// Besides making it harmless on a terminal, keeps a spreadsheet from taking a name for a formula.
fn for_spreadsheet(name: &str) -> String {
    let name = printable(name);
    if name.starts_with(['=', '+', '-', '@']) {
        format!("'{name}")
    } else {
        name
    }
}
