//! What is written differently in two policies, in words.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::model::{Interval, Origin, Person, ProjectName};
use crate::policy::{DEFAULT_PRIORITY, Entitlement, Member, Pattern, Policy, Project, Rule, Trigger};
use crate::text::{instant, span};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Edit {
    /// In which project.
    pub project: ProjectName,
    /// Where it stands now; where it stood, if it is gone.
    pub origin: Origin,
    /// `+` added, `-` removed, `~` changed.
    pub sign: char,
    /// What.
    pub what: String,
}

/// All differences, by project.
pub(super) fn edits(before: &Policy, after: &Policy) -> Vec<Edit> {
    let mut edits = Vec::new();
    let names: BTreeSet<&ProjectName> = before.projects.keys().chain(after.projects.keys()).collect();
    for name in names {
        match (before.projects.get(name), after.projects.get(name)) {
            (Some(old), Some(new)) => project(&mut edits, old, new),
            (None, Some(new)) => {
                let what = format!(
                    "project {name}, owned by {}, {}",
                    people(&new.owners),
                    below(new.parent.as_ref())
                );
                edits.push(edit(new, '+', &new.origin, what));
                project(&mut edits, &emptied(new), new);
            }
            (Some(old), None) => {
                edits.push(edit(
                    old,
                    '-',
                    &old.origin,
                    format!("project {name} and everything it owns"),
                ));
            }
            (None, None) => {}
        }
    }
    edits
}

fn edit(project: &Project, sign: char, origin: &Origin, what: String) -> Edit {
    Edit {
        project: project.name.clone(),
        origin: origin.clone(),
        sign,
        what,
    }
}

fn emptied(project: &Project) -> Project {
    Project {
        entitlements: BTreeMap::new(),
        members: BTreeMap::new(),
        rules: Vec::new(),
        ..project.clone()
    }
}

fn project(edits: &mut Vec<Edit>, old: &Project, new: &Project) {
    let mut changed = |what: &str, before: String, after: String| {
        if before != after {
            let what = format!("{what}: {before} becomes {after}");
            edits.push(edit(new, '~', &new.origin, what));
        }
    };
    changed("owners", people(&old.owners), people(&new.owners));
    changed("parent", below(old.parent.as_ref()), below(new.parent.as_ref()));
    let said = |context: &Option<String>| context.as_ref().map_or_else(|| "none".to_owned(), |c| format!("{c:?}"));
    changed("context", said(&old.context), said(&new.context));
    changed("what projects below may do", limits(old), limits(new));

    for (id, is) in &new.entitlements {
        match old.entitlements.get(id) {
            None => edits.push(edit(new, '+', &is.origin, entitlement(is))),
            Some(was) if entitlement(was) != entitlement(is) => {
                let what = format!("{} becomes {}", entitlement(was), entitlement(is));
                edits.push(edit(new, '~', &is.origin, what));
            }
            Some(_) => {}
        }
    }
    for (_, was) in old
        .entitlements
        .iter()
        .filter(|(id, _)| !new.entitlements.contains_key(*id))
    {
        edits.push(edit(new, '-', &was.origin, entitlement(was)));
    }
    for (person, is) in &new.members {
        match old.members.get(person) {
            None => edits.push(edit(new, '+', &is.origin, member(is))),
            Some(was) if member(was) != member(is) => {
                let what = format!("{} becomes {}", member(was), member(is));
                edits.push(edit(new, '~', &is.origin, what));
            }
            Some(_) => {}
        }
    }
    for (_, was) in old
        .members
        .iter()
        .filter(|(person, _)| !new.members.contains_key(*person))
    {
        edits.push(edit(new, '-', &was.origin, member(was)));
    }
    rules(edits, old, new);
}

/// Rules have no names: those that say the same word for word are the same.
fn rules(edits: &mut Vec<Edit>, old: &Project, new: &Project) {
    let mut left: Vec<(String, &Rule)> = old.rules.iter().map(|r| (rule(r), r)).collect();
    for is in &new.rules {
        let words = rule(is);
        match left.iter().position(|(was, _)| *was == words) {
            Some(found) => drop(left.remove(found)),
            None => edits.push(edit(new, '+', &is.origin, words)),
        }
    }
    edits.extend(left.into_iter().map(|(words, was)| edit(new, '-', &was.origin, words)));
}

