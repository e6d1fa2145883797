//! What there is to tell: the ledger's record since the last look, and what people know already. Pure.
//!
//! From the record and not from the passes: it survives a kill between the change and the message, and nobody who changes
//! access has to know that somebody is told.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Beat;
use super::message::{Content, Kind, Message};
use super::outbox::{Batch, Condition, Event};
use super::route::Routes;
use crate::forecast::Gap;
use crate::ledger::{Board, EndedChange, HoldRow};
use crate::model::ProjectName;
use crate::policy::Policy;

mod access;
mod matters;

/// When things are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// The hand-offs of a project within this time are one message.
    pub digest: SignedDuration,
    /// Trouble that passes sooner is not told.
    pub health_after: SignedDuration,
    /// Whether membership windows are told like being on call.
    pub windows: bool,
    /// What happened longer ago is not told any more.
    pub max_age: SignedDuration,
}

/// What a look saw.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The policy in force, for channels and zones.
    pub policy: &'a Policy,
    /// Changes done since the last look.
    pub done: &'a [EndedChange],
    /// What is held; `None` when the ledger cannot be read.
    pub record: Option<(&'a [HoldRow], &'a Board)>,
    /// Gaps ahead; `None` when they were not looked for this time.
    pub gaps: Option<&'a [Gap]>,
    /// What the daemon knows besides.
    pub beat: &'a Beat,
    /// Why the ledger cannot be read.
    pub unreadable: Option<&'a str>,
}

/// What was so at the last look.
#[derive(Debug, Default)]
pub struct Known {
    /// Conditions by subject.
    pub conditions: BTreeMap<String, Condition>,
    /// Events that wait.
    pub events: Vec<Event>,
}

/// Works out what is to be told. Returns also when to look again because of what waits.
#[must_use]
pub fn look(
    seen: &Seen<'_>,
    known: &Known,
    routes: &Routes,
    pace: &Pace,
    now: Timestamp,
) -> (Batch, Option<Timestamp>) {
    let mut look = Look {
        seen,
        known,
        routes,
        pace,
        now,
        batch: Batch::default(),
        again: None,
    };
    look.take_in_changes();
    look.tell_events();
    look.holds();
    look.gaps();
    look.health();
    (look.batch, look.again)
}

struct Look<'a> {
    seen: &'a Seen<'a>,
    known: &'a Known,
    routes: &'a Routes,
    pace: &'a Pace,
    now: Timestamp,
    batch: Batch,
    again: Option<Timestamp>,
}

impl Look<'_> {
    fn message(&self, kind: Kind, key: String, project: Option<ProjectName>, content: Content) -> Message {
        let place = project.as_ref().and_then(|name| self.seen.policy.projects.get(name));
        Message {
            kind,
            key,
            at: self.now,
            person: None,
            channel: place.and_then(|p| p.channel.clone()),
            zone: place.and_then(|p| p.zone.clone()),
            project,
            content,
        }
    }

    fn send(&mut self, message: Message) {
        self.batch.messages.extend(self.routes.of(&message));
    }

    fn wake(&mut self, at: Timestamp) {
        self.again = Some(self.again.map_or(at, |again| again.min(at)));
    }
}

#[cfg(test)]
mod tests;
