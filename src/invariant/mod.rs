//! Statements that owners and the operator write once and that hold for every plan: what they say, and when it is broken.
//!
//! A statement only ever holds grants back. Access that stands and breaks one, because the statement is new or a training
//! has ended, stays and is reported: taking it away is for the rules and for people. Nothing but an edit of the statement
//! or a change of the world lets a held grant go; neither the schedule's word nor a person's approval does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::SignedDuration;
use serde::Serialize;

use crate::model::{EntitlementId, Interval, Origin, Person, ProjectName};
use crate::text::{clean, span};

pub mod file;
mod ground;
mod lower;
mod tally;
#[cfg(test)]
mod tests;

pub use ground::{Ground, Past, broken, hold_back, turn_of};
pub use lower::Written;
pub(crate) use lower::lower;
pub use tally::{Holder, Obstacle, Tally, stretch};

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invariant {
    /// The project whose owners state it; `None` for the operator.
    pub project: Option<ProjectName>,
    /// Unique among those of the same project, or of the operator.
    pub name: String,
    /// In the words of who states it, on one line.
    pub statement: String,
    /// The entitlements that it names; `None` is everything that its project and those below own, or all there is.
    pub listed: Option<BTreeSet<EntitlementId>>,
    /// What must be so.
    pub condition: Condition,
    /// Where it stands.
    pub origin: Origin,
    /// What it speaks about, in the policy at hand.
    #[serde(skip)]
    pub covers: BTreeSet<EntitlementId>,
    /// For [`Condition::Requires`]: when all the trainings count, for each person who ever completed them all. What lists
    /// say of anybody counts, and what members' entries say in the project itself, those above it and those below it.
    #[serde(skip)]
    pub trained: BTreeMap<Person, Vec<Interval>>,
}

/// What a statement demands of the entitlements that it speaks about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// At most so many different people hold any of them at the same time, whoever granted it to them.
    MaxHolders(u32),
    /// Nobody holds two of them at the same time.
    NeverTogether,
    /// Nobody is granted any of them without these trainings, whatever the rule says.
    Requires(BTreeSet<String>),
    /// Nobody is granted any of them whose e-mail address is of another domain, without regard to ASCII case. A domain
    /// below a listed one is another domain.
    Domains(BTreeSet<String>),
    /// Nobody holds one of them for longer without a break.
    ///
    /// A turn is measured whole, from its first instant with all causes that touch each other, lead and linger included;
    /// access before it counts as one with it unless a break of `rest` lay between. A later turn is measured when it comes,
    /// so of two turns that are too close to each other the second is held. A break that really took place counts,
    /// whatever the schedule said.
    LongestAccess {
        /// The longest access.
        longest: SignedDuration,
        /// The shortest time without access that counts as a break.
        rest: SignedDuration,
    },
}

impl Invariant {
    /// Its name with the project's in front: unique among all.
    #[must_use]
    pub fn id(&self) -> String {
        match &self.project {
            Some(project) => format!("{project}/{}", self.name),
            None => self.name.clone(),
        }
    }

    /// The statement in its author's words, with its name and place.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{:?} ({}, {})", clean(&self.statement), self.id(), self.origin)
    }

    /// Whether it speaks about the entitlement.
    #[must_use]
    pub fn is_about(&self, id: &EntitlementId) -> bool {
        self.covers.contains(id)
    }

    /// What it speaks about, as it is written.
    #[must_use]
    pub fn scope(&self) -> String {
        match (&self.listed, &self.project) {
            (Some(listed), _) => list(listed),
            (None, Some(project)) => format!("all of {project} and below"),
            (None, None) => "all there is".to_owned(),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxHolders(1) => f.write_str("at most 1 holder"),
            Self::MaxHolders(most) => write!(f, "at most {most} holders"),
            Self::NeverTogether => f.write_str("never two of them together"),
            Self::Requires(trainings) => write!(f, "only with {}", list(trainings)),
            Self::Domains(domains) => write!(f, "only for addresses at {}", list(domains)),
            Self::LongestAccess { longest, rest } => {
                write!(f, "at most {} without a break of {}", span(*longest), span(*rest))
            }
        }
    }
}

/// How one statement compares with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tightness {
    /// It says the same.
    Same,
    /// Whatever it allows, the other allowed.
    Tighter,
    /// Whatever the other allowed, it allows.
    Looser,
    /// Each allows what the other does not.
    Different,
}

impl Invariant {
    /// How strict it is, compared with what it was.
    #[must_use]
    pub fn against(&self, was: &Self) -> Tightness {
        use std::cmp::Ordering::{Equal, Greater, Less};
        // `Less` allows less.
        let sets = |is: &BTreeSet<String>, was: &BTreeSet<String>| match (is.is_subset(was), was.is_subset(is)) {
            (true, true) => Some(Equal),
            (true, false) => Some(Less),
            (false, true) => Some(Greater),
            (false, false) => None,
        };
        let scope = match (&self.listed, &was.listed) {
            (None, None) => Some(Equal),
            (None, Some(_)) => Some(Less),
            (Some(_), None) => Some(Greater),
            (Some(is), Some(was)) => match (is.is_superset(was), was.is_superset(is)) {
                (true, true) => Some(Equal),
                (true, false) => Some(Less),
                (false, true) => Some(Greater),
                (false, false) => None,
            },
        };
        let mut parts = vec![scope];
        match (&self.condition, &was.condition) {
            (Condition::MaxHolders(is), Condition::MaxHolders(was)) => parts.push(Some(is.cmp(was))),
            (Condition::NeverTogether, Condition::NeverTogether) => {}
            (Condition::Requires(is), Condition::Requires(was)) => parts.push(sets(was, is)),
            (Condition::Domains(is), Condition::Domains(was)) => parts.push(sets(is, was)),
            (
                Condition::LongestAccess { longest, rest },
                Condition::LongestAccess {
                    longest: was_longest,
                    rest: was_rest,
                },
            ) => parts.extend([Some(longest.cmp(was_longest)), Some(was_rest.cmp(rest))]),
            _ => parts.push(None),
        }
        let (less, greater) = (parts.contains(&Some(Less)), parts.contains(&Some(Greater)));
        match (parts.contains(&None) || (less && greater), less, greater) {
            (true, ..) => Tightness::Different,
            (_, true, _) => Tightness::Tighter,
            (_, _, true) => Tightness::Looser,
            _ => Tightness::Same,
        }
    }
}

/// Names with commas between them.
fn list<T: fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| clean(&name.to_string())).collect();
    names.join(", ")
}
