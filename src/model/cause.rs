//! Why one person should hold one entitlement for a span of time.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{EntitlementId, Interval, Person, ProjectName, ScheduleKey};

/// A place in a policy file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The file's path relative to the policy directory's parent, such as `access.d/payments.toml`.
    pub file: SmolStr,
    /// Counted from 1.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Why one person should hold one entitlement for a span of time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cause {
    /// What is to be held.
    pub entitlement: EntitlementId,
    /// By whom.
    pub person: Person,
    /// From when until when, with lead and linger, cut to the prerequisites' own validity.
    pub held: Interval,
    /// The part of it that is duty: the shift, the window or the membership itself.
    pub duty: Interval,
    /// Whether `held.end()` is a known end rather than the edge of what was read.
    pub end_known: bool,
    /// What earns it.
    pub basis: Basis,
    /// The project whose rule says so.
    pub project: ProjectName,
    /// Where the rule stands.
    pub rule: Origin,
    /// Where the membership stands that the rule demanded, with who added the person.
    pub member: Option<MemberRef>,
    /// Where the owner of another project's entitlement consented to the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation: Option<Origin>,
}

impl Cause {
    /// The schedule on which it rests, if it is duty.
    #[must_use]
    pub fn schedule(&self) -> Option<&ScheduleKey> {
        match &self.basis {
            Basis::OnCall { schedule, .. } => Some(schedule),
            Basis::Window | Basis::Membership => None,
        }
    }

    /// Whether its end was on record before it came, and has come by `at`.
    #[must_use]
    pub fn has_ended_as_known(&self, at: Timestamp) -> bool {
        self.end_known && self.held.end() <= at
    }
}

/// The membership that a cause rests on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberRef {
    /// Where the `[[member]]` entry stands.
    pub origin: Origin,
    /// Who vouched.
    pub added_by: Option<Person>,
}

/// What earns a grant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Being on call.
    OnCall {
        /// On which schedule.
        schedule: ScheduleKey,
        /// As which user of the provider.
        user_id: SmolStr,
        /// At which escalation level, for policies.
        level: Option<u32>,
        /// Through which override, where the provider tells.
        via_override: Option<SmolStr>,
    },
    /// Being a member, inside a declared window.
    Window,
    /// Being a member.
    Membership,
}
