//! Reads of schedules, as the ledger stores and loads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashSet;
use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::snapshots::{Accepted, KEPT, ReadFailure, StoredSnapshots, Version, content_of};
use super::written::Written;
use super::{Ledger, LedgerError, instant, read_json, write_json};
use crate::along::Along;
use crate::desired::Snapshots;
use crate::model::{ScheduleKey, Snapshot, SourceUser};
use crate::schedule::ReadError;
use crate::side_by_side;

/// What schedules were last read to say, for those who do not ask what was known in advance.
#[derive(Debug, Default)]
pub struct LastReads {
    snapshots: Snapshots,
    failures: Failures,
}

/// By schedule, why it cannot be read at present.
pub type Failures = BTreeMap<ScheduleKey, ReadFailure>;

impl From<&StoredSnapshots> for LastReads {
    /// What a daemon has in memory of them.
    fn from(stored: &StoredSnapshots) -> Self {
        Self {
            snapshots: stored.all_newest(),
            failures: stored.failures().clone(),
        }
    }
}

impl LastReads {
    /// Those of these schedules.
    #[must_use]
    pub fn of(&self, wanted: &BTreeSet<ScheduleKey>) -> Snapshots {
        let mut wanted = Along::new(wanted.iter().map(|key| (key, ())));
        let of_these = self.snapshots.iter().filter(|(key, _)| wanted.find(key).is_some());
        of_these.map(|(key, read)| (key.clone(), Arc::clone(read))).collect()
    }

    /// Schedules whose last read failed.
    #[must_use]
    pub fn failures(&self) -> &Failures {
        &self.failures
    }
}

