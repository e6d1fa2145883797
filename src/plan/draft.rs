//! Works out the changes: compares what should be with what is live and what is ours, target by target.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashMap;
use smol_str::SmolStr;

use super::by_target::{ByTarget, Here};
use super::resolve::{People, Wanted, owning_entitlements, resolve};
use super::{Change, Drift, Foresight, Inputs, Kept, Key, Owned};
use crate::along::Along;
use crate::identity_center::{ChangeKind, Resolution};
use crate::model::{Basis, Cause, EntitlementId, Person, PrincipalId, ResolvedTarget, ScheduleKey};
use crate::policy::{Policy, RulesByEntitlement};
use crate::problem::Problem;

/// Everything that a plan compares.
pub(super) struct Draft<'a> {
    inputs: &'a Inputs<'a>,
    people: People<'a>,
    wanted: ByTarget<'a, Wanted<'a>>,
    owned: ByTarget<'a, &'a Owned>,
    in_flight: ByTarget<'a, ()>,
    unknown_outcomes: ByTarget<'a, ()>,
    /// Worked out where something is to change; `None` where it is what is wanted.
    predicted: OnceCell<Option<ByTarget<'a, Wanted<'a>>>>,
    rules: OnceCell<RulesByEntitlement<'a>>,
}

/// What comes out of it; see [`super::Plan`].
#[derive(Default)]
pub(super) struct Decided {
    pub(super) changes: Vec<Arc<Change>>,
    pub(super) lost: Vec<Key>,
    pub(super) gone: BTreeSet<Key>,
    pub(super) kept: Vec<Kept>,
    pub(super) unchanged: usize,
    pub(super) lapsing: Vec<(Key, Kept)>,
    pub(super) awaited: BTreeMap<ResolvedTarget, Person>,
    pub(super) drift: BTreeSet<Drift>,
    pub(super) unread: BTreeMap<ResolvedTarget, Vec<PrincipalId>>,
}

impl<'a> Draft<'a> {
    /// Whoever should hold something and cannot be translated into AWS's terms becomes a problem.
    pub(super) fn new(inputs: &'a Inputs<'a>, problems: &mut Vec<Problem>) -> Self {
        let people = People::new(inputs.people);
        Self {
            inputs,
            wanted: resolve(inputs, &people, inputs.desired, Some(problems)),
            people,
            owned: inputs.owned.iter().map(|(key, owned)| (key, &**owned)).collect(),
            in_flight: inputs.in_flight.iter().map(|key| (key, ())).collect(),
            unknown_outcomes: inputs.unknown_outcomes.iter().map(|key| (key, ())).collect(),
            predicted: OnceCell::new(),
            rules: OnceCell::new(),
        }
    }

    /// Whether the snapshots known for long enough say so.
    fn is_predicted(&self, target: &ResolvedTarget, principal: &PrincipalId) -> bool {
        let predicted = self.predicted.get_or_init(|| {
            let differs = self.inputs.predicted != self.inputs.desired;
            differs.then(|| resolve(self.inputs, &self.people, self.inputs.predicted, None))
        });
        let predicted = predicted.as_ref().unwrap_or(&self.wanted);
        predicted.of(target).contains_key(principal)
    }

