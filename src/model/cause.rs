//! Why one person should hold one entitlement for a span of time.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

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
///
/// Written, it is one flat object: what was written must stay what it is, because the ledger looks for causes by their text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Cause {
    /// By what right; the same for all whom a rule means alike.
    pub right: Arc<Right>,
    /// By whom it is to be held.
    pub person: Person,
    /// From when until when, with lead and linger, cut to the prerequisites' own validity.
    pub held: Interval,
    /// The part of it that is duty: the shift, the window or the membership itself.
    pub duty: Interval,
    /// Whether `held.end()` is a known end rather than the edge of what was read.
    pub end_known: bool,
    /// Where the membership stands that the rule demanded, with who added the person.
    pub member: Option<Arc<MemberRef>>,
}

/// What a rule says, and what met it. Of a hundred thousand causes there are a few thousand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Right {
    /// What is to be held.
    pub entitlement: EntitlementId,
    /// What earns it.
    pub basis: Basis,
    /// The project whose rule says so.
    pub project: ProjectName,
    /// Where the rule stands.
    pub rule: Origin,
    /// Where the owner of another project's entitlement consented to the rule.
    pub delegation: Option<Origin>,
}

/// A cause as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    entitlement: EntitlementId,
    person: Person,
    held: Interval,
    duty: Interval,
    end_known: bool,
    basis: Basis,
    project: ProjectName,
    rule: Origin,
    member: Option<MemberRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delegation: Option<Origin>,
}

impl From<Written> for Cause {
    fn from(written: Written) -> Self {
        Self {
            right: Arc::new(Right {
                entitlement: written.entitlement,
                basis: written.basis,
                project: written.project,
                rule: written.rule,
                delegation: written.delegation,
            }),
            person: written.person,
            held: written.held,
            duty: written.duty,
            end_known: written.end_known,
            member: written.member.map(Arc::new),
        }
    }
}

impl From<Cause> for Written {
    fn from(cause: Cause) -> Self {
        let right = Arc::unwrap_or_clone(cause.right);
        Self {
            entitlement: right.entitlement,
            person: cause.person,
            held: cause.held,
            duty: cause.duty,
            end_known: cause.end_known,
            basis: right.basis,
            project: right.project,
            rule: right.rule,
            member: cause.member.map(Arc::unwrap_or_clone),
            delegation: right.delegation,
        }
    }
}

/// By entitlement, then by person, then by time.
impl Ord for Cause {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_right = |by: fn(&Right, &Right) -> Ordering| {
            if Arc::ptr_eq(&self.right, &other.right) {
                Ordering::Equal
            } else {
                by(&self.right, &other.right)
            }
        };
        by_right(|a, b| a.entitlement.cmp(&b.entitlement))
            .then_with(|| self.person.cmp(&other.person))
            .then_with(|| self.held.cmp(&other.held))
            .then_with(|| self.duty.cmp(&other.duty))
            .then_with(|| self.end_known.cmp(&other.end_known))
            .then_with(|| by_right(Ord::cmp))
            .then_with(|| self.member.cmp(&other.member))
    }
}

impl PartialOrd for Cause {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Cause {
    /// The schedule on which it rests, if it is duty.
    #[must_use]
    pub fn schedule(&self) -> Option<&ScheduleKey> {
        match &self.right.basis {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The ledger looks for causes by their text, and earlier versions wrote what it has.
    #[test]
    fn a_cause_is_written_as_ever() {
        let duty = r#"{"start":"2026-11-23T09:00:00Z","end":"2026-11-23T17:00:00Z"}"#;
        let basis = r#"{"on_call":{"schedule":{"source":"pd","kind":"schedule","id":"PABC123"},"user_id":"PALICE1","level":2,"via_override":null}}"#;
        let origin = |line| format!(r#"{{"file":"access.d/payments.toml","line":{line}}}"#);
        let head = r#"{"entitlement":"payments/admin","person":"alice@example.com""#;
        let member = format!(r#"{{"origin":{},"added_by":"mira@example.com"}}"#, origin(53));
        let text = format!(
            r#"{head},"held":{duty},"duty":{duty},"end_known":true,"basis":{basis},"project":"sre","rule":{},"member":{member},"delegation":{}}}"#,
            origin(11),
            origin(7)
        );
        let plain = format!(
            r#"{head},"held":{duty},"duty":{duty},"end_known":false,"basis":"membership","project":"payments","rule":{},"member":null}}"#,
            origin(11)
        );
        for text in [text, plain] {
            let cause: Cause = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&cause).unwrap(), text);
        }
    }
}
