//! Asynchronous assignment operations: how long they take, whether they fail, and how they take effect.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Assignment, AssignmentKey, Aws};

/// Creation or deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// CreateAccountAssignment.
    Create,
    /// DeleteAccountAssignment.
    Delete,
}

/// The status of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Not done yet.
    InProgress,
    /// Done.
    Succeeded,
    /// Without effect.
    Failed,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
        }
    }
}

/// An assignment operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Request id.
    pub request_id: String,
    /// Creation or deletion.
    pub kind: OperationKind,
    /// Of what.
    pub key: AssignmentKey,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it takes effect.
    pub due: Timestamp,
    /// How it stands.
    pub status: Status,
    /// Why it fails or failed.
    pub failure_reason: Option<String>,
}

/// Which assignment operations something applies to; an unset field matches all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Matching {
    /// Creation or deletion.
    pub kind: Option<OperationKind>,
    /// Account id.
    pub account: Option<String>,
    /// Permission set ARN.
    pub permission_set: Option<String>,
    /// Principal id.
    pub principal: Option<String>,
}

impl Matching {
    /// All of this kind.
    #[must_use]
    pub fn kind(kind: OperationKind) -> Self {
        Self {
            kind: Some(kind),
            ..Self::default()
        }
    }

    /// All that are about this principal.
    #[must_use]
    pub fn principal(id: &str) -> Self {
        Self {
            principal: Some(id.to_owned()),
            ..Self::default()
        }
    }

    pub(crate) fn matches(&self, kind: OperationKind, key: &AssignmentKey) -> bool {
        self.kind.is_none_or(|own| own == kind)
            && self.account.as_ref().is_none_or(|own| *own == key.account)
            && self
                .permission_set
                .as_ref()
                .is_none_or(|own| *own == key.permission_set)
            && self.principal.as_ref().is_none_or(|own| *own == key.principal)
    }
}

/// An exception from the usual duration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowOperation {
    /// Which operations.
    pub matching: Matching,
    /// How long they take.
    pub takes: SignedDuration,
}

/// Durations drawn for each operation: from `shortest` to `longest`, evenly on a logarithmic scale, so that most are short
/// and a few are long. The draw depends on the seed and on the operation only, not on the order in which callers come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// What the draws begin with.
    pub seed: u64,
    /// The shortest duration.
    pub shortest: SignedDuration,
    /// The longest duration.
    pub longest: SignedDuration,
}

impl Spread {
    pub(crate) fn takes(&self, kind: OperationKind, key: &AssignmentKey) -> SignedDuration {
        let name = format!("{kind:?} {} {} {}", key.account, key.permission_set, key.principal);
        // FNV-1a, then the finaliser of SplitMix64, because FNV alone leaves the high bits of short texts alike.
        let mut hash = self.seed ^ 0xcbf2_9ce4_8422_2325;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        let share = f64::from(u32::try_from(hash >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        let (shortest, longest) = (self.shortest.as_secs_f64().max(0.001), self.longest.as_secs_f64());
        let seconds = shortest * (longest.max(shortest) / shortest).powf(share);
        SignedDuration::try_from_secs_f64(seconds).unwrap_or(self.longest)
    }
}

/// Operations that end FAILED.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Which operations.
    pub matching: Matching,
    /// `FailureReason`.
    pub reason: String,
}

/// What the deletion of an assignment that does not exist does; AWS's own behaviour was not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingAssignment {
    /// ResourceNotFoundException at once.
    NotFound,
    /// Accepted, then FAILED.
    Failed,
}

impl Aws {
    /// Lets operations that are due take effect and drops what lists no longer show.
    pub(crate) fn settle(&mut self, now: Timestamp) {
        for number in 0..self.operations.len() {
            let operation = &mut self.operations[number];
            if operation.status != Status::InProgress || operation.due > now {
                continue;
            }
            if operation.failure_reason.is_some() {
                operation.status = Status::Failed;
                continue;
            }
            operation.status = Status::Succeeded;
            let (kind, key, due) = (operation.kind, operation.key.clone(), operation.due);
            match kind {
                OperationKind::Create if !self.exists(&key) => {
                    self.assignments.push(Assignment {
                        key,
                        since: Some(due),
                        removed: None,
                    });
                }
                OperationKind::Create => {}
                OperationKind::Delete => {
                    for row in &mut self.assignments {
                        if row.removed.is_none() && row.key == key {
                            row.removed = Some(due);
                        }
                    }
                }
            }
        }
        let delay = self.list_delay;
        let listed = |removed: Option<Timestamp>| removed.is_none_or(|at| later(at, delay) > now);
        self.assignments.retain(|row| listed(row.removed));
        self.memberships.retain(|member| listed(member.removed));
    }

    /// When the next operation falls due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.operations
            .iter()
            .filter(|operation| operation.status == Status::InProgress)
            .map(|operation| operation.due)
            .min()
    }
}

/// An instant moved by a duration, held at the end of time.
pub(crate) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::PrincipalType;
    use super::*;

    #[test]
    fn durations_are_drawn_from_the_seed_between_their_bounds() {
        let spread = |seed| Spread {
            seed,
            shortest: SignedDuration::from_secs(2),
            longest: SignedDuration::from_secs(120),
        };
        let draws = |seed| -> Vec<f64> {
            let key = |n: u32| AssignmentKey {
                account: format!("{n:012}"),
                permission_set: "arn:set".to_owned(),
                principal_type: PrincipalType::User,
                principal: "u".to_owned(),
            };
            let of = |n| spread(seed).takes(OperationKind::Create, &key(n)).as_secs_f64();
            (0..1000).map(of).collect()
        };
        let first = draws(1);
        assert_eq!(first, draws(1));
        assert_ne!(first, draws(2));
        assert!(first.iter().all(|s| (2.0..=120.0).contains(s)));
        // Half of them are below the geometric mean of the bounds, 15.5 seconds.
        let short = first.iter().filter(|s| **s < 15.5).count();
        assert!((450..550).contains(&short), "{short}");
    }
}
