//! Standing access that we caused, and its causes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sqlx::Row;

use super::{Ledger, LedgerError, parse, read_json, write_json};
use crate::model::{Cause, PrincipalId};
use crate::plan::{Kept, Key, Owned};

impl Ledger {
    /// Everything that we granted and did not revoke.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn owned(&self) -> Result<BTreeMap<Key, Owned>, LedgerError> {
        let rows = sqlx::query(
            "SELECT a.id, a.entitlement, a.target, a.principal, a.person, a.granted_at, c.body \
             FROM access a LEFT JOIN cause c ON c.access_id = a.id AND c.ended_at IS NULL \
             WHERE a.revoked_at IS NULL ORDER BY a.id, c.id",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut owned: BTreeMap<Key, Owned> = BTreeMap::new();
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let what = || format!("access {id}");
            let key = (read_json(row.try_get(2)?, what)?, PrincipalId(row.try_get(3)?));
            let entry = owned.entry(key);
            let owned = match entry {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Owned {
                    access_id: id,
                    entitlement: parse(row.try_get::<String, _>(1)?, what)?,
                    person: parse(row.try_get::<String, _>(4)?, what)?,
                    causes: Vec::new(),
                }),
            };
            if let Some(body) = row.try_get::<Option<&str>, _>(6)? {
                owned.causes.push(read_json(body, what)?);
            }
        }
        Ok(owned)
    }

    /// Ends the record of access that somebody else took away.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn close_lost(&self, key: &Key, now: Timestamp) -> Result<(), LedgerError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        end_access(&mut tx, key, None, "removed by somebody else", now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Brings the record of standing grants up to date, all in one transaction: causes that hold no longer end, new ones
    /// begin, and a renamed entitlement or person is noted.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn update_kept(&self, kept: &[Kept], now: Timestamp) -> Result<(), LedgerError> {
        let news: Vec<_> = kept
            .iter()
            .map(|k| {
                (
                    k,
                    k.recorded.iter().collect::<BTreeSet<_>>(),
                    k.causes.iter().collect::<BTreeSet<_>>(),
                )
            })
            .filter(|(kept, old, new)| kept.renamed || old != new)
            .collect();
        if news.is_empty() {
            return Ok(());
        }
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for (kept, old, new) in news {
            if kept.renamed {
                sqlx::query("UPDATE access SET entitlement = ?, person = ? WHERE id = ?")
                    .bind(kept.entitlement.to_string())
                    .bind(kept.person.as_str())
                    .bind(kept.access_id)
                    .execute(&mut *tx)
                    .await?;
            }
            for cause in old.difference(&new) {
                sqlx::query("UPDATE cause SET ended_at = ? WHERE access_id = ? AND body = ? AND ended_at IS NULL")
                    .bind(now.as_millisecond())
                    .bind(kept.access_id)
                    .bind(write_json(cause))
                    .execute(&mut *tx)
                    .await?;
            }
            for cause in new.difference(&old) {
                insert_cause(&mut tx, kept.access_id, cause, now).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }
}

pub(super) async fn insert_cause(
    tx: &mut sqlx::SqliteConnection,
    access: i64,
    cause: &Cause,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO cause (access_id, body, recorded_at) VALUES (?, ?, ?)")
        .bind(access)
        .bind(write_json(cause))
        .bind(now.as_millisecond())
        .execute(tx)
        .await?;
    Ok(())
}

pub(super) async fn end_access(
    tx: &mut sqlx::SqliteConnection,
    key: &Key,
    intent: Option<i64>,
    reason: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let target = write_json(&key.0);
    sqlx::query(
        "UPDATE cause SET ended_at = ?1 WHERE ended_at IS NULL AND access_id IN \
         (SELECT id FROM access WHERE target = ?2 AND principal = ?3 AND revoked_at IS NULL)",
    )
    .bind(now.as_millisecond())
    .bind(&target)
    .bind(&key.1.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE access SET revoked_at = MAX(granted_at, ?), revoke_intent = ?, end_reason = ? \
         WHERE target = ? AND principal = ? AND revoked_at IS NULL",
    )
    .bind(now.as_millisecond())
    .bind(intent)
    .bind(reason)
    .bind(&target)
    .bind(&key.1.0)
    .execute(&mut *tx)
    .await?;
    Ok(())
}
