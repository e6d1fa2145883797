//! Translates persons and entitlements into AWS's terms, and keeps what cannot be translated from being taken away.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashMap;

use super::by_target::ByTarget;
use super::{Inputs, Key, Owned};
use crate::along::Along;
use crate::desired::Desired;
use crate::identity_center::Resolution;
use crate::ledger::Bar;
use crate::model::{Basis, Cause, EntitlementId, Person, PrincipalId, ResolvedTarget, ScheduleKey, Target};
use crate::policy::Entitlement;
use crate::problem::{Problem, ProblemKind};

/// A desired holder in AWS's terms.
pub(super) struct Wanted<'a> {
    pub(super) entitlement: &'a EntitlementId,
    pub(super) person: &'a Person,
    pub(super) causes: Cow<'a, [Arc<Cause>]>,
    /// The person or the target could not be looked up: what they hold through us stays, nothing new is granted.
    pub(super) frozen: bool,
}

/// Who people are, by person. Most passes ask for few or nobody, who are searched for in the map; once many are asked for,
/// a hash map of all is made.
pub(super) struct People<'a> {
    sorted: &'a BTreeMap<Person, Result<Resolution, String>>,
    by_person: OnceCell<HashMap<&'a Person, &'a Result<Resolution, String>>>,
    asked: Cell<usize>,
}

/// One in so many people is searched for before the hash map is made.
const FEW_OF: usize = 16;

impl<'a> People<'a> {
    pub(super) fn new(sorted: &'a BTreeMap<Person, Result<Resolution, String>>) -> Self {
        Self {
            sorted,
            by_person: OnceCell::new(),
            asked: Cell::new(0),
        }
    }

    fn get(&self, person: &Person) -> Option<&'a Result<Resolution, String>> {
        let asked = self.asked.get();
        if FEW_OF * asked < self.sorted.len() {
            self.asked.set(asked + 1);
            return self.sorted.get(person);
        }
        let by_person = self.by_person.get_or_init(|| self.sorted.iter().collect());
        by_person.get(person).copied()
    }
}

/// Whoever cannot be translated becomes a problem.
pub(super) fn resolve<'a>(
    inputs: &Inputs<'a>,
    people: &People<'a>,
    desired: &'a Desired,
    mut problems: Option<&mut Vec<Problem>>,
) -> ByTarget<'a, Wanted<'a>> {
    let mut wanted: ByTarget<'a, Wanted<'a>> = ByTarget::new();
    let mut report = |problem| {
        if let Some(problems) = problems.as_deref_mut() {
            problems.push(problem);
        }
    };
    let standing = OnceCell::new();
    let mut targets = Along::new(inputs.targets);
    for (entitlement, holders) in desired.entitlements() {
        let Some(target) = targets.find(entitlement) else {
            continue;
        };
        let target = target.as_ref();
        let mut here = target.map(|target| wanted.take(target)).unwrap_or_default();
        for (person, causes) in holders {
            if let Some(bar) = inputs.bars.iter().find(|bar| bar.concerns(person)) {
                report(Problem {
                    entitlement: Some(entitlement.clone()),
                    person: Some(person.clone()),
                    ..Problem::new(ProblemKind::Barred, barred(bar, person))
                });
                continue;
            }
            let found = match target {
                Ok(_) => identify(people, entitlement, person, causes),
                Err(message) => Err(Box::new(Problem {
                    entitlement: Some(entitlement.clone()),
                    ..Problem::new(ProblemKind::TargetUnresolved, message.clone())
                })),
            };
            match found {
                Ok(principal) => match here.entry(principal) {
                    Entry::Vacant(entry) => {
                        entry.insert(Wanted {
                            entitlement,
                            person,
                            causes: Cow::Borrowed(causes),
                            frozen: false,
                        });
                    }
                    Entry::Occupied(entry) => {
                        let entry = entry.into_mut();
                        entry.frozen = false;
                        entry.causes.to_mut().extend(causes.iter().cloned());
                    }
                },
                Err(problem) => {
                    report(*problem);
                    // What this person already holds through us stays desired: not knowing must never revoke.
                    let standing = standing.get_or_init(|| Standing::new(inputs));
                    for (key, owned) in standing.of(inputs, entitlement, target.ok(), person, causes) {
                        let there = match target {
                            Ok(target) if key.0 == *target => &mut here,
                            _ => wanted.at(&key.0),
                        };
                        there.entry(&key.1).or_insert_with(|| Wanted {
                            entitlement: &owned.entitlement,
                            person: &owned.person,
                            causes: Cow::Borrowed(causes),
                            frozen: true,
                        });
                    }
                }
            }
        }
        if let Ok(target) = target {
            wanted.put(target, here);
        }
    }
    wanted
}

