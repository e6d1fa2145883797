//! Turns what a provider listed into the shifts of a snapshot: clipped, merged and sorted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::{Interval, Shift, SourceUser, SourceUserState};

/// One row of a provider's final view: somebody's turn, before clipping and merging.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Turn {
    /// Who, by the provider's id.
    pub user_id: String,
    /// `None` where the provider gives no start.
    pub start: Option<Timestamp>,
    /// `None` where the provider gives no end.
    pub end: Option<Timestamp>,
    /// The escalation level, for escalation policies.
    pub level: Option<u32>,
    /// A standing target of an escalation policy.
    pub permanent: bool,
    /// The override behind it, where the provider tells.
    pub via_override: Option<String>,
}

/// The turns of a window, with what was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalised {
    /// The span about which the turns say everything.
    pub window: Interval,
    /// Clipped to `window` and merged.
    pub pieces: Vec<Piece>,
    /// Turns that end before they begin, or at once.
    pub reversed: usize,
}

/// A turn clipped to the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// When.
    pub interval: Interval,
    /// As in [`Shift`].
    pub start_known: bool,
    /// As in [`Shift`].
    pub end_known: bool,
    /// Who and why; of merged turns the first one.
    pub turn: Turn,
}

/// Clips and merges `turns`, which are everything that the provider lists for `queried`.
///
/// The window is `asked`, cut to `queried` and begun early enough that a turn already running when `asked` begins
/// keeps its true start, as far as `queried` shows it. A bound that coincides with an edge of `queried`, or lies
/// outside the window, is not known: providers cut turns at the edges of what they were asked for.
///
/// `None` when `asked` and `queried` share no time.
#[must_use]
pub fn normalise(turns: &[Turn], asked: Interval, queried: Interval) -> Option<Normalised> {
    let core = asked.intersect(&queried)?;
    let mut reversed = 0;
    let mut spans = Vec::with_capacity(turns.len());
    for turn in turns {
        let start = turn.start.unwrap_or(Timestamp::MIN);
        let end = turn.end.unwrap_or(Timestamp::MAX);
        match Interval::new(start, end) {
            Some(interval) => spans.push(Span {
                interval,
                start_known: turn.start.is_some() && start != queried.start(),
                end_known: turn.end.is_some() && end != queried.end(),
                turn,
            }),
            None => reversed += 1,
        }
    }
    let merged = merge(spans);
    let begin = merged
        .iter()
        .filter(|span| span.start_known && span.interval.contains(core.start()))
        .map(|span| span.interval.start())
        .filter(|start| *start > queried.start())
        .min()
        .unwrap_or(core.start());
    let window = Interval::new(begin, core.end())?;

    let mut pieces = Vec::with_capacity(merged.len());
    for span in merged {
        // A turn wholly outside the window says nothing about it.
        if let Some(interval) = span.interval.intersect(&window) {
            pieces.push(Piece {
                interval,
                start_known: span.start_known && interval.start() == span.interval.start(),
                end_known: span.end_known && interval.end() == span.interval.end(),
                turn: span.turn.clone(),
            });
        }
    }
    Some(Normalised {
        window,
        pieces,
        reversed,
    })
}

impl Normalised {
    /// The ids of everybody with a turn in the window.
    #[must_use]
    pub fn user_ids(&self) -> BTreeSet<&str> {
        self.pieces.iter().map(|piece| piece.turn.user_id.as_str()).collect()
    }

