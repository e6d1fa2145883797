//! The ordered list of changes from live to desired, each with its causes. Pure.
//!
//! What happens to one (target, principal), where *ours* means that the ledger holds an open interval for it:
//!
//! | desired | live | ours | outcome |
//! |---|---|---|---|
//! | yes | yes | yes | unchanged; the causes on record are brought up to date |
//! | yes | yes | no | drift: already there, not ours, will not be revoked by us; `exclusive` makes it ours |
//! | yes | no | no | grant |
//! | yes | no | yes | grant again, surprising: somebody else took it away |
//! | no | yes | yes | revoke |
//! | no | yes | no | drift; `exclusive` makes it a surprising revoke |
//! | no | no | yes | the record is closed: somebody else took it away |

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::desired::Desired;
use crate::identity_center::{ChangeKind, Holders, Resolution};
use crate::ledger::Bar;
use crate::model::{Basis, Cause, EntitlementId, Person, PrincipalId, ResolvedTarget, ScheduleKey};
use crate::policy::Policy;
use crate::problem::{Problem, ProblemKind};

pub mod render;

/// One thing that can be held: a target in AWS by a user of the identity store.
pub type Key = (ResolvedTarget, PrincipalId);

/// An open interval of the ledger: access that we granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The ledger's row.
    pub access_id: i64,
    /// As which entitlement it was granted.
    pub entitlement: EntitlementId,
    /// To whom.
    pub person: Person,
    /// Confirmed by AWS at this instant.
    pub since: Timestamp,
    /// The causes on record that have not ended.
    pub causes: Vec<Cause>,
}

/// Everything a plan depends on.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The instant to plan for.
    pub at: Timestamp,
    /// The policy in force.
    pub policy: &'a Policy,
    /// What should be, by the newest snapshots.
    pub desired: &'a Desired,
    /// What should be, by the snapshots known for long enough to count as predictions.
    pub predicted: &'a Desired,
    /// Who people are in the identity store.
    pub people: &'a BTreeMap<Person, Result<Resolution, String>>,
    /// What entitlements are in AWS; an error carries the words for people.
    pub targets: &'a BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
    /// Who holds what now. A target that is missing here could not be read and is left alone.
    pub live: &'a BTreeMap<ResolvedTarget, Holders>,
    /// What the ledger says is ours.
    pub owned: &'a BTreeMap<Key, Owned>,
    /// Grants that we asked for and whose outcome was never learnt; ours if they turn up.
    pub unknown_outcomes: &'a BTreeSet<Key>,
    /// People who hold nothing until a person lifts it.
    pub bars: &'a [Bar],
    /// Changes that are under way; nothing is planned for them.
    pub in_flight: &'a BTreeSet<Key>,
}

/// What to do, and what was seen on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The instant it was made for.
    pub at: Timestamp,
    /// Names exactly these changes; what `--approve` takes.
    pub digest: String,
    /// Grants first, then revokes, each sorted by entitlement and person.
    pub changes: Vec<Change>,
    /// Live access on managed targets that is not ours.
    pub drift: Vec<Drift>,
    /// What keeps somebody from access, found while planning.
    pub problems: Vec<Problem>,
    /// Records to close because the access is gone without us.
    #[serde(skip)]
    pub lost: Vec<Key>,
    /// Unchanged grants with the causes to have on record.
    #[serde(skip)]
    pub kept: Vec<Kept>,
}

/// A grant that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The ledger's row.
    pub access_id: i64,
    /// The causes that hold now.
    pub causes: Vec<Cause>,
    /// The causes on record.
    pub recorded: Vec<Cause>,
}

/// One change to AWS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Grant or revoke.
    pub kind: ChangeKind,
    /// Which entitlement.
    pub entitlement: EntitlementId,
    /// Whose; `None` for somebody whom we do not know on an exclusive entitlement.
    pub person: Option<Person>,
    /// What it is in AWS.
    pub target: ResolvedTarget,
    /// Who it is in the identity store.
    pub principal: PrincipalId,
    /// For a grant the causes that hold now, for a revoke those on record that no longer do.
    pub causes: Vec<Cause>,
    /// When it should have been in force: a grant's earliest start, a revoke's latest end.
    pub due: Timestamp,
    /// Whether it was to be expected.
    pub foresight: Foresight,
    /// The owner's warning.
    pub context: Option<String>,
}

