//! Puts messages into words, with times as the reader's clock shows them. Pure.
//!
//! Plain functions and no templates: the compiler checks them, nothing from outside becomes markup by forgetting a filter,
//! and each destination marks up one whole text in one place.

use jiff::{Timestamp, tz::TimeZone};

use super::message::{Access, Content, Kind, Matter, Message};
use crate::text::{clean, span};

/// More lines than this are counted instead of shown; who wants all of them asks the program.
const LINES: usize = 20;

/// A message in words. Nothing in it can drive a terminal or pretend to be another line; it is no markup yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// What it is about, in one line.
    pub title: String,
    /// The rest.
    pub lines: Vec<String>,
}

impl Words {
    /// All of it as plain text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.title.clone();
        for line in &self.lines {
            text.push('\n');
            text.push_str(line);
        }
        text
    }
}

/// An instant as a clock in the zone shows it: by the day of the week within six days of `now`, else with the date. Where
/// the clock shows the same twice, the offset says which.
#[must_use]
pub fn clock(t: Timestamp, zone: &TimeZone, now: Timestamp) -> String {
    let shown = t.to_zoned(zone.clone());
    let days = now
        .to_zoned(zone.clone())
        .date()
        .until(shown.date())
        .map_or(i32::MAX, |d| d.get_days());
    let day = if (-1..=6).contains(&days) { "%A" } else { "%A %-d %B %Y" };
    let offset = if zone.to_ambiguous_timestamp(shown.datetime()).is_ambiguous() {
        "%:z"
    } else {
        ""
    };
    let name = clean(zone.iana_name().unwrap_or("UTC"));
    format!("{} ({name})", shown.strftime(&format!("{day} %H:%M{offset}")))
}

/// A message in words for a reader whose clock is in `zone`; `to_person` where the reader is the person whom it is about.
#[must_use]
pub fn words(message: &Message, zone: &TimeZone, to_person: bool) -> Words {
    let now = message.at;
    let about = message
        .project
        .as_ref()
        .map(|p| format!("{}: ", clean(&p.0)))
        .unwrap_or_default();
    let (title, lines) = match &message.content {
        Content::Access(access) if message.kind == Kind::Handoff => handoff(&about, access, zone, now),
        Content::Access(access) => personal(access, zone, now, to_person),
        Content::Matters { begun, over } => matters(message.kind, &about, begun, over, zone, now),
        Content::Review { period, projects, .. } => {
            let count: usize = projects.iter().flat_map(|p| &p.findings).map(|(_, n)| n).sum();
            let lines = projects.iter().map(|p| {
                let found: Vec<String> = p
                    .findings
                    .iter()
                    .map(|(what, n)| format!("{} ({n})", clean(what)))
                    .collect();
                format!("{}: {}", clean(&p.project.0), found.join(", "))
            });
            let mut lines: Vec<String> = lines.collect();
            let days = period.duration().as_hours() / 24;
            lines.push(format!(
                "Looked back on {days} days; nothing is removed unless you edit the policy. `dutybound review` shows all."
            ));
            (format!("Access review: {count} things to look at"), lines)
        }
        Content::Report { period, report } => hours(period.start(), period.end(), report, zone, now),
    };
    Words {
        title,
        lines: capped(lines),
    }
}

fn capped(mut lines: Vec<String>) -> Vec<String> {
    if LINES < lines.len() {
        let more = lines.len() - LINES;
        lines.truncate(LINES);
        lines.push(format!(
            "... and {more} more; `dutybound status` and `dutybound forecast` show all"
        ));
    }
    lines
}

fn personal(access: &[Access], zone: &TimeZone, now: Timestamp, to_person: bool) -> (String, Vec<String>) {
    let person = access.first().map(|a| clean(a.person.as_str())).unwrap_or_default();
    let who = |you: &str, they: &str| {
        if to_person {
            you.to_owned()
        } else {
            format!("{person} {they}")
        }
    };
    let [only] = access else {
        let granted = access.iter().filter(|a| a.granted).count();
        let title = match (granted, access.len() - granted) {
            (came, 0) => format!("{} {came} entitlements", who("You now have", "now has")),
            (0, went) => format!("{} {went} entitlements", who("You no longer have", "no longer has")),
            (came, went) => format!("{} {came} more entitlements and {went} fewer", who("You have", "has")),
        };
        let line = |a: &Access| {
            let sign = if a.granted { "+" } else { "-" };
            let context = a
                .context
                .as_ref()
                .map(|c| format!("; context: {}", clean(c)))
                .unwrap_or_default();
            format!(
                "{sign} {}{}, because {}{context}",
                clean(&a.entitlement),
                until(a, zone, now),
                clean(&a.because)
            )
        };
        return (title, access.iter().map(line).collect());
    };
    let entitlement = clean(&only.entitlement);
    let title = if only.granted {
        format!("{} {entitlement}{}", who("You have", "has"), until(only, zone, now))
    } else {
        format!("{} {entitlement}", who("You no longer have", "no longer has"))
    };
    let mut lines = vec![format!("because {}", clean(&only.because))];
    if let Some(context) = &only.context {
        lines.push(format!("context: {}", clean(context)));
    }
    if !only.granted && only.sessions {
        lines.push("a role session that is open lives on for the permission set's session duration".to_owned());
    }
    (title, lines)
}

