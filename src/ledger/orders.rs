//! What people ordered beside the schedule: releases of held plans, and bars on people.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{Ledger, LedgerError, instant, parse, read_json};
use crate::model::{EntitlementId, Person};
use crate::plan::Change;

/// Somebody, or everybody, who holds nothing until the bar is lifted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// Whom; `None` is everybody.
    pub person: Option<Person>,
    /// Since when.
    pub since: Timestamp,
    /// Who ordered it.
    pub ordered_by: String,
    /// Why, in their words.
    pub reason: String,
}

/// A person's release of a plan that no pass has looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The ledger's row.
    pub id: i64,
    /// Which plan.
    pub digest: String,
}

impl Bar {
    /// Whether it concerns the person.
    #[must_use]
    pub fn concerns(&self, person: &Person) -> bool {
        self.person.as_ref().is_none_or(|barred| barred == person)
    }
}

impl Ledger {
    /// Records a person's release of a plan.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn record_approval(&self, digest: &str, by: &str, now: Timestamp) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        sqlx::query("INSERT INTO approval (digest, approved_at, approved_by) VALUES (?, ?, ?)")
            .bind(digest)
            .bind(now.as_millisecond())
            .bind(by)
            .execute(&mut *tx)
            .await?;
        self.commit(tx, now).await
    }

    /// The plan that a person released last, if that was after `since` and no pass has looked at it yet.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn open_approval(&self, since: Timestamp) -> Result<Option<Approval>, LedgerError> {
        let query =
            "SELECT id, digest FROM approval WHERE approved_at >= ? AND used_at IS NULL ORDER BY id DESC LIMIT 1";
        let row = sqlx::query(query)
            .bind(since.as_millisecond())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            Ok(Approval {
                id: row.try_get(0)?,
                digest: row.try_get(1)?,
            })
        })
        .transpose()
    }

    /// Uses up every release, so that none serves for a later plan that looks the same.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn use_approvals(&self, released: bool, now: Timestamp) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE approval SET used_at = ?, released = ? WHERE used_at IS NULL")
            .bind(now.as_millisecond())
            .bind(released)
            .execute(&mut *tx)
            .await?;
        self.commit(tx, now).await
    }

    /// What was taken back since a person last released a plan, if that was at or after `since`, and would have gone on by
    /// the record: with when it was taken.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn taken_by_release(
        &self,
        since: Timestamp,
    ) -> Result<BTreeMap<(EntitlementId, Person), Timestamp>, LedgerError> {
        let rows = sqlx::query(
            "SELECT id, change, completed_at FROM intent WHERE kind = 'revoke' AND outcome = 'succeeded' \
             AND completed_at >= (SELECT MAX(used_at) FROM approval WHERE released = 1 AND used_at >= ?) ORDER BY completed_at",
        )
        .bind(since.as_millisecond())
        .fetch_all(&self.pool)
        .await?;
        let mut taken = BTreeMap::new();
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let what = || format!("intent {id}");
            let change: Change = read_json(row.try_get(1)?, what)?;
            let at = instant(row.try_get(2)?, what)?;
            let was_due = change.causes.iter().all(|cause| cause.has_ended_as_known(at));
            if let Some(person) = change.person.clone().filter(|_| !was_due && !change.is_ordered()) {
                taken.insert((change.entitlement, person), at);
            }
        }
        Ok(taken)
    }

    /// Bars a person, or everybody. Barring who is barred already changes nothing.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn bar(
        &self,
        person: Option<&Person>,
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO bar (person, since, ordered_by, reason) SELECT ?1, ?2, ?3, ?4 \
             WHERE NOT EXISTS (SELECT 1 FROM bar WHERE person IS ?1 AND lifted_at IS NULL)",
        )
        .bind(person.map(Person::as_str))
        .bind(now.as_millisecond())
        .bind(by)
        .bind(reason)
        .execute(&mut *tx)
        .await?;
        self.commit(tx, now).await?;
        self.keep_orders(now).await
    }

    /// Lifts the bar on a person, or the one on everybody. Returns whether there was one.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn lift(&self, person: Option<&Person>, by: &str, now: Timestamp) -> Result<bool, LedgerError> {
        let mut tx = self.begin().await?;
        let done = sqlx::query("UPDATE bar SET lifted_at = ?, lifted_by = ? WHERE person IS ? AND lifted_at IS NULL")
            .bind(now.as_millisecond())
            .bind(by)
            .bind(person.map(Person::as_str))
            .execute(&mut *tx)
            .await?;
        self.commit(tx, now).await?;
        self.keep_orders(now).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Drops from the redo log what is older than it has to hold.
    ///
    /// # Errors
    /// [`LedgerError::Redo`].
    pub async fn shorten_redo(&self, now: Timestamp) -> Result<(), LedgerError> {
        let Some(redo) = self.redo.clone().filter(|redo| redo.is_long(now)) else {
            return Ok(());
        };
        let shortened = tokio::task::spawn_blocking(move || redo.shorten(now)).await;
        // Only a runtime that ends gives it up.
        shortened.unwrap_or(Ok(()))
    }

    /// Has the orders in force in the redo log as well: no schedule and no look at AWS would bring them back. Orders
    /// given beside the writer come there with its next pass.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn keep_orders(&self, now: Timestamp) -> Result<(), LedgerError> {
        match &self.redo {
            Some(redo) => redo.keep_orders(&self.bars().await?, now),
            None => Ok(()),
        }
    }

    /// The bars in force, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn bars(&self) -> Result<Vec<Bar>, LedgerError> {
        let rows =
            sqlx::query("SELECT id, person, since, ordered_by, reason FROM bar WHERE lifted_at IS NULL ORDER BY id")
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(read_bar).collect()
    }

    /// Differs whenever a person ordered something, so that the daemon notices orders given beside it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn orders_mark(&self) -> Result<(i64, i64, i64), LedgerError> {
        let row = sqlx::query(
            "SELECT (SELECT COALESCE(MAX(id), 0) FROM approval), (SELECT COALESCE(MAX(id), 0) FROM bar), \
             (SELECT COUNT(lifted_at) FROM bar)",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
    }
}