/// Whether a change was to be expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "why")]
pub enum Foresight {
    /// The policy in force and the schedule as known for some time already say so.
    Predicted,
    /// It comes out of the blue, for this reason.
    Surprising(String),
    /// A person ordered it; no guard stands in its way.
    Ordered(String),
}

/// Access that somebody holds on a managed target and that the ledger does not own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Drift {
    /// Which entitlement.
    pub entitlement: EntitlementId,
    /// What it is in AWS.
    pub target: ResolvedTarget,
    /// A user id, or `group:…` for a group that holds an account assignment.
    pub holder: String,
    /// The person, where the holder is somebody that the policy resolves.
    pub person: Option<Person>,
    /// Whether the holder should have it at this moment; it then will not be revoked by us when duty ends.
    pub desired: bool,
}

impl Change {
    /// What the change is about.
    #[must_use]
    pub fn key(&self) -> Key {
        (self.target.clone(), self.principal.clone())
    }

    /// The person, or the user id where no person is known.
    #[must_use]
    pub fn who(&self) -> String {
        self.person
            .as_ref()
            .map_or_else(|| self.principal.to_string(), ToString::to_string)
    }

    /// Whether a person ordered it.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        matches!(self.foresight, Foresight::Ordered(_))
    }

    /// The schedules on which all of its causes rest; empty if any cause rests on none.
    #[must_use]
    pub fn schedules(&self) -> BTreeSet<ScheduleKey> {
        let mut keys = BTreeSet::new();
        for cause in &self.causes {
            match &cause.basis {
                Basis::OnCall { schedule, .. } => keys.insert(schedule.clone()),
                Basis::Window | Basis::Membership => return BTreeSet::new(),
            };
        }
        keys
    }
}

/// A desired holder in AWS's terms.
struct Wanted {
    entitlement: EntitlementId,
    person: Person,
    causes: Vec<Cause>,
    /// The person or the target could not be looked up: what they hold through us stays, nothing new is granted.
    frozen: bool,
}

