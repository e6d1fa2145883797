//! What people ordered beside the schedule: releases of held plans, and bars on people.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::Row;

use super::{Ledger, LedgerError, instant, parse};
use crate::model::Person;

/// Somebody, or everybody, who holds nothing until the bar is lifted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
        sqlx::query("INSERT INTO approval (digest, approved_at, approved_by) VALUES (?, ?, ?)")
            .bind(digest)
            .bind(now.as_millisecond())
            .bind(by)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The plan that a person released last, if that was after `since`.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn approval_since(&self, since: Timestamp) -> Result<Option<String>, LedgerError> {
        let digest = sqlx::query_scalar("SELECT digest FROM approval WHERE approved_at >= ? ORDER BY id DESC LIMIT 1")
            .bind(since.as_millisecond())
            .fetch_optional(&self.pool)
            .await?;
        Ok(digest)
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
        sqlx::query(
            "INSERT INTO bar (person, since, ordered_by, reason) SELECT ?1, ?2, ?3, ?4 \
             WHERE NOT EXISTS (SELECT 1 FROM bar WHERE person IS ?1 AND lifted_at IS NULL)",
        )
        .bind(person.map(Person::as_str))
        .bind(now.as_millisecond())
        .bind(by)
        .bind(reason)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Lifts the bar on a person, or the one on everybody. Returns whether there was one.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn lift(&self, person: Option<&Person>, by: &str, now: Timestamp) -> Result<bool, LedgerError> {
        let done = sqlx::query("UPDATE bar SET lifted_at = ?, lifted_by = ? WHERE person IS ? AND lifted_at IS NULL")
            .bind(now.as_millisecond())
            .bind(by)
            .bind(person.map(Person::as_str))
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
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
        let mut bars = Vec::with_capacity(rows.len());
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let what = || format!("bar {id}");
            bars.push(Bar {
                person: row
                    .try_get::<Option<String>, _>(1)?
                    .map(|text| parse(text, what))
                    .transpose()?,
                since: instant(row.try_get(2)?, what)?,
                ordered_by: row.try_get(3)?,
                reason: row.try_get(4)?,
            });
        }
        Ok(bars)
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
