//! Which entitlements are at rest: what should be, what stands and what is on record agree, and nothing is known that
//! changes this for a while. A pass passes over them.
//!
//! A daemon that has just begun has not looked at AWS yet: there the record is believed until the first look, which ends the
//! rest where it shows something else.
//!
//! Rest is only ever ended too early: by an edit of the policy, the schedule, the configuration or an order that may
//! concern the entitlement, by whatever becomes of it in AWS or on record, some time before its next boundary, and after
//! a while in any case.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use jiff::{SignedDuration, Timestamp};

use super::{AT_ONCE, Record, Survey};
use crate::along::Along;
use crate::config::{Config, Identity, Timing};
use crate::desired::{Snapshots, next_boundary};
use crate::identity_center::{AwsError, Resolution};
use crate::ledger::{Bar, KnownSchedules, Touched};
use crate::live::LiveCache;
use crate::model::{
    EntitlementId, Person, PrincipalId, ResolvedTarget, ScheduleKey, Shift, Snapshot, SourceName, SourceUserState,
};
use crate::plan::{Drift, Key};
use crate::policy::Policy;

/// Rest ends this long before a boundary: longer than a pass takes, and for looking up whoever comes.
const BEFORE_A_BOUNDARY: SignedDuration = SignedDuration::from_mins(20);
/// The shortest rest where nothing else ends it, and by how much it differs, so that not all wake in the same pass.
const LEAST: SignedDuration = SignedDuration::from_mins(10);
const SPREAD_SECONDS: u64 = 600;

/// The entitlements at rest, and what they were judged by.
#[derive(Debug, Default)]
pub struct Resting {
    judged_by: Option<Basis>,
    /// As of the last pass.
    schedules: Arc<Snapshots>,
    cells: BTreeMap<EntitlementId, Rest>,
    by_target: HashMap<ResolvedTarget, EntitlementId>,
    /// Who people were found to be, for the names of holders.
    people: BTreeMap<Person, Result<Resolution, String>>,
    /// What something else turned out to be as well.
    to_wake: Vec<EntitlementId>,
}

/// What concerns every entitlement alike.
#[derive(Debug, Clone, PartialEq)]
struct Basis {
    policy: Arc<Policy>,
    identities: Vec<Identity>,
    timing: Timing,
    bars: Vec<Bar>,
}

/// One entitlement at rest.
#[derive(Debug)]
struct Rest {
    target: ResolvedTarget,
    since: Timestamp,
    until: Timestamp,
    next_boundary: Option<Timestamp>,
    /// Grants of ours that stand.
    standing: usize,
    drift: Vec<Drift>,
    /// Who holds it by the record, where AWS was not looked at yet.
    unread: Option<Vec<PrincipalId>>,
}

/// What may end rest, besides edits.
pub(crate) struct News<'a> {
    pub(crate) known: &'a KnownSchedules<'a>,
    pub(crate) bars: &'a [Bar],
    /// Changes that are under way, open or of unknown outcome.
    pub(crate) unfinished: BTreeSet<&'a Key>,
    pub(crate) touched: &'a Touched,
    /// Targets whose holders are not what they were at the last pass, or not known any more.
    pub(crate) seen: &'a BTreeSet<ResolvedTarget>,
}

