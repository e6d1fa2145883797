//! Which statements an edit of the policy makes, drops, tightens or loosens.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::edits::Edit;
use crate::invariant::{Invariant, Tightness};
use crate::model::{Origin, ProjectName};
use crate::policy::Policy;

/// What becomes of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Becomes {
    /// It is new.
    Appears,
    /// It is gone.
    Vanishes,
    /// It allows less.
    Tighter,
    /// It allows more.
    Looser,
    /// It allows some things more and others less.
    Different,
    /// It says the same in other words.
    Reworded,
}

/// One statement that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatementEdit {
    /// Whose it is.
    pub project: ProjectName,
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub becomes: Becomes,
    /// Both, or the one that there is.
    pub what: String,
    /// Where it stands now; where it stood, if it is gone.
    pub origin: Origin,
}

/// Those of the projects; the operator's are in neither policy's files.
pub(super) fn statements(before: &Policy, after: &Policy) -> Vec<StatementEdit> {
    let by_name = |policy| -> BTreeMap<(&ProjectName, &str), &Invariant> { of_projects(policy).collect() };
    let (old, new) = (by_name(before), by_name(after));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
    let edit = |key: (&ProjectName, &str)| {
        let (was, is) = (old.get(&key).copied(), new.get(&key).copied());
        let (becomes, what, origin) = match (was, is) {
            (None, Some(is)) => (Becomes::Appears, words(is), &is.origin),
            (Some(was), None) => (Becomes::Vanishes, words(was), &was.origin),
            (Some(was), Some(is)) => {
                let becomes = match is.against(was) {
                    Tightness::Same if was.statement == is.statement => return None,
                    Tightness::Same => Becomes::Reworded,
                    Tightness::Tighter => Becomes::Tighter,
                    Tightness::Looser => Becomes::Looser,
                    Tightness::Different => Becomes::Different,
                };
                (becomes, format!("{} becomes {}", words(was), words(is)), &is.origin)
            }
            (None, None) => return None,
        };
        Some(StatementEdit {
            project: key.0.clone(),
            name: key.1.to_owned(),
            becomes,
            what,
            origin: origin.clone(),
        })
    };
    names.into_iter().filter_map(edit).collect()
}

fn of_projects(policy: &Policy) -> impl Iterator<Item = ((&ProjectName, &str), &Invariant)> {
    let all = policy.invariants.iter();
    all.filter_map(|invariant| Some(((invariant.project.as_ref()?, invariant.name.as_str()), invariant)))
}

fn words(invariant: &Invariant) -> String {
    format!(
        "{:?} ({} of {})",
        invariant.statement,
        invariant.condition,
        invariant.scope()
    )
}

impl StatementEdit {
    /// What becomes of it, in words.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self.becomes {
            Becomes::Appears => "appears",
            Becomes::Vanishes => "vanishes",
            Becomes::Tighter => "gets tighter",
            Becomes::Looser => "gets looser",
            Becomes::Different => "says something else",
            Becomes::Reworded => "is said in other words",
        }
    }

    pub(super) fn as_edit(&self) -> Edit {
        Edit {
            project: self.project.clone(),
            origin: self.origin.clone(),
            sign: match self.becomes {
                Becomes::Appears => '+',
                Becomes::Vanishes => '-',
                _ => '~',
            },
            what: format!("statement {} {}: {}", self.name, self.verb(), self.what),
        }
    }
}