/// Our standing grants, by what they may be recognised by when a name has changed and a lookup fails at the same time.
struct Standing<'a> {
    by_person: BTreeMap<&'a Person, Vec<(&'a Key, &'a Owned)>>,
    by_duty: BTreeMap<(&'a ScheduleKey, &'a str), Vec<(&'a Key, &'a Owned)>>,
}

impl<'a> Standing<'a> {
    fn new(inputs: &Inputs<'a>) -> Self {
        let mut standing = Self {
            by_person: BTreeMap::new(),
            by_duty: BTreeMap::new(),
        };
        for (key, owned) in inputs.owned {
            standing.by_person.entry(&owned.person).or_default().push((key, owned));
            for duty in owned.causes.iter().filter_map(|cause| duty_of(cause)) {
                standing.by_duty.entry(duty).or_default().push((key, owned));
            }
        }
        standing
    }

    /// Grants that may be this person's of this entitlement: by the person's address or by the provider's user id, on the
    /// target or, where that is not known, on what the entitlement may be.
    fn of(
        &self,
        inputs: &Inputs<'_>,
        entitlement: &EntitlementId,
        target: Option<&ResolvedTarget>,
        person: &Person,
        causes: &[Arc<Cause>],
    ) -> Vec<(&'a Key, &'a Owned)> {
        let by_person = self.by_person.get(person).into_iter().flatten();
        let by_duty = causes
            .iter()
            .filter_map(|cause| duty_of(cause))
            .filter_map(|duty| self.by_duty.get(&duty))
            .flatten();
        let is_it = |key: &Key, owned: &Owned| match target {
            Some(target) => key.0 == *target,
            None => {
                let renamed = inputs.policy.entitlement(&owned.entitlement).is_none();
                let target = inputs.policy.entitlement(entitlement).map(|e| &e.target);
                owned.entitlement == *entitlement || (renamed && target.is_some_and(|t| may_be(t, &key.0)))
            }
        };
        by_person
            .chain(by_duty)
            .filter(|(key, owned)| is_it(key, owned))
            .copied()
            .collect()
    }
}

fn duty_of(cause: &Cause) -> Option<(&ScheduleKey, &str)> {
    match &cause.right.basis {
        Basis::OnCall { schedule, user_id, .. } => Some((schedule, user_id)),
        Basis::Window | Basis::Membership => None,
    }
}

fn may_be(target: &Target, resolved: &ResolvedTarget) -> bool {
    match (target, resolved) {
        (Target::Assignment { account, .. }, ResolvedTarget::Assignment { account: other, .. }) => account == other,
        (Target::Group(_), ResolvedTarget::Group { .. }) => true,
        _ => false,
    }
}

fn identify<'a>(
    people: &People<'a>,
    entitlement: &EntitlementId,
    person: &Person,
    causes: &[Arc<Cause>],
) -> Result<&'a PrincipalId, Box<Problem>> {
    principal_of(people.get(person), entitlement, person).map_err(|problem| {
        Box::new(Problem {
            rule: causes.first().map(|c| c.right.rule.clone()),
            schedule: causes
                .iter()
                .filter_map(|cause| duty_of(cause))
                .map(|(schedule, _)| schedule.clone())
                .next(),
            ..*problem
        })
    })
}

