//! `tree`: the projects with their owners, what they may do, what they lend each other, and their access hours a week.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::accounting::{account, length, standing};
use crate::config::Identity;
use crate::desired::{Snapshots, Timeline};
use crate::ledger::AccessRow;
use crate::model::{EntitlementId, Interval, Origin, Person, ProjectName, ScheduleKey};
use crate::policy::{Delegation, Limits, Policy, Project, Trigger};

mod draw;

const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The whole tree, or the part of it below one project.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tree {
    /// The week behind ends and the week ahead begins here.
    pub as_of: Timestamp,
    /// Whether there is a ledger, without which nothing is known of access held.
    pub ledger: bool,
    /// What the operator states of all.
    pub statements: Vec<Statement>,
    /// Sorted by name.
    pub projects: Vec<Node>,
    /// Held in the week behind of entitlements whose project the policy no longer has; only with the whole tree.
    pub held_elsewhere_seconds: Option<i64>,
}

/// One project.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    /// Its name.
    pub name: ProjectName,
    /// Who consents.
    pub owners: Vec<Person>,
    /// The projects above, the nearest first, with their owners, who own this one too.
    pub above: Vec<Above>,
    /// How many members it lists.
    pub members: usize,
    /// How many entitlements it owns.
    pub entitlements: usize,
    /// How many rules it has.
    pub rules: usize,
    /// What its owners state of what it and the projects below own.
    pub statements: Vec<Statement>,
    /// Its own limits for what stands below.
    pub children_limits: Option<Limits>,
    /// The limits that bind it, the nearest first, by the project that set them.
    pub bound_by: Vec<Bound>,
    /// What it lends.
    pub lends: Vec<Lent>,
    /// What its rules use of others, with the delegation they rest on.
    pub borrows: Vec<Lent>,
    /// What standing access to what it owns would be in the week ahead: everybody who could ever earn it, all the time.
    pub standing_seconds: i64,
    /// What membership rules give of it in the week ahead, always or inside windows, without anybody being on call.
    pub window_seconds: i64,
    /// What was held of it in the week behind; `None` without a ledger.
    pub held_seconds: Option<i64>,
    /// Schedules never read, on which anybody earns something it owns without being a member: not in `standing_seconds`.
    pub uncounted: BTreeSet<ScheduleKey>,
    /// The projects directly below, sorted by name.
    pub below: Vec<Node>,
}

/// A statement of owners or of the operator.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statement {
    /// Its name.
    pub name: String,
    /// In the words of who states it.
    pub statement: String,
    /// What it demands, in words.
    pub demands: String,
    /// What it speaks about.
    pub scope: String,
    /// Where it stands.
    pub origin: Origin,
}

/// A project above and its owners.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Above {
    /// Its name.
    pub project: ProjectName,
    /// Who consents there.
    pub owners: Vec<Person>,
}

/// The limits of a project above.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bound {
    /// Who set them.
    pub by: ProjectName,
    /// What they are.
    pub limits: Limits,
}

/// An entitlement that one project lends another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lent {
    /// Which entitlement.
    pub entitlement: EntitlementId,
    /// To whom, for what, until when.
    pub delegation: Delegation,
}

/// What the ledger knows.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Intervals that overlap [`week_behind`].
    pub access: &'a [AccessRow],
    /// The stored snapshots.
    pub snapshots: &'a Snapshots,
}

/// The seven days that end at `now`.
#[must_use]
pub fn week_behind(now: Timestamp) -> Interval {
    let start = now.checked_sub(WEEK).unwrap_or(Timestamp::MIN);
    Interval::new(start, now).unwrap_or(Interval::ALWAYS)
}

