//! Whose agreement an edit of the policy needs: the owners of what it touches, as they were before it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::PersonLine;
use super::edits::Edit;
use crate::model::{Person, ProjectName};
use crate::policy::Policy;

/// Somebody's agreement that is needed: any one of these people can give it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Consent {
    /// For which project.
    pub project: ProjectName,
    /// Its owners before the edit; for a new project those of the nearest project above it that was there.
    pub owners: Vec<Person>,
    /// Owners of projects above it, who own the subtree.
    pub above: Vec<Person>,
    /// What needs it.
    pub because: Vec<String>,
}

/// Whoever's file is edited consents to that; whoever's entitlement somebody gains consents to that too.
pub(super) fn consent(before: &Policy, after: &Policy, edits: &[Edit], people: &[PersonLine]) -> Vec<Consent> {
    let mut because: BTreeMap<&ProjectName, BTreeSet<String>> = BTreeMap::new();
    for edit in edits {
        let count = edits.iter().filter(|e| e.project == edit.project).count();
        let plural = if count == 1 { "" } else { "s" };
        because
            .entry(&edit.project)
            .or_default()
            .insert(format!("{count} edit{plural} of the project"));
    }
    let mut gaining: BTreeMap<&ProjectName, BTreeSet<&Person>> = BTreeMap::new();
    for line in people
        .iter()
        .filter(|l| !l.gains.is_empty() || (l.could.after && !l.could.before))
    {
        gaining
            .entry(&line.entitlement.project)
            .or_default()
            .insert(&line.person);
    }
    for (project, gaining) in gaining {
        let names: Vec<&str> = gaining.iter().map(|p| p.as_str()).collect();
        let who = match names.as_slice() {
            [] => continue,
            [one] => (*one).to_owned(),
            [one, rest @ ..] => format!("{one} and {} more", rest.len()),
        };
        because
            .entry(project)
            .or_default()
            .insert(format!("{who} may hold more of what it owns"));
    }
    because
        .into_iter()
        .map(|(project, because)| {
            let tree = if before.projects.contains_key(project) {
                before
            } else {
                after
            };
            let line = tree.lineage(project);
            let known: Vec<_> = line.filter_map(|above| before.projects.get(&above.name)).collect();
            let owners = match known.first() {
                Some(nearest) => nearest.owners.clone(),
                // A new root has nobody above it: its own owners answer for it.
                None => after
                    .projects
                    .get(project)
                    .map(|p| p.owners.clone())
                    .unwrap_or_default(),
            };
            let mut above: Vec<Person> = known.iter().skip(1).flat_map(|p| p.owners.clone()).collect();
            above.retain(|person| !owners.contains(person));
            above.sort();
            above.dedup();
            Consent {
                project: project.clone(),
                owners,
                above,
                because: because.into_iter().collect(),
            }
        })
        .collect()
}
