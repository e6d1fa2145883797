//! Turns what a provider listed into the shifts of a snapshot: clipped, merged and sorted.

use std::collections::{BTreeMap, BTreeSet};

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
    pub fn shifts(self, users: &BTreeMap<String, SourceUser>) -> Vec<Shift> {
        let mut shifts = Vec::with_capacity(self.pieces.len());
        for piece in self.pieces {
            let turn = piece.turn;
            let user = users.get(&turn.user_id).cloned().unwrap_or(SourceUser {
                id: turn.user_id,
                name: None,
                email: None,
                state: SourceUserState::Deleted,
            });
            shifts.push(Shift {
                interval: piece.interval,
                start_known: piece.start_known,
                end_known: piece.end_known,
                user,
                level: turn.level,
                permanent: turn.permanent,
                via_override: turn.via_override,
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
