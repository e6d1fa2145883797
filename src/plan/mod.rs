//! The ordered list of changes from live to desired, each with its causes. Pure.
//!
//! What happens to one (target, principal), where *ours* means that the ledger holds an open interval for it:
//!
//! | desired | live | ours | outcome |
//! |---|---|---|---|
//! | yes | yes | yes | unchanged; the causes on record are brought up to date |
//! | yes | yes | no | drift: already there, not ours, will not be revoked by us; `exclusive` makes it ours |
//! | yes | no | no | grant |
//! | yes | no | yes | the record is closed and it is granted again, surprising: somebody else took it away |
//! | no | yes | yes | revoke |
//! | no | yes | no | drift; `exclusive` makes it a surprising revoke |
//! | no | no | yes | revoke; AWS says that it is gone, and the record is closed |

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::desired::Desired;
use crate::identity_center::{ChangeKind, Holders, Resolution};
use crate::ledger::Bar;
use crate::model::{Basis, Cause, EntitlementId, Person, PrincipalId, ResolvedTarget, ScheduleKey};
use crate::policy::{Policy, Trigger};
use crate::problem::{Problem, collapse};

pub mod convergence;
pub mod render;
mod resolve;

pub(crate) use resolve::principal_of;
use resolve::{Wanted, owning_entitlements, resolve};
pub use resolve::{refuse_shared_targets, unsettled_targets};

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
    /// The causes on record; where none holds any more, those that ended last.
    pub causes: Vec<Arc<Cause>>,
    /// Whether the record says that the causes have ended, although the access stands: something delays the revoke.
    pub lapsed: bool,
}

impl Owned {
    /// The causes that hold by the record.
    fn recorded(&self) -> Vec<Arc<Cause>> {
        if self.lapsed { Vec::new() } else { self.causes.clone() }
    }
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
    /// When each change that is still to be made was first planned: since then a grant that lost its cause before its
    /// recorded end is due to be taken back.
    pub planned_since: &'a BTreeMap<Key, Timestamp>,
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
    /// Records to close because somebody else took the access away while its cause holds.
    #[serde(skip)]
    pub lost: Vec<Key>,
    /// How many grants of ours stand and are to stand.
    #[serde(skip)]
    pub unchanged: usize,
    /// Those among them of which the record is to say something else.
    #[serde(skip)]
    pub kept: Vec<Kept>,
    /// Grants to be taken back whose causes would have gone on by the record; see [`Plan::recordable`].
    #[serde(skip)]
    pub lapsing: Vec<(Key, Kept)>,
    /// Who is to hold what while a change of it is under way: a grant that is not confirmed yet, or a revoke that was right
    /// when it began. Whatever AWS shows of them now, their access is still to come.
    #[serde(skip)]
    pub awaited: BTreeMap<ResolvedTarget, Person>,
    /// The changes under way of which the plan knew.
    #[serde(skip)]
    pub in_flight: BTreeSet<Key>,
}

impl Plan {
    /// What to have on record of the grants that stand, given the changes whose reason is doubted. The causes of what is
    /// to be taken back end with the plan that says so, not with the revoke, which a guard, a pause or AWS may delay for
    /// hours: that time is no duty. Where the reason itself is doubted, they hold.
    #[must_use]
    pub fn recordable(&self, doubted: &BTreeSet<Key>) -> Vec<Kept> {
        let lapsing = self.lapsing.iter().map(|(key, going)| {
            let mut going = going.clone();
            if !doubted.contains(key) {
                going.causes.clear();
            }
            going
        });
        self.kept.iter().cloned().chain(lapsing).collect()
    }
}

/// A grant that stands, and what is to be on record of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The ledger's row.
    pub access_id: i64,
    /// As which entitlement it stands now; a rename moves it.
    pub entitlement: EntitlementId,
    /// Who it is now; a person may have got another address.
    pub person: Person,
    /// The causes that hold now.
    pub causes: Vec<Arc<Cause>>,
    /// The causes on record.
    pub recorded: Vec<Arc<Cause>>,
    /// Whether the record names another entitlement or person.
    pub renamed: bool,
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
    pub causes: Vec<Arc<Cause>>,
    /// The schedules on which it rests. A grant that also has another cause rests on none; a revoke rests on all that its
    /// causes name, or without causes on all that could earn the entitlement.
    pub rests_on: BTreeSet<ScheduleKey>,
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
    /// The policy alone rules it out, whatever any schedule says: the rule or the membership is gone.
    Disentitled,
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
}

