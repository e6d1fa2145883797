//! What causes access, computed from the generator's own values and without the code under test.

use std::sync::OnceLock;

use jiff::civil::Weekday;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::{Policy, Trigger, Turn, hours};

/// An entitlement and a person, by number.
pub(crate) type Cell = (usize, usize);

/// A stretch of time.
pub(crate) type Span = (Timestamp, Timestamp);

/// No turn and its overhang are longer.
const LONGEST_TURN: SignedDuration = SignedDuration::from_hours(8 * 24);

impl Policy {
    /// All stretches that touch `from` to `to` in which the cell is earned, those that touch each other made one.
    /// `overhang` counts lead and linger.
    pub(crate) fn spans<'a>(
        &self,
        turns: impl Fn(usize) -> &'a [Turn],
        cell: Cell,
        (from, to): Span,
        overhang: bool,
    ) -> Vec<Span> {
        let mut spans = Vec::new();
        for rule in self.rules.iter().filter(|r| r.entitlement == cell.0) {
            if rule.member && !self.members[rule.project].contains(&cell.1) {
                continue;
            }
            let (lead, linger) = if overhang {
                (rule.lead, rule.linger)
            } else {
                (SignedDuration::ZERO, SignedDuration::ZERO)
            };
            match &rule.trigger {
                Trigger::Members => spans.push((Timestamp::MIN, Timestamp::MAX)),
                Trigger::OfficeHours => {
                    let windows = office_hours(from - linger, to + lead);
                    spans.extend(windows.into_iter().map(|(start, end)| (start - lead, end + linger)));
                }
                Trigger::OnCall { schedule, levels } => {
                    let turns = turns(*schedule);
                    let first = turns.partition_point(|turn| turn.start < from - LONGEST_TURN);
                    let counts =
                        |turn: &&Turn| turn.person == cell.1 && levels.as_ref().is_none_or(|l| l.contains(&turn.level));
                    let near = turns[first..].iter().take_while(|turn| turn.start - lead <= to);
                    spans.extend(near.filter(counts).map(|turn| (turn.start - lead, turn.end + linger)));
                }
            }
        }
        spans.retain(|(start, end)| *start <= to && from <= *end);
        spans.sort();
        let mut merged: Vec<Span> = Vec::new();
        for (start, end) in spans {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = end.max(last.1),
                _ => merged.push((start, end)),
            }
        }
        merged
    }

    /// When the cell last began to be earned without a break, up to and including `t`, and until when: the span that
    /// contains `t`, or else the latest that ended before. Looks some days back.
    pub(crate) fn earned<'a>(&self, turns: impl Fn(usize) -> &'a [Turn], cell: Cell, t: Timestamp) -> Option<Span> {
        let spans = self.spans(turns, cell, (t - hours(14 * 24), t), true);
        spans.last().copied()
    }
}

/// How much of `from` to `to` the spans cover.
pub(crate) fn overlap(spans: &[Span], (from, to): Span) -> SignedDuration {
    let parts = spans.iter().map(|(start, end)| {
        let part = from.max(*start).duration_until(to.min(*end));
        part.max(SignedDuration::ZERO)
    });
    parts.fold(SignedDuration::ZERO, |sum, part| sum + part)
}

/// The working days that touch the span.
fn office_hours(from: Timestamp, to: Timestamp) -> Vec<Span> {
    static BERLIN: OnceLock<TimeZone> = OnceLock::new();
    let zone = BERLIN.get_or_init(|| TimeZone::get("Europe/Berlin").unwrap());
    let (mut day, last) = (zone.to_datetime(from).date(), zone.to_datetime(to).date());
    let mut spans = Vec::new();
    while day <= last {
        if !matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday) {
            let at = |hour| zone.to_timestamp(day.at(hour, 0, 0, 0)).unwrap();
            spans.push((at(9), at(18)));
        }
        day = day.tomorrow().unwrap();
    }
    spans
}