impl Resting {
    /// Whether a pass must look at an entitlement, for entitlements that are asked about in strictly ascending
    /// order.
    pub(crate) fn awake<'a>(&'a self) -> impl FnMut(&'a EntitlementId) -> bool {
        let mut cells = Along::new(&self.cells);
        move |entitlement| cells.find(entitlement).is_none()
    }

    /// What those at rest are in AWS.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&EntitlementId, &ResolvedTarget)> {
        self.cells.iter().map(|(id, rest)| (id, &rest.target))
    }

    /// The first instant after `at` at which something is to be done about what is at rest. What has begun or ended
    /// while the pass went on reading is for a pass at once.
    pub(super) fn next_boundary(&self, at: Timestamp) -> Option<Timestamp> {
        let boundaries = self.cells.values().filter_map(|rest| rest.next_boundary);
        Some(boundaries.min()?.max(at.saturating_add(AT_ONCE).unwrap_or(at)))
    }

    /// How many grants of ours stand of what is at rest.
    pub(super) fn standing(&self) -> usize {
        self.cells.values().map(|rest| rest.standing).sum()
    }

    /// What others granted of what is at rest.
    pub(super) fn drift(&self) -> impl Iterator<Item = &Drift> {
        self.cells.values().flat_map(|rest| &rest.drift)
    }

    /// Adds to who was just looked up those who were known before, for the names of holders. Of whoever is `concerned`
    /// only the present answer counts: not knowing is not the same as having known once.
    pub(super) fn remember_people<'a>(
        &mut self,
        looked_up: BTreeMap<Person, Result<Resolution, String>>,
        concerned: impl IntoIterator<Item = &'a Person>,
    ) -> BTreeMap<Person, Result<Resolution, String>> {
        let mut known = std::mem::take(&mut self.people);
        if known.is_empty() {
            return looked_up;
        }
        // A user who is somebody else by now has no other name any more.
        let is_known = |person: &Person, id: &PrincipalId| known.get(person).and_then(id_of) == Some(id);
        let found = looked_up
            .iter()
            .filter_map(|(person, found)| Some((person, id_of(found)?)));
        let renamed: BTreeSet<&PrincipalId> = found
            .filter(|(person, id)| !is_known(person, id))
            .map(|(_, id)| id)
            .collect();
        if !renamed.is_empty() {
            known.retain(|_, found| id_of(found).is_none_or(|id| !renamed.contains(id)));
        }
        for person in concerned {
            known.remove(person);
        }
        known.extend(looked_up);
        known
    }

    /// Keeps who people were found to be.
    pub(super) fn keep_people(&mut self, people: BTreeMap<Person, Result<Resolution, String>>) {
        self.people = people;
    }

    /// A first look at something at rest that shows what is on record is no news.
    pub(super) fn take_first_reads(&mut self, live: &mut LiveCache) {
        let looked_at: Vec<ResolvedTarget> = live.changed().iter().cloned().collect();
        for target in looked_at {
            let rest = self.by_target.get(&target).and_then(|id| self.cells.get_mut(id));
            let Some((rest, holders)) = rest.zip(live.of(&target)) else {
                continue;
            };
            let as_recorded = |recorded: &Vec<PrincipalId>| recorded.iter().eq(&holders.users);
            if holders.groups.is_empty() && rest.unread.as_ref().is_some_and(as_recorded) {
                rest.unread = None;
                live.count_as_unchanged(&target);
            }
        }
    }

    /// Whether a pass should come at once, because an entitlement at rest is not what it was, or was refused. Strangers
    /// that a first look shows were there before, and a look that fails shows nothing: both are told by the next pass,
    /// which comes in its time.
    pub(super) fn is_disturbed_by(&self, live: &LiveCache) -> bool {
        let is_urgent = |target: &ResolvedTarget| {
            let rest = self.by_target.get(target).and_then(|id| self.cells.get(id));
            rest.is_some_and(|rest| match (&rest.unread, live.of(target)) {
                (Some(recorded), Some(holders)) => !recorded.iter().all(|user| holders.users.contains(user)),
                (None, Some(_)) => true,
                (_, None) => false,
            })
        };
        !self.to_wake.is_empty() || live.changed().iter().any(is_urgent)
    }

    /// Refuses what turns out to be the same thing in AWS as something at rest; in the next pass both are.
    pub(super) fn refuse_what_others_are(
        &mut self,
        mut targets: BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
    ) -> BTreeMap<EntitlementId, Result<ResolvedTarget, String>> {
        for (id, target) in &mut targets {
            let other = target.as_ref().ok().and_then(|target| self.by_target.get(target));
            if let Some(other) = other {
                self.to_wake.push(other.clone());
                *target = Err(format!("{other} and {id} are the same thing in AWS"));
            }
        }
        targets
    }

    /// Ends the rest of whatever something has become of.
    pub(crate) fn wake(&mut self, policy: &Arc<Policy>, config: &Config, news: &News<'_>) {
        self.wake_after_edits(policy, config, news.bars);
        let at = news.known.at;
        self.wake_after_reads(policy, news.known);
        for entitlement in std::mem::take(&mut self.to_wake) {
            self.wake_one(&entitlement);
        }
        for (entitlement, target) in news.touched {
            self.wake_one(entitlement);
            self.wake_target(target);
        }
        for target in news.seen.iter().chain(news.unfinished.iter().map(|key| &key.0)) {
            self.wake_target(target);
        }
        let over = |rest: &Rest| at < rest.since || rest.until <= at;
        let over: Vec<_> = self
            .cells
            .iter()
            .filter(|(_, rest)| over(rest))
            .map(|(id, _)| id.clone())
            .collect();
        for id in over {
            self.wake_one(&id);
        }
    }

    fn wake_one(&mut self, entitlement: &EntitlementId) {
        if let Some(rest) = self.cells.remove(entitlement) {
            self.by_target.remove(&rest.target);
        }
    }

    fn wake_target(&mut self, target: &ResolvedTarget) {
        if let Some(entitlement) = self.by_target.remove(target) {
            self.cells.remove(&entitlement);
        }
    }

    fn wake_all(&mut self) {
        self.cells.clear();
        self.by_target.clear();
    }

    fn wake_after_edits(&mut self, policy: &Arc<Policy>, config: &Config, bars: &[Bar]) {
        let basis = || Basis {
            policy: Arc::clone(policy),
            identities: config.identities.clone(),
            timing: config.timing.clone(),
            bars: bars.to_vec(),
        };
        let alike = |before: &&Basis| {
            before.identities == config.identities && before.timing == config.timing && before.bars == bars
        };
        match self.judged_by.as_ref().filter(alike) {
            Some(before) => {
                // The revision is of the files; the operator's statements are not among them.
                if before.policy.revision == policy.revision && before.policy.invariants == policy.invariants {
                    return;
                }
                if before.policy.invariants != policy.invariants {
                    self.wake_all();
                } else {
                    let edited: Vec<_> = edited(&before.policy, policy);
                    for entitlement in edited {
                        self.wake_one(&entitlement);
                    }
                }
            }
            None => {
                self.wake_all();
                self.people.clear();
            }
        }
        self.judged_by = Some(basis());
    }

    fn wake_after_reads(&mut self, policy: &Policy, known: &KnownSchedules<'_>) {
        let mut changed: BTreeSet<&ScheduleKey> = BTreeSet::new();
        let mut strangers: BTreeSet<&SourceName> = BTreeSet::new();
        let (mut all_before, mut all_settled) = (Along::new(&*self.schedules), Along::new(&known.settled));
        for (key, snapshot) in &*known.newest {
            let before = all_before.find(key);
            if before.is_none_or(|before| differ(before, snapshot)) {
                changed.insert(key);
                if before.is_none_or(|before| people(&before.shifts) != people(&snapshot.shifts)) {
                    strangers.insert(&key.source);
                }
            }
            if all_settled.find(key).is_none_or(|known| differ(known, snapshot)) {
                changed.insert(key);
            }
        }
        let gone = self.schedules.keys().filter(|key| !known.newest.contains_key(*key));
        let gone: BTreeSet<ScheduleKey> = gone.cloned().collect();
        changed.extend(&gone);
        if !changed.is_empty() {
            for rule in policy.projects.values().flat_map(|project| &project.rules) {
                // Somebody new at a source may have the address of somebody there who is known.
                if rule
                    .schedule()
                    .is_some_and(|key| changed.contains(key) || strangers.contains(&key.source))
                {
                    self.wake_one(&rule.entitlement);
                }
            }
        }
        self.schedules = Arc::clone(&known.newest);
    }

    /// Lays to rest what a survey looked at and found in order.
    pub(super) fn lay_down(&mut self, survey: &Survey, seen: &Seen<'_>, policy: &Policy, record: &Record) {
        let at = survey.at;
        let mut restless: BTreeSet<&EntitlementId> = BTreeSet::new();
        restless.extend(
            survey
                .problems
                .iter()
                .filter_map(|problem| problem.entitlement.as_ref()),
        );
        restless.extend(survey.plan.changes.iter().map(|change| &change.entitlement));
        restless.extend(survey.plan.kept.iter().map(|kept| &kept.entitlement));
        restless.extend(survey.plan.lapsing.iter().map(|(_, going)| &going.entitlement));
        restless.extend(survey.unheld.iter().map(|unheld| &unheld.entitlement));
        // Who holds it by somebody else's grant may lose it at any moment.
        restless.extend(
            survey
                .plan
                .drift
                .iter()
                .filter(|drift| drift.desired)
                .map(|drift| &drift.entitlement),
        );
        restless.extend(policy.invariants.iter().flat_map(|invariant| &invariant.covers));
        let mut restless_targets: BTreeSet<&ResolvedTarget> = BTreeSet::new();
        restless_targets.extend(survey.plan.changes.iter().map(|change| &change.target));
        restless_targets.extend(survey.plan.lost.iter().map(|key| &key.0));
        restless_targets.extend(record.unfinished().map(|key| &key.0));
        let unsettled = |key: &ScheduleKey| match (seen.newest.get(key), seen.settled.get(key)) {
            (Some(newest), Some(settled)) => differ(newest, settled),
            _ => true,
        };
        for rule in policy.projects.values().flat_map(|project| &project.rules) {
            if seen.awake.contains(&rule.entitlement) && rule.schedule().is_some_and(unsettled) {
                restless.insert(&rule.entitlement);
            }
        }
        // What is on record as another entitlement, or of none, keeps its target awake.
        let mut standing: BTreeMap<&ResolvedTarget, usize> = BTreeMap::new();
        for ((target, _), owned) in &record.owned {
            match seen.targets.get(&owned.entitlement) {
                Some(Ok(of)) if of == target => *standing.entry(target).or_default() += 1,
                _ => {
                    restless.insert(&owned.entitlement);
                    restless_targets.insert(target);
                }
            }
        }
        let mut drift: BTreeMap<&EntitlementId, Vec<Drift>> = BTreeMap::new();
        for stranger in &survey.plan.drift {
            drift.entry(&stranger.entitlement).or_default().push(stranger.clone());
        }
        for entitlement in policy.entitlements().filter(|e| seen.awake.contains(&e.id)) {
            let id = &entitlement.id;
            if entitlement.exclusive || restless.contains(id) {
                continue;
            }
            let Some(Ok(target)) = seen.targets.get(id) else {
                continue;
            };
            if restless_targets.contains(target) {
                continue;
            }
            let unread = if seen.live.contains(target) {
                None
            } else if seen.failed.contains_key(target) {
                continue;
            } else if let Some(holders) = survey.plan.unread.get(target) {
                Some(holders.clone())
            } else if survey.desired.calls_for_anybody(id) || standing.contains_key(target) {
                continue;
            } else {
                Some(Vec::new())
            };
            let causes = survey.timeline.of_entitlement(id).iter();
            let edges = causes.clone().flat_map(|cause| [cause.held.start(), cause.held.end()]);
            let first = edges.filter(|edge| at < *edge).min();
            let rest = Rest {
                target: target.clone(),
                since: at,
                until: until(id, first, at),
                next_boundary: next_boundary(causes, at),
                standing: standing.get(target).copied().unwrap_or_default(),
                drift: drift.remove(id).unwrap_or_default(),
                unread,
            };
            if at < rest.until {
                self.by_target.insert(target.clone(), id.clone());
                self.cells.insert(id.clone(), rest);
            }
        }
    }
}

