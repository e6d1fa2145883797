//! The pages of one project and of one person.

use askama::Template;

use super::filters;
use super::hours::FourWeeks;
use super::now::Now;
use super::overview::{as_of, charts};
use super::words::{
    Concerns, First, GAPS, HandOff, Held, Hours, Item, When, attention, due, hand_offs, held, hours_of,
};
use crate::forecast::page::{Chart, Day as Midnight, GapLine, days, gap_line};
use crate::forecast::{Gap, Holding};
use crate::model::{EntitlementId, Person, ProjectName};
use crate::policy::Member;
use crate::text::{clean, instant};

/// More rows than these nobody reads; the commands show them all.
const HELD: usize = 500;
const MEMBERS: usize = 500;
const NEXT: usize = 30;

#[derive(Template)]
#[template(path = "about.html", config = "src/pages/askama.toml")]
pub(super) struct About {
    name: String,
    kind: &'static str,
    at: When,
    facts: Vec<Fact>,
    attention: First<Item>,
    gaps: First<GapLine>,
    held: First<Held>,
    next: Vec<HandOff>,
    charts: Vec<Chart>,
    days: Vec<Midnight>,
    more_charts: usize,
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
            .added_by
            .as_ref()
            .map_or_else(|| "-".to_owned(), |p| clean(p.as_str())),
        reason: member.reason.as_deref().map_or_else(|| "-".to_owned(), clean),
        completed: if completed.is_empty() {
            "-".to_owned()
        } else {
            completed.join(", ")
        },
        origin: clean(&member.origin.to_string()),
    }
}

/// One project of the policy in force.
pub(super) fn project(now: &Now, four_weeks: Option<&FourWeeks>, name: &ProjectName) -> Option<About> {
    let project = now.policy.projects.get(name)?;
    let concerns = |id: Option<&EntitlementId>, _: Option<&str>| id.is_some_and(|id| id.project == *name);
    let line = four_weeks.and_then(|weeks| hours_of(weeks, weeks.projects.get(name)?));
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
    let mut about = about(now, &name.0, "Project", &concerns);
    about.gaps = gaps(now, &|gap| gap.entitlements.iter().any(|id| id.project == *name));
    about.facts = facts;
    about.hours = line;
    about.members = First::of(project.members.values(), MEMBERS).map(|m| member_row(m.person.as_str(), m));
    Some(about)
}

/// One person, if anything is known of them.
pub(super) fn person(now: &Now, four_weeks: Option<&FourWeeks>, person: &Person) -> Option<About> {
    let concerns = |_: Option<&EntitlementId>, who: Option<&str>| who == Some(person.as_str());
    let line = four_weeks.and_then(|weeks| hours_of(weeks, weeks.people.get(person)?));
    let projects = now.policy.projects.values();
    let owned: Vec<_> = projects
        .clone()
        .filter(|p| p.owners.contains(person))
        .map(|p| p.name.to_string())
        .collect();
    let mut about = about(now, person.as_str(), "Person", &concerns);
    about.gaps = gaps(now, &|gap| gap.person.as_ref() == Some(person));
    let memberships = projects.filter_map(|p| Some(member_row(&p.name.0, p.members.get(person)?)));
    about.members = First::of(memberships, MEMBERS);
    let is_known = !(about.members.rows.is_empty()
        && owned.is_empty()
        && about.held.rows.is_empty()
        && about.charts.is_empty()
        && about.gaps.rows.is_empty()
        && line.is_none());
    if !owned.is_empty() {
        about.facts.push(Fact {
            what: "Owns",
            names: owned,
            projects: true,
            text: String::new(),
        });
    }
    about.hours = line;
    about.members_title = "Memberships";
    about.of_person = true;
    is_known.then_some(about)
}

fn gaps(now: &Now, wanted: &dyn Fn(&Gap) -> bool) -> First<GapLine> {
    First::of(now.ahead.gaps.iter().filter(|gap| wanted(gap)), GAPS).map(gap_line)
}

/// What both kinds of page have.
fn about(now: &Now, name: &str, kind: &'static str, concerns: Concerns<'_>) -> About {
    let at = now.status.at;
    let wanted = |h: &Holding| concerns(Some(&h.entitlement), Some(h.person.as_str()));
    let due = due(&now.ahead, at);
    let mine = now
        .status
        .access
        .iter()
        .filter(|row| concerns(Some(&row.entitlement), Some(row.person.as_str())));
    let (charts, more_charts) = charts(&now.ahead, &wanted);
    let (_, next) = hand_offs(&now.ahead, at, NEXT, concerns);
    About {
        name: clean(name),
        kind,
        at: as_of(now),
        facts: Vec::new(),
        attention: attention(now, concerns),
        gaps: First::of([], GAPS),
        held: First::of(mine, HELD).map(|row| held(row, &due, at)),
        next,
        charts,
        days: days(now.ahead.period),
        more_charts,
        hours: None,
        members: First::of([], MEMBERS),
        members_title: "Members",
        of_person: false,
    }
}
