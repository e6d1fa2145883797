//! The report as a table for people.

use std::fmt::Write as _;
use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{Line, Report, percent, printable};
use crate::accounting::Part;
use crate::layout::wrap;
use crate::text::{hours, instant};

/// The widest line that the table takes.
const WIDTH: u16 = 100;

pub(super) fn write(report: &Report, zone: &TimeZone, out: &mut dyn Write) -> io::Result<()> {
    let (from, to) = (report.period.start(), report.counted_to);
    writeln!(out, "access hours from {} to {}", instant(from), instant(to))?;
    if *zone != TimeZone::UTC {
        writeln!(out, "             that is {} to {}", local(from, zone), local(to, zone))?;
    }
    for note in report.record_lost.iter().chain(&report.notes) {
        writeln!(
            out,
            "{}",
            wrap(&format!("NOTE  {}", printable(note)), Some(usize::from(WIDTH)))
        )?;
    }
    writeln!(out)?;
    let mut summary = summary(&report.total);
    for o in &report.outlasted {
        let _infallible = writeln!(
            summary,
            "WARNING  {}: a role session may outlast the gap between shifts: {} times the same person had it again \
             after as little as {} h, and sessions live on for up to {} h after a revoke; shorten the permission set's \
             session duration",
            printable(&o.entitlement.to_string()),
            o.times,
            hours(o.shortest_gap),
            hours(o.longest_tail),
        );
    }
    writeln!(out, "{}", wrap(&summary, Some(usize::from(WIDTH))))?;
    for line in table(report).lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// The instant as the clocks there show it, with the zone's name.
pub(super) fn local(t: Timestamp, zone: &TimeZone) -> String {
    let name = zone.iana_name().unwrap_or("local time");
    format!("{} {name}", t.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M"))
}

fn summary(total: &Line) -> String {
    let (sums, held) = (&total.sums, &total.sums.held);
    let of_standing = total
        .standing
        .map_or_else(|| "not known".to_owned(), |time| format!("{} h", hours(time)));
    let unknown = match sums.revokes_without_tail {
        0 => String::new(),
        n => format!("; not known of {n} of them"),
    };
    format!(
        "{:>9}  of standing access, which would have been {of_standing} under today's policy\n\
         {:>7} h  held: {} on duty, {} overhang (lead {}, linger {}, late {})\n\
         {:>7} h  on duty: {} of it without access{}\n\
         {:>7} h  more, at the most, in role sessions that outlived {} revokes{unknown}\n",
        percent(total.share),
        hours(held.held()),
        hours(held.duty()),
        hours(held.overhang()),
        hours(held.part(Part::Lead)),
        hours(held.part(Part::Linger)),
        hours(held.part(Part::Late)),
        hours(sums.duty()),
        hours(sums.uncovered()),
        whys(total),
        hours(sums.tail),
        sums.revokes,
    )
}

/// What is known about why duty was without access, the longest first.
pub(super) fn whys(line: &Line) -> String {
    let mut whys: Vec<_> = line
        .sums
        .uncovered_why
        .iter()
        .filter(|(_, time)| !time.is_zero())
        .collect();
    whys.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let whys: Vec<String> = whys
        .into_iter()
        .map(|(why, time)| format!("{} {}", why.replace('_', " "), hours(*time)))
        .collect();
    if whys.is_empty() {
        String::new()
    } else {
        format!(" ({})", whys.join(", "))
    }
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::DynamicFullWidth)
        .set_width(WIDTH);
    table.set_header([
        report.group_by.word(),
        "held h",
        "on duty",
        "overhang",
        "uncovered",
        "tail",
        "standing h",
        "share",
    ]);
    for line in report.rows.iter().chain([&report.total]) {
        let held = &line.sums.held;
        let or_dash = |known: bool, time: SignedDuration| if known { hours(time) } else { "-".to_owned() };
        let times = [
            hours(held.held()),
            hours(held.duty()),
            hours(held.overhang()),
            or_dash(line.seconds.uncovered_seconds.is_some(), line.sums.uncovered()),
            or_dash(line.seconds.tail_seconds.is_some(), line.sums.tail),
            line.standing.map_or_else(|| "-".to_owned(), hours),
            percent(line.share),
        ];
        let cells = times.map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
        table.add_row([Cell::new(printable(line.name()))].into_iter().chain(cells));
    }
    table
}
