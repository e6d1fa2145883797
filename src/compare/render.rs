//! A comparison as text for a terminal and as Markdown for a pull request.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::{Change, Comparison, HoursLine, PersonLine};
use crate::forecast::{Gap, when};
use crate::model::{Interval, ProjectName, spans::length};
use crate::text::{clean, instant, markdown as cell, span};

impl Comparison {
    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write_text(&mut out).unwrap_or_default();
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let (before, after) = (short(&self.before), short(&self.after));
        let span = span(self.period.duration());
        writeln!(
            out,
            "Policy {after} against {before}, over {span} from {}",
            instant(self.period.start())
        )?;
        if self.is_empty() {
            return writeln!(out, "\nNothing changes.");
        }
        writeln!(out, "\nEdits ({})", self.edits.len())?;
        for (project, edits) in by_project(self) {
            writeln!(out, "  {}", clean(&project.0))?;
            for (sign, what, origin) in edits {
                writeln!(out, "    {sign} {what}  ({origin})")?;
            }
        }
        writeln!(out, "\nPeople ({})", self.people.len())?;
        let mut last = None;
        for line in &self.people {
            if last != Some(&line.entitlement) {
                writeln!(out, "  {}", clean(&line.entitlement.to_string()))?;
                last = Some(&line.entitlement);
            }
            for (sign, words) in person(line) {
                writeln!(out, "    {sign} {words}")?;
            }
        }
        if !self.hours.is_empty() {
            writeln!(out, "\nAccess hours a week\n{}", self.hours_table())?;
        }
        for (title, gaps) in [("brings", &self.new_gaps), ("closes", &self.closed_gaps)] {
            if !gaps.is_empty() {
                writeln!(out, "\nGaps that it {title} ({})", gaps.len())?;
            }
            for gap in gaps {
                writeln!(out, "  {}\n      {}", times(gap), clean(&gap.message))?;
            }
        }
        writeln!(out, "\nConsent needed from ({})", self.consent.len())?;
        for consent in &self.consent {
            writeln!(
                out,
                "  {}: {}",
                clean(&consent.project.0),
                asked(&consent.owners, &consent.above)
            )?;
            for why in &consent.because {
                writeln!(out, "      {}", clean(why))?;
            }
        }
        Ok(())
    }

    fn hours_table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["  entitlement", "held", "", "standing", ""]);
        for line in self.hours.iter().chain([&self.total]) {
            let [held, held_change, standing, standing_change] = figures(line);
            let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
            table.add_row([
                Cell::new(format!("  {}", name(line))),
                right(held),
                right(held_change),
                right(standing),
                right(standing_change),
            ]);
        }
        table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// For a comment at a pull request.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        self.write_markdown(&mut out).unwrap_or_default();
        out
    }

    fn write_markdown(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "### What this changes about access\n")?;
        if self.is_empty() {
            return writeln!(out, "Nothing.");
        }
        let total = figures(&self.total);
        writeln!(
            out,
            "**{} h a week of access ({} h)**, {} people affected, consent needed from {} project{}.\n",
            total[0],
            total[1],
            self.people
                .iter()
                .map(|line| &line.person)
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            self.consent.len(),
            if self.consent.len() == 1 { "" } else { "s" },
        )?;
        writeln!(out, "| consent from | for | because |\n|---|---|---|")?;
        for consent in &self.consent {
            let because: Vec<String> = consent.because.iter().map(|why| cell(why)).collect();
            let asked = cell(&asked(&consent.owners, &consent.above));
            writeln!(
                out,
                "| {asked} | {} | {} |",
                cell(&consent.project.0),
                because.join("<br>")
            )?;
        }
        if !self.statements.is_empty() {
            writeln!(out, "\n| statement | | |\n|---|---|---|")?;
        }
        for statement in &self.statements {
            let name = format!("{}/{}", statement.project, statement.name);
            writeln!(
                out,
                "| {} | {} | {} |",
                cell(&name),
                statement.verb(),
                cell(&statement.what)
            )?;
        }
        if !self.people.is_empty() {
            writeln!(out, "\n| entitlement | | who and when |\n|---|---|---|")?;
        }
        for line in &self.people {
            for (sign, words) in person(line) {
                writeln!(
                    out,
                    "| {} | {sign} | {} |",
                    cell(&line.entitlement.to_string()),
                    cell(&words)
                )?;
            }
        }
        if !self.hours.is_empty() {
            writeln!(out, "\n| hours a week | held | | standing | |\n|---|--:|--:|--:|--:|")?;
            for line in self.hours.iter().chain([&self.total]) {
                writeln!(out, "| {} | {} |", cell(&name(line)), figures(line).join(" | "))?;
            }
        }
        for (title, gaps) in [("New gaps", &self.new_gaps), ("Gaps closed", &self.closed_gaps)] {
            if !gaps.is_empty() {
                writeln!(out, "\n**{title}**\n")?;
            }
            for gap in gaps {
                writeln!(out, "- {}: {}", times(gap), cell(&gap.message))?;
            }
        }
        writeln!(out, "\n<details><summary>{} edits</summary>\n", self.edits.len())?;
        for edit in &self.edits {
            writeln!(
                out,
                "- `{}` {} ({})",
                edit.sign,
                cell(&edit.what),
                cell(&edit.origin.to_string())
            )?;
        }
        writeln!(
            out,
            "\n</details>\n\n<sub>Policy {} against {}, over {} from {}, by `dutybound diff --base`.</sub>",
            short(&self.after),
            short(&self.before),
            span(self.period.duration()),
            instant(self.period.start())
        )
    }
}

