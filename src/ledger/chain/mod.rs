//! The chain: every change of the record as an event that is hashed together with the hash of the one before.
//!
//! Events: `chain_begun` (with digests of what was on record before), `ledger_named`, `policy_in_force`, `intent_begun`,
//! `reference_known`, `intent_completed`, `access_begun`, `access_renamed`, `access_ended`, `cause_recorded`,
//! `cause_ended`, `hold_begun`, `hold_changed`, `hold_ended`, `order_given`, `order_lifted`, `approval_given`,
//! `approval_used`, `schedule_read` (each new content of a schedule), `schedule_dropped`, `restoration_found`,
//! `restoration_settled`, `retention` (what was removed because of its age), `totals_carried`, and `row_restated`, which
//! says once more what a row holds where the events that told of it are not in the chain.
//!
//! Events are not written by hand where a row changes. Triggers that exist only on our own connections (`listen`) note
//! every change of a covered table, by whatever code; `Ledger::commit` makes events of them in the same transaction.
//! Whoever changes a row by another way leaves no event, and the table then contradicts the chain.

use std::ops::{Deref, DerefMut};

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Row, Sqlite, SqliteConnection};

use super::{Ledger, LedgerError, instant, read_json};
use crate::model::Interval;

mod check;
pub(super) mod pages;
pub(super) mod tables;

pub use check::{Finding, PublishedHead, Verdict};
use tables::{Columns, Op, TABLES, Table, hex, kind};

/// So many notes are read together.
const PAGE: i64 = 1_000;
/// Nothing else is ever hashed with this in front.
const EVENT_DOMAIN: &[u8] = b"dutybound ledger event v1\0";
const ROWS_DOMAIN: &[u8] = b"dutybound ledger rows v1\0";
/// What comes before the first event.
pub(super) const NOTHING: [u8; 32] = [0; 32];

/// The end of the chain. Whoever keeps it can tell later that nothing before it was changed or cut off.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Head {
    /// The last event.
    pub seq: i64,
    /// When it was recorded.
    pub at: Timestamp,
    /// Its hash, in hexadecimal digits.
    pub hash: String,
    /// Which ledger; null before its writer first opened it.
    pub ledger: Option<String>,
}

/// What passes follow.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PolicyInForce {
    /// The policy's content hash.
    pub revision: String,
    /// What may be written.
    pub mode: String,
    /// The Git commit whose files it is, where the policy directory was a checkout of exactly that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

impl PolicyInForce {
    /// Enough of its hash to find it by, with the Git commit and the mode.
    #[must_use]
    pub fn label(&self) -> String {
        let commit = self.commit.as_ref();
        let commit = commit
            .map(|commit| format!(" (Git commit {})", in_short(commit)))
            .unwrap_or_default();
        format!(
            "{}{commit}, mode {}",
            in_short(&self.revision),
            crate::text::clean(&self.mode)
        )
    }
}

/// Enough of a hash to find it by.
pub(crate) fn in_short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// An event as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) seq: i64,
    pub(super) at: i64,
    pub(super) kind: String,
    pub(super) table: String,
    pub(super) row: Option<i64>,
    pub(super) op: String,
    pub(super) body: String,
    pub(super) hash: Vec<u8>,
}

/// The columns of [`Event`], in the order in which [`Event::read`] expects them.
pub(super) const EVENT_COLUMNS: &str = "seq, at, kind, tbl, row, op, body, hash";

impl Event {
    pub(super) fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            seq: row.try_get(0)?,
            at: row.try_get(1)?,
            kind: row.try_get(2)?,
            table: row.try_get(3)?,
            row: row.try_get(4)?,
            op: row.try_get(5)?,
            body: row.try_get(6)?,
            hash: row.try_get(7)?,
        })
    }

    /// SHA-256 over everything, each part with its length in front, so that no two events give the same bytes.
    pub(super) fn hash_after(&self, before: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(EVENT_DOMAIN);
        let row = self.row.map(i64::to_be_bytes);
        for part in [
            before,
            &self.seq.to_be_bytes(),
            &self.at.to_be_bytes(),
            self.kind.as_bytes(),
            self.table.as_bytes(),
            row.as_ref().map_or(&[][..], |bytes| &bytes[..]),
            self.op.as_bytes(),
            self.body.as_bytes(),
        ] {
            frame(&mut hash, part);
        }
        hash.finalize().into()
    }

    async fn insert(&self, tx: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        sqlx::query("INSERT INTO event (seq, at, kind, tbl, row, op, body, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(self.seq)
            .bind(self.at)
            .bind(&self.kind)
            .bind(&self.table)
            .bind(self.row)
            .bind(&self.op)
            .bind(&self.body)
            .bind(&self.hash)
            .execute(tx)
            .await?;
        Ok(())
    }
}

