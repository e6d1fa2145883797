//! Lists of trainings say each thing once, of people who are members and of trainings that something requires.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use super::World;
use crate::{
    diagnostics::{Diagnostic, Report},
    invariant::Condition,
    model::{Interval, Person},
    policy::training::{List, Row},
};

/// A name is taken for a slip in another when it differs from it in at most so many letters.
const SLIP: usize = 2;
/// In shorter names any letter makes another name.
const SHORT: usize = 5;

pub(super) fn said_twice(code: &'static str, world: &World<'_>, report: &mut Report) {
    for list in world.lists {
        let mut first: HashMap<(&Person, &str, Interval), usize> = HashMap::new();
        for row in &list.rows {
            let line = list.source.line(row.at.start);
            let earlier = *first.entry((&row.person, &row.training, row.valid)).or_insert(line);
            if earlier != line {
                let message = format!("line {earlier} says the same of {}", row.person);
                report.push(warning(code, list, row, message, "remove one of the two".to_owned()));
            }
        }
    }
}

pub(super) fn unknown_person(code: &'static str, world: &World<'_>, report: &mut Report) {
    if !world.complete || world.drafts.iter().flat_map(|d| &d.members).any(Option::is_none) {
        return;
    }
    let members = world.drafts.iter().flat_map(|d| &d.members).flatten();
    let known: BTreeSet<&str> = members.map(|member| member.person.as_str()).collect();
    for list in world.lists {
        for row in strangers(list, &known, |row| row.person.as_str()) {
            let message = format!("{} is a member of no project", row.person);
            let meant = slip(row.person.as_str(), &known).map(|name| format!("did you mean `{name}`?"));
            let hint = meant.unwrap_or_else(|| "correct the address, or add [[member]] where they belong".to_owned());
            report.push(warning(code, list, row, message, hint));
        }
    }
}

pub(super) fn unknown_training(code: &'static str, world: &World<'_>, report: &mut Report) {
    if !world.complete {
        return;
    }
    let by_rules = world.drafts.iter().flat_map(|d| &d.mentions.trainings);
    let stated = world.drafts.iter().flat_map(|d| &d.invariants);
    let stated = stated.chain(&world.context.invariants);
    let mut known: BTreeSet<&str> = by_rules.map(|(_, name)| name.as_str()).collect();
    for written in stated {
        match written.invariant.as_ref().map(|invariant| &invariant.condition) {
            Some(Condition::Requires(trainings)) => known.extend(trainings.iter().map(String::as_str)),
            Some(_) => {}
            // One that was not understood may require anything.
            None => return,
        }
    }
    for list in world.lists {
        let mut told = BTreeSet::new();
        for row in strangers(list, &known, |row| row.training.as_str()) {
            if told.insert(&row.training) {
                let message = format!("nothing requires a training `{}`", row.training);
                let meant = slip(&row.training, &known).map(|name| format!("did you mean `{name}`?"));
                let hint = meant.unwrap_or_else(|| "correct the name, or have a rule `requires` it".to_owned());
                report.push(warning(code, list, row, message, hint));
            }
        }
    }
}

/// Rows about what the policy does not know. A list that is mostly about others is everybody's, and only slips in what is
/// known are told of it.
fn strangers<'a>(list: &'a List, known: &BTreeSet<&str>, name: impl Fn(&'a Row) -> &'a str) -> Vec<&'a Row> {
    let (ours, others): (Vec<&Row>, Vec<&Row>) = list.rows.iter().partition(|row| known.contains(name(row)));
    let is_ours = distinct(&others, &name) < distinct(&ours, &name);
    let told = |row: &&'a Row| is_ours || slip(name(row), known).is_some();
    others.into_iter().filter(told).collect()
}

fn distinct<'a, T: Eq + Hash>(rows: &[&'a Row], name: impl Fn(&'a Row) -> T) -> usize {
    rows.iter()
        .map(|row| name(row))
        .collect::<std::collections::HashSet<_>>()
        .len()
}

/// The known name that this is a slip in.
fn slip<'a>(name: &str, known: &BTreeSet<&'a str>) -> Option<&'a str> {
    let local = |name: &str| name.split('@').next().map_or(0, str::len);
    let near = |other: &&&str| {
        let short = local(name).min(local(other)) < SHORT;
        !short && strsim::osa_distance(&name.to_lowercase(), &other.to_lowercase()) <= SLIP
    };
    known.iter().find(near).copied()
}

fn warning(code: &'static str, list: &List, row: &Row, message: String, hint: String) -> Diagnostic {
    Diagnostic::warning(code, &list.source, row.at.clone(), message).hint(hint)
}
