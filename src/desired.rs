//! What should be: turns policy and snapshots into causes over a span of time. Pure; knows no clock.

use std::cell::OnceCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::Identity;
use crate::model::{
    Basis, Cause, EntitlementId, Interval, Person, Right, ScheduleKey, Shift, Snapshot,
    spans::{gaps, merged, without},
};
use crate::policy::{Member, OnCall, Policy, Project, Rule, Trigger};
use crate::problem::{Problem, ProblemKind, collapse};

mod instant;
mod people;

pub use instant::Desired;
use instant::{of_entitlement, of_person};
use people::People;

/// The snapshots to plan from, by schedule.
pub type Snapshots = BTreeMap<ScheduleKey, Arc<Snapshot>>;

/// All causes that touch a span of time, and everything in it that keeps somebody from what their duty would earn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timeline {
    /// Sorted, without duplicates.
    pub causes: Vec<Arc<Cause>>,
    /// Sorted, without duplicates.
    pub problems: Vec<Problem>,
}

impl Timeline {
    /// Evaluates every rule over `range`.
    #[must_use]
    pub fn build(policy: &Policy, snapshots: &Snapshots, identities: &[Identity], range: Interval) -> Self {
        Self::of_some(policy, snapshots, identities, range, |_| true)
    }

    /// Evaluates the rules for some entitlements over `range`.
    #[must_use]
    pub fn of_some(
        policy: &Policy,
        snapshots: &Snapshots,
        identities: &[Identity],
        range: Interval,
        wanted: impl Fn(&EntitlementId) -> bool,
    ) -> Self {
        // Worked out where a rule needs it: it takes a look at everybody on every schedule.
        let people = OnceCell::new();
        let mut timeline = Self::default();
        for project in policy.projects.values() {
            let before = timeline.causes.len();
            for rule in project.rules.iter().filter(|rule| wanted(&rule.entitlement)) {
                match &rule.trigger {
                    Trigger::OnCall(on_call) => {
                        let people = people.get_or_init(|| People::new(snapshots, identities, range));
                        timeline.on_call(project, rule, on_call, snapshots, people, range);
                    }
                    Trigger::Members { during } => {
                        let spans = match during {
                            None => vec![Interval::ALWAYS],
                            Some(window) => window.intervals(range.widen(rule.linger, rule.lead)),
                        };
                        let basis = if during.is_some() {
                            Basis::Window
                        } else {
                            Basis::Membership
                        };
                        let right = right(project, rule, basis);
                        for member in project.members.values() {
                            for span in &spans {
                                let turn = Turn {
                                    duty: *span,
                                    end_known: true,
                                    right: Arc::clone(&right),
                                };
                                timeline.earn(project, rule, &member.person, turn, range);
                            }
                        }
                    }
                }
            }
            if let Some(new) = timeline.causes.get_mut(before..) {
                new.sort();
            }
        }
        // Only what one project's rules grant of another's entitlements is out of order now.
        timeline.causes.sort();
        timeline.causes.dedup();
        timeline.forget_what_another_rule_earns();
        timeline.problems = collapse(timeline.problems);
        timeline
    }

    /// Somebody who does not qualify by one rule and holds the entitlement by another for all that time lacks nothing.
    fn forget_what_another_rule_earns(&mut self) {
        let mut problems = std::mem::take(&mut self.problems);
        problems.retain(|problem| {
            let (true, Some(entitlement), Some(person), Some(during)) = (
                problem.kind.is_lack_of_a_key(),
                &problem.entitlement,
                &problem.person,
                problem.during,
            ) else {
                return true;
            };
            let earned = self.of(entitlement, person).iter().map(|cause| cause.held).collect();
            !without(&[during], &merged(earned)).is_empty()
        });
        self.problems = problems;
    }

    /// Keeps one copy of every cause that the other has as well: what is known for long and what was read last mostly agree.
    pub fn share_causes_of(&mut self, other: &Self) {
        let mut theirs = other.causes.iter().peekable();
        for cause in &mut self.causes {
            while let Some(other) = theirs.peek() {
                match (**other).cmp(cause) {
                    Ordering::Less => drop(theirs.next()),
                    Ordering::Equal => {
                        *cause = Arc::clone(other);
                        break;
                    }
                    Ordering::Greater => break,
                }
            }
        }
    }

    /// The instant's slice.
    #[must_use]
    pub fn at(&self, t: Timestamp) -> Desired {
        let held = self.causes.iter().filter(|cause| cause.held.contains(t));
        Desired {
            causes: held.cloned().collect(),
        }
    }

    /// The first instant after `t` at which a cause starts or is known to end.
    #[must_use]
    pub fn next_boundary(&self, t: Timestamp) -> Option<Timestamp> {
        next_boundary(self.causes.iter(), t)
    }

    /// The causes of one entitlement.
    #[must_use]
    pub fn of_entitlement(&self, entitlement: &EntitlementId) -> &[Arc<Cause>] {
        of_entitlement(&self.causes, entitlement)
    }

