//! Removes what is older than is to be kept, so that the chain goes on from there and no counter goes backwards.
//!
//! What is removed are intervals of access that ended before, with their causes, the intents that nothing refers to any
//! more, duty without access that was over before, and the events up to the last one before that time. One transaction writes what it takes away into the chain
//! first: how many rows of each table with a digest of them, where the chain is cut and the hash there, and once more
//! the rows that stay although the events that told of them go.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::{AssertSqlSafe, Row};

use super::chain::pages::Rows;
use super::chain::tables::{TABLES, Table, hex};
use super::chain::{self, Rows as Digest, end, note, restate};
use super::{Ledger, LedgerError, read_json, write_json};
use crate::accounting::{Figures, Sessions, account};
use crate::model::{EntitlementId, Interval, Texts};

/// Removal waits until this much is older than is to be kept: once a day is often enough.
const AT_LEAST: SignedDuration = SignedDuration::from_hours(24);
/// At most this much of the time that is too old goes at once, so that nobody waits long for the ledger.
const AT_MOST: SignedDuration = SignedDuration::from_hours(8 * 24);
/// So many intervals are looked at together.
const PAGE: i64 = 500;

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Removed {
    /// Intervals of access.
    pub intervals: i64,
    /// Intents.
    pub intents: i64,
    /// Events of the chain.
    pub events: i64,
}

impl Ledger {
    /// Removes what ended before `before`, a week of it at most; the next call goes on. `None` where less than a day of events is older than that.
    ///
    /// What was on record before the chain began goes with the chain's first event and not before it, because the digest
    /// in that event proves all of it at once.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing is removed then.
    pub async fn remove_before(&self, before: Timestamp, now: Timestamp) -> Result<Option<Removed>, LedgerError> {
        let oldest: Option<i64> = sqlx::query_scalar("SELECT at FROM event ORDER BY seq LIMIT 1")
            .fetch_optional(&self.pool)
            .await?;
        let soon = before.checked_sub(AT_LEAST).unwrap_or(Timestamp::MIN).as_millisecond();
        if oldest.is_none_or(|oldest| soon <= oldest) {
            return Ok(None);
        }
        let far = SignedDuration::from_millis(oldest.unwrap_or_default()).saturating_add(AT_MOST);
        let before = before.min(Timestamp::from_duration(far).unwrap_or(before));
        let ms = before.as_millisecond();
        let sessions = self.sessions().await?;
        let mut tx = self.begin().await?;
        // The clock may have been set back in between: everything up to the cut is older.
        let newer: Option<i64> = sqlx::query_scalar("SELECT MIN(seq) FROM event WHERE at >= ?")
            .bind(ms)
            .fetch_one(&mut *tx)
            .await?;
        let (last, _) = end(&mut tx).await?;
        // The last event stays, however old, because the chain goes on from it.
        let cut = newer.unwrap_or(last) - 1;
        let cut_at = sqlx::query("SELECT hash FROM event WHERE seq = ?")
            .bind(cut)
            .fetch_optional(&mut *tx)
            .await?;
        let Some(cut_at) = cut_at else {
            self.commit(tx, now).await?;
            return Ok(None);
        };
        let hash: Vec<u8> = cut_at.try_get(0)?;
        sqlx::query("INSERT INTO retention (id, cut, before) VALUES (1, ?, ?)")
            .bind(cut)
            .bind(ms)
            .execute(&mut *tx)
            .await?;
        self.choose(&mut tx, cut, ms).await?;
        let intervals = self.carry_totals(&mut tx, &sessions).await?;

        let mut gone = serde_json::Map::new();
        let mut intents = 0;
        for name in ["cause", "access", "intent"] {
            let Some(table) = Table::named(name) else { continue };
            let mut rows = Digest::new(table);
            let mut pages = Rows::of(table, &format!("id IN (SELECT id FROM leaving_{name})"));
            while let Some((id, columns)) = pages.next(&mut tx).await? {
                rows.add(id, &columns);
            }
            if name == "intent" {
                intents = rows.count;
            }
            gone.insert(name.to_owned(), json!({ "rows": rows.count, "sha256": rows.digest() }));
            let sql = format!("DELETE FROM main.{name} WHERE id IN (SELECT id FROM leaving_{name})");
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await?;
            // The event below tells of all of them.
            sqlx::query("DELETE FROM noted WHERE tbl = ? AND op = 'delete'")
                .bind(name)
                .execute(&mut *tx)
                .await?;
            let sql = format!("DROP TABLE temp.leaving_{name}");
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await?;
        }
        let events = sqlx::query("DELETE FROM event WHERE seq <= ?")
            .bind(cut)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        // The newest stays here, too; nothing refers to an entry that is counted.
        sqlx::query(
            "DELETE FROM unheld WHERE ended_at < ? AND id < (SELECT MAX(id) FROM unheld) \
             AND id NOT IN (SELECT id FROM uncounted_unheld)",
        )
        .bind(ms)
        .execute(&mut *tx)
        .await?;
        let body = json!({ "before": before, "cut": cut, "hash": hex(&hash), "events": events, "removed": gone });
        note(&mut tx, "retention", &body).await?;
        for table in &TABLES {
            restate(&mut tx, table, &untold(table.name)).await?;
        }
        sqlx::query("DELETE FROM retention").execute(&mut *tx).await?;
        self.commit(tx, now).await?;
        Ok(Some(Removed {
            intervals,
            intents,
            events,
        }))
    }

