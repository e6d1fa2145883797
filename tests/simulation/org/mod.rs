//! An organisation: people, rotations and policy, in the world's own terms.

mod files;
mod random;
mod truth;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

pub(crate) use files::Mistake;
pub(crate) use truth::{Cell, overlap};

pub(crate) const SOURCES: [&str; 2] = ["pagerduty", "opsgenie"];

pub(crate) fn minutes(n: i64) -> SignedDuration {
    SignedDuration::from_mins(n)
}

pub(crate) fn hours(n: i64) -> SignedDuration {
    SignedDuration::from_hours(n)
}

/// One turn of duty as the provider's final view has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) level: u32,
    pub(crate) person: usize,
    pub(crate) via: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub(crate) source: usize,
    pub(crate) id: String,
    /// An escalation policy has levels.
    pub(crate) levels: u32,
    /// Sorted by start; turns of one level do not overlap.
    pub(crate) turns: Vec<Turn>,
    /// Counts the edits.
    pub(crate) version: u64,
}

impl Schedule {
    /// Puts `person` on duty at `level`, whoever was there.
    pub(crate) fn replace(
        &mut self,
        level: u32,
        start: Timestamp,
        end: Timestamp,
        person: Option<usize>,
        via: Option<String>,
    ) {
        self.version += 1;
        let mut turns = Vec::with_capacity(self.turns.len() + 2);
        for turn in self.turns.drain(..) {
            if turn.level != level || turn.end <= start || end <= turn.start {
                turns.push(turn);
                continue;
            }
            if turn.start < start {
                turns.push(Turn {
                    end: start,
                    ..turn.clone()
                });
            }
            if end < turn.end {
                turns.push(Turn { start: end, ..turn });
            }
        }
        if let Some(person) = person {
            turns.push(Turn {
                start,
                end,
                level,
                person,
                via,
            });
        }
        turns.sort();
        self.turns = turns;
    }

    /// Everybody who is on a turn that begins after `t`.
    pub(crate) fn coming(&self, t: Timestamp, within: SignedDuration) -> Vec<Turn> {
        self.turns
            .iter()
            .filter(|turn| t < turn.start && turn.start < t + within)
            .cloned()
            .collect()
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Target {
    Assignment { account: String, permission_set: String },
    Group(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Entitlement {
    pub(crate) project: usize,
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) exclusive: bool,
    pub(crate) delegate_to: Option<usize>,
    pub(crate) min_holders: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Trigger {
    OnCall {
        schedule: usize,
        levels: Option<BTreeSet<u32>>,
    },
    Members,
    /// From 9 to 18 o'clock on weekdays in Berlin, where clocks change.
    OfficeHours,
}

#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) project: usize,
    pub(crate) entitlement: usize,
    pub(crate) trigger: Trigger,
    pub(crate) member: bool,
    pub(crate) lead: SignedDuration,
    pub(crate) linger: SignedDuration,
}

/// What people write.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) projects: usize,
    pub(crate) entitlements: Vec<Entitlement>,
    pub(crate) rules: Vec<Rule>,
    /// By project.
    pub(crate) members: Vec<BTreeSet<usize>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Org {
    pub(crate) people: usize,
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) policy: Policy,
    /// Never revoked but by order.
    pub(crate) protected: Option<usize>,
}

pub(crate) fn email(person: usize) -> String {
    format!("p{person}@example.com")
}
