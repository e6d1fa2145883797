//! The validated access policy: projects in a tree, the entitlements they own, their members and rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use smol_str::SmolStr;

use crate::{
    config::Provider,
    invariant::{Invariant, Written},
    model::{EntitlementId, MemberRef, Origin, Person, ProjectName, ScheduleKey, SourceName, Target},
};

pub mod bundles;
mod check;
mod delegation;
mod directory;
pub mod file;
mod limits;
mod load;
mod lower;
mod query;
mod training;
pub mod window;

pub use delegation::{Delegation, RuleKind};
pub use limits::{Excluded, Limits, Pattern};
pub use load::{fingerprint, is_policy_file, load, parse, revision_of};
pub(crate) use lower::DEFAULT_PRIORITY;
pub use query::RulesByEntitlement;
pub use training::Completion;
pub use window::CronWindow;

/// Everything under `access.d/`, checked. Only a policy without a single error exists as a value of this type.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// SHA-256 over the files' names and contents, in hex: which policy was in force.
    pub revision: String,
    /// The Git commit whose files these are, where somebody asked: [`crate::checkout::commit_of`].
    pub commit: Option<String>,
    /// By name.
    pub projects: BTreeMap<ProjectName, Project>,
    /// The statements of the operator, then those of the projects, in the order of their files.
    pub invariants: Vec<Invariant>,
}

/// A node of the ownership tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Unique in the policy.
    pub name: ProjectName,
    /// The parent, whose owners own everything below it too.
    pub parent: Option<ProjectName>,
    /// Who consents; never empty.
    pub owners: Vec<Person>,
    /// The owner's warning, shown wherever an entitlement of the project is shown.
    pub context: Option<SmolStr>,
    /// The Slack channel that is told of it.
    pub channel: Option<String>,
    /// The IANA name of the zone of times in messages about it; checked.
    pub zone: Option<String>,
    /// What the projects below may own and grant.
    pub children: Option<Limits>,
    /// By name within the project.
    pub entitlements: BTreeMap<String, Entitlement>,
    /// By person.
    pub members: BTreeMap<Person, Member>,
    /// In file order.
    pub rules: Vec<Rule>,
    /// Where `[project]` stands.
    pub origin: Origin,
}

/// Something grantable.
#[derive(Debug, Clone, PartialEq)]
pub struct Entitlement {
    /// Project and name.
    pub id: EntitlementId,
    /// What it grants in AWS.
    pub target: Target,
    /// Everybody who holds it without a cause is removed, whoever granted it.
    pub exclusive: bool,
    /// No revoke takes it below this many holders.
    pub min_holders: u32,
    /// From 1, whose changes go first where AWS's limits keep some waiting, to 9.
    pub priority: u8,
    /// Consent that rules of other projects name it, in file order.
    pub delegate_to: Vec<Delegation>,
    /// Where it stands.
    pub origin: Origin,
}

/// A person who belongs to a project.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Who.
    pub person: Person,
    /// Where it stands and who vouched, shared by all that rests on it.
    pub entry: Arc<MemberRef>,
    /// Why, in the words of who added them.
    pub reason: Option<String>,
    /// The first instant at which the membership holds; `None` is always. A date in the file means the start of that day.
    pub since: Option<Timestamp>,
    /// The first instant at which the membership no longer holds; a date in the file means through the end of that day in UTC.
    pub until: Option<Timestamp>,
    /// Trainings and other prerequisites met, by name, from the entry itself and from lists; none is empty.
    pub completed: BTreeMap<String, Vec<Completion>>,
}

/// Binds an entitlement to a cause.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Own or delegated; consent was checked.
    pub entitlement: EntitlementId,
    /// What earns it.
    pub trigger: Trigger,
    /// The rule demands membership of its own project (the second key). Always true for membership rules.
    pub member: bool,
    /// Prerequisites that the member must have completed, as long as they count.
    pub trainings: BTreeSet<String>,
    /// Granted this long before duty starts.
    pub lead: SignedDuration,
    /// Kept this long after duty ends.
    pub linger: SignedDuration,
    /// The first instant at which the rule no longer holds, by its own `until` or because its delegation ends.
    pub until: Option<Timestamp>,
    /// What a rule for another project's entitlement rests on; `None` for the project's own.
    pub delegation: Option<Delegation>,
    /// Where it stands.
    pub origin: Origin,
}

/// What earns a rule's entitlement.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "rules are made once for each load and then only borrowed"
)]
pub enum Trigger {
    /// Being on call.
    OnCall(OnCall),
    /// Being a member of the rule's project, always or inside windows.
    Members {
        /// When; `None` is always.
        during: Option<CronWindow>,
    },
}

/// The on-call condition of a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct OnCall {
    /// Schedule or escalation policy.
    pub schedule: ScheduleKey,
    /// Levels that count, for escalation policies; `None` is every level.
    pub levels: Option<BTreeSet<u32>>,
    /// Whether standing targets of an escalation policy (without a schedule) count. Off unless the rule says so.
    pub permanent: bool,
}

/// What a policy is checked against.
#[derive(Debug, Clone, Default)]
pub struct PolicyContext {
    /// The on-call sources of the configuration, with the API where it is known; `None` when they are not known, which
    /// is no mistake of the policy.
    pub sources: Option<BTreeMap<SourceName, Option<Provider>>>,
    /// The only projects that may stand without a parent; `None` is any.
    pub roots: Option<BTreeSet<ProjectName>>,
    /// The statements of the operator, as the configuration has them.
    pub invariants: Vec<Written>,
    /// The present, for warnings about what has ended and about coming changes of clocks. It never decides whether a
    /// policy loads.
    pub now: Option<Timestamp>,
}

#[cfg(test)]
mod tests;