/// The user of the identity store who is to hold the entitlement.
///
/// # Errors
/// The problem that keeps the person from it.
pub(crate) fn principal_of<'a>(
    found: Option<&'a Result<Resolution, String>>,
    entitlement: &EntitlementId,
    person: &Person,
) -> Result<&'a PrincipalId, Box<Problem>> {
    let (kind, message) = match found {
        Some(Ok(Resolution::Found(principal))) => return Ok(principal),
        Some(Ok(Resolution::Unknown)) => (
            ProblemKind::PersonUnknown,
            format!(
                "{person} should hold {entitlement} but no user of Identity Center has that user name or e-mail; create the user or map one in [[identity]]"
            ),
        ),
        Some(Ok(Resolution::Disabled(id))) => (
            ProblemKind::PersonDisabled,
            format!("{person} should hold {entitlement} but their Identity Center user {id} is disabled"),
        ),
        Some(Ok(Resolution::Ambiguous(ids))) => (
            ProblemKind::PersonAmbiguous,
            format!(
                "{person} should hold {entitlement} but several Identity Center users match ({}); pin one in [[identity]]",
                ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
        ),
        Some(Err(message)) => (
            ProblemKind::PersonUnresolved,
            format!("{person} should hold {entitlement} but could not be looked up: {message}"),
        ),
        None => (
            ProblemKind::PersonUnresolved,
            format!("{person} should hold {entitlement} but has not been looked up yet"),
        ),
    };
    Err(Box::new(Problem {
        entitlement: Some(entitlement.clone()),
        person: Some(person.clone()),
        ..Problem::new(kind, message)
    }))
}

/// The entitlement under which each target is managed.
pub(super) fn owning_entitlements<'a>(inputs: &Inputs<'a>) -> BTreeMap<&'a ResolvedTarget, &'a Entitlement> {
    let mut owners = BTreeMap::new();
    for entitlement in inputs.policy.entitlements() {
        if let Some(Ok(target)) = inputs.targets.get(&entitlement.id) {
            owners.insert(target, entitlement);
        }
    }
    owners
}

/// Refuses entitlements that turn out to be the same thing in AWS, one written by name and one by id: only one project
/// can own it, and which one is for people to say. Until then neither is granted.
#[must_use]
pub fn refuse_shared_targets(
    mut targets: BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
) -> BTreeMap<EntitlementId, Result<ResolvedTarget, String>> {
    let mut by_target: BTreeMap<ResolvedTarget, Vec<EntitlementId>> = BTreeMap::new();
    for (id, target) in &targets {
        if let Ok(target) = target {
            by_target.entry(target.clone()).or_default().push(id.clone());
        }
    }
    for (target, ids) in by_target.into_iter().filter(|(_, ids)| ids.len() > 1) {
        let names = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        for id in ids {
            let message = format!(
                "{names} are the same thing in AWS ({target}); keep it in one project and delegate it to the other"
            );
            targets.insert(id, Err(message));
        }
    }
    targets
}

fn barred(bar: &Bar, person: &Person) -> String {
    let whom = bar
        .person
        .as_ref()
        .map_or_else(|| "--all".to_owned(), |p| format!("--person {p}"));
    format!(
        "{person} holds nothing since {} by order of {} ({}); `dutybound revoke --lift {whom}` ends that",
        crate::text::instant(bar.since),
        bar.ordered_by,
        bar.reason
    )
}

/// Targets on which what should be differs from what the record says, so that the live state must be looked at before
/// anything is decided.
#[must_use]
pub fn unsettled_targets(inputs: &Inputs<'_>) -> BTreeSet<ResolvedTarget> {
    let wanted = resolve(inputs, &People::new(inputs.people), inputs.desired, None);
    let owned: ByTarget<'_, ()> = inputs.owned.keys().map(|key| (key, ())).collect();
    let targets: BTreeSet<&ResolvedTarget> = wanted
        .iter()
        .map(|(t, _)| t)
        .chain(owned.iter().map(|(t, _)| t))
        .collect();
    let differ = |target: &&ResolvedTarget| !wanted.of(target).keys().eq(owned.of(target).keys());
    targets.into_iter().filter(differ).cloned().collect()
}