/// Makes the tree, or the part below `only`. `None` when the policy has no such project.
#[must_use]
pub fn tree(
    policy: &Policy,
    identities: &[Identity],
    record: Option<Record<'_>>,
    now: Timestamp,
    only: Option<&ProjectName>,
) -> Option<Tree> {
    let figures = Figures::new(policy, identities, record, now);
    let mut below: BTreeMap<Option<&ProjectName>, Vec<&Project>> = BTreeMap::new();
    for project in policy.projects.values() {
        below.entry(project.parent.as_ref()).or_default().push(project);
    }
    let node = |project: &Project| Node::new(policy, project, &below, &figures);
    let projects = match only {
        Some(name) => vec![node(policy.projects.get(name)?)],
        None => below.get(&None).into_iter().flatten().map(|root| node(root)).collect(),
    };
    let gone = |held: &BTreeMap<ProjectName, i64>| {
        let elsewhere = held.iter().filter(|(name, _)| !policy.projects.contains_key(name));
        elsewhere.map(|(_, seconds)| seconds).sum()
    };
    Some(Tree {
        as_of: now,
        ledger: record.is_some(),
        statements: statements(policy, None),
        projects,
        held_elsewhere_seconds: figures.held.as_ref().filter(|_| only.is_none()).map(gone),
    })
}

/// What the owners of this project state, or the operator.
fn statements(policy: &Policy, of: Option<&ProjectName>) -> Vec<Statement> {
    let stated = policy.invariants.iter().filter(|i| i.project.as_ref() == of);
    stated
        .map(|invariant| Statement {
            name: invariant.name.clone(),
            statement: invariant.statement.clone(),
            demands: invariant.condition.to_string(),
            scope: invariant.scope(),
            origin: invariant.origin.clone(),
        })
        .collect()
}

impl Statement {
    /// `"No two of us." (never two of them together; all of payments and below, access.d/payments.toml:9)`
    fn words(&self) -> String {
        let Self {
            statement,
            demands,
            scope,
            origin,
            ..
        } = self;
        format!("{statement:?} ({demands}; {scope}, {origin})")
    }
}

impl Node {
    fn new(
        policy: &Policy,
        project: &Project,
        below: &BTreeMap<Option<&ProjectName>, Vec<&Project>>,
        figures: &Figures,
    ) -> Self {
        let above: Vec<&Project> = policy.lineage(&project.name).skip(1).collect();
        let seconds = |figure: &BTreeMap<ProjectName, i64>| figure.get(&project.name).copied().unwrap_or_default();
        let lent = |(entitlement, delegation): (&EntitlementId, &Delegation)| Lent {
            entitlement: entitlement.clone(),
            delegation: delegation.clone(),
        };
        let own = project.entitlements.values();
        let lends = own.flat_map(|e| e.delegate_to.iter().map(move |d| (&e.id, d)));
        let mut borrows: Vec<(&EntitlementId, &Delegation)> = Vec::new();
        for rule in &project.rules {
            let used = rule.delegation.as_ref().map(|d| (&rule.entitlement, d));
            borrows.extend(used.filter(|used| !borrows.contains(used)));
        }
        Self {
            name: project.name.clone(),
            owners: project.owners.clone(),
            above: above
                .iter()
                .map(|p| Above {
                    project: p.name.clone(),
                    owners: p.owners.clone(),
                })
                .collect(),
            members: project.members.len(),
            entitlements: project.entitlements.len(),
            rules: project.rules.len(),
            statements: statements(policy, Some(&project.name)),
            children_limits: project.children.clone(),
            bound_by: above
                .iter()
                .flat_map(|p| {
                    p.children.clone().map(|limits| Bound {
                        by: p.name.clone(),
                        limits,
                    })
                })
                .collect(),
            lends: lends.map(lent).collect(),
            borrows: borrows.into_iter().map(lent).collect(),
            standing_seconds: seconds(&figures.standing),
            window_seconds: seconds(&figures.windows),
            held_seconds: figures.held.as_ref().map(seconds),
            uncounted: figures.uncounted.get(&project.name).cloned().unwrap_or_default(),
            below: below
                .get(&Some(&project.name))
                .into_iter()
                .flatten()
                .map(|child| Self::new(policy, child, below, figures))
                .collect(),
        }
    }
}

/// Seconds by the project that owns the entitlement.
struct Figures {
    standing: BTreeMap<ProjectName, i64>,
    windows: BTreeMap<ProjectName, i64>,
    held: Option<BTreeMap<ProjectName, i64>>,
    uncounted: BTreeMap<ProjectName, BTreeSet<ScheduleKey>>,
}