fn short(revision: &str) -> String {
    revision.chars().take(12).collect()
}

type Lines = Vec<(char, String, String)>;

fn by_project(comparison: &Comparison) -> BTreeMap<&ProjectName, Lines> {
    let mut map: BTreeMap<&ProjectName, Lines> = BTreeMap::new();
    for edit in &comparison.edits {
        let line = (edit.sign, clean(&edit.what), clean(&edit.origin.to_string()));
        map.entry(&edit.project).or_default().push(line);
    }
    map
}

fn person(line: &PersonLine) -> Vec<(char, String)> {
    let who = clean(line.person.as_str());
    let (was, is) = match &line.becomes {
        Some(becomes) => (clean(&becomes.before), clean(&becomes.after)),
        None => ("it".to_owned(), "it".to_owned()),
    };
    let mut lines = Vec::new();
    for (sign, word, what, spans) in [('+', "gains", &is, &line.gains), ('-', "loses", &was, &line.loses)] {
        if let Some(first) = spans.first() {
            lines.push((sign, format!("{who} {word} {what} {}", spells(first, spans))));
        }
    }
    if lines.is_empty() && line.becomes.is_some() && line.could.before && line.could.after {
        lines.push(('+', format!("{who} could hold {is} from now on, and {was} no longer")));
    }
    match (line.could, lines.is_empty()) {
        (
            Change {
                before: false,
                after: true,
            },
            true,
        ) => {
            lines.push((
                '+',
                format!("{who} could hold it from now on, and is not due to in this time"),
            ));
        }
        (
            Change {
                before: true,
                after: false,
            },
            true,
        ) => lines.push(('-', format!("{who} could hold it and no longer can"))),
        (
            Change {
                before: true,
                after: false,
            },
            false,
        ) => lines.push(('-', format!("{who} can no longer hold it at all"))),
        _ => {}
    }
    lines
}

fn spells(first: &Interval, spans: &[Interval]) -> String {
    let more = match spans.len() - 1 {
        0 => String::new(),
        n => format!(", and {n} more times ({} in all)", span(length(spans))),
    };
    format!("{}{more}", when(*first))
}

fn times(gap: &Gap) -> String {
    let more = match gap.more {
        0 => String::new(),
        n => format!(", and {n} more times"),
    };
    format!("{}{more}", when(gap.during))
}

fn asked(owners: &[crate::model::Person], above: &[crate::model::Person]) -> String {
    let list = |people: &[crate::model::Person]| {
        let names: Vec<String> = people.iter().map(|p| clean(p.as_str())).collect();
        names.join(" or ")
    };
    if above.is_empty() {
        list(owners)
    } else {
        format!("{} (or, above: {})", list(owners), list(above))
    }
}

fn name(line: &HoursLine) -> String {
    line.entitlement
        .as_ref()
        .map_or_else(|| "total".to_owned(), |id| clean(&id.to_string()))
}

/// Held after, its change, standing after, its change; in hours.
fn figures(line: &HoursLine) -> [String; 4] {
    let hours = |seconds: i64| format!("{}.{}", seconds / 3600, seconds % 3600 / 360);
    let change = |c: Change<i64>| {
        let by = c.after - c.before;
        let sign = if by < 0 { '-' } else { '+' };
        if by == 0 {
            "±0".to_owned()
        } else {
            format!("{sign}{}", hours(by.abs()))
        }
    };
    [
        hours(line.held.after),
        change(line.held),
        hours(line.standing.after),
        change(line.standing),
    ]
}