/// Makes the plan. Same inputs, same plan, byte for byte.
#[must_use]
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let mut problems = Vec::new();
    let wanted = resolve(inputs, inputs.desired, Some(&mut problems));
    let predicted = resolve(inputs, inputs.predicted, None);
    let owners = owning_entitlements(inputs);

    let mut changes = Vec::new();
    let mut lost = Vec::new();
    let mut kept = Vec::new();
    let mut drift = BTreeSet::new();

    for ((target, principal), want) in &wanted {
        let key = (target.clone(), principal.clone());
        let Some(holders) = inputs.live.get(target) else {
            continue;
        };
        if inputs.in_flight.contains(&key) {
            continue;
        }
        let owned = inputs.owned.get(&key);
        let is_live = holders.users.contains_key(principal);
        match (is_live, owned) {
            (true, Some(owned)) => kept.push(Kept {
                access_id: owned.access_id,
                causes: want.causes.clone(),
                recorded: owned.causes.clone(),
            }),
            (true, None) if !is_exclusive(inputs.policy, &want.entitlement) => {
                drift.insert(Drift {
                    entitlement: want.entitlement.clone(),
                    target: target.clone(),
                    holder: principal.to_string(),
                    person: Some(want.person.clone()),
                    desired: true,
                });
            }
            (false, _) if want.frozen => {}
            (true | false, _) => {
                let foresight = if owned.is_some() {
                    Foresight::Surprising("somebody else took this access away while its cause still holds".to_owned())
                } else if predicted.contains_key(&key) {
                    Foresight::Predicted
                } else {
                    Foresight::Surprising(format!(
                        "the schedule changed less than the notice period ago{}",
                        through(&want.causes)
                    ))
                };
                changes.push(Change {
                    kind: ChangeKind::Grant,
                    entitlement: want.entitlement.clone(),
                    person: Some(want.person.clone()),
                    target: target.clone(),
                    principal: principal.clone(),
                    due: want.causes.iter().map(|c| c.held.start()).min().unwrap_or(inputs.at),
                    causes: want.causes.clone(),
                    foresight,
                    context: context(inputs.policy, &want.entitlement),
                });
            }
        }
    }

    for (key, owned) in inputs.owned {
        if wanted.contains_key(key) || inputs.in_flight.contains(key) {
            continue;
        }
        let Some(holders) = inputs.live.get(&key.0) else {
            continue;
        };
        if !holders.users.contains_key(&key.1) {
            lost.push(key.clone());
            continue;
        }
        let bar = inputs.bars.iter().find(|bar| bar.concerns(&owned.person));
        let foresight = if let Some(bar) = bar {
            Foresight::Ordered(format!("barred by {}: {}", bar.ordered_by, bar.reason))
        } else if predicted.contains_key(key) {
            Foresight::Surprising("the schedule changed less than the notice period ago".to_owned())
        } else {
            Foresight::Predicted
        };
        changes.push(Change {
            kind: ChangeKind::Revoke,
            entitlement: owned.entitlement.clone(),
            person: Some(owned.person.clone()),
            target: key.0.clone(),
            principal: key.1.clone(),
            due: owned
                .causes
                .iter()
                .map(|c| c.held.end())
                .max()
                .map_or(inputs.at, |end| end.min(inputs.at)),
            causes: owned.causes.clone(),
            foresight,
            context: context(inputs.policy, &owned.entitlement),
        });
    }

    for (target, entitlement) in &owners {
        let Some(holders) = inputs.live.get(target) else {
            continue;
        };
        let exclusive = is_exclusive(inputs.policy, entitlement);
        for principal in holders.users.keys() {
            let key = (target.clone(), principal.clone());
            if inputs.owned.contains_key(&key) || wanted.contains_key(&key) || inputs.in_flight.contains(&key) {
                continue;
            }
            let person = person_of(inputs, principal);
            let ours = inputs.unknown_outcomes.contains(&key);
            if exclusive || ours {
                let why = if ours {
                    "a grant of ours whose outcome was never learnt turned up after its cause had ended"
                } else {
                    "the entitlement is exclusive and nothing causes this access"
                };
                changes.push(Change {
                    kind: ChangeKind::Revoke,
                    entitlement: entitlement.clone(),
                    person,
                    target: target.clone(),
                    principal: principal.clone(),
                    causes: Vec::new(),
                    due: inputs.at,
                    foresight: Foresight::Surprising(why.to_owned()),
                    context: context(inputs.policy, entitlement),
                });
            } else {
                drift.insert(Drift {
                    entitlement: entitlement.clone(),
                    target: target.clone(),
                    holder: principal.to_string(),
                    person,
                    desired: false,
                });
            }
        }
        for group in &holders.groups {
            drift.insert(Drift {
                entitlement: entitlement.clone(),
                target: target.clone(),
                holder: format!("group:{group}"),
                person: None,
                desired: false,
            });
        }
    }

    changes.sort_by(|a, b| {
        (a.kind, &a.entitlement, &a.person, &a.target, &a.principal).cmp(&(
            b.kind,
            &b.entitlement,
            &b.person,
            &b.target,
            &b.principal,
        ))
    });
    problems.sort();
    problems.dedup();
    Plan {
        at: inputs.at,
        digest: digest(&changes),
        changes,
        drift: drift.into_iter().collect(),
        problems,
        lost,
        kept,
    }
}