fn frame(hash: &mut Sha256, part: &[u8]) {
    hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(part);
}

/// A digest of rows of one table in the order of their ids.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    hash: Sha256,
    pub(super) count: i64,
}

impl Rows {
    pub(super) fn new(table: &Table) -> Self {
        let mut hash = Sha256::new();
        hash.update(ROWS_DOMAIN);
        frame(&mut hash, table.name.as_bytes());
        Self { hash, count: 0 }
    }

    pub(super) fn add(&mut self, id: i64, columns: &Columns) {
        frame(&mut self.hash, &id.to_be_bytes());
        frame(&mut self.hash, super::write_json(columns).as_bytes());
        self.count += 1;
    }

    pub(super) fn digest(self) -> String {
        hex(&self.hash.finalize())
    }
}

/// Makes this connection note every change of a covered table. Nothing of it is in the file.
pub(super) async fn listen(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let chained: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = 'event')")
            .fetch_one(&mut *connection)
            .await?;
    if !chained {
        return Ok(());
    }
    let mut script = "PRAGMA temp_store = MEMORY; CREATE TEMP TABLE IF NOT EXISTS noted \
         (n INTEGER PRIMARY KEY, tbl TEXT, row INTEGER, op TEXT, kind TEXT, old TEXT, new TEXT); \
         CREATE INDEX IF NOT EXISTS temp.noted_inserts ON noted (tbl, row) WHERE op = 'insert';"
        .to_owned();
    for table in &TABLES {
        let name = table.name;
        for (op, old, new, row) in [
            ("insert", "NULL".to_owned(), table.json("NEW."), "NEW.id"),
            ("update", table.json("OLD."), table.json("NEW."), "NEW.id"),
            ("delete", table.json("OLD."), "NULL".to_owned(), "OLD.id"),
        ] {
            script.push_str(&format!(
                "CREATE TEMP TRIGGER IF NOT EXISTS note_{name}_{op} AFTER {op} ON main.{name} BEGIN \
                 INSERT INTO noted (tbl, row, op, old, new) VALUES ('{name}', {row}, '{op}', {old}, {new}); END;"
            ));
        }
    }
    sqlx::raw_sql(AssertSqlSafe(script)).execute(connection).await?;
    Ok(())
}

