//! Reads of the record for what was tried in vain.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sqlx::Row;

use super::{Ledger, LedgerError, instant, read_json};
use crate::identity_center::ChangeKind;
use crate::model::ResolvedTarget;
use crate::plan::{Change, Key};

/// How the last try at a change ended that is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastTry {
    /// When.
    pub at: Timestamp,
    /// Why, and what to do.
    pub why: String,
}

/// A change whose last try did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedTry {
    /// What was asked for.
    pub change: Change,
    /// When and why it did not come about.
    pub last: LastTry,
}

/// A change that had been asked for at an instant and was not in force then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TryThen {
    /// What was asked for.
    pub change: Change,
    /// When.
    pub asked_at: Timestamp,
    /// AWS's request id, if its answer came.
    pub reference: Option<String>,
    /// When and why it had ended in vain; `None` where it had not ended.
    pub ended: Option<LastTry>,
}

impl Ledger {
    /// The last try at each change that by `at` was not in force, of those that ended after `since` or never.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn tries_at(&self, at: Timestamp, since: Timestamp) -> Result<Vec<TryThen>, LedgerError> {
        let rows = sqlx::query(
            "SELECT i.id, i.change, i.created_at, i.reference, CASE WHEN i.completed_at <= ?1 THEN i.completed_at END, i.detail \
             FROM intent i WHERE i.id IN (\
                 SELECT id FROM intent WHERE completed_at IS NULL AND created_at <= ?1 UNION ALL \
                 SELECT id FROM intent WHERE outcome <> 'succeeded' AND ?2 <= completed_at AND completed_at <= ?1 \
                     AND created_at <= ?1 UNION ALL \
                 SELECT id FROM intent WHERE ?1 < completed_at AND completed_at <= ?1 + 3600000 AND created_at <= ?1 UNION ALL \
                 SELECT id FROM intent WHERE completed_at > created_at + 3600000 AND created_at <= ?1 \
                     AND ?1 + 3600000 < completed_at) \
             AND NOT EXISTS (SELECT 1 FROM intent j WHERE j.target = i.target AND j.principal = i.principal AND j.id > i.id \
             AND j.created_at <= ?1) ORDER BY i.id",
        )
        .bind(at.as_millisecond())
        .bind(since.as_millisecond())
        .fetch_all(&self.pool)
        .await?;
        let mut tries = Vec::with_capacity(rows.len());
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let what = || format!("intent {id}");
            let why = row.try_get(5)?;
            let ended = row
                .try_get::<Option<i64>, _>(4)?
                .map(|ms| instant(ms, what))
                .transpose()?;
            tries.push(TryThen {
                change: read_json(row.try_get(1)?, what)?,
                asked_at: instant(row.try_get(2)?, what)?,
                reference: row.try_get(3)?,
                ended: ended.map(|end| last_try(end, why)),
            });
        }
        Ok(tries)
    }

    /// Changes since `since` whose last try is over and did not succeed, the oldest first. Whether anybody still wants
    /// them is not known here.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn failed_tries(&self, since: Timestamp) -> Result<Vec<FailedTry>, LedgerError> {
        let rows = sqlx::query(
            "SELECT i.id, i.change, i.completed_at, i.detail FROM intent i WHERE i.completed_at >= ? AND i.outcome <> 'succeeded' \
             AND NOT EXISTS (SELECT 1 FROM intent j WHERE j.target = i.target AND j.principal = i.principal AND j.id > i.id) \
             ORDER BY i.completed_at, i.id",
        )
        .bind(since.as_millisecond())
        .fetch_all(&self.pool)
        .await?;
        let mut tries = Vec::with_capacity(rows.len());
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let what = || format!("intent {id}");
            tries.push(FailedTry {
                change: read_json(row.try_get(1)?, what)?,
                last: last_try(instant(row.try_get(2)?, what)?, row.try_get(3)?),
            });
        }
        Ok(tries)
    }
}

impl Ledger {
    /// What the assignment operations that succeeded last took, from the request to when it was seen, the latest first;
    /// `count` of them at most. Not those whose end was learnt later than it came.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn operations_seen(&self, count: usize) -> Result<Vec<(ChangeKind, SignedDuration)>, LedgerError> {
        let rows = sqlx::query(
            "SELECT i.id, i.change, i.completed_at - i.created_at FROM intent i WHERE i.completed_at IS NOT NULL \
             AND i.outcome = 'succeeded' AND i.reference IS NOT NULL AND i.detail IS NULL ORDER BY i.completed_at DESC, i.id DESC \
             LIMIT ?",
        )
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await?;
        let mut seen = Vec::with_capacity(rows.len());
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let change: Change = read_json(row.try_get(1)?, || format!("intent {id}"))?;
            if matches!(change.target, ResolvedTarget::Assignment { .. }) {
                seen.push((change.kind, SignedDuration::from_millis(row.try_get(2)?)));
            }
        }
        Ok(seen)
    }
}

/// With words for a reason that was not written down.
pub(super) fn last_try(at: Timestamp, why: Option<String>) -> LastTry {
    LastTry {
        at,
        why: why.unwrap_or_else(|| "the record does not say why".to_owned()),
    }
}

/// How the last try ended of changes that are not in force, by what they are about, with their direction: that a grant
/// failed is no reason for its revoke to wait.
pub type LastTries = BTreeMap<Key, (ChangeKind, LastTry)>;

/// By what they are about.
#[must_use]
pub fn by_key(tries: Vec<FailedTry>) -> LastTries {
    let by_key = |t: FailedTry| (t.change.key(), (t.change.kind, t.last));
    tries.into_iter().map(by_key).collect()
}