    /// What to tell people about the turns that were left out.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        (self.reversed > 0).then(|| {
            format!(
                "ignored {} entries that end before they begin or at once",
                self.reversed
            )
        })
    }

    /// The shifts, sorted. Somebody whom `users` does not have stays in the list, as a deleted user.
    #[must_use]
    pub fn shifts(self, users: &BTreeMap<String, Arc<SourceUser>>) -> Vec<Shift> {
        let mut shifts = Vec::with_capacity(self.pieces.len());
        for piece in self.pieces {
            let turn = piece.turn;
            let user = users.get(&turn.user_id).cloned().unwrap_or_else(|| {
                Arc::new(SourceUser {
                    id: turn.user_id.into(),
                    name: None,
                    email: None,
                    state: SourceUserState::Deleted,
                })
            });
            shifts.push(Shift {
                interval: piece.interval,
                start_known: piece.start_known,
                end_known: piece.end_known,
                user,
                level: turn.level,
                permanent: turn.permanent,
                via_override: turn.via_override.map(Into::into),
            });
        }
        shifts.sort();
        shifts
    }
}

struct Span<'a> {
    interval: Interval,
    start_known: bool,
    end_known: bool,
    turn: &'a Turn,
}

/// Joins touching and overlapping spans of one user at one level; the first one's override is kept.
fn merge(mut spans: Vec<Span<'_>>) -> Vec<Span<'_>> {
    fn key<'a>(span: &Span<'a>) -> (&'a str, Option<u32>, bool) {
        (span.turn.user_id.as_str(), span.turn.level, span.turn.permanent)
    }
    spans.sort_by(|a, b| (key(a), a.interval, a.turn).cmp(&(key(b), b.interval, b.turn)));
    let mut merged: Vec<Span<'_>> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if key(last) == key(&span) && span.interval.start() <= last.interval.end() => {
                if span.interval.start() == last.interval.start() {
                    last.start_known |= span.start_known;
                }
                if span.interval.end() == last.interval.end() {
                    last.end_known |= span.end_known;
                } else if span.interval.end() > last.interval.end() {
                    last.end_known = span.end_known;
                    last.interval = Interval::new(last.interval.start(), span.interval.end()).unwrap_or(last.interval);
                }
            }
            _ => merged.push(span),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::testing::{span, t};

    fn turn(user: &str, start: Option<&str>, end: Option<&str>) -> Turn {
        Turn {
            user_id: user.to_owned(),
            start: start.map(t),
            end: end.map(t),
            level: None,
            permanent: false,
            via_override: None,
        }
    }

    fn day(user: &str, from: u32, to: u32) -> Turn {
        turn(
            user,
            Some(&format!("2026-01-{from:02}T00:00:00Z")),
            Some(&format!("2026-01-{to:02}T00:00:00Z")),
        )
    }

    fn january() -> Interval {
        span("2026-01-01T00:00:00Z", "2026-01-31T00:00:00Z")
    }

    fn shown(turns: &[Turn]) -> Vec<(String, Interval, bool, bool)> {
        let normalised = normalise(turns, january(), january()).unwrap();
        let row = |piece: &Piece| {
            (
                piece.turn.user_id.clone(),
                piece.interval,
                piece.start_known,
                piece.end_known,
            )
        };
        normalised.pieces.iter().map(row).collect()
    }

    #[test]
    fn case_08_touching_turns_of_one_person_are_one_and_the_order_of_rows_does_not_matter() {
        let mut turns = vec![
            day("a", 5, 12),
            day("a", 12, 19),
            day("b", 12, 19),
            day("a", 20, 21),
            day("a", 6, 7),
        ];
        let expected = [
            (
                "a".to_owned(),
                span("2026-01-05T00:00:00Z", "2026-01-19T00:00:00Z"),
                true,
                true,
            ),
            (
                "a".to_owned(),
                span("2026-01-20T00:00:00Z", "2026-01-21T00:00:00Z"),
                true,
                true,
            ),
            (
                "b".to_owned(),
                span("2026-01-12T00:00:00Z", "2026-01-19T00:00:00Z"),
                true,
                true,
            ),
        ];
        assert_eq!(shown(&turns), expected);
        turns.reverse();
        assert_eq!(shown(&turns), expected);
    }

    #[test]
    fn case_09_a_handover_leaves_one_holder_at_every_instant() {
        let rows = shown(&[day("a", 5, 12), day("b", 12, 19)]);
        let holders = |at: &str| rows.iter().filter(|row| row.1.contains(t(at))).count();
        assert_eq!(holders("2026-01-11T23:59:59.999999999Z"), 1);
        assert_eq!(holders("2026-01-12T00:00:00Z"), 1);
    }

    #[test]
    fn case_38_turns_that_end_before_they_begin_are_counted() {
        let turns = [day("a", 5, 5), day("a", 7, 6), day("b", 1, 2)];
        let normalised = normalise(&turns, january(), january()).unwrap();
        assert_eq!((normalised.pieces.len(), normalised.reversed), (1, 2));
        assert!(normalised.notice().unwrap().contains("2 entries"));
        assert_eq!(normalise(&turns[2..], january(), january()).unwrap().notice(), None);
    }

    #[test]
    fn case_33_a_week_over_a_change_of_clocks_keeps_its_length() {
        let week = turn(
            "a",
            Some("2026-03-02T09:00:00-05:00"),
            Some("2026-03-09T09:00:00-04:00"),
        );
        let march = span("2026-03-01T00:00:00Z", "2026-03-31T00:00:00Z");
        let normalised = normalise(&[week], march, march).unwrap();
        assert_eq!(normalised.pieces[0].interval.duration().as_hours(), 167);
    }

    #[test]
    fn levels_and_standing_targets_stay_apart() {
        let second = Turn {
            level: Some(2),
            ..day("a", 5, 12)
        };
        let standing = Turn {
            permanent: true,
            ..turn("a", None, None)
        };
        assert_eq!(shown(&[day("a", 5, 12), second, standing]).len(), 3);
    }

    #[test]
    fn of_merged_turns_the_later_end_tells_whether_it_is_known() {
        let open = turn("a", Some("2026-01-06T00:00:00Z"), None);
        assert_eq!(
            shown(&[day("a", 5, 12), open]),
            [(
                "a".to_owned(),
                span("2026-01-05T00:00:00Z", "2026-01-31T00:00:00Z"),
                true,
                false
            )]
        );
        let clipped = turn("a", Some("2025-12-01T00:00:00Z"), Some("2026-01-12T00:00:00Z"));
        assert_eq!(
            shown(&[clipped, day("a", 5, 12)]),
            [(
                "a".to_owned(),
                span("2026-01-01T00:00:00Z", "2026-01-12T00:00:00Z"),
                false,
                true
            )]
        );
    }

    #[test]
    fn somebody_without_a_user_stays_in_the_list() {
        let normalised = normalise(&[day("a", 5, 12)], january(), january()).unwrap();
        let shifts = normalised.shifts(&BTreeMap::new());
        assert_eq!((shifts.len(), shifts[0].user.state), (1, SourceUserState::Deleted));
    }

    proptest::proptest! {
        #[test]
        fn nobody_gains_or_loses_a_minute(
            rows in proptest::collection::vec((0..3u8, -50..150i64, -5..40i64), 0..30),
            at in 0..100i64,
        ) {
            let minute = |n: i64| Timestamp::from_second(n * 60).unwrap();
            let turns: Vec<Turn> = rows.iter().map(|(user, start, length)| Turn {
                start: Some(minute(*start)),
                end: Some(minute(*start + *length)),
                ..turn(&user.to_string(), None, None)
            }).collect();
            let asked = Interval::new(minute(0), minute(100)).unwrap();
            let queried = Interval::new(minute(-30), minute(100)).unwrap();
            let normalised = normalise(&turns, asked, queried).unwrap();
            proptest::prop_assert!(normalised.window.start() <= asked.start());
            for user in 0..3u8 {
                let listed = turns.iter().any(|turn| {
                    turn.user_id == user.to_string() && turn.start <= Some(minute(at)) && Some(minute(at)) < turn.end
                });
                let kept = normalised.pieces.iter().filter(|piece| {
                    piece.turn.user_id == user.to_string() && piece.interval.contains(minute(at))
                });
                proptest::prop_assert_eq!(kept.count(), usize::from(listed));
            }
        }
    }
}