/// Adds an event that tells of no row to those of this transaction.
pub(super) async fn note(tx: &mut SqliteConnection, kind: &str, body: &Value) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO noted (tbl, op, kind, new) VALUES ('', 'note', ?, ?)")
        .bind(kind)
        .bind(body.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

/// Has the chain say once more what rows hold, those of which `which` is true.
pub(super) async fn restate(tx: &mut SqliteConnection, table: &Table, which: &str) -> Result<(), sqlx::Error> {
    let sql = format!(
        "INSERT INTO noted (tbl, row, op, new) SELECT '{name}', id, 'restate', {json} FROM main.{name} WHERE {which} ORDER BY id",
        name = table.name,
        json = table.json("")
    );
    sqlx::query(AssertSqlSafe(sql)).execute(tx).await?;
    Ok(())
}

/// Makes events of everything that was noted in this transaction so far.
pub(super) async fn seal(tx: &mut SqliteConnection, at: Timestamp) -> Result<(), LedgerError> {
    let mut chain = None;
    let mut after = i64::MIN;
    loop {
        let page = "SELECT tbl, row, op, kind, old, new, n FROM noted WHERE n > ? ORDER BY n LIMIT ?";
        let noted = sqlx::query(page).bind(after).bind(PAGE).fetch_all(&mut *tx).await?;
        let Some(last) = noted.last() else { break };
        after = last.try_get(6)?;
        let (mut seq, mut before) = match chain {
            Some(end) => end,
            None => end(&mut *tx).await?,
        };
        for row in noted {
            let (name, op): (&str, &str) = (row.try_get(0)?, row.try_get(2)?);
            let (old, new): (Option<&str>, Option<&str>) = (row.try_get(4)?, row.try_get(5)?);
            let (kind, body) = match Table::named(name) {
                None => (row.try_get::<&str, _>(3)?, new.unwrap_or_default().to_owned()),
                Some(table) => {
                    let op = Op::parse(op).unwrap_or(Op::Note);
                    let Some(columns) = changed(table, old, new) else {
                        continue;
                    };
                    (kind(name, op, &columns), super::write_json(&columns))
                }
            };
            seq += 1;
            let mut event = Event {
                seq,
                at: at.as_millisecond(),
                kind: kind.to_owned(),
                table: name.to_owned(),
                row: row.try_get(1)?,
                op: op.to_owned(),
                body,
                hash: Vec::new(),
            };
            before = event.hash_after(&before);
            event.hash = before.to_vec();
            event.insert(tx).await?;
        }
        chain = Some((seq, before));
    }
    if chain.is_some() {
        sqlx::query("DELETE FROM noted").execute(&mut *tx).await?;
    }
    Ok(())
}

/// The columns that an event has: all of a new row, those that differ of a changed one, none of one that is gone. `None`
/// where nothing that the chain covers changed.
fn changed(table: &Table, old: Option<&str>, new: Option<&str>) -> Option<Columns> {
    let read = |json: Option<&str>| json.and_then(|json| table.columns(json));
    match (read(old), read(new)) {
        (Some(old), Some(mut new)) => {
            new.retain(|name, value| old.get(name) != Some(value));
            Some(new).filter(|columns| !columns.is_empty())
        }
        (None, Some(new)) => Some(new),
        (_, None) => Some(Columns::new()),
    }
}

/// The last event and its hash.
pub(super) async fn end(connection: &mut SqliteConnection) -> Result<(i64, [u8; 32]), LedgerError> {
    let row = sqlx::query("SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1")
        .fetch_optional(connection)
        .await?;
    match row {
        None => Ok((0, NOTHING)),
        Some(row) => {
            let seq: i64 = row.try_get(0)?;
            let hash = row.try_get::<Vec<u8>, _>(1)?;
            let what = format!("the hash of event {seq}");
            Ok((seq, hash.try_into().map_err(|_| LedgerError::Damaged { what })?))
        }
    }
}

/// A transaction that writes. Dropped before its end it takes its connection with it: SQLite ends some transactions by
/// itself when the disk fails, and others not, so that what the connection stands in is not known then.
#[derive(Debug)]
pub(super) struct Writing {
    connection: PoolConnection<Sqlite>,
    ended: bool,
}

impl Deref for Writing {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

impl Ledger {
    /// Begins a transaction that writes.
    pub(super) async fn begin(&self) -> Result<Writing, LedgerError> {
        let mut writing = Writing {
            connection: self.pool.acquire().await?,
            ended: false,
        };
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *writing).await?;
        Ok(writing)
    }

    /// Adds the events of the transaction to the chain and commits both.
    pub(super) async fn commit(&self, mut tx: Writing, at: Timestamp) -> Result<(), LedgerError> {
        seal(&mut tx, at).await?;
        sqlx::query("COMMIT").execute(&mut *tx).await?;
        tx.ended = true;
        Ok(())
    }

    /// Begins the chain where there is none: what is on record by then is covered by a digest for each table of the rows
    /// that never change again, and one by one as far as the others go.
    pub(super) async fn begin_chain(&self, now: Timestamp) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        let (seq, _) = end(&mut tx).await?;
        if 0 < seq {
            return self.commit(tx, now).await;
        }
        sqlx::query("DELETE FROM noted").execute(&mut *tx).await?;
        let mut before = serde_json::Map::new();
        for table in TABLES.iter().filter(|table| table.closed != "0") {
            let mut rows = Rows::new(table);
            let mut last = 0;
            let mut pages = pages::Rows::of(table, table.closed);
            while let Some((id, columns)) = pages.next(&mut tx).await? {
                rows.add(id, &columns);
                last = id;
            }
            if 0 < rows.count {
                let count = rows.count;
                before.insert(
                    table.name.to_owned(),
                    json!({ "rows": count, "last": last, "sha256": rows.digest() }),
                );
            }
        }
        let body = json!({ "version": env!("CARGO_PKG_VERSION"), "before": before });
        note(&mut tx, "chain_begun", &body).await?;
        for table in &TABLES {
            restate(&mut tx, table, &format!("NOT ({})", table.closed)).await?;
        }
        self.commit(tx, now).await
    }

    /// Records which policy and mode passes follow, where that is news.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn policy_in_force(&self, policy: &PolicyInForce, now: Timestamp) -> Result<(), LedgerError> {
        let news = json!(policy);
        let last = "SELECT body FROM event WHERE kind = 'policy_in_force' AND tbl = '' AND row IS NULL ORDER BY seq DESC LIMIT 1";
        let known: Option<String> = sqlx::query_scalar(last).fetch_optional(&self.pool).await?;
        if known.as_ref() == Some(&news.to_string()) {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        note(&mut tx, "policy_in_force", &news).await?;
        self.commit(tx, now).await
    }

    /// Which policy passes followed at `at`, and since when. `None` where the record does not reach back so far.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn policy_at(&self, at: Timestamp) -> Result<Option<(Timestamp, PolicyInForce)>, LedgerError> {
        if !self.has_chain().await? {
            return Ok(None);
        }
        let row = sqlx::query(
            "SELECT at, body FROM event WHERE kind = 'policy_in_force' AND tbl = '' AND row IS NULL AND at <= ? \
             ORDER BY seq DESC LIMIT 1",
        )
        .bind(at.as_millisecond())
        .fetch_optional(&self.pool)
        .await?;
        let what = || "the policy in force".to_owned();
        row.map(|row| Ok((instant(row.try_get(0)?, what)?, read_json(row.try_get(1)?, what)?)))
            .transpose()
    }

    /// Which policies passes followed in `range`, each with since when, the oldest first. The first one may have been in
    /// force before the range began.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn policies_in(&self, range: Interval) -> Result<Vec<(Timestamp, PolicyInForce)>, LedgerError> {
        let mut policies: Vec<_> = self.policy_at(range.start()).await?.into_iter().collect();
        if !self.has_chain().await? {
            return Ok(policies);
        }
        let rows = sqlx::query(
            "SELECT at, body FROM event WHERE kind = 'policy_in_force' AND tbl = '' AND row IS NULL \
                 AND ? < at AND at < ? ORDER BY seq",
        )
        .bind(range.start().as_millisecond())
        .bind(range.end().as_millisecond())
        .fetch_all(&self.pool)
        .await?;
        let what = || "the policy in force".to_owned();
        for row in rows {
            policies.push((instant(row.try_get(0)?, what)?, read_json(row.try_get(1)?, what)?));
        }
        Ok(policies)
    }

    /// The end of the chain; `None` where the ledger has none yet. This is what is published.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn head(&self) -> Result<Option<Head>, LedgerError> {
        if !self.has_chain().await? {
            return Ok(None);
        }
        let row = sqlx::query(
            "SELECT seq, at, hash, (SELECT ledger_id FROM installation) FROM event ORDER BY seq DESC LIMIT 1",
        )
        .fetch_optional(&self.pool)
        .await?;
        let head = |row: sqlx::sqlite::SqliteRow| {
            let seq: i64 = row.try_get(0)?;
            Ok(Head {
                seq,
                at: instant(row.try_get(1)?, || format!("event {seq}"))?,
                hash: hex(&row.try_get::<Vec<u8>, _>(2)?),
                ledger: row.try_get(3)?,
            })
        };
        row.map(head).transpose()
    }

    /// A reader may meet a ledger that no writer of this version has opened yet.
    pub(super) async fn has_chain(&self) -> Result<bool, LedgerError> {
        let query = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'event')";
        Ok(sqlx::query_scalar(query).fetch_one(&self.pool).await?)
    }
}