    /// The instant after `t` at which what holds at `t` for one person's entitlement stops holding: for somebody who
    /// should hold it the last of the ends of the causes at `t`, for somebody who should not the next beginning.
    /// `Timestamp::MAX` where nothing is known to come.
    #[must_use]
    pub fn holds_until(&self, entitlement: &EntitlementId, person: &Person, t: Timestamp) -> Timestamp {
        let theirs = self.of(entitlement, person).iter();
        let end = theirs
            .clone()
            .filter(|c| c.held.contains(t))
            .map(|c| c.held.end())
            .max();
        let next = theirs.map(|c| c.held.start()).filter(|start| t < *start).min();
        end.or(next).unwrap_or(Timestamp::MAX)
    }

    /// What one person's entitlement rests on over the whole span.
    #[must_use]
    pub fn of(&self, entitlement: &EntitlementId, person: &Person) -> &[Arc<Cause>] {
        of_person(&self.causes, entitlement, person)
    }

    fn on_call(
        &mut self,
        project: &Project,
        rule: &Rule,
        on_call: &OnCall,
        snapshots: &Snapshots,
        people: &People<'_>,
        range: Interval,
    ) {
        let Some(snapshot) = snapshots.get(&on_call.schedule) else {
            self.problems.push(Problem {
                entitlement: Some(rule.entitlement.clone()),
                schedule: Some(on_call.schedule.clone()),
                rule: Some(rule.origin.clone()),
                ..Problem::new(
                    ProblemKind::ScheduleUnread,
                    format!(
                        "{} has never been read completely, so nobody is granted by it",
                        on_call.schedule
                    ),
                )
            });
            return;
        };
        for shift in &snapshot.shifts {
            let wanted = on_call
                .levels
                .as_ref()
                .is_none_or(|levels| shift.level.is_some_and(|l| levels.contains(&l)));
            let reach = shift.interval.widen(rule.lead, rule.linger);
            if !wanted || reach.intersect(&range).is_none() {
                continue;
            }
            if shift.permanent && !on_call.permanent {
                self.problems.push(Problem {
                    user: Some(shift.user.label()),
                    during: shift.interval.intersect(&range),
                    ..Self::problem(rule, on_call, ProblemKind::PermanentNotAllowed, format!(
                        "{} is a standing target of {} without a schedule; add `permanent = true` to the rule to grant it",
                        shift.user.label(), on_call.schedule
                    ))
                });
                continue;
            }
            match people.identify(&on_call.schedule.source, &shift.user) {
                Err((kind, message)) => self.problems.push(Problem {
                    user: Some(shift.user.label()),
                    during: Some(reach),
                    ..Self::problem(rule, on_call, kind, message)
                }),
                Ok(person) => {
                    let turn = Turn {
                        duty: shift.interval,
                        end_known: shift.end_known,
                        right: right(project, rule, basis_of(on_call, shift)),
                    };
                    self.earn(project, rule, &person, turn, range);
                }
            }
        }
    }

    /// One turn of duty meets the rule's prerequisites, or a problem says which one is missing.
    fn earn(&mut self, project: &Project, rule: &Rule, person: &Person, turn: Turn, range: Interval) {
        let held = turn.duty.widen(rule.lead, rule.linger);
        let member = project.members.get(person);
        let Some(until) = Interval::new(Timestamp::MIN, rule.until.unwrap_or(Timestamp::MAX)) else {
            return;
        };
        if rule.member || !rule.trainings.is_empty() {
            let Some(member) = member else {
                return self.lacks(
                    rule,
                    person,
                    held,
                    range,
                    ProblemKind::NotAMember,
                    format!(
                        "{person} is on duty for {} but is not a member of {}; an owner ({}) can add [[member]] to {}",
                        rule.entitlement,
                        project.name,
                        owners(project),
                        project.origin.file
                    ),
                );
            };
            if turn.is_on_call() {
                self.outside_membership(project, rule, member, held, range);
            }
            self.untrained(rule, member, held, range);
            for valid in member.qualified(&rule.trainings) {
                if let Some(valid) = valid.intersect(&until) {
                    self.causes
                        .extend(caused(rule, person, Some(member), &turn, valid, range));
                }
            }
        } else {
            self.causes.extend(caused(rule, person, None, &turn, until, range));
        }
    }

