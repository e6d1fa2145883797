//! How changes end: what is said of it, and what is remembered until they are in force.

use std::sync::Arc;

use jiff::Timestamp;

use crate::identity_center::ChangeKind;
use crate::plan::Change;
use crate::text::clean;

/// How one change ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The change.
    pub change: Arc<Change>,
    /// When it ended.
    pub at: Timestamp,
    /// How.
    pub end: End,
}

/// How a change can end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// AWS confirmed it.
    Confirmed,
    /// AWS refused it, or the look at its target before it, for this reason.
    Failed(String),
    /// No answer came; the next pass looks at live state.
    Unsettled(String),
    /// It was not even tried: a revoke stays for now because the incoming grant did not come, or a grant's person was
    /// barred after it was approved.
    Deferred(String),
    /// It never began, because a newer plan decides.
    Superseded,
    /// It was not begun when its turn came, because AWS showed other holders than the plan was made on, or its time was over;
    /// the next pass decides.
    Overtaken,
}

pub(super) fn say(change: &Change, end: &End) {
    let (word, entitlement, principal) = (kind_word(change.kind), &change.entitlement, &change.principal);
    match end {
        End::Confirmed => tracing::info!(change = word, %entitlement, %principal, "confirmed"),
        End::Failed(message) => {
            tracing::error!(change = word, %entitlement, %principal, reason = %clean(message), "refused; it is tried again");
        }
        End::Unsettled(message) => {
            tracing::warn!(change = word, %entitlement, %principal, reason = %clean(message), "not confirmed; the next pass looks at the live state");
        }
        End::Deferred(message) => {
            tracing::warn!(change = word, %entitlement, %principal, reason = %clean(message), "deferred");
        }
        End::Overtaken => {
            tracing::info!(change = word, %entitlement, %principal, "not begun: it is not as it was when this was planned; the next pass decides");
        }
        End::Superseded => tracing::debug!(change = word, %entitlement, %principal, "a newer plan decides"),
    }
}

/// `grant` or `revoke`, for logs and labels.
#[must_use]
pub fn kind_word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Grant => "grant",
        ChangeKind::Revoke => "revoke",
    }
}