    /// Lists what leaves. The newest of each stays, so that no number is given twice.
    async fn choose(&self, tx: &mut chain::Writing, cut: i64, before: i64) -> Result<(), LedgerError> {
        for (name, which) in [
            (
                "access",
                "a.revoked_at < ?1 AND a.id < (SELECT MAX(id) FROM access) \
                 AND NOT EXISTS (SELECT 1 FROM event e WHERE e.tbl = 'access' AND e.row = a.id AND ?2 < e.seq AND e.op <> 'restate') \
                 AND NOT EXISTS (SELECT 1 FROM cause c WHERE c.access_id = a.id AND (c.ended_at IS NULL OR ?1 <= c.ended_at \
                 OR c.id = (SELECT MAX(id) FROM cause) OR EXISTS (SELECT 1 FROM event e WHERE e.tbl = 'cause' AND e.row = c.id \
                 AND ?2 < e.seq AND e.op <> 'restate')))",
            ),
            (
                "cause",
                "a.access_id IN (SELECT id FROM leaving_access) AND ?1 = ?1 AND ?2 = ?2",
            ),
            (
                "intent",
                "a.completed_at < ?1 AND a.id < (SELECT MAX(id) FROM intent) \
                 AND NOT EXISTS (SELECT 1 FROM event e WHERE e.tbl = 'intent' AND e.row = a.id AND ?2 < e.seq AND e.op <> 'restate') \
                 AND NOT EXISTS (SELECT 1 FROM access x WHERE x.grant_intent = a.id AND x.id NOT IN (SELECT id FROM leaving_access)) \
                 AND NOT EXISTS (SELECT 1 FROM access x WHERE x.revoke_intent = a.id AND x.id NOT IN (SELECT id FROM leaving_access))",
            ),
        ] {
            let make = format!("CREATE TEMP TABLE leaving_{name} (id INTEGER PRIMARY KEY)");
            sqlx::query(AssertSqlSafe(make)).execute(&mut **tx).await?;
            let fill = format!("INSERT INTO leaving_{name} SELECT a.id FROM main.{name} a WHERE {which}");
            sqlx::query(AssertSqlSafe(fill))
                .bind(before)
                .bind(cut)
                .execute(&mut **tx)
                .await?;
        }
        Ok(())
    }