    /// The parts of the membership's time in which a training that the rule demands does not count.
    fn untrained(&mut self, rule: &Rule, member: &Member, held: Interval, range: Interval) {
        let (person, entitlement) = (&member.person, &rule.entitlement);
        let Some(held) = member.valid().and_then(|valid| valid.intersect(&held)) else {
            return;
        };
        for training in &rule.trainings {
            let Some(completed) = member.completed.get(training) else {
                let message = format!(
                    "{person} is on duty for {entitlement} but has not completed {training:?} ({})",
                    member.entry.origin
                );
                self.lacks(rule, person, held, range, ProblemKind::MissingTraining, message);
                continue;
            };
            for gap in gaps(held, &member.trained(training)) {
                let ended = completed.iter().filter(|c| c.valid.end() <= gap.start());
                let message = match ended.max_by_key(|c| c.valid.end()) {
                    Some(last) => format!(
                        "{person} is on duty for {entitlement} but {training:?} counts only until {} ({})",
                        last.valid.end(),
                        last.origin
                    ),
                    None => format!(
                        "{person} is on duty for {entitlement} but {training:?} counts only from {} ({})",
                        gap.end(),
                        member.entry.origin
                    ),
                };
                self.lacks(rule, person, gap, range, ProblemKind::MissingTraining, message);
            }
        }
    }

    /// The parts of on-call duty that the membership does not cover.
    fn outside_membership(&mut self, project: &Project, rule: &Rule, member: &Member, held: Interval, range: Interval) {
        let (person, name, origin) = (&member.person, &project.name, &member.entry.origin);
        if let Some(since) = member.since
            && let Some(before) = Interval::new(held.start(), held.end().min(since))
        {
            let message = format!(
                "{person}'s membership of {name} begins at {since}, after their duty for {} does ({origin})",
                rule.entitlement
            );
            self.lacks(rule, person, before, range, ProblemKind::NotAMember, message);
        }
        if let Some(until) = member.until
            && let Some(rest) = Interval::new(until.max(held.start()), held.end())
        {
            let message = format!(
                "{person}'s membership of {name} ends at {until}, before their duty for {} does ({origin})",
                rule.entitlement
            );
            self.lacks(rule, person, rest, range, ProblemKind::MembershipEnds, message);
        }
    }

    fn lacks(
        &mut self,
        rule: &Rule,
        person: &Person,
        held: Interval,
        range: Interval,
        kind: ProblemKind,
        message: String,
    ) {
        if let Some(during) = held.intersect(&range) {
            self.problems.push(Problem {
                entitlement: Some(rule.entitlement.clone()),
                person: Some(person.clone()),
                during: Some(during),
                rule: Some(rule.origin.clone()),
                ..Problem::new(kind, message)
            });
        }
    }

    fn problem(rule: &Rule, on_call: &OnCall, kind: ProblemKind, message: String) -> Problem {
        Problem {
            entitlement: Some(rule.entitlement.clone()),
            schedule: Some(on_call.schedule.clone()),
            rule: Some(rule.origin.clone()),
            ..Problem::new(kind, message)
        }
    }
}

/// The first instant after `t` at which one of the causes starts or is known to end.
pub(crate) fn next_boundary<'a>(causes: impl Iterator<Item = &'a Arc<Cause>>, t: Timestamp) -> Option<Timestamp> {
    let edges = causes.flat_map(|c| {
        let end = c.end_known.then(|| c.held.end());
        [Some(c.held.start()), end]
    });
    edges.flatten().filter(|edge| t < *edge && *edge < Timestamp::MAX).min()
}

/// What a turn causes while the prerequisites are `valid`, if that touches the range.
fn caused(
    rule: &Rule,
    person: &Person,
    member: Option<&Member>,
    turn: &Turn,
    valid: Interval,
    range: Interval,
) -> Option<Arc<Cause>> {
    let whole = turn.duty.widen(rule.lead, rule.linger);
    let held = whole.intersect(&valid)?;
    held.intersect(&range)?;
    Some(Arc::new(Cause {
        right: Arc::clone(&turn.right),
        person: person.clone(),
        held,
        // Duty that lies wholly outside the prerequisites' validity leaves only lead or linger: the cause is then all
        // overhang.
        duty: turn.duty.intersect(&valid).unwrap_or(turn.duty),
        end_known: turn.end_known || held.end() < whole.end(),
        member: member.map(|member| Arc::clone(&member.entry)),
    }))
}

fn right(project: &Project, rule: &Rule, basis: Basis) -> Arc<Right> {
    Arc::new(Right {
        entitlement: rule.entitlement.clone(),
        basis,
        project: project.name.clone(),
        rule: rule.origin.clone(),
        delegation: rule.delegation.as_ref().map(|delegation| delegation.origin.clone()),
    })
}

struct Turn {
    duty: Interval,
    end_known: bool,
    right: Arc<Right>,
}

impl Turn {
    fn is_on_call(&self) -> bool {
        matches!(self.right.basis, Basis::OnCall { .. })
    }
}

fn basis_of(on_call: &OnCall, shift: &Shift) -> Basis {
    Basis::OnCall {
        schedule: on_call.schedule.clone(),
        user_id: shift.user.id.clone(),
        level: shift.level,
        via_override: shift.via_override.clone(),
    }
}

fn owners(project: &Project) -> String {
    project.owners.iter().map(Person::as_str).collect::<Vec<_>>().join(", ")
}