fn people(people: &[Person]) -> String {
    let names: Vec<&str> = people.iter().map(Person::as_str).collect();
    names.join(", ")
}

fn below(parent: Option<&ProjectName>) -> String {
    parent.map_or_else(|| "a root".to_owned(), |parent| format!("below {parent}"))
}

fn limits(project: &Project) -> String {
    let Some(limits) = &project.children else {
        return "anything".to_owned();
    };
    let list = |names: Vec<String>| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let patterns = |patterns: &Vec<Pattern>| list(patterns.iter().map(ToString::to_string).collect());
    let mut words = Vec::new();
    if let Some(accounts) = &limits.accounts {
        words.push(format!("accounts {}", list(accounts.iter().cloned().collect())));
    }
    if let Some(sets) = &limits.permission_sets {
        words.push(format!("permission sets {}", patterns(sets)));
    }
    if let Some(groups) = &limits.groups {
        words.push(format!("groups {}", patterns(groups)));
    }
    if let Some(longest) = limits.longest_membership {
        words.push(format!("memberships of at most {}", span(longest)));
    }
    let key = if limits.may_drop_member { "may" } else { "may not" };
    words.push(format!("{key} drop the membership key"));
    words.join("; ")
}

fn entitlement(e: &Entitlement) -> String {
    let mut words = format!("entitlement {} ({}", e.id.name, e.target);
    if e.exclusive {
        words += ", exclusive";
    }
    if 0 < e.min_holders {
        words += &format!(", min_holders {}", e.min_holders);
    }
    if e.priority != DEFAULT_PRIORITY {
        words += &format!(", priority {}", e.priority);
    }
    if !e.delegate_to.is_empty() {
        let whom = e.delegate_to.iter().map(|d| {
            let until = d.until.map(|until| format!(" until {}", instant(until)));
            format!("{} for {}{}", d.project, d.scope(), until.unwrap_or_default())
        });
        words += &format!(", delegated to {}", whom.collect::<Vec<_>>().join(" and "));
    }
    words + ")"
}

fn member(m: &Member) -> String {
    let mut words = format!("member {}", m.person);
    if let Some(by) = &m.added_by {
        words += &format!(", added by {by}");
    }
    if let Some(since) = m.since {
        words += &format!(", since {}", instant(since));
    }
    if let Some(until) = m.until {
        words += &format!(", until {}", instant(until));
    }
    for (training, times) in &m.completed {
        words += &format!(", completed {training}");
        let dated = times.iter().map(|t| t.valid).filter(|valid| *valid != Interval::ALWAYS);
        for valid in dated {
            words += &format!(" from {} until {}", instant(valid.start()), instant(valid.end()));
        }
    }
    words
}

fn rule(r: &Rule) -> String {
    let mut words = format!("rule: {} for ", r.entitlement);
    match &r.trigger {
        Trigger::OnCall(on_call) => {
            words += &format!("whoever is on call in {}", on_call.schedule);
            if let Some(levels) = &on_call.levels {
                let levels: Vec<String> = levels.iter().map(ToString::to_string).collect();
                words += &format!(" at level {}", levels.join(" or "));
            }
            if on_call.permanent {
                words += ", standing targets included";
            }
            words += if r.member { " and a member" } else { ", member or not" };
        }
        Trigger::Members { during: None } => words += "every member, always",
        Trigger::Members { during: Some(window) } => words += &format!("every member in the window {window}"),
    }
    for training in &r.trainings {
        words += &format!(" who completed {training}");
    }
    for (what, margin) in [("lead", r.lead), ("linger", r.linger)] {
        if !margin.is_zero() {
            words += &format!(", {what} {}", span(margin));
        }
    }
    if let Some(until) = r.until {
        words += &format!(", until {}", instant(until));
    }
    words
}
