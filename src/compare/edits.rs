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
    let mut changed = |what: &str, before: Vec<String>, after: Vec<String>| {
        if let Some(how) = difference(&before, &after) {
            edits.push(edit(new, '~', &new.origin, format!("{what}: {how}")));
        }
    };
    changed("owners", names(&old.owners), names(&new.owners));
    let parent = |project: &Project| vec![below(project.parent.as_ref())];
    changed("parent", parent(old), parent(new));
    let context = |project: &Project| {
        let said = project.context.as_ref();
        vec![said.map_or_else(|| "none".to_owned(), |context| format!("{context:?}"))]
    };
    changed("context", context(old), context(new));
    changed("what projects below may do", limits(old), limits(new));

    for (id, is) in &new.entitlements {
        match old.entitlements.get(id) {
            None => edits.push(edit(new, '+', &is.origin, entitlement(is))),
            Some(was) => {
                let how = difference(&about_entitlement(was), &about_entitlement(is));
                let what = how.map(|how| format!("entitlement {id}: {how}"));
                edits.extend(what.map(|what| edit(new, '~', &is.origin, what)));
            }
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
            None => edits.push(edit(new, '+', &is.entry.origin, member(is))),
            Some(was) => {
                let how = difference(&about_member(was), &about_member(is));
                let what = how.map(|how| format!("member {person}: {how}"));
                edits.extend(what.map(|what| edit(new, '~', &is.entry.origin, what)));
            }
        }
    }
    for (_, was) in old
        .members
        .iter()
        .filter(|(person, _)| !new.members.contains_key(*person))
    {
        edits.push(edit(new, '-', &was.entry.origin, member(was)));
    }
    rules(edits, old, new);
}

/// Rules have no names: those that say the same word for word are the same, and where one of what is left has the same
/// entitlement and the same trigger as one that is new, it is that one, edited.
fn rules(edits: &mut Vec<Edit>, old: &Project, new: &Project) {
    let mut left: Vec<&Rule> = old.rules.iter().collect();
    let mut fresh: Vec<&Rule> = Vec::new();
    for is in &new.rules {
        match left.iter().position(|was| rule(was) == rule(is)) {
            Some(found) => drop(left.remove(found)),
            None => fresh.push(is),
        }
    }
    for is in fresh {
        let mut alike = left.iter().enumerate().filter(|(_, was)| trigger(was) == trigger(is));
        match (alike.next().map(|(place, _)| place), alike.next()) {
            (Some(place), None) => {
                let was = left.remove(place);
                let how = difference(&about_rule(was), &about_rule(is)).unwrap_or_default();
                edits.push(edit(new, '~', &is.origin, format!("rule: {}: {how}", trigger(is))));
            }
            _ => edits.push(edit(new, '+', &is.origin, rule(is))),
        }
    }
    edits.extend(left.into_iter().map(|was| edit(new, '-', &was.origin, rule(was))));
}

/// What is said now and was not, and what no longer is; `None` where nothing changed.
fn difference(was: &[String], is: &[String]) -> Option<String> {
    let missing = |from: &[String], in_: &[String]| -> Vec<String> {
        from.iter().filter(|part| !in_.contains(*part)).cloned().collect()
    };
    let (gone, fresh) = (missing(was, is), missing(is, was));
    match (gone.is_empty(), fresh.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("now also {}", fresh.join(", "))),
        (false, true) => Some(format!("no longer {}", gone.join(", "))),
        (false, false) => Some(format!("{} becomes {}", gone.join(", "), fresh.join(", "))),
    }
}

fn people(people: &[Person]) -> String {
    names(people).join(", ")
}

fn names(people: &[Person]) -> Vec<String> {
    people.iter().map(ToString::to_string).collect()
}

fn below(parent: Option<&ProjectName>) -> String {
    parent.map_or_else(|| "a root".to_owned(), |parent| format!("below {parent}"))
}