    /// Adds the access time of the intervals that leave to what was removed before. Returns how many leave.
    async fn carry_totals(&self, tx: &mut chain::Writing, sessions: &Sessions) -> Result<i64, LedgerError> {
        let (mut after, mut count) = (i64::MIN, 0);
        loop {
            let ids: Vec<i64> = sqlx::query_scalar("SELECT id FROM leaving_access WHERE id > ? ORDER BY id LIMIT ?")
                .bind(after)
                .bind(PAGE)
                .fetch_all(&mut **tx)
                .await?;
            let Some(last) = ids.last() else { return Ok(count) };
            after = *last;
            let rows = super::history::access_by_id(tx, &ids, &mut Texts::default()).await?;
            count += i64::try_from(rows.len()).unwrap_or(i64::MAX);
            let uncounted = super::totals::uncounted_among(tx, &ids).await?;
            let late: Vec<_> = rows.iter().filter(|row| uncounted.contains(&row.id)).cloned().collect();
            super::totals::count_access(tx, &late, sessions).await?;
            let figures =
                account(&rows, Interval::ALWAYS, Timestamp::MAX).grouped(|entitlement, _| entitlement.clone());
            for (entitlement, figures) in figures {
                let intervals = rows.iter().filter(|row| row.entitlement == entitlement).count();
                self.carry(tx, &entitlement, figures, intervals).await?;
            }
        }
    }

    async fn carry(
        &self,
        tx: &mut chain::Writing,
        entitlement: &EntitlementId,
        mut figures: Figures,
        intervals: usize,
    ) -> Result<(), LedgerError> {
        let known: Option<String> = sqlx::query_scalar("SELECT body FROM removed WHERE entitlement = ?")
            .bind(entitlement.to_string())
            .fetch_optional(&mut **tx)
            .await?;
        if let Some(known) = known {
            figures += read_json::<Figures>(&known, || format!("the total of {entitlement}"))?;
        }
        sqlx::query(
            "INSERT INTO removed (entitlement, intervals, body) VALUES (?, ?, ?) \
             ON CONFLICT (entitlement) DO UPDATE SET intervals = intervals + excluded.intervals, body = excluded.body",
        )
        .bind(entitlement.to_string())
        .bind(i64::try_from(intervals).unwrap_or(i64::MAX))
        .bind(write_json(&figures))
        .execute(&mut **tx)
        .await?;
        Ok(())
    }

    /// Runs a statement as another program would.
    #[cfg(test)]
    pub(crate) async fn try_raw(&self, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(statement).execute(&self.pool).await.map(drop)
    }
}

/// Which rows of a table are those of which the chain holds no beginning any more.
fn untold(table: &str) -> String {
    format!(
        "NOT EXISTS (SELECT 1 FROM event e WHERE e.tbl = '{table}' AND e.row = {table}.id AND e.op IN ('insert', 'restate')) \
         AND NOT EXISTS (SELECT 1 FROM noted n WHERE n.tbl = '{table}' AND n.row = {table}.id AND n.op = 'insert')"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by a soak: what a transaction has noted was searched row by row for each row that is told of once more, so
    /// that the first removal of a large organisation would have kept everything waiting for more than an hour.
    #[tokio::test]
    async fn what_is_to_be_told_of_once_more_is_found_without_going_through_all_that_was_noted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let ledger = Ledger::open(&path, "test", Timestamp::UNIX_EPOCH).await.unwrap();
        for table in &TABLES {
            let name = table.name;
            let sql = format!("EXPLAIN QUERY PLAN SELECT id FROM main.{name} WHERE {}", untold(name));
            let plan = sqlx::query(AssertSqlSafe(sql)).fetch_all(&ledger.pool).await.unwrap();
            let steps: Vec<String> = plan.iter().map(|step| step.get(3)).collect();
            let searches = |alias: &str| steps.iter().any(|step| step.starts_with(&format!("SEARCH {alias} ")));
            assert!(searches("n") && searches("e"), "{name}: {steps:#?}");
        }
    }
}