/// What a survey looked at.
pub(super) struct Seen<'a> {
    /// The entitlements that were not at rest.
    pub(super) awake: &'a HashSet<&'a EntitlementId>,
    pub(super) newest: &'a Snapshots,
    pub(super) settled: &'a Snapshots,
    pub(super) targets: &'a BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
    /// Targets whose holders are known.
    pub(super) live: BTreeSet<&'a ResolvedTarget>,
    /// Targets that could not be read.
    pub(super) failed: &'a BTreeMap<ResolvedTarget, AwsError>,
}

fn id_of(found: &Result<Resolution, String>) -> Option<&PrincipalId> {
    match found {
        Ok(Resolution::Found(id) | Resolution::Disabled(id)) => Some(id),
        Ok(Resolution::Unknown | Resolution::Ambiguous(_)) | Err(_) => None,
    }
}

fn until(entitlement: &EntitlementId, boundary: Option<Timestamp>, at: Timestamp) -> Timestamp {
    let mut hasher = DefaultHasher::new();
    entitlement.hash(&mut hasher);
    let spread = SignedDuration::from_secs((hasher.finish() % SPREAD_SECONDS).cast_signed());
    let at_the_latest = at.saturating_add(LEAST + spread).unwrap_or(at);
    let boundary = boundary.and_then(|boundary| boundary.checked_sub(BEFORE_A_BOUNDARY).ok());
    boundary.map_or(at_the_latest, |boundary| boundary.min(at_the_latest))
}

