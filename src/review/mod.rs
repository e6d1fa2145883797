//! What an owner should look at when access is to be taken away: decision support, which decides nothing. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::desired::Timeline;
use crate::ledger::AccessRow;
use crate::ledger::DriftSummary;
use crate::model::{Basis, EntitlementId, Interval, Origin, Person, ProjectName, Target};
use crate::policy::bundles::{Bundle, bundles};
use crate::policy::{Member, Policy, Project, Rule, Trigger};
use crate::text::instant;

mod render;
#[cfg(test)]
mod tests;

/// What a review is made from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The policy in force.
    pub policy: &'a Policy,
    /// The time looked back on; it ends now.
    pub period: Interval,
    /// What the policy in force leads to over the period, with the shifts of that time.
    pub past: &'a Timeline,
    /// What it leads to over the coming days.
    pub ahead: &'a Timeline,
    /// Access on record that touches the period.
    pub rows: &'a [AccessRow],
    /// What the last pass saw on managed entitlements that is not ours.
    pub drift: &'a [DriftSummary],
    /// People whom the identity store does not know or has disabled, in words.
    pub gone: &'a BTreeMap<Person, String>,
}

/// Everything to look at, by project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Review {
    /// The time looked back on.
    pub period: Interval,
    /// Projects with findings, sorted.
    pub projects: Vec<ProjectReview>,
}

/// What the owners of one project should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProjectReview {
    /// Which project.
    pub project: ProjectName,
    /// Who decides.
    pub owners: Vec<Person>,
    /// Sorted by kind, then by what is concerned.
    pub findings: Vec<Finding>,
}

/// Sorts of findings, those that take most away first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Somebody whom the identity store does not know or has disabled is a member or an owner.
    Gone,
    /// A member was added by somebody who has left or owns nothing here any more.
    AddedByLeaver,
    /// A member was on call and is not any more, while others are.
    LeftRotation,
    /// A member was not on call and held nothing.
    IdleMember,
    /// A membership has no end.
    EndlessMembership,
    /// A rule granted nothing to anybody.
    IdleRule,
    /// Nobody held an entitlement.
    UnheldEntitlement,
    /// Somebody holds a managed entitlement that dutybound did not grant.
    Drift,
    /// A rotation earns several account assignments together, which one group would give in one call.
    GroupWouldDo,
}

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What sort.
    pub kind: FindingKind,
    /// Who or what is concerned.
    pub subject: String,
    /// Where it is written, if it is.
    pub origin: Option<Origin>,
    /// What was seen.
    pub message: String,
    /// What an owner can do.
    pub suggestion: String,
}

/// Looks at every project.
#[must_use]
pub fn review(inputs: &Inputs<'_>) -> Review {
    let seen = Seen::new(inputs);
    let projects = inputs.policy.projects.values().map(|project| {
        let mut findings = Vec::new();
        owners(inputs, project, &mut findings);
        for member in project.members.values() {
            look_at_member(inputs, &seen, project, member, &mut findings);
        }
        findings.extend(
            project
                .rules
                .iter()
                .filter(|r| !seen.rules.contains(&r.origin))
                .map(|r| idle_rule(inputs, r)),
        );
        let unheld = project
            .entitlements
            .values()
            .filter(|e| !seen.entitlements.contains(&e.id));
        findings.extend(unheld.map(|e| Finding {
            kind: FindingKind::UnheldEntitlement,
            subject: e.id.to_string(),
            origin: Some(e.origin.clone()),
            message: "nobody held it".to_owned(),
            suggestion: "remove it with its rules, if nobody needs it".to_owned(),
        }));
        findings.extend(drift(inputs, project));
        findings.extend(groups(inputs, project));
        findings.sort();
        ProjectReview {
            project: project.name.clone(),
            owners: project.owners.clone(),
            findings,
        }
    });
    Review {
        period: inputs.period,
        projects: projects.filter(|p| !p.findings.is_empty()).collect(),
    }
}

impl Review {
    /// What one owner decides about.
    #[must_use]
    pub fn of_owner(&self, owner: &Person) -> Self {
        Self {
            period: self.period,
            projects: self
                .projects
                .iter()
                .filter(|p| p.owners.contains(owner))
                .cloned()
                .collect(),
        }
    }