/// Makes the plan. Same inputs, same plan, byte for byte.
#[must_use]
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let mut draft = Draft {
        inputs,
        wanted: BTreeMap::new(),
        predicted: OnceCell::new(),
        changes: Vec::new(),
        lost: Vec::new(),
        kept: Vec::new(),
        unchanged: 0,
        lapsing: Vec::new(),
        awaited: BTreeMap::new(),
        drift: BTreeSet::new(),
    };
    let mut problems = Vec::new();
    draft.wanted = resolve(inputs, inputs.desired, Some(&mut problems));
    draft.give();
    draft.take_back();
    draft.look_for_strangers();
    let mut changes = draft.changes;
    let order = |c: &Change| {
        (
            c.kind,
            c.entitlement.clone(),
            c.person.clone(),
            c.target.clone(),
            c.principal.clone(),
        )
    };
    changes.sort_by_cached_key(order);
    Plan {
        at: inputs.at,
        digest: digest(&changes),
        changes,
        drift: draft.drift.into_iter().collect(),
        problems: collapse(problems),
        lost: draft.lost,
        unchanged: draft.unchanged,
        kept: draft.kept,
        lapsing: draft.lapsing,
        awaited: draft.awaited,
        in_flight: inputs.in_flight.clone(),
    }
}

struct Draft<'a> {
    inputs: &'a Inputs<'a>,
    wanted: BTreeMap<Key, Wanted<'a>>,
    /// Worked out where something is to change.
    predicted: OnceCell<BTreeSet<Key>>,
    changes: Vec<Change>,
    lost: Vec<Key>,
    kept: Vec<Kept>,
    unchanged: usize,
    lapsing: Vec<(Key, Kept)>,
    awaited: BTreeMap<ResolvedTarget, Person>,
    drift: BTreeSet<Drift>,
}

impl Draft<'_> {
    /// What the snapshots known for long enough say.
    fn predicted(&self) -> &BTreeSet<Key> {
        self.predicted.get_or_init(|| {
            let predicted = resolve(self.inputs, self.inputs.predicted, None);
            predicted.into_keys().collect()
        })
    }

    /// Everything that should be held: what stands already, and what is to be granted.
    fn give(&mut self) {
        let inputs = self.inputs;
        for (key, want) in &self.wanted {
            let Some(holders) = inputs.live.get(&key.0) else {
                continue;
            };
            if inputs.in_flight.contains(key) {
                self.awaited.insert(key.0.clone(), want.person.clone());
                continue;
            }
            let owned = inputs.owned.get(key);
            match (holders.users.contains_key(&key.1), owned) {
                (true, Some(owned)) => {
                    self.unchanged += 1;
                    let renamed = owned.entitlement != *want.entitlement || owned.person != *want.person;
                    if renamed || owned.lapsed || !same(&owned.causes, &want.causes) {
                        self.kept.push(Kept {
                            access_id: owned.access_id,
                            entitlement: want.entitlement.clone(),
                            person: want.person.clone(),
                            causes: want.causes.clone(),
                            recorded: owned.recorded(),
                            renamed,
                        });
                    }
                }
                (false, _) if want.frozen => {}
                (true, None)
                    if !is_exclusive(inputs.policy, want.entitlement) && !inputs.unknown_outcomes.contains(key) =>
                {
                    self.drift.insert(Drift {
                        entitlement: want.entitlement.clone(),
                        target: key.0.clone(),
                        holder: key.1.to_string(),
                        person: Some(want.person.clone()),
                        desired: true,
                    });
                }
                (true | false, _) => {
                    if owned.is_some() {
                        self.lost.push(key.clone());
                    }
                    let foresight = if owned.is_some() {
                        Foresight::Surprising(
                            "somebody else took this access away while its cause still holds".to_owned(),
                        )
                    } else if self.predicted().contains(key) {
                        Foresight::Predicted
                    } else {
                        let why = format!(
                            "the schedule changed less than the notice period ago{}",
                            through(&want.causes)
                        );
                        Foresight::Surprising(why)
                    };
                    self.changes.push(Change {
                        kind: ChangeKind::Grant,
                        entitlement: want.entitlement.clone(),
                        person: Some(want.person.clone()),
                        target: key.0.clone(),
                        principal: key.1.clone(),
                        due: want.causes.iter().map(|c| c.held.start()).min().unwrap_or(inputs.at),
                        rests_on: if want.causes.iter().all(|c| c.schedule().is_some()) {
                            want.causes
                                .iter()
                                .filter_map(|cause| cause.schedule())
                                .cloned()
                                .collect()
                        } else {
                            BTreeSet::new()
                        },
                        causes: want.causes.clone(),
                        foresight,
                        context: context(inputs.policy, want.entitlement),
                    });
                }
            }
        }
    }

    /// Everything of ours that nothing causes any more. Whether it is still live does not matter: taking away what is
    /// gone is a success, and a lagging read must not close the record of access that stands.
    fn take_back(&mut self) {
        let inputs = self.inputs;
        for (key, owned) in inputs.owned {
            if self.wanted.contains_key(key) || inputs.in_flight.contains(key) || !inputs.live.contains_key(&key.0) {
                continue;
            }
            let bar = inputs.bars.iter().find(|bar| bar.concerns(&owned.person));
            let foresight = if let Some(bar) = bar {
                Foresight::Ordered(format!("barred by {}: {}", bar.ordered_by, bar.reason))
            } else if inputs.unknown_outcomes.contains(key) {
                Foresight::Surprising("it is ours only by the schedule, because its record was lost".to_owned())
            } else if !inputs.policy.could_hold(&owned.entitlement, &owned.person, inputs.at) {
                Foresight::Disentitled
            } else if self.predicted().contains(key) {
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
                self.lapsing.push((key.clone(), going));
            }
            let lost_its_cause = inputs.planned_since.get(key).copied().unwrap_or(inputs.at);
            self.changes.push(Change {
                kind: ChangeKind::Revoke,
                entitlement: owned.entitlement.clone(),
                person: Some(owned.person.clone()),
                target: key.0.clone(),
                principal: key.1.clone(),
                due: recorded_end.filter(|end| *end <= inputs.at).unwrap_or(lost_its_cause),
                rests_on: rests_on(inputs.policy, &owned.entitlement, &owned.causes),
                causes: owned.causes.clone(),
                foresight,
                context: context(inputs.policy, &owned.entitlement),
            });
        }
    }

    /// Live access that is not ours: reported, and removed only where the entitlement is exclusive.
    fn look_for_strangers(&mut self) {
        let inputs = self.inputs;
        let mut persons = BTreeMap::new();
        for (person, found) in inputs.people {
            match found {
                Ok(Resolution::Found(principal) | Resolution::Disabled(principal)) => {
                    persons.insert(principal, person);
                }
                Ok(Resolution::Ambiguous(principals)) => persons.extend(principals.iter().map(|p| (p, person))),
                Ok(Resolution::Unknown) | Err(_) => {}
            }
        }
        for (target, entitlement) in &owning_entitlements(inputs) {
            let Some(holders) = inputs.live.get(target) else {
                continue;
            };
            let exclusive = is_exclusive(inputs.policy, entitlement);
            let stranger = |holder: String, person: Option<Person>| Drift {
                entitlement: entitlement.clone(),
                target: target.clone(),
                holder,
                person,
                desired: false,
            };
            for principal in holders.users.keys() {
                let key = (target.clone(), principal.clone());
                if inputs.owned.contains_key(&key) || self.wanted.contains_key(&key) || inputs.in_flight.contains(&key)
                {
                    continue;
                }
                let person = persons.get(principal).map(|p| (*p).clone());
                let ours = inputs.unknown_outcomes.contains(&key);
                if !exclusive && !ours {
                    self.drift.insert(stranger(principal.to_string(), person));
                    continue;
                }
                let why = if ours {
                    "a grant of ours whose outcome was never learnt turned up after its cause had ended"
                } else {
                    "the entitlement is exclusive and nothing causes this access"
                };
                self.changes.push(Change {
                    kind: ChangeKind::Revoke,
                    entitlement: entitlement.clone(),
                    person,
                    target: target.clone(),
                    principal: principal.clone(),
                    causes: Vec::new(),
                    rests_on: rests_on(inputs.policy, entitlement, &[]),
                    due: inputs.planned_since.get(&key).copied().unwrap_or(inputs.at),
                    foresight: Foresight::Surprising(why.to_owned()),
                    context: context(inputs.policy, entitlement),
                });
            }
            self.drift.extend(
                holders
                    .groups
                    .iter()
                    .map(|group| stranger(format!("group:{group}"), None)),
            );
        }
    }
}