impl Ledger {
    /// Loads everything that is stored.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn load_snapshots(&self) -> Result<StoredSnapshots, LedgerError> {
        let rows = sqlx::query("SELECT id, last_read_at, body, first_read_at, content FROM snapshot ORDER BY id")
            .fetch_all(&self.pool)
            .await?;
        let mut stored = StoredSnapshots::default();
        stored.failures = self.failures().await?;
        for (row, snapshot) in rows.iter().zip(read_all(&rows)?) {
            let versions = stored.versions.entry(snapshot.schedule.clone()).or_default();
            Arc::make_mut(versions).push(Version {
                first_read_at: instant(row.try_get(3)?, || format!("a snapshot of {}", snapshot.schedule))?,
                content: row.try_get(4)?,
                noted_at: snapshot.read_at,
                snapshot,
            });
        }
        Ok(stored)
    }

    /// Loads the newest content of each schedule.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn load_last_reads(&self) -> Result<LastReads, LedgerError> {
        let rows = sqlx::query(
            "SELECT id, last_read_at, body FROM snapshot WHERE id IN (SELECT MAX(id) FROM snapshot GROUP BY schedule)",
        )
        .fetch_all(&self.pool)
        .await?;
        let by_schedule = |snapshot: Arc<Snapshot>| (snapshot.schedule.clone(), snapshot);
        Ok(LastReads {
            snapshots: read_all(&rows)?.into_iter().map(by_schedule).collect(),
            failures: self.failures().await?,
        })
    }

    async fn failures(&self) -> Result<Failures, LedgerError> {
        let rows = sqlx::query("SELECT schedule, since, kind, message FROM read_failure")
            .fetch_all(&self.pool)
            .await?;
        let failures = rows.iter().map(|row| {
            let schedule: &str = row.try_get(0)?;
            let what = || format!("read failure of {schedule}");
            let failure = ReadFailure {
                since: instant(row.try_get(1)?, what)?,
                kind: row.try_get(2)?,
                message: row.try_get(3)?,
            };
            Ok((read_json(schedule, what)?, failure))
        });
        failures.collect()
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

/// Fewer rows than this are parsed before a thread has begun.
const ROWS_FOR_A_THREAD: usize = 64;

/// Rows of id, last read and body, in their order.
fn read_all(rows: &[SqliteRow]) -> Result<Vec<Arc<Snapshot>>, LedgerError> {
    let parse = |row: &SqliteRow| {
        let id: i64 = row.try_get(0)?;
        let what = || format!("snapshot {id}");
        let written: Written = read_json(row.try_get(2)?, what)?;
        Ok((id, instant(row.try_get(1)?, what)?, written))
    };
    let mut users: HashSet<Arc<SourceUser>> = HashSet::default();
    let parsed = side_by_side::map(rows.iter().collect(), ROWS_FOR_A_THREAD, parse);
    let snapshots = parsed.into_iter().map(|parsed: Result<_, LedgerError>| {
        let (id, read_at, written) = parsed?;
        let damaged = || LedgerError::Damaged {
            what: format!("snapshot {id}"),
        };
        let mut snapshot = written.snapshot(&mut users).ok_or_else(damaged)?;
        snapshot.read_at = read_at;
        Ok(Arc::new(snapshot))
    });
    snapshots.collect()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::accounting::fixtures::t;
    use crate::model::{Interval, ScheduleKind, Shift, SourceName, SourceUserState};

    fn key(id: &str) -> ScheduleKey {
        ScheduleKey {
            source: SourceName("pagerduty".into()),
            kind: ScheduleKind::Schedule,
            id: id.into(),
        }
    }

    fn read_of(id: &str, users: &[&str], at: Timestamp) -> Snapshot {
        let window = Interval::new(t(0), t(10_000)).unwrap();
        let shift = |user: &&str| Shift {
            interval: window,
            start_known: false,
            end_known: true,
            user: Arc::new(SourceUser {
                id: (*user).into(),
                name: None,
                email: None,
                state: SourceUserState::Active,
            }),
            level: None,
            permanent: false,
            via_override: None,
        };
        Snapshot {
            schedule: key(id),
            read_at: at,
            window,
            shifts: users.iter().map(shift).collect(),
            notices: Vec::new(),
            clock_offset_ms: None,
        }
    }

    #[tokio::test]
    async fn the_last_reads_are_the_newest_of_all_that_are_stored_and_damage_is_no_empty_schedule() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.db"), "test", t(0))
            .await
            .unwrap();
        let mut stored = StoredSnapshots::default();
        let reads = [
            ("A", vec!["u1"]),
            ("B", vec!["u1"]),
            ("A", vec!["u2", "u1"]),
            ("C", vec![]),
        ];
        for (second, (id, users)) in (10..).zip(&reads) {
            let snapshot = read_of(id, users, t(second));
            ledger.store_snapshot(&mut stored, snapshot, t(second)).await.unwrap();
        }
        let wanted = BTreeSet::from(["A", "C", "unread"].map(key));
        let all = ledger.load_snapshots().await.unwrap();
        let last = ledger.load_last_reads().await.unwrap();
        assert_eq!(all.newest(&wanted), last.of(&wanted));
        assert_eq!(all.newest(&wanted), stored.newest(&wanted));
        let settled = all.settled(&wanted, t(13), SignedDuration::ZERO);
        assert_eq!(
            settled[&key("A")].shifts.len(),
            2,
            "all that is stored tells what was known before"
        );
        assert_eq!(
            all.settled(&wanted, t(13), SignedDuration::from_secs(2))[&key("A")]
                .shifts
                .len(),
            1
        );

        for turns in ["[]", "null"] {
            sqlx::query("UPDATE snapshot SET body = json_set(body, '$.turns', json(?)) WHERE schedule = ?")
                .bind(turns)
                .bind(write_json(&key("B")))
                .execute(&ledger.pool)
                .await
                .unwrap();
            for found in [
                ledger.load_snapshots().await.err(),
                ledger.load_last_reads().await.err(),
            ] {
                assert!(matches!(found, Some(LedgerError::Damaged { .. })), "{turns}: {found:?}");
            }
        }
    }
}
