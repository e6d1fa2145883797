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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use smol_str::SmolStr;

use crate::desired::Desired;
use crate::identity_center::{ChangeKind, Holders, Resolution};
use crate::ledger::Bar;
use crate::model::{Cause, EntitlementId, Person, PrincipalId, ResolvedTarget, ScheduleKey};
use crate::policy::Policy;
use crate::problem::{Problem, collapse};

mod by_target;
pub mod convergence;
mod draft;
pub mod render;
mod resolve;
mod since;

use draft::{Decided, Draft};
pub(crate) use resolve::principal_of;
pub use resolve::{refuse_shared_targets, unsettled_targets};
pub use since::PlannedSince;

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
    pub live: &'a BTreeMap<ResolvedTarget, Arc<Holders>>,
    /// What the ledger says is ours.
    pub owned: &'a BTreeMap<Key, Arc<Owned>>,
    /// Grants that we asked for and whose outcome was never learnt; ours if they turn up.
    pub unknown_outcomes: &'a BTreeSet<Key>,
    /// When each change that is still to be made was first planned: since then a grant that lost its cause before its
    /// recorded end is due to be taken back.
    pub planned_since: &'a PlannedSince,
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
    pub changes: Vec<Arc<Change>>,
    /// Live access on managed targets that is not ours.
    pub drift: Vec<Drift>,
    /// What keeps somebody from access, found while planning.
    pub problems: Vec<Problem>,
    /// Records to close because somebody else took the access away while its cause holds.
    #[serde(skip)]
    pub lost: Vec<Key>,
    /// What is on record as ours, is not to be granted now and AWS does not show: somebody else took it away. A read may lag,
    /// so a revoke of it is carried out like the others.
    #[serde(skip)]
    pub gone: BTreeSet<Key>,
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
    /// Targets whose live state is not known and of which the record says exactly what is wanted, with who holds them by it.
    #[serde(skip)]
    pub unread: BTreeMap<ResolvedTarget, Vec<PrincipalId>>,
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
    pub context: Option<SmolStr>,
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
    let mut problems = Vec::new();
    let draft = Draft::new(inputs, &mut problems);
    let mut decided = Decided::default();
    draft.give(&mut decided);
    draft.take_back(&mut decided);
    draft.look_for_strangers(&mut decided);
    let mut changes = std::mem::take(&mut decided.changes);
    fn order(c: &Change) -> impl Ord {
        (c.kind, &c.entitlement, &c.person, &c.target, &c.principal)
    }
    changes.sort_by(|a, b| order(a).cmp(&order(b)));
    Plan {
        at: inputs.at,
        digest: digest(&changes),
        changes,
        drift: decided.drift.into_iter().collect(),
        problems: collapse(problems),
        lost: decided.lost,
        gone: decided.gone,
        unchanged: decided.unchanged,
        kept: decided.kept,
        lapsing: decided.lapsing,
        awaited: decided.awaited,
        in_flight: inputs.in_flight.clone(),
        unread: decided.unread,
    }
}

/// Names the changes, not the moment or the words: the same changes a minute later have the same digest.
fn digest(changes: &[Arc<Change>]) -> String {
    let mut hash = Sha256::new();
    for change in changes {
        let kind = match change.kind {
            ChangeKind::Grant => "grant",
            ChangeKind::Revoke => "revoke",
        };
        let (entitlement, target, principal) = (&change.entitlement, &change.target, &change.principal);
        hash.update(format!("{kind}\0{entitlement}\0{target}\0{principal}\0"));
    }
    hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}
