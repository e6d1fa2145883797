//! The validated access policy: projects in a tree, the entitlements they own, their members and rules.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::model::{EntitlementId, Origin, Person, ProjectName, ScheduleKey, Target};

pub mod file;
pub mod window;

pub use window::CronWindow;

/// Everything under `access.d/`, checked. Only a policy without a single error exists as a value of this type.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// SHA-256 over the files' names and contents, in hex: which policy was in force.
    pub revision: String,
    /// By name.
    pub projects: BTreeMap<ProjectName, Project>,
}

/// A node of the ownership tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Unique in the policy.
    pub name: ProjectName,
    /// The parent, whose owners can justify transitively.
    pub parent: Option<ProjectName>,
    /// Who consents; never empty.
    pub owners: Vec<Person>,
    /// The owner's warning, shown wherever an entitlement of the project is shown.
    pub context: Option<String>,
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
    /// Projects whose rules may name it.
    pub delegate_to: BTreeSet<ProjectName>,
    /// Where it stands.
    pub origin: Origin,
}

/// A person who belongs to a project.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Who.
    pub person: Person,
    /// Who vouched.
    pub added_by: Option<Person>,
    /// Why, in the words of who added them.
    pub reason: Option<String>,
    /// The first instant at which the membership no longer holds; a date in the file means through the end of that day in UTC.
    pub until: Option<Timestamp>,
    /// Trainings and other prerequisites met.
    pub completed: BTreeSet<String>,
    /// Where it stands.
    pub origin: Origin,
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
    /// Prerequisites that the member entry must list under `completed`.
    pub trainings: BTreeSet<String>,
    /// Granted this long before duty starts.
    pub lead: SignedDuration,
    /// Kept this long after duty ends.
    pub linger: SignedDuration,
    /// The first instant at which the rule no longer holds.
    pub until: Option<Timestamp>,
    /// Where it stands.
    pub origin: Origin,
}

/// What earns a rule's entitlement.
#[derive(Debug, Clone, PartialEq)]
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

impl Policy {
    /// The entitlement with this id.
    #[must_use]
    pub fn entitlement(&self, id: &EntitlementId) -> Option<&Entitlement> {
        self.projects.get(&id.project)?.entitlements.get(&id.name)
    }

    /// All entitlements, sorted by id.
    pub fn entitlements(&self) -> impl Iterator<Item = &Entitlement> {
        self.projects.values().flat_map(|p| p.entitlements.values())
    }

    /// Every schedule that some rule names, sorted.
    #[must_use]
    pub fn schedules(&self) -> BTreeSet<ScheduleKey> {
        let mut keys = BTreeSet::new();
        for rule in self.projects.values().flat_map(|p| &p.rules) {
            if let Trigger::OnCall(on_call) = &rule.trigger {
                keys.insert(on_call.schedule.clone());
            }
        }
        keys
    }
}
