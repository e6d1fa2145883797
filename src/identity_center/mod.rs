//! What the daemon asks of IAM Identity Center: a reader, a separate writer, and the values they exchange.

mod calls;
mod client;
mod directory;
mod failure;
mod groups;
mod instance;
mod inventory;
pub mod limiter;
mod live;
mod people;
mod reader;
mod retry;
mod targets;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jiff::SignedDuration;

use crate::model::{Person, PrincipalId, ResolvedTarget, Target};

pub(crate) use calls::Call;
pub use client::Client;
pub(crate) use groups::MANY as MANY_GROUPS;
pub use inventory::{Inventory, User};

/// The Identity Center instance that was found, after the operator's expectation of it was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// `arn:aws:sso:::instance/ssoins-…`
    pub arn: String,
    /// `d-…`
    pub identity_store_id: String,
    /// The AWS account that owns the instance.
    pub owner_account_id: String,
}

/// What the identity store says about a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Exactly one enabled user.
    Found(PrincipalId),
    /// No user.
    Unknown,
    /// One user, whom an administrator has disabled.
    Disabled(PrincipalId),
    /// Several different users match.
    Ambiguous(Vec<PrincipalId>),
}

impl Resolution {
    /// The users who match.
    fn candidates(&self) -> &[PrincipalId] {
        match self {
            Self::Unknown => &[],
            Self::Found(id) | Self::Disabled(id) => std::slice::from_ref(id),
            Self::Ambiguous(ids) => ids,
        }
    }
}

/// How the operator pins a person to a user of the identity store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UserPin {
    /// By id.
    Id(PrincipalId),
    /// By user name, compared exactly.
    UserName(String),
}

/// Who holds a target directly, read completely.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders {
    /// Users. The membership id that a removal from a group needs is asked for then, because it may have been made anew.
    pub users: BTreeSet<PrincipalId>,
    /// Groups that hold an account assignment; never ours, shown so that people know.
    pub groups: Vec<String>,
}

/// What lookups wait for a list of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListOf {
    /// Users.
    People,
    /// Permission sets or groups.
    Targets,
}

/// Reads the live state. Has no way to change anything.
#[async_trait]
pub trait Read: Send + Sync {
    /// Finds the instance and compares its owner with the operator's `expected_account_id`.
    ///
    /// # Errors
    /// [`AwsError`]; of kind [`AwsErrorKind::Misconfigured`] when there is no such instance in the region or another
    /// account owns it.
    async fn instance(&self) -> Result<Instance, AwsError>;

    /// Looks up the names in a target.
    ///
    /// # Errors
    /// [`AwsError`]; of kind [`AwsErrorKind::NotFound`] when the permission set or group does not exist.
    async fn resolve_target(&self, target: &Target) -> Result<ResolvedTarget, AwsError>;

    /// Finds the user who is this person: by pin, else by user name or e-mail.
    ///
    /// # Errors
    /// [`AwsError`] when the identity store could not be asked; an unknown person is not an error.
    async fn resolve_person(&self, person: &Person, pin: Option<&UserPin>) -> Result<Resolution, AwsError>;

    /// Who holds the target now, all pages.
    ///
    /// # Errors
    /// [`AwsError`]; a partial list is never returned.
    async fn holders(&self, target: &ResolvedTarget) -> Result<Holders, AwsError>;

    /// The same, ahead of everything that only looks, because a change waits for it.
    ///
    /// # Errors
    /// [`AwsError`].
    async fn holders_before_change(&self, target: &ResolvedTarget) -> Result<Holders, AwsError> {
        self.holders(target).await
    }

    /// Asks how an assignment operation stands. Used to go on after a restart.
    ///
    /// # Errors
    /// [`AwsError`].
    async fn operation(&self, operation: &Operation) -> Result<Progress, AwsError>;

    /// When AWS last answered a question that only looks.
    fn last_answer(&self) -> Option<tokio::time::Instant> {
        None
    }

    /// When a page came last of a list for which lookups wait: they do not end before the list does, and it is under way.
    fn last_page(&self, _of: ListOf) -> Option<tokio::time::Instant> {
        None
    }

    /// How long role sessions live, by the ARNs of the permission sets that were looked up so far; asks nobody.
    fn sessions(&self) -> BTreeMap<String, SignedDuration> {
        BTreeMap::new()
    }
}

/// Changes the live state. Only `apply` is ever handed one.
#[async_trait]
pub trait Write: Send + Sync {
    /// Asks AWS for one change and returns as soon as it answered. Conflicts and throttles are retried with backoff
    /// for a bounded time. Granting what exists and revoking what is gone are successes.
    ///
    /// # Errors
    /// [`AwsError`]; when [`AwsError::outcome_unknown`] the change may have happened.
    async fn start(
        &self,
        change: ChangeKind,
        target: &ResolvedTarget,
        principal: &PrincipalId,
    ) -> Result<Started, AwsError>;
}

/// The direction of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Give access.
    Grant,
    /// Take access.
    Revoke,
}

/// What AWS said to a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// In force already: group memberships, and changes that were not needed.
    Done {
        /// AWS's id of the request or membership, for the record.
        reference: Option<String>,
    },
    /// An asynchronous operation is under way; a 200 is not a grant.
    Pending(Operation),
}

/// An asynchronous assignment operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Creation or deletion.
    pub kind: ChangeKind,
    /// The id under which AWS reports on it.
    pub request_id: String,
}

/// How an asynchronous operation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Not decided yet.
    InProgress,
    /// In force.
    Succeeded,
    /// Refused, with AWS's reason for the person reading.
    Failed(String),
    /// AWS does not know this operation (any more).
    Forgotten,
}

/// A failed call to AWS. `Display` says which call, what AWS said and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct AwsError {
    /// Such as `ssoadmin CreateAccountAssignment`.
    pub operation: &'static str,
    /// For decisions and metrics.
    pub kind: AwsErrorKind,
    /// AWS's words and ours.
    pub message: String,
    /// The request may have been carried out although no answer came.
    pub outcome_unknown: bool,
}

/// Kinds of failed AWS calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AwsErrorKind {
    /// Throttled for longer than we wait within a pass.
    Throttled,
    /// A conflicting operation for longer than we wait within a pass.
    Conflict,
    /// Credentials missing, expired or refused, or no permission.
    Denied,
    /// The named thing does not exist.
    NotFound,
    /// The configuration does not match reality: account, region, instance.
    Misconfigured,
    /// No connection or no answer in time.
    Unreachable,
    /// AWS's own failure (5xx) or an answer that could not be read.
    Server,
    /// AWS refused the request for another reason.
    Rejected,
}

impl AwsErrorKind {
    /// A stable word for metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Misconfigured => "misconfigured",
            Self::Unreachable => "unreachable",
            Self::Server => "server",
            Self::Rejected => "rejected",
        }
    }
}