fn limits(project: &Project) -> Vec<String> {
    let Some(limits) = &project.children else {
        return vec!["anything".to_owned()];
    };
    let mut parts = Vec::new();
    let mut only = |what: &str, names: Option<Vec<String>>| match names {
        None => {}
        Some(names) if names.is_empty() => parts.push(format!("no {what}")),
        Some(names) => parts.extend(names.into_iter().map(|name| format!("{what} {name}"))),
    };
    let patterns = |patterns: &Vec<Pattern>| patterns.iter().map(ToString::to_string).collect();
    only(
        "account",
        limits
            .accounts
            .as_ref()
            .map(|accounts| accounts.iter().cloned().collect()),
    );
    only("permission set", limits.permission_sets.as_ref().map(patterns));
    only("group", limits.groups.as_ref().map(patterns));
    if let Some(longest) = limits.longest_membership {
        parts.push(format!("memberships of at most {}", span(longest)));
    }
    let key = if limits.may_drop_member { "may" } else { "may not" };
    parts.push(format!("{key} drop the membership key"));
    parts
}

fn entitlement(e: &Entitlement) -> String {
    format!("entitlement {} ({})", e.id.name, about_entitlement(e).join(", "))
}

fn about_entitlement(e: &Entitlement) -> Vec<String> {
    let mut parts = vec![e.target.to_string()];
    if e.exclusive {
        parts.push("exclusive".to_owned());
    }
    if 0 < e.min_holders {
        parts.push(format!("min_holders {}", e.min_holders));
    }
    if e.priority != DEFAULT_PRIORITY {
        parts.push(format!("priority {}", e.priority));
    }
    parts.extend(e.delegate_to.iter().map(|d| {
        let until = d.until.map(|until| format!(" until {}", instant(until)));
        format!(
            "delegated to {} for {}{}",
            d.project,
            d.scope(),
            until.unwrap_or_default()
        )
    }));
    parts
}

fn member(m: &Member) -> String {
    let who = format!("member {}", m.person);
    [vec![who], about_member(m)].concat().join(", ")
}

fn about_member(m: &Member) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(by) = &m.entry.added_by {
        parts.push(format!("added by {by}"));
    }
    if let Some(since) = m.since {
        parts.push(format!("since {}", instant(since)));
    }
    if let Some(until) = m.until {
        parts.push(format!("until {}", instant(until)));
    }
    for (training, times) in &m.completed {
        parts.extend(times.iter().map(|time| {
            let valid = time.valid;
            if valid == Interval::ALWAYS {
                format!("completed {training}")
            } else {
                let (start, end) = (instant(valid.start()), instant(valid.end()));
                format!("completed {training} from {start} until {end}")
            }
        }));
    }
    parts
}

/// What a rule grants to whom, without its conditions.
fn trigger(r: &Rule) -> String {
    match &r.trigger {
        Trigger::OnCall(on_call) => format!("{} for whoever is on call in {}", r.entitlement, on_call.schedule),
        Trigger::Members { .. } => format!("{} for every member", r.entitlement),
    }
}

/// The conditions of a rule, one by one.
fn about_rule(r: &Rule) -> Vec<String> {
    let mut parts = Vec::new();
    match &r.trigger {
        Trigger::OnCall(on_call) => {
            let levels = on_call.levels.iter().flatten();
            parts.extend(levels.map(|level| format!("at level {level}")));
            if on_call.permanent {
                parts.push("standing targets included".to_owned());
            }
            parts.push(if r.member { "members only" } else { "member or not" }.to_owned());
        }
        Trigger::Members { during: None } => parts.push("always".to_owned()),
        Trigger::Members { during: Some(window) } => parts.push(format!("in the window {window}")),
    }
    parts.extend(r.trainings.iter().map(|training| format!("who completed {training}")));
    for (what, margin) in [("lead", r.lead), ("linger", r.linger)] {
        if !margin.is_zero() {
            parts.push(format!("{what} {}", span(margin)));
        }
    }
    if let Some(until) = r.until {
        parts.push(format!("until {}", instant(until)));
    }
    parts
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
