//! Stores what schedules were read to say, and loads it.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::snapshots::{Accepted, KEPT, ReadFailure, StoredSnapshots, Version, content_of};
use super::written::Written;
use super::{Ledger, LedgerError, instant, read_json, write_json};
use crate::model::Snapshot;
use crate::schedule::ReadError;

impl Ledger {
    /// Loads everything that is stored.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn load_snapshots(&self) -> Result<StoredSnapshots, LedgerError> {
        let all = "SELECT id, first_read_at, last_read_at, content, body FROM snapshot ORDER BY id";
        self.stored(sqlx::query(all).fetch_all(&self.pool).await?).await
    }

    /// Loads the newest content of each schedule, for those who do not ask what was known in advance.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn load_newest_snapshots(&self) -> Result<StoredSnapshots, LedgerError> {
        let newest = "SELECT id, first_read_at, last_read_at, content, body FROM snapshot \
                      WHERE id IN (SELECT MAX(id) FROM snapshot GROUP BY schedule) ORDER BY id";
        self.stored(sqlx::query(newest).fetch_all(&self.pool).await?).await
    }

    /// The contents of these rows, and what could not be read.
    async fn stored(&self, rows: Vec<SqliteRow>) -> Result<StoredSnapshots, LedgerError> {
        let mut stored = StoredSnapshots::default();
        let mut users = HashSet::new();
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let what = || format!("snapshot {id}");
            let written: Written = read_json(row.try_get(4)?, what)?;
            let mut snapshot = written
                .snapshot(&mut users)
                .ok_or_else(|| LedgerError::Damaged { what: what() })?;
            snapshot.read_at = instant(row.try_get(2)?, what)?;
            let versions = stored.versions.entry(snapshot.schedule.clone()).or_default();
            Arc::make_mut(versions).push(Version {
                first_read_at: instant(row.try_get(1)?, what)?,
                content: row.try_get(3)?,
                noted_at: snapshot.read_at,
                snapshot: Arc::new(snapshot),
            });
        }
        let rows = sqlx::query("SELECT schedule, since, kind, message FROM read_failure")
            .fetch_all(&self.pool)
            .await?;
        for row in rows {
            let schedule: &str = row.try_get(0)?;
            let what = || format!("read failure of {schedule}");
            let failure = ReadFailure {
                since: instant(row.try_get(1)?, what)?,
                kind: row.try_get(2)?,
                message: row.try_get(3)?,
            };
            stored.failures.insert(read_json(schedule, what)?, failure);
        }
        Ok(stored)
    }

    /// Takes in a complete read and stores it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn store_snapshot(
        &self,
        stored: &mut StoredSnapshots,
        snapshot: Snapshot,
        now: Timestamp,
    ) -> Result<Accepted, LedgerError> {
        let accepted = stored.judge(&snapshot, now);
        let had_failed = stored.failures.contains_key(&snapshot.schedule);
        // Memory must never run ahead of the ledger, or a restart would take a surprise for something long known.
        if had_failed || matches!(accepted, Accepted::Confirmed | Accepted::Changed) {
            self.write_snapshot(&snapshot, accepted, had_failed, now).await?;
        }
        stored.take(snapshot, accepted, now);
        Ok(accepted)
    }

    async fn write_snapshot(
        &self,
        snapshot: &Snapshot,
        accepted: Accepted,
        had_failed: bool,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let key = write_json(&snapshot.schedule);
        let (read_at, body) = (snapshot.read_at, write_json(&Written::from(snapshot)));
        let mut tx = self.begin().await?;
        if had_failed {
            sqlx::query("DELETE FROM read_failure WHERE schedule = ?")
                .bind(&key)
                .execute(&mut *tx)
                .await?;
        }
        match accepted {
            Accepted::Late | Accepted::Same => {}
            Accepted::Confirmed => {
                sqlx::query("UPDATE snapshot SET last_read_at = ?1, body = ?2 WHERE id = (SELECT MAX(id) FROM snapshot WHERE schedule = ?3)")
                    .bind(read_at.as_millisecond())
                    .bind(&body)
                    .bind(&key)
                    .execute(&mut *tx)
                    .await?;
            }
            Accepted::Changed => {
                sqlx::query("DELETE FROM snapshot WHERE schedule = ?1 AND (last_read_at > ?3 OR last_read_at < ?2 AND id <> (SELECT MAX(id) FROM snapshot WHERE schedule = ?1))")
                    .bind(&key)
                    .bind(read_at.checked_sub(KEPT).unwrap_or(Timestamp::MIN).as_millisecond())
                    .bind(now.as_millisecond())
                    .execute(&mut *tx)
                    .await?;
                sqlx::query("INSERT INTO snapshot (schedule, first_read_at, last_read_at, content, body) VALUES (?1, ?2, ?2, ?3, ?4)")
                    .bind(&key)
                    .bind(read_at.as_millisecond())
                    .bind(content_of(snapshot))
                    .bind(&body)
                    .execute(&mut *tx)
                    .await?;
            }
        }
        self.commit(tx, now).await
    }

    /// Records that a schedule could not be read, keeping since when. Returns whether that is news.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn store_failure(
        &self,
        stored: &mut StoredSnapshots,
        error: &ReadError,
        now: Timestamp,
    ) -> Result<bool, LedgerError> {
        if !stored.fail(error, now) {
            return Ok(false);
        }
        let since = stored.failures.get(&error.schedule).map_or(now, |f| f.since);
        sqlx::query(
            "INSERT INTO read_failure (schedule, since, kind, message) VALUES (?, ?, ?, ?) \
             ON CONFLICT (schedule) DO UPDATE SET kind = excluded.kind, message = excluded.message",
        )
        .bind(write_json(&error.schedule))
        .bind(since.as_millisecond())
        .bind(error.kind.as_str())
        .bind(&error.message)
        .execute(&self.pool)
        .await?;
        Ok(true)
    }
}