    /// Everybody who decides about something in it.
    #[must_use]
    pub fn owners(&self) -> BTreeSet<Person> {
        self.projects.iter().flat_map(|p| p.owners.iter().cloned()).collect()
    }

    /// How many findings there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.projects.iter().map(|p| p.findings.len()).sum()
    }
}

fn owners(inputs: &Inputs<'_>, project: &Project, findings: &mut Vec<Finding>) {
    for (owner, why) in project.owners.iter().filter_map(|o| Some((o, inputs.gone.get(o)?))) {
        findings.push(Finding {
            kind: FindingKind::Gone,
            subject: owner.to_string(),
            origin: Some(project.origin.clone()),
            message: format!("owns {} but {why}", project.name),
            suggestion: "name another owner".to_owned(),
        });
    }
}

fn look_at_member(
    inputs: &Inputs<'_>,
    seen: &Seen<'_>,
    project: &Project,
    member: &Member,
    findings: &mut Vec<Finding>,
) {
    let mut find = |kind, message: String, suggestion: &str| {
        findings.push(Finding {
            kind,
            subject: member.person.to_string(),
            origin: Some(member.entry.origin.clone()),
            message,
            suggestion: suggestion.to_owned(),
        });
    };
    let ended = member.until.is_some_and(|until| until <= inputs.period.end());
    if let Some(why) = inputs.gone.get(&member.person) {
        find(
            FindingKind::Gone,
            format!("is a member but {why}"),
            "remove the [[member]] entry",
        );
    }
    if let Some(by) = &member.entry.added_by {
        let mut above = inputs.policy.lineage(&project.name);
        let left = inputs.gone.get(by).cloned().or_else(|| {
            (!above.any(|p| p.owners.contains(by)))
                .then(|| format!("owns neither {} nor a project above it any more", project.name))
        });
        if let Some(why) = left {
            find(
                FindingKind::AddedByLeaver,
                format!("was added by {by}, who {why}"),
                "have a present owner vouch for them (`added_by`), or remove them",
            );
        }
    }
    if ended {
        let until = member.until.map(instant).unwrap_or_default();
        return find(
            FindingKind::IdleMember,
            format!("their membership ended at {until}"),
            "remove the [[member]] entry",
        );
    }
    if member.until.is_none() {
        find(
            FindingKind::EndlessMembership,
            "the membership has no end".to_owned(),
            "give it an `until`, so that it is decided anew now and then",
        );
    }
    let cell = (&project.name, &member.person);
    let (before, after) = (seen.last_turn.get(&cell), seen.next_turn.contains(&cell));
    let others = seen
        .rotation
        .get(&project.name)
        .is_some_and(|people| people.iter().any(|p| **p != member.person));
    if let (Some(last), false, true) = (before, after, others) {
        find(
            FindingKind::LeftRotation,
            format!(
                "was last on call until {} and is not on the schedule any more",
                instant(*last)
            ),
            "remove the [[member]] entry if they left the rotation",
        );
    }
    if before.is_none() && !after && !seen.active.contains(&cell) {
        find(
            FindingKind::IdleMember,
            "was not on call and held nothing".to_owned(),
            "remove the [[member]] entry, or leave it if their turn is to come",
        );
    }
}

type Cell<'a> = (&'a ProjectName, &'a Person);

/// What the timelines and the record show, to be looked up.
#[derive(Default)]
struct Seen<'a> {
    /// The end of the last turn on call, whether or not the person qualified for what it earns.
    last_turn: BTreeMap<Cell<'a>, Timestamp>,
    /// Who has a turn ahead.
    next_turn: BTreeSet<Cell<'a>>,
    /// The same, by project.
    rotation: BTreeMap<&'a ProjectName, BTreeSet<&'a Person>>,
    /// Who earned or held something by a rule of the project.
    active: BTreeSet<Cell<'a>>,
    rules: BTreeSet<&'a Origin>,
    entitlements: BTreeSet<&'a EntitlementId>,
}