/// The oldest bar in force on a person.
pub(super) async fn bar_on(tx: &mut SqliteConnection, person: &Person) -> Result<Option<Bar>, LedgerError> {
    let row = sqlx::query(
        "SELECT id, person, since, ordered_by, reason FROM bar WHERE lifted_at IS NULL AND (person IS NULL OR person = ?) \
         ORDER BY id LIMIT 1",
    )
    .bind(person.as_str())
    .fetch_optional(tx)
    .await?;
    row.as_ref().map(read_bar).transpose()
}

fn read_bar(row: &SqliteRow) -> Result<Bar, LedgerError> {
    let id: i64 = row.try_get(0)?;
    let what = || format!("bar {id}");
    Ok(Bar {
        person: row
            .try_get::<Option<String>, _>(1)?
            .map(|text| parse(text, what))
            .transpose()?,
        since: instant(row.try_get(2)?, what)?,
        ordered_by: row.try_get(3)?,
        reason: row.try_get(4)?,
    })
}

/// Brings back an order that the ledger has never heard of.
pub(super) async fn insert_bar(tx: &mut SqliteConnection, bar: &Bar) -> Result<(), LedgerError> {
    sqlx::query(
        "INSERT INTO bar (person, since, ordered_by, reason) SELECT ?1, ?2, ?3, ?4 \
         WHERE NOT EXISTS (SELECT 1 FROM bar WHERE person IS ?1 AND (since = ?2 OR lifted_at IS NULL))",
    )
    .bind(bar.person.as_ref().map(Person::as_str))
    .bind(bar.since.as_millisecond())
    .bind(&bar.ordered_by)
    .bind(&bar.reason)
    .execute(tx)
    .await?;
    Ok(())
}
