//! Half-open intervals with something in them, rotations that generate them, and overrides that split them.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Something that is so from `start` until just before `end`; no end means for ever.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span<T> {
    pub(crate) start: Timestamp,
    pub(crate) end: Option<Timestamp>,
    pub(crate) what: T,
}

impl<T: Clone> Span<T> {
    /// Whether it shares an instant with `[since, until)`, or contains `since` when both are equal.
    pub(crate) fn overlaps(&self, since: Timestamp, until: Timestamp) -> bool {
        if since == until {
            return self.start <= since && self.end.is_none_or(|end| since < end);
        }
        self.start < until && self.end.is_none_or(|end| since < end)
    }

    /// The part inside `[since, until)`.
    pub(crate) fn cut(&self, since: Timestamp, until: Timestamp) -> Self {
        Self {
            start: self.start.max(since),
            end: Some(self.end.map_or(until, |end| end.min(until))),
            what: self.what.clone(),
        }
    }
}

/// Lays one span over the others: what it covers is cut out of them.
pub(crate) fn overlay<T: Clone>(base: Vec<Span<T>>, top: Span<T>) -> Vec<Span<T>> {
    let mut result = Vec::with_capacity(base.len() + 2);
    for span in base {
        let top_end = top.end;
        let apart = span.end.is_some_and(|end| end <= top.start) || top_end.is_some_and(|end| end <= span.start);
        if apart {
            result.push(span);
            continue;
        }
        if span.start < top.start {
            result.push(Span {
                start: span.start,
                end: Some(top.start),
                what: span.what.clone(),
            });
        }
        if let Some(top_end) = top_end
            && span.end.is_none_or(|end| top_end < end)
        {
            result.push(Span {
                start: top_end,
                end: span.end,
                what: span.what,
            });
        }
    }
    result.push(top);
    result.sort_by_key(|span| span.start);
    result
}

/// A rule that generates shifts: members take turns of equal length from `start` on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Who takes turns, by user id, in this order.
    pub members: Vec<String>,
    /// When the first turn begins; before it nobody is on.
    pub start: Timestamp,
    /// How long a turn lasts.
    pub turn: SignedDuration,
    /// How many turns there are; `None` is for ever.
    #[serde(default)]
    pub turns: Option<u32>,
}

impl Rotation {
    /// A rotation without end.
    pub fn new(members: &[&str], start: Timestamp, turn: SignedDuration) -> Self {
        Self {
            members: members.iter().map(|member| (*member).to_owned()).collect(),
            start,
            turn,
            turns: None,
        }
    }

    /// The turns that overlap `[since, until)`, whole.
    pub(crate) fn shifts(&self, since: Timestamp, until: Timestamp) -> Vec<Span<String>> {
        let turn = self.turn.as_nanos();
        if self.members.is_empty() || turn <= 0 {
            return Vec::new();
        }
        let first = (since.duration_since(self.start).as_nanos().div_euclid(turn)).max(0);
        let mut shifts = Vec::new();
        for number in first.. {
            let bound = |number: i128| {
                let nanos = self.start.as_nanosecond() + number * turn;
                Timestamp::from_nanosecond(nanos)
            };
            let (Ok(start), Ok(end)) = (bound(number), bound(number + 1)) else {
                break;
            };
            if start > until || self.turns.is_some_and(|turns| number >= i128::from(turns)) {
                break;
            }
            let count = i128::try_from(self.members.len()).unwrap_or(1);
            let member = usize::try_from(number % count).unwrap_or_default();
            let shift = Span {
                start,
                end: Some(end),
                what: self.members[member].clone(),
            };
            if shift.overlaps(since, until) {
                shifts.push(shift);
            }
        }
        shifts
    }
}

#[cfg(test)]
mod tests {
    use super::{Rotation, Span, overlay};
    use jiff::{SignedDuration, Timestamp};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_override_splits_a_shift_in_three() {
        let base = vec![Span {
            start: at(0),
            end: Some(at(100)),
            what: "a",
        }];
        let top = Span {
            start: at(40),
            end: Some(at(60)),
            what: "b",
        };
        let spans: Vec<_> = overlay(base, top)
            .into_iter()
            .map(|s| (s.start, s.end, s.what))
            .collect();
        assert_eq!(
            spans,
            [
                (at(0), Some(at(40)), "a"),
                (at(40), Some(at(60)), "b"),
                (at(60), Some(at(100)), "a"),
            ]
        );
    }

    #[test]
    fn turns_are_whole_and_start_with_the_one_that_runs_at_since() {
        let rotation = Rotation::new(&["a", "b"], at(0), SignedDuration::from_secs(10));
        let shifts: Vec<_> = rotation
            .shifts(at(15), at(31))
            .into_iter()
            .map(|s| (s.start, s.what))
            .collect();
        assert_eq!(
            shifts,
            [
                (at(10), "b".to_owned()),
                (at(20), "a".to_owned()),
                (at(30), "b".to_owned())
            ]
        );
        assert_eq!(rotation.shifts(at(-5), at(0)), []);
    }
}