fn until(access: &Access, zone: &TimeZone, now: Timestamp) -> String {
    match access.until.filter(|_| access.granted) {
        Some(until) => format!(" until {}", clock(until, zone, now)),
        None if access.granted => " until further notice".to_owned(),
        None => String::new(),
    }
}

fn handoff(about: &str, access: &[Access], zone: &TimeZone, now: Timestamp) -> (String, Vec<String>) {
    let granted = access.iter().filter(|a| a.granted).count();
    let title = format!("{about}hand-off, {granted} granted, {} revoked", access.len() - granted);
    let mut entitlements: Vec<&str> = access.iter().map(|a| a.entitlement.as_str()).collect();
    entitlements.sort_unstable();
    entitlements.dedup();
    let line = |entitlement: &str| {
        let of = |granted: bool| {
            access
                .iter()
                .filter(move |a| a.granted == granted && a.entitlement == entitlement)
        };
        let came = of(true).map(|a| format!("+ {}{}", clean(a.person.as_str()), until(a, zone, now)));
        let went = of(false).map(|a| format!("- {}", clean(a.person.as_str())));
        format!(
            "{}: {}",
            clean(entitlement),
            came.chain(went).collect::<Vec<_>>().join(", ")
        )
    };
    (title, entitlements.into_iter().map(line).collect())
}

fn matters(
    kind: Kind,
    about: &str,
    begun: &[Matter],
    over: &[Matter],
    zone: &TimeZone,
    now: Timestamp,
) -> (String, Vec<String>) {
    let (one, many, past) = match kind {
        Kind::Gap => ("gap ahead", "gaps ahead", "closed"),
        Kind::Held => ("change held", "changes held", "no longer held"),
        _ => ("problem", "problems", "over"),
    };
    let count = |n: usize| format!("{n} {}", if n == 1 { one } else { many });
    let title = match (begun.len(), over.len()) {
        (n, 0) => format!("{about}{}", count(n)),
        (0, n) => format!("{about}{} {past}", count(n).replace(" held", "")),
        (n, m) => format!("{about}{}, {m} {past}", count(n)),
    };
    let line = |matter: &Matter, is_over: bool| {
        let mut line = if is_over { format!("{past}: ") } else { String::new() };
        if let Some(during) = matter.during {
            let long = span(during.start().duration_until(during.end()));
            line.push_str(&format!("from {} for {long}: ", clock(during.start(), zone, now)));
        }
        line.push_str(&clean(&matter.message));
        match matter.since {
            Some(since) if is_over => line.push_str(&format!(" (for {})", span(since.duration_until(now)))),
            Some(since) if since != now => line.push_str(&format!(" (since {})", clock(since, zone, now))),
            _ => {}
        }
        if let Some(release) = matter.release.as_ref().filter(|_| !is_over) {
            line.push_str(&format!("; released by {}", clean(release)));
        }
        line
    };
    let lines = begun
        .iter()
        .map(|m| line(m, false))
        .chain(over.iter().map(|m| line(m, true)));
    (title, lines.collect())
}

fn hours(
    start: Timestamp,
    end: Timestamp,
    report: &serde_json::Value,
    zone: &TimeZone,
    now: Timestamp,
) -> (String, Vec<String>) {
    let title = format!(
        "Access hours from {} to {}",
        clock(start, zone, now),
        clock(end, zone, now)
    );
    let hours = |line: &serde_json::Value, key: &str| {
        let seconds = line.get(key).and_then(serde_json::Value::as_i64);
        seconds.map(|seconds| crate::text::hours(jiff::SignedDuration::from_secs(seconds)))
    };
    let row = |line: &serde_json::Value| {
        let name = line.get("name").and_then(serde_json::Value::as_str).unwrap_or("total");
        let held = hours(line, "held_seconds").unwrap_or_else(|| "?".to_owned());
        let standing = hours(line, "standing_seconds")
            .map(|of| format!(" of {of} h standing"))
            .unwrap_or_default();
        format!("{}: {held} h{standing}", clean(name))
    };
    let rows = report.get("rows").and_then(serde_json::Value::as_array);
    let total = report.get("total").map(row);
    (
        title,
        total.into_iter().chain(rows.into_iter().flatten().map(row)).collect(),
    )
}

#[cfg(test)]
mod tests;