fn differ(one: &Arc<Snapshot>, other: &Arc<Snapshot>) -> bool {
    !Arc::ptr_eq(one, other) && one.shifts != other.shifts
}

fn people(shifts: &[Shift]) -> BTreeSet<(&str, Option<&str>, SourceUserState)> {
    let users = shifts.iter().map(|shift| &shift.user);
    users
        .map(|user| (user.id.as_str(), user.email.as_deref(), user.state))
        .collect()
}

/// The entitlements that an edit of these policies may concern: those that either has in a project which differs, and
/// those that a rule of such a project is for.
fn edited(before: &Policy, after: &Policy) -> Vec<EntitlementId> {
    let names: BTreeSet<_> = before.projects.keys().chain(after.projects.keys()).collect();
    let mut edited = Vec::new();
    for name in names {
        let projects = [before.projects.get(name), after.projects.get(name)];
        if projects[0] == projects[1] {
            continue;
        }
        for project in projects.into_iter().flatten() {
            edited.extend(project.entitlements.values().map(|entitlement| entitlement.id.clone()));
            edited.extend(project.rules.iter().map(|rule| rule.entitlement.clone()));
        }
    }
    edited
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str) -> Person {
        Person::parse(&format!("{name}@example.com")).unwrap()
    }

    fn found(id: &str) -> Result<Resolution, String> {
        Ok(Resolution::Found(PrincipalId(id.into())))
    }

    /// Found by a reviewer: a lookup that hung was answered by what had been true weeks before.
    #[test]
    fn who_somebody_was_before_names_holders_and_decides_nothing() {
        // Two addresses of one user, of whom one is asked about again.
        let same = [("one", "u4"), ("other", "u4")];
        let before = [
            ("on-duty", "u1"),
            ("renamed", "u2"),
            ("elsewhere", "u3"),
            same[0],
            same[1],
        ];
        let mut resting = Resting {
            people: before.map(|(name, id)| (person(name), found(id))).into(),
            ..Resting::default()
        };
        let looked_up = [("new-name", "u2"), same[0]].map(|(name, id)| (person(name), found(id)));
        let people = resting.remember_people(looked_up.into(), [&person("on-duty")]);
        let expected = [("elsewhere", "u3"), ("new-name", "u2"), same[0], same[1]];
        assert_eq!(people, expected.map(|(name, id)| (person(name), found(id))).into());
    }
}
