//! Reads who was on duty without access.

use std::collections::HashSet;

use jiff::Timestamp;
use smol_str::SmolStr;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{Ledger, LedgerError, Moment, instant, parse, write_json};
use crate::accounting::Unheld;
use crate::model::{Interval, Person, Texts};

/// So many entries are read together.
const PAGE: usize = 500;

/// What overlaps the time from ?1 to ?2: a part for each of the indexes by how long it lasted, in the words of these.
const IDS_IN: &str = "\
    SELECT id FROM unheld WHERE ended_at IS NULL AND duty_from < ?2 UNION ALL \
    SELECT id FROM unheld WHERE ended_at <= duty_from + 86400000 \
        AND ?1 - 86400000 < duty_from AND duty_from < ?2 AND ended_at > ?1 UNION ALL \
    SELECT id FROM unheld WHERE ended_at > duty_from + 86400000 AND duty_from < ?2 AND ended_at > ?1";

/// What was held in the meantime is looked for in parts, so that of what ended long ago only what lasted long is looked at; the
/// signs keep another index from being taken.
const BY_ID: &str = "\
    SELECT u.id, u.entitlement, u.person, u.duty_from, u.duty_to, u.why, u.ended_at, a.granted_at, a.revoked_at \
    FROM unheld u LEFT JOIN access a ON a.id IN (\
        SELECT x.id FROM access x WHERE x.entitlement = u.entitlement AND x.person = u.person \
            AND x.revoked_at IS NULL AND +x.granted_at < u.duty_to UNION ALL \
        SELECT x.id FROM access x WHERE x.entitlement = u.entitlement AND x.person = u.person \
            AND x.revoked_at <= x.granted_at + 691200000 AND u.duty_from - 691200000 < x.granted_at \
            AND x.granted_at < u.duty_to AND u.duty_from < x.revoked_at UNION ALL \
        SELECT x.id FROM access x WHERE x.entitlement = u.entitlement AND x.person = u.person \
            AND x.revoked_at > x.granted_at + 691200000 AND +x.granted_at < u.duty_to AND u.duty_from < x.revoked_at) \
    WHERE u.id IN (SELECT value FROM json_each(?)) ORDER BY u.id, a.id";

/// The statements that reach far back, for a test to ask how SQLite would go about them.
#[cfg(test)]
pub(super) const FAR_BACK: [&str; 2] = [IDS_IN, BY_ID];

/// Tells whether anything about duty without access has changed; see [`Moment::unheld_mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnheldMark {
    newest: Option<i64>,
    open: i64,
}

impl UnheldMark {
    /// The highest id, or 0.
    #[must_use]
    pub fn newest(&self) -> i64 {
        self.newest.unwrap_or_default()
    }
}

impl Ledger {
    /// Duty without access that overlaps `range`, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn unheld_in(&self, range: Interval) -> Result<Vec<Unheld>, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let mut ids: Vec<i64> = sqlx::query_scalar(IDS_IN)
            .bind(range.start().as_millisecond())
            .bind(range.end().as_millisecond())
            .fetch_all(&mut *tx)
            .await?;
        ids.sort_unstable();
        by_id(&mut tx, &ids).await
    }

    /// One person's duty without access that overlaps `range`, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn unheld_of(&self, person: &Person, range: Interval) -> Result<Vec<Unheld>, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let ids: Vec<i64> = sqlx::query_scalar(
            "SELECT id FROM unheld WHERE person = ? AND duty_from < ? AND (ended_at IS NULL OR ended_at > ?) ORDER BY id",
        )
        .bind(person.as_str())
        .bind(range.end().as_millisecond())
        .bind(range.start().as_millisecond())
        .fetch_all(&mut *tx)
        .await?;
        by_id(&mut tx, &ids).await
    }
}