impl Figures {
    fn new(policy: &Policy, identities: &[Identity], record: Option<Record<'_>>, now: Timestamp) -> Self {
        let ahead = now.checked_add(WEEK).unwrap_or(Timestamp::MAX);
        let ahead = Interval::new(now, ahead).unwrap_or(Interval::ALWAYS);
        let none = Snapshots::new();
        let snapshots = record.map_or(&none, |record| record.snapshots);
        let standing = standing(policy, snapshots, identities, ahead);
        // Without snapshots the timeline holds exactly what membership earns.
        let mut earned: BTreeMap<(EntitlementId, Person), Vec<Interval>> = BTreeMap::new();
        for cause in Timeline::build(policy, &none, identities, ahead).causes {
            let span = cause.held.intersect(&ahead);
            earned
                .entry((cause.right.entitlement.clone(), cause.person.clone()))
                .or_default()
                .extend(span);
        }
        let earned = earned.into_iter().map(|(cell, spans)| (cell, length(spans)));
        let held = record.map(|record| {
            let account = account(record.access, week_behind(now), now);
            by_project(account.cells.into_iter().map(|(cell, figures)| (cell, figures.held())))
        });
        let mut uncounted: BTreeMap<ProjectName, BTreeSet<ScheduleKey>> = BTreeMap::new();
        for rule in policy.projects.values().flat_map(|p| &p.rules) {
            if let Trigger::OnCall(on_call) = &rule.trigger
                && !rule.member
                && !snapshots.contains_key(&on_call.schedule)
            {
                let schedules = uncounted.entry(rule.entitlement.project.clone()).or_default();
                schedules.insert(on_call.schedule.clone());
            }
        }
        Self {
            standing: by_project(standing.into_iter()),
            windows: by_project(earned),
            held,
            uncounted,
        }
    }
}

fn by_project(cells: impl Iterator<Item = ((EntitlementId, Person), SignedDuration)>) -> BTreeMap<ProjectName, i64> {
    let mut sums: BTreeMap<ProjectName, SignedDuration> = BTreeMap::new();
    for ((entitlement, _), time) in cells {
        let sum = sums.entry(entitlement.project).or_default();
        *sum = sum.saturating_add(time);
    }
    sums.into_iter().map(|(name, time)| (name, time.as_secs())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::fixtures::{cause, on_call, on_call_rule, person, policy, row, snapshots, span, t};

    #[test]
    fn held_and_standing_access_are_those_of_the_week() {
        // Alice for good, bob until second 50, as long as a shift of alice's is on record.
        let two_keys = policy(vec![on_call_rule(true, None, 9)]);
        let week = 7 * 24 * 3600;
        let on_duty = |from, to| cause(on_call(), span(from, to), span(from, to), from, None);
        let rows = [
            row(-week - 100, Some(-week + 20), vec![on_duty(-week - 100, -week + 20)]),
            row(-30, None, vec![on_duty(-30, 100)]),
        ];
        let record = Record {
            access: &rows,
            snapshots: &snapshots(),
        };
        let root = |tree: Option<Tree>| tree.unwrap().projects.remove(0);
        let known = root(tree(&two_keys, &[], Some(record), t(0), None));
        assert_eq!((known.held_seconds, known.standing_seconds), (Some(50), week + 50));
        assert_eq!(known.window_seconds, 0);
        let unknown = root(tree(&two_keys, &[], None, t(0), None));
        assert_eq!((unknown.held_seconds, unknown.standing_seconds), (None, week + 50));

        let one_key = policy(vec![on_call_rule(false, None, 9)]);
        let known = root(tree(&one_key, &[], Some(record), t(0), None));
        assert_eq!((known.standing_seconds, known.uncounted.len()), (2 * week, 0));
        let unknown = root(tree(&one_key, &[], None, t(0), None));
        assert_eq!((unknown.standing_seconds, unknown.uncounted.len()), (0, 1));

        let mut gone = two_keys.clone();
        gone.projects.clear();
        let empty = tree(&gone, &[], Some(record), t(0), None).unwrap();
        assert_eq!((empty.projects.len(), empty.held_elsewhere_seconds), (0, Some(50)));
        assert_eq!(
            tree(&gone, &[], None, t(0), Some(&ProjectName("payments".into()))),
            None
        );
        assert_eq!(known.owners, [person("mira@example.com")]);
    }
}
