//! What should be: turns policy and snapshots into causes over a span of time. Pure; knows no clock.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use jiff::Timestamp;

use crate::config::Identity;
use crate::model::{
    Basis, Cause, EntitlementId, Interval, Person, Right, ScheduleKey, Shift, Snapshot, SourceName, SourceUser,
    SourceUserState,
    spans::{gaps, merged, without},
};
use crate::policy::{Member, OnCall, Policy, Project, Rule, Trigger};
use crate::problem::{Problem, ProblemKind, collapse};

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

/// Who should hold what at one instant, with every cause.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Sorted without duplicates, so that those of one entitlement stand together, and among them those of one person.
    causes: Vec<Arc<Cause>>,
}

impl Desired {
    /// Whether nobody should hold anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    /// Every entitlement that somebody should hold, sorted, with these people, sorted, and why each of them should.
    pub fn entitlements(
        &self,
    ) -> impl Iterator<Item = (&EntitlementId, impl Iterator<Item = (&Person, &[Arc<Cause>])> + Clone)> + Clone {
        let is_same = |a: &Arc<Cause>, b: &Arc<Cause>| {
            Arc::ptr_eq(&a.right, &b.right) || a.right.entitlement == b.right.entitlement
        };
        self.causes.chunk_by(is_same).map(|causes| {
            let people = causes.chunk_by(|a, b| a.person == b.person);
            (
                &causes[0].right.entitlement,
                people.map(|causes| (&causes[0].person, causes)),
            )
        })
    }

    /// Why the person should hold the entitlement; empty where they should not.
    #[must_use]
    pub fn causes_of(&self, entitlement: &EntitlementId, person: &Person) -> &[Arc<Cause>] {
        of_person(&self.causes, entitlement, person)
    }

    /// Whether the person should hold the entitlement.
    #[must_use]
    pub fn calls_for(&self, entitlement: &EntitlementId, person: &Person) -> bool {
        !self.causes_of(entitlement, person).is_empty()
    }

    /// Whether anybody should hold the entitlement.
    #[must_use]
    pub fn calls_for_anybody(&self, entitlement: &EntitlementId) -> bool {
        !of_entitlement(&self.causes, entitlement).is_empty()
    }

    /// Adds a cause, and says whether it is new.
    pub fn add(&mut self, cause: &Arc<Cause>) -> bool {
        let place = self.causes.binary_search(cause);
        if let Err(place) = place {
            self.causes.insert(place, Arc::clone(cause));
        }
        place.is_err()
    }
}

/// Those of one entitlement among causes that are sorted.
fn of_entitlement<'a>(sorted: &'a [Arc<Cause>], entitlement: &EntitlementId) -> &'a [Arc<Cause>] {
    let from = sorted.partition_point(|cause| cause.right.entitlement < *entitlement);
    let rest = sorted.get(from..).unwrap_or_default();
    let is_other = |cause: &Arc<Cause>| cause.right.entitlement != *entitlement;
    let (these, _) = rest.split_at(rest.iter().position(is_other).unwrap_or(rest.len()));
    these
}

/// Those of one person's entitlement.
fn of_person<'a>(sorted: &'a [Arc<Cause>], entitlement: &EntitlementId, person: &Person) -> &'a [Arc<Cause>] {
    let from = sorted.partition_point(|cause| (&cause.right.entitlement, &cause.person) < (entitlement, person));
    let rest = sorted.get(from..).unwrap_or_default();
    let is_other = |cause: &Arc<Cause>| cause.person != *person || cause.right.entitlement != *entitlement;
    let (these, _) = rest.split_at(rest.iter().position(is_other).unwrap_or(rest.len()));
    these
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

/// Knows which person a provider's user is.
struct People<'a> {
    by_pin: BTreeMap<(&'a SourceName, &'a str), &'a Person>,
    pinned: BTreeSet<(&'a SourceName, &'a Person)>,
    /// The one user of an address at a source; `None` where there are several.
    by_email: HashMap<(&'a SourceName, Cow<'a, str>), Option<&'a str>>,
}

/// E-mail is compared without regard to ASCII case; nearly all of it is in lower case already.
fn lower(email: &str) -> Cow<'_, str> {
    match email.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => email.to_ascii_lowercase().into(),
        false => email.into(),
    }
}

impl<'a> People<'a> {
    fn new(snapshots: &'a Snapshots, identities: &'a [Identity], range: Interval) -> Self {
        let mut people = Self {
            by_pin: BTreeMap::new(),
            pinned: BTreeSet::new(),
            by_email: HashMap::default(),
        };
        for identity in identities {
            for (source, id) in &identity.sources {
                people.by_pin.insert((source, id), &identity.person);
                people.pinned.insert((source, &identity.person));
            }
        }
        // Turns name the same users again and again, and schedules of one source stand together.
        let mut seen = HashSet::default();
        let mut source = None;
        for snapshot in snapshots.values() {
            if source.replace(&snapshot.schedule.source) != Some(&snapshot.schedule.source) {
                seen.clear();
            }
            for user in snapshot
                .shifts
                .iter()
                .filter(|s| s.interval.intersect(&range).is_some())
                .map(|s| &s.user)
                .filter(|u| u.state == SourceUserState::Active && seen.insert(Arc::as_ptr(u)))
            {
                if let Some(email) = &user.email {
                    let of_address = people.by_email.entry((&snapshot.schedule.source, lower(email)));
                    let one = of_address.or_insert(Some(&user.id));
                    *one = one.filter(|id| *id == user.id);
                }
            }
        }
        people
    }

    /// Exact mapping wins, then e-mail equality without regard to ASCII case; never anything fuzzier.
    fn identify(&self, source: &SourceName, user: &SourceUser) -> Result<Person, (ProblemKind, String)> {
        let label = user.label();
        match user.state {
            SourceUserState::Deleted => {
                return Err((
                    ProblemKind::UserDeleted,
                    format!("{label} is on duty at {source} but no longer a user there"),
                ));
            }
            SourceUserState::Blocked => {
                return Err((
                    ProblemKind::UserBlocked,
                    format!("{label} is on duty at {source} but blocked there"),
                ));
            }
            SourceUserState::Active => {}
        }
        if let Some(person) = self.by_pin.get(&(source, user.id.as_str())) {
            return Ok((*person).clone());
        }
        let Some(email) = &user.email else {
            return Err((
                ProblemKind::NoEmail,
                format!(
                    "{label} is on duty but {source} gives no e-mail for them; map the id {:?} in [[identity]]",
                    user.id
                ),
            ));
        };
        if let Some(person) = self.by_pin.get(&(source, email.as_str())) {
            return Ok((*person).clone());
        }
        let person = Person::parse(email)
            .map_err(|e| (ProblemKind::NoEmail, format!("{label} is on duty at {source} but {e}")))?;
        if self.pinned.contains(&(source, &person)) {
            return Err((
                ProblemKind::PinnedElsewhere,
                format!(
                    "{label} at {source} has the e-mail of {person}, whom [[identity]] maps to another user id; correct the mapping if the user was re-created"
                ),
            ));
        }
        if self.by_email.get(&(source, lower(email))) == Some(&None) {
            return Err((
                ProblemKind::AmbiguousUser,
                format!("several users of {source} have the e-mail {person}; map the right id in [[identity]]"),
            ));
        }
        Ok(person)
    }
}