impl Moment {
    /// Reads a value that differs whenever duty without access began or ended.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn unheld_mark(&mut self) -> Result<UnheldMark, LedgerError> {
        let row = sqlx::query("SELECT MAX(id), (SELECT COUNT(*) FROM unheld WHERE ended_at IS NULL) FROM unheld")
            .fetch_one(&mut *self.0)
            .await?;
        Ok(UnheldMark {
            newest: row.try_get(0)?,
            open: row.try_get(1)?,
        })
    }

    /// The entries that have not ended.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn open_unheld(&mut self) -> Result<HashSet<i64>, LedgerError> {
        let ids = sqlx::query_scalar("SELECT id FROM unheld WHERE ended_at IS NULL");
        Ok(ids.fetch_all(&mut *self.0).await?.into_iter().collect())
    }

    /// Entries with a higher id than `after`, and these `others`.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn unheld_since(&mut self, after: i64, others: &[i64]) -> Result<Vec<Unheld>, LedgerError> {
        let newer: Vec<i64> = sqlx::query_scalar("SELECT id FROM unheld WHERE id > ? ORDER BY id")
            .bind(after)
            .fetch_all(&mut *self.0)
            .await?;
        by_id(&mut self.0, &[others, &newer].concat()).await
    }
}

/// Duty without access that is in no sum yet.
pub(super) async fn uncounted_unheld(connection: &mut SqliteConnection) -> Result<Vec<Unheld>, LedgerError> {
    let ids: Vec<i64> = sqlx::query_scalar("SELECT id FROM uncounted_unheld ORDER BY id")
        .fetch_all(&mut *connection)
        .await?;
    by_id(connection, &ids).await
}

/// The first of it, as far as it was over at `until`; `limit` of them at most.
pub(super) async fn uncounted_unheld_until(
    connection: &mut SqliteConnection,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<Unheld>, LedgerError> {
    let ids: Vec<i64> = sqlx::query_scalar(
        "SELECT n.id FROM uncounted_unheld n JOIN unheld o ON o.id = n.id WHERE o.ended_at <= ? ORDER BY n.id LIMIT ?",
    )
    .bind(until.as_millisecond())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(&mut *connection)
    .await?;
    by_id(connection, &ids).await
}

/// The entries with these ids. A row as SQLite gives it takes several times as much memory as what it says.
async fn by_id(connection: &mut SqliteConnection, ids: &[i64]) -> Result<Vec<Unheld>, LedgerError> {
    let mut found = Vec::with_capacity(ids.len());
    let mut texts = Texts::default();
    for page in ids.chunks(PAGE) {
        let rows = sqlx::query(BY_ID)
            .bind(write_json(&page))
            .fetch_all(&mut *connection)
            .await?;
        assemble(rows, &mut texts, &mut found)?;
    }
    Ok(found)
}

/// Rows of one entry stand together.
fn assemble(rows: Vec<SqliteRow>, texts: &mut Texts, found: &mut Vec<Unheld>) -> Result<(), LedgerError> {
    for row in rows {
        let id: i64 = row.try_get(0)?;
        let what = || format!("duty without access {id}");
        let at = |ms: i64| instant(ms, what);
        if found.last().is_none_or(|last| last.id != id) {
            let end: i64 = row.try_get(4)?;
            // The end of time has more digits than a millisecond.
            let end = if end < Timestamp::MAX.as_millisecond() {
                at(end)?
            } else {
                Timestamp::MAX
            };
            let duty = Interval::new(at(row.try_get(3)?)?, end);
            let mut unheld = Unheld {
                id,
                entitlement: parse(row.try_get::<String, _>(1)?, what)?,
                person: parse(row.try_get::<String, _>(2)?, what)?,
                duty: duty.ok_or_else(|| LedgerError::Damaged { what: what() })?,
                why: SmolStr::new(row.try_get::<&str, _>(5)?),
                ended_at: row.try_get::<Option<i64>, _>(6)?.map(at).transpose()?,
                held: Vec::new(),
            };
            texts.entitlement(&mut unheld.entitlement);
            texts.person(&mut unheld.person);
            texts.share(&mut unheld.why);
            found.push(unheld);
        }
        if let (Some(granted), Some(unheld)) = (row.try_get::<Option<i64>, _>(7)?, found.last_mut()) {
            let revoked = row.try_get::<Option<i64>, _>(8)?.map(at).transpose()?;
            unheld
                .held
                .extend(Interval::new(at(granted)?, revoked.unwrap_or(Timestamp::MAX)));
        }
    }
    Ok(())
}