/// Translates persons and entitlements into AWS's terms. Whoever cannot be translated becomes a problem.
fn resolve(inputs: &Inputs<'_>, desired: &Desired, mut problems: Option<&mut Vec<Problem>>) -> BTreeMap<Key, Wanted> {
    let mut wanted: BTreeMap<Key, Wanted> = BTreeMap::new();
    let mut report = |problem| {
        if let Some(problems) = problems.as_deref_mut() {
            problems.push(problem);
        }
    };
    for (entitlement, holders) in &desired.holders {
        for (person, causes) in holders {
            if let Some(bar) = inputs.bars.iter().find(|bar| bar.concerns(person)) {
                report(Problem {
                    entitlement: Some(entitlement.clone()),
                    person: Some(person.clone()),
                    ..Problem::new(ProblemKind::Barred, barred(bar, person))
                });
                continue;
            }
            let found = match inputs.targets.get(entitlement) {
                Some(Ok(target)) => {
                    identify(inputs, entitlement, person, causes).map(|principal| (target.clone(), principal))
                }
                Some(Err(message)) => Err(Box::new(Problem {
                    entitlement: Some(entitlement.clone()),
                    ..Problem::new(ProblemKind::TargetUnresolved, message.clone())
                })),
                None => continue,
            };
            match found {
                Ok(key) => wanted
                    .entry(key)
                    .or_insert_with(|| Wanted {
                        entitlement: entitlement.clone(),
                        person: person.clone(),
                        causes: Vec::new(),
                        frozen: false,
                    })
                    .causes
                    .extend(causes.iter().cloned()),
                Err(problem) => {
                    report(*problem);
                    // What this person already holds through us stays desired: not knowing must never revoke.
                    for (key, owned) in inputs
                        .owned
                        .iter()
                        .filter(|(_, o)| o.entitlement == *entitlement && o.person == *person)
                    {
                        wanted.entry(key.clone()).or_insert_with(|| Wanted {
                            entitlement: owned.entitlement.clone(),
                            person: person.clone(),
                            causes: causes.clone(),
                            frozen: true,
                        });
                    }
                }
            }
        }
    }
    wanted
}

fn identify(
    inputs: &Inputs<'_>,
    entitlement: &EntitlementId,
    person: &Person,
    causes: &[Cause],
) -> Result<PrincipalId, Box<Problem>> {
    let (kind, message) = match inputs.people.get(person) {
        Some(Ok(Resolution::Found(principal))) => return Ok(principal.clone()),
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
        rule: causes.first().map(|c| c.rule.clone()),
        ..Problem::new(kind, message)
    }))
}

/// The entitlement under which each target is managed.
fn owning_entitlements(inputs: &Inputs<'_>) -> BTreeMap<ResolvedTarget, EntitlementId> {
    let mut owners = BTreeMap::new();
    for entitlement in inputs.policy.entitlements() {
        if let Some(Ok(target)) = inputs.targets.get(&entitlement.id) {
            owners.insert(target.clone(), entitlement.id.clone());
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

fn person_of(inputs: &Inputs<'_>, principal: &PrincipalId) -> Option<Person> {
    let found = |r: &Result<Resolution, String>| matches!(r, Ok(Resolution::Found(id)) if id == principal);
    inputs
        .people
        .iter()
        .find(|(_, r)| found(r))
        .map(|(person, _)| person.clone())
}

fn is_exclusive(policy: &Policy, id: &EntitlementId) -> bool {
    policy.entitlement(id).is_some_and(|e| e.exclusive)
}

fn context(policy: &Policy, id: &EntitlementId) -> Option<String> {
    policy.projects.get(&id.project)?.context.clone()
}

fn through(causes: &[Cause]) -> String {
    causes
        .iter()
        .find_map(|c| match &c.basis {
            Basis::OnCall {
                via_override: Some(id), ..
            } => Some(format!(", through override {id}")),
            _ => None,
        })
        .unwrap_or_default()
}

/// Names the changes, not the moment or the words: the same changes a minute later have the same digest.
fn digest(changes: &[Change]) -> String {
    let mut hash = Sha256::new();
    for change in changes {
        let kind = match change.kind {
            ChangeKind::Grant => "grant",
            ChangeKind::Revoke => "revoke",
        };
        for part in [
            kind,
            &change.entitlement.to_string(),
            &change.target.to_string(),
            &change.principal.0,
        ] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
    }
    hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// Targets on which what should be differs from what the record says, so that the live state must be looked at before
/// anything is decided.
#[must_use]
pub fn unsettled_targets(inputs: &Inputs<'_>) -> BTreeSet<ResolvedTarget> {
    let wanted = resolve(inputs, inputs.desired, None);
    let missing = wanted.keys().filter(|key| !inputs.owned.contains_key(*key));
    let surplus = inputs.owned.keys().filter(|key| !wanted.contains_key(*key));
    missing.chain(surplus).map(|(target, _)| target.clone()).collect()
}
