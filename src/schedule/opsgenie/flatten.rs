//! Finds the people behind a team, an escalation or a schedule that is on call.
//!
//! The timeline does not list them ahead of time. `GET …/on-calls?flat=true&date=` lists everybody on call at one
//! instant, for the whole schedule. So a group's period is cut wherever another period begins or ends, and each
//! piece is asked about once per read, where it begins or, while it runs, now. Everybody named there counts as on call for
//! that piece. The people of concurrent periods are named too; they are on call for the whole piece anyway, since
//! it ends no later than their own periods do.
//!
//! Opsgenie's flat list counts all steps of an escalation, later ones too: they are on call in its eyes and are
//! granted. A hand-over inside a group that falls within a piece is seen by the next poll.

use std::collections::BTreeSet;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde::Deserialize;

use super::timeline::{Timeline, Who};
use super::users::Recipient;
use crate::model::Interval;
use crate::schedule::wire::{self, DecodeError};

/// A stretch of time in which a group is on call and nothing else changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// When.
    pub interval: Interval,
    /// The instant to ask about.
    pub sample: Timestamp,
    /// The override or forwarding behind it.
    pub via_override: Option<String>,
    /// The group, for messages.
    pub group: Recipient,
}

/// A timeline with more instants to ask about is refused rather than read in part.
pub(super) const MOST_SAMPLES: usize = 50;
/// The same for pieces, of which several may share an instant.
const MOST_PIECES: usize = 1000;

/// The pieces to ask about, in order; `None` when there are too many.
#[must_use]
pub fn pieces(timeline: &Timeline, window: Interval, now: Timestamp) -> Option<Vec<Piece>> {
    let mut edges = BTreeSet::new();
    for period in &timeline.periods {
        edges.extend([period.start.0, period.end.0]);
    }
    let mut pieces = BTreeSet::new();
    let mut samples = BTreeSet::new();
    for period in &timeline.periods {
        let Who::Group(group) = &period.who else {
            continue;
        };
        let inside = Interval::new(period.start.0, period.end.0).and_then(|whole| whole.intersect(&window));
        let Some(inside) = inside else {
            continue; // Reversed, or outside the window.
        };
        let mut start = inside.start();
        let cuts = edges
            .range(start..inside.end())
            .copied()
            .filter(|edge| *edge > inside.start());
        for end in cuts.chain([inside.end()]) {
            if let Some(interval) = Interval::new(start, end) {
                let sample = sample(interval, now);
                samples.insert(sample);
                pieces.insert(Piece {
                    interval,
                    sample,
                    via_override: period.via_override.clone(),
                    group: group.clone(),
                });
            }
            if samples.len() > MOST_SAMPLES || pieces.len() > MOST_PIECES {
                return None;
            }
            start = end;
        }
    }
    Some(pieces.into_iter().collect())
}

/// The instant to ask about: now where that lies inside, else the start; in whole seconds where one lies inside.
fn sample(interval: Interval, now: Timestamp) -> Timestamp {
    let instant = if interval.contains(now) { now } else { interval.start() };
    let up = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil);
    instant
        .round(up)
        .ok()
        .filter(|whole| interval.contains(*whole))
        .unwrap_or(instant)
}

#[derive(Deserialize)]
struct Body {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    /// What `flat=true` gives: e-mails.
    #[serde(rename = "onCallRecipients")]
    recipients: Option<Vec<String>>,
    /// What `flat=false` gives, and what some answers hold all the same.
    #[serde(rename = "onCallParticipants")]
    participants: Option<Vec<Participant>>,
}

#[derive(Deserialize)]
struct Participant {
    #[serde(flatten)]
    recipient: Recipient,
    #[serde(rename = "onCallParticipants")]
    participants: Option<Vec<Participant>>,
}

/// Reads the people out of the answer of `GET /v2/schedules/{id}/on-calls`.
///
/// # Errors
/// [`DecodeError`] when neither list is there, for an unknown type of participant, and everything that is not the
/// documented form.
pub fn decode(body: &[u8]) -> Result<Vec<Recipient>, DecodeError> {
    let Body { data } = wire::json(body)?;
    if let Some(names) = data.recipients {
        let people: Vec<_> = names.into_iter().map(Recipient::named).collect();
        for person in &people {
            person.is_user()?;
        }
        return Ok(people);
    }
    let mut waiting = data
        .participants
        .ok_or_else(|| DecodeError::new("a list of people on call without onCallRecipients"))?;
    let mut people = Vec::new();
    while let Some(participant) = waiting.pop() {
        if participant.recipient.is_user()? {
            people.push(participant.recipient);
        } else {
            waiting.extend(participant.participants.unwrap_or_default());
        }
    }
    people.sort();
    people.dedup();
    Ok(people)
}