/// Whether the record has these causes, in whatever order.
fn same(recorded: &[Arc<Cause>], causes: &[Arc<Cause>]) -> bool {
    recorded == causes || {
        let set = |causes: &[Arc<Cause>]| causes.iter().cloned().collect::<BTreeSet<_>>();
        set(recorded) == set(causes)
    }
}

fn rests_on(policy: &Policy, entitlement: &EntitlementId, causes: &[Arc<Cause>]) -> BTreeSet<ScheduleKey> {
    if !causes.is_empty() {
        return causes.iter().filter_map(|cause| cause.schedule()).cloned().collect();
    }
    let rules = policy
        .projects
        .values()
        .flat_map(|p| &p.rules)
        .filter(|r| r.entitlement == *entitlement);
    let on_call = rules.filter_map(|r| match &r.trigger {
        Trigger::OnCall(on_call) => Some(on_call.schedule.clone()),
        Trigger::Members { .. } => None,
    });
    on_call.collect()
}

fn is_exclusive(policy: &Policy, id: &EntitlementId) -> bool {
    policy.entitlement(id).is_some_and(|e| e.exclusive)
}

fn context(policy: &Policy, id: &EntitlementId) -> Option<String> {
    policy.projects.get(&id.project)?.context.clone()
}

fn through(causes: &[Arc<Cause>]) -> String {
    causes
        .iter()
        .find_map(|c| match &c.basis {
            Basis::OnCall {
                via_override: Some(via),
                ..
            } => Some(format!(", {}", crate::text::through(via))),
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
