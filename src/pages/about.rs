//! The pages of one project and of one person.

use std::sync::Arc;

use askama::Template;

use super::filters;
use super::hours::FourWeeks;
use super::now::Now;
use super::words::{First, Hours, hours_of};
use crate::model::{Person, ProjectName};
use crate::policy::Member;
use crate::text::{clean, instant};

/// More rows than these nobody reads; the policy files have them all.
const MEMBERS: usize = 500;

#[derive(Template)]
#[template(path = "about.html", config = "src/pages/askama.toml")]
pub(super) struct About {
    name: String,
    kind: &'static str,
    now: Arc<Now>,
    facts: Vec<Fact>,
    hours: Option<Hours>,
    members: First<MemberRow>,
    members_title: &'static str,
    of_person: bool,
}

/// One line about whom or what the page shows.
struct Fact {
    what: &'static str,
    names: Vec<String>,
    /// Whether the names are projects rather than people.
    projects: bool,
    text: String,
}

struct MemberRow {
    name: String,
    until: String,
    added_by: String,
    reason: String,
    completed: String,
    origin: String,
}

fn member_row(name: &str, member: &Member) -> MemberRow {
    let completed: Vec<_> = member.completed.keys().map(|name| clean(name)).collect();
    MemberRow {
        name: name.to_owned(),
        until: member.until.map_or_else(|| "further notice".to_owned(), instant),
        added_by: member
            .entry
            .added_by
            .as_ref()
            .map_or_else(|| "-".to_owned(), |p| clean(p.as_str())),
        reason: member.reason.as_deref().map_or_else(|| "-".to_owned(), clean),
        completed: if completed.is_empty() {
            "-".to_owned()
        } else {
            completed.join(", ")
        },
        origin: clean(&member.entry.origin.to_string()),
    }
}

/// One project of the policy in force.
pub(super) fn project(now: Arc<Now>, four_weeks: Option<&FourWeeks>, name: &ProjectName) -> Option<About> {
    let project = now.policy.projects.get(name)?;
    let mut facts = Vec::new();
    if let Some(context) = &project.context {
        facts.push(Fact {
            what: "Context",
            names: Vec::new(),
            projects: false,
            text: clean(context),
        });
    }
    facts.push(Fact {
        what: "Owners",
        names: project.owners.iter().map(|p| p.as_str().to_owned()).collect(),
        projects: false,
        text: String::new(),
    });
    facts.extend(project.parent.iter().map(|parent| Fact {
        what: "Part of",
        names: vec![parent.0.to_string()],
        projects: true,
        text: String::new(),
    }));
    Some(About {
        name: clean(&name.0),
        kind: "Project",
        facts,
        hours: four_weeks.and_then(|weeks| hours_of(weeks, weeks.projects.get(name)?)),
        members: First::of(project.members.values(), MEMBERS).map(|m| member_row(m.person.as_str(), m)),
        members_title: "Members",
        of_person: false,
        now,
    })
}

/// One person, if anything is known of them.
pub(super) fn person(now: Arc<Now>, four_weeks: Option<&FourWeeks>, person: &Person) -> Option<About> {
    let hours = four_weeks.and_then(|weeks| hours_of(weeks, weeks.people.get(person)?));
    let projects = now.policy.projects.values();
    let owned = projects.clone().filter(|p| p.owners.contains(person));
    let owned: Vec<_> = owned.map(|p| p.name.to_string()).collect();
    let memberships = projects.filter_map(|p| Some(member_row(&p.name.0, p.members.get(person)?)));
    let members = First::of(memberships, MEMBERS);
    let is_known = !(members.rows.is_empty()
        && owned.is_empty()
        && now.held.rows.is_empty()
        && now.week.charts.is_empty()
        && now.gaps.rows.is_empty()
        && hours.is_none());
    let owns = Fact {
        what: "Owns",
        names: owned,
        projects: true,
        text: String::new(),
    };
    is_known.then(|| About {
        name: clean(person.as_str()),
        kind: "Person",
        facts: if owns.names.is_empty() { Vec::new() } else { vec![owns] },
        hours,
        members,
        members_title: "Memberships",
        of_person: true,
        now,
    })
}