    fn rules(&self) -> &RulesByEntitlement<'a> {
        self.rules.get_or_init(|| self.inputs.policy.rules_by_entitlement())
    }

    /// Everything that should be held: what stands already, and what is to be granted.
    pub(super) fn give(&self, decided: &mut Decided) {
        let inputs = self.inputs;
        let (mut live, mut all_ours) = (Along::new(inputs.live), Along::new(self.owned.iter()));
        for (target, wanted) in self.wanted.iter() {
            let ours = all_ours.find(target);
            let Some(holders) = live.find(target) else {
                if ours.is_some_and(|ours| self.is_as_recorded(target, wanted, ours)) {
                    let holders = wanted.keys().map(|principal| (*principal).clone());
                    decided.unread.insert(target.clone(), holders.collect());
                }
                continue;
            };
            let in_flight = self.in_flight.of(target);
            let mut ours = Along::new(ours.into_iter().flatten());
            let mut users = Along::new(holders.users.iter().map(|principal| (principal, ())));
            for (principal, want) in wanted {
                let (owned, is_live) = (ours.find(principal).copied(), users.find(principal).is_some());
                if in_flight.contains_key(principal) {
                    decided.awaited.insert(target.clone(), want.person.clone());
                    continue;
                }
                match (is_live, owned) {
                    (true, Some(owned)) => {
                        decided.unchanged += 1;
                        let renamed = is_renamed(owned, want);
                        if renamed || owned.lapsed || !same(&owned.causes, &want.causes) {
                            decided.kept.push(Kept {
                                access_id: owned.access_id,
                                entitlement: want.entitlement.clone(),
                                person: want.person.clone(),
                                causes: want.causes.to_vec(),
                                recorded: owned.recorded(),
                                renamed,
                            });
                        }
                    }
                    (false, None) if want.frozen => {}
                    (false, Some(_)) if want.frozen => {
                        decided.gone.insert((target.clone(), (*principal).clone()));
                    }
                    (true, None)
                        if !is_exclusive(inputs.policy, want.entitlement)
                            && !self.unknown_outcomes.of(target).contains_key(principal) =>
                    {
                        decided.drift.insert(Drift {
                            entitlement: want.entitlement.clone(),
                            target: target.clone(),
                            holder: principal.to_string(),
                            person: Some(want.person.clone()),
                            desired: true,
                        });
                    }
                    (true | false, _) => {
                        if owned.is_some() {
                            decided.lost.push((target.clone(), (*principal).clone()));
                        }
                        decided
                            .changes
                            .push(Arc::new(self.grant(target, principal, want, owned.is_some())));
                    }
                }
            }
        }
    }

    /// Whether the record says of a target what is wanted, word for word.
    fn is_as_recorded(&self, target: &ResolvedTarget, wanted: &Here<'a, Wanted<'a>>, ours: &Here<'a, &Owned>) -> bool {
        let is_recorded = |want: &Wanted<'_>, owned: &Owned| {
            !want.frozen && !owned.lapsed && !is_renamed(owned, want) && same(&owned.causes, &want.causes)
        };
        self.in_flight.of(target).is_empty()
            && wanted.keys().eq(ours.keys())
            && wanted
                .values()
                .zip(ours.values())
                .all(|(want, owned)| is_recorded(want, owned))
    }

    fn grant(&self, target: &ResolvedTarget, principal: &PrincipalId, want: &Wanted<'_>, is_ours: bool) -> Change {
        let foresight = if is_ours {
            Foresight::Surprising("somebody else took this access away while its cause still holds".to_owned())
        } else if self.is_predicted(target, principal) {
            Foresight::Predicted
        } else {
            let why = format!(
                "the schedule changed less than the notice period ago{}",
                through(&want.causes)
            );
            Foresight::Surprising(why)
        };
        let schedules = || want.causes.iter().map(|cause| cause.schedule());
        Change {
            kind: ChangeKind::Grant,
            entitlement: want.entitlement.clone(),
            person: Some(want.person.clone()),
            target: target.clone(),
            principal: principal.clone(),
            due: want
                .causes
                .iter()
                .map(|c| c.held.start())
                .min()
                .unwrap_or(self.inputs.at),
            rests_on: if schedules().all(|schedule| schedule.is_some()) {
                schedules().flatten().cloned().collect()
            } else {
                BTreeSet::new()
            },
            causes: want.causes.to_vec(),
            foresight,
            context: context(self.inputs.policy, want.entitlement),
        }
    }

    /// Everything of ours that nothing causes any more. Whether it is still live does not matter: taking away what is
    /// gone is a success, and a lagging read must not close the record of access that stands.
    pub(super) fn take_back(&self, decided: &mut Decided) {
        let inputs = self.inputs;
        let mut all_wanted = Along::new(self.wanted.iter());
        let nothing = Here::new();
        for (target, ours) in self.owned.iter() {
            let wanted = all_wanted.find(target).unwrap_or(&nothing);
            if wanted.keys().eq(ours.keys()) {
                continue;
            }
            let in_flight = self.in_flight.of(target);
            let surplus = ours
                .iter()
                .filter(|(principal, _)| !wanted.contains_key(*principal) && !in_flight.contains_key(*principal));
            let mut surplus = surplus.peekable();
            if surplus.peek().is_none() {
                continue;
            }
            let Some(holders) = inputs.live.get(target) else {
                continue;
            };
            for (principal, owned) in surplus {
                let key = (target.clone(), (*principal).clone());
                if !holders.users.contains(*principal) {
                    decided.gone.insert(key.clone());
                }
                let bar = inputs.bars.iter().find(|bar| bar.concerns(&owned.person));
                let foresight = if let Some(bar) = bar {
                    Foresight::Ordered(format!("barred by {}: {}", bar.ordered_by, bar.reason))
                } else if inputs.unknown_outcomes.contains(&key) {
                    Foresight::Surprising("it is ours only by the schedule, because its record was lost".to_owned())
                } else if !self.rules().could_hold(&owned.entitlement, &owned.person, inputs.at) {
                    Foresight::Disentitled
                } else if self.is_predicted(target, principal) {
                    Foresight::Surprising("the schedule changed less than the notice period ago".to_owned())
                } else {
                    Foresight::Predicted
                };
                let recorded_end = owned.causes.iter().map(|c| c.held.end()).max();
                if recorded_end.is_some_and(|end| inputs.at < end) {
                    let going = Kept {
                        access_id: owned.access_id,
                        entitlement: owned.entitlement.clone(),
                        person: owned.person.clone(),
                        causes: owned.causes.clone(),
                        recorded: owned.recorded(),
                        renamed: false,
                    };
                    decided.lapsing.push((key.clone(), going));
                }
                let planned = inputs.planned_since.of(&key, ChangeKind::Revoke);
                let lost_its_cause = planned.unwrap_or(inputs.at);
                decided.changes.push(Arc::new(Change {
                    kind: ChangeKind::Revoke,
                    entitlement: owned.entitlement.clone(),
                    person: Some(owned.person.clone()),
                    target: key.0,
                    principal: key.1,
                    due: recorded_end.filter(|end| *end <= inputs.at).unwrap_or(lost_its_cause),
                    rests_on: self.rests_on(&owned.entitlement, &owned.causes),
                    causes: owned.causes.clone(),
                    foresight,
                    context: context(inputs.policy, &owned.entitlement),
                }));
            }
        }
    }

    /// Live access that is not ours: reported, and removed only where the entitlement is exclusive.
    pub(super) fn look_for_strangers(&self, decided: &mut Decided) {
        let inputs = self.inputs;
        let persons = OnceCell::new();
        let person_of = |principal| {
            persons
                .get_or_init(|| self.persons())
                .get(principal)
                .map(|p| (*p).clone())
        };
        let (mut live, mut all_wanted) = (Along::new(inputs.live), Along::new(self.wanted.iter()));
        let nothing = Here::new();
        for (target, entitlement) in owning_entitlements(inputs) {
            let wanted = all_wanted.find(target).unwrap_or(&nothing);
            let Some(holders) = live.find(target) else {
                continue;
            };
            let stranger = |holder: String, person: Option<Person>| Drift {
                entitlement: entitlement.id.clone(),
                target: target.clone(),
                holder,
                person,
                desired: false,
            };
            let (ours, in_flight) = (self.owned.of(target), self.in_flight.of(target));
            let mut wanted = Along::new(wanted.keys().map(|principal| (*principal, ())));
            let mut known = |principal| {
                wanted.find(principal).is_some() || ours.contains_key(principal) || in_flight.contains_key(principal)
            };
            for principal in holders.users.iter().filter(|principal| !known(*principal)) {
                let person = person_of(principal);
                let ours = self.unknown_outcomes.of(target).contains_key(principal);
                if !entitlement.exclusive && !ours {
                    decided.drift.insert(stranger(principal.to_string(), person));
                    continue;
                }
                let why = if ours {
                    "a grant of ours whose outcome was never learnt turned up after its cause had ended"
                } else {
                    "the entitlement is exclusive and nothing causes this access"
                };
                let key = (target.clone(), principal.clone());
                decided.changes.push(Arc::new(Change {
                    kind: ChangeKind::Revoke,
                    entitlement: entitlement.id.clone(),
                    person,
                    due: inputs.planned_since.of(&key, ChangeKind::Revoke).unwrap_or(inputs.at),
                    target: key.0,
                    principal: key.1,
                    causes: Vec::new(),
                    rests_on: self.rests_on(&entitlement.id, &[]),
                    foresight: Foresight::Surprising(why.to_owned()),
                    context: context(inputs.policy, &entitlement.id),
                }));
            }
            let groups = holders.groups.iter();
            decided
                .drift
                .extend(groups.map(|group| stranger(format!("group:{group}"), None)));
        }
    }

    /// Who users of the identity store are.
    fn persons(&self) -> HashMap<&'a PrincipalId, &'a Person> {
        let mut persons = HashMap::default();
        for (person, found) in self.inputs.people {
            match found {
                Ok(Resolution::Found(principal) | Resolution::Disabled(principal)) => {
                    persons.insert(principal, person);
                }
                Ok(Resolution::Ambiguous(principals)) => persons.extend(principals.iter().map(|p| (p, person))),
                Ok(Resolution::Unknown) | Err(_) => {}
            }
        }
        persons
    }

    fn rests_on(&self, entitlement: &EntitlementId, causes: &[Arc<Cause>]) -> BTreeSet<ScheduleKey> {
        if causes.is_empty() {
            return self.rules().schedules(entitlement).cloned().collect();
        }
        causes.iter().filter_map(|cause| cause.schedule()).cloned().collect()
    }
}

fn is_renamed(owned: &Owned, want: &Wanted<'_>) -> bool {
    owned.entitlement != *want.entitlement || owned.person != *want.person
}

/// Whether the record has these causes, in whatever order.
fn same(recorded: &[Arc<Cause>], causes: &[Arc<Cause>]) -> bool {
    recorded == causes || {
        let set = |causes: &[Arc<Cause>]| causes.iter().cloned().collect::<BTreeSet<_>>();
        set(recorded) == set(causes)
    }
}

fn is_exclusive(policy: &Policy, id: &EntitlementId) -> bool {
    policy.entitlement(id).is_some_and(|e| e.exclusive)
}

fn context(policy: &Policy, id: &EntitlementId) -> Option<SmolStr> {
    policy.projects.get(&id.project)?.context.clone()
}

fn through(causes: &[Arc<Cause>]) -> String {
    causes
        .iter()
        .find_map(|c| match &c.right.basis {
            Basis::OnCall {
                via_override: Some(via),
                ..
            } => Some(format!(", {}", crate::text::through(via))),
            _ => None,
        })
        .unwrap_or_default()
}