impl<'a> Seen<'a> {
    fn new(inputs: &'a Inputs<'a>) -> Self {
        let mut seen = Self::default();
        let projects = inputs.policy.projects.values();
        let rules: BTreeMap<&Origin, &ProjectName> = projects
            .flat_map(|p| p.rules.iter().map(|r| (&r.origin, &p.name)))
            .collect();
        for (timeline, ahead) in [(inputs.past, false), (inputs.ahead, true)] {
            for cause in &timeline.causes {
                seen.rules.insert(&cause.right.rule);
                seen.entitlements.insert(&cause.right.entitlement);
                seen.active.insert((&cause.right.project, &cause.person));
                if let Basis::OnCall { .. } = cause.right.basis {
                    seen.turn((&cause.right.project, &cause.person), cause.duty.end(), ahead);
                }
            }
            for problem in &timeline.problems {
                let project = problem.rule.as_ref().and_then(|rule| rules.get(rule));
                if let (Some(project), Some(person), Some(during)) = (project, &problem.person, problem.during) {
                    seen.turn((project, person), problem.last_ends.unwrap_or(during.end()), ahead);
                }
            }
        }
        for row in inputs.rows {
            seen.entitlements.insert(&row.entitlement);
            for recorded in &row.causes {
                seen.active.insert((&recorded.cause.right.project, &row.person));
            }
        }
        seen
    }

    fn turn(&mut self, cell: Cell<'a>, end: Timestamp, ahead: bool) {
        if ahead {
            self.next_turn.insert(cell);
            self.rotation.entry(cell.0).or_default().insert(cell.1);
        } else {
            let last = self.last_turn.entry(cell).or_insert(end);
            *last = end.max(*last);
        }
    }
}

fn idle_rule(inputs: &Inputs<'_>, rule: &Rule) -> Finding {
    let ended = rule.until.filter(|until| *until <= inputs.period.end());
    let (message, suggestion) = match (ended, &rule.trigger) {
        (Some(until), _) => (format!("the rule ended at {}", instant(until)), "remove it"),
        (None, Trigger::OnCall(on_call)) => (
            format!("nobody earned anything by being on call in {}", on_call.schedule),
            "remove the rule, or see in `dutybound forecast` why nobody qualifies",
        ),
        (None, Trigger::Members { .. }) => (
            "no member earned anything by it".to_owned(),
            "remove the rule, or correct its window or what it requires",
        ),
    };
    Finding {
        kind: FindingKind::IdleRule,
        subject: rule.entitlement.to_string(),
        origin: Some(rule.origin.clone()),
        message,
        suggestion: suggestion.to_owned(),
    }
}

fn groups(inputs: &Inputs<'_>, project: &Project) -> Vec<Finding> {
    let is_assignment = |rule: &Rule| {
        let entitlement = inputs.policy.entitlement(&rule.entitlement);
        rule.entitlement.project == project.name
            && entitlement.is_some_and(|e| matches!(e.target, Target::Assignment { .. }))
    };
    let finding = |bundle: Bundle<'_>| {
        let own: BTreeSet<&EntitlementId> = bundle.rules.iter().map(|rule| &rule.entitlement).collect();
        let grants = inputs.rows.iter().filter(|row| own.contains(&row.entitlement)).count();
        Finding {
            kind: FindingKind::GroupWouldDo,
            subject: bundle.schedule.to_string(),
            origin: bundle.rules.first().map(|rule| rule.origin.clone()),
            message: format!("{}; {grants} grants of it touch the period", bundle.cost()),
            suggestion: bundle.advice(),
        }
    };
    bundles(project.rules.iter(), is_assignment)
        .into_iter()
        .map(finding)
        .collect()
}

fn drift(inputs: &Inputs<'_>, project: &Project) -> Vec<Finding> {
    let mine = inputs.drift.iter().filter(|d| d.entitlement.project == project.name);
    mine.map(|d| Finding {
        kind: FindingKind::Drift,
        subject: d.entitlement.to_string(),
        origin: None,
        message: format!(
            "{} holds it and dutybound did not grant it{}",
            d.holder,
            if d.desired {
                ", although duty calls for it now"
            } else {
                ""
            }
        ),
        suggestion: "remove it in Identity Center, or have a rule earn it".to_owned(),
    })
    .collect()
}
