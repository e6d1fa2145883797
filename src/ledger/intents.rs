//! What was asked of AWS: written down before the call, completed once after it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sqlx::{Row, SqliteConnection};

use super::access::{end_access, insert_cause};
use super::orders::{Bar, bar_on};
use super::redo::Entry;
use super::tries::{LastTry, last_try};
use super::{Ledger, LedgerError, instant, read_json, write_json};
use crate::identity_center::ChangeKind;
use crate::model::{Person, PrincipalId};
use crate::plan::{Change, Key};

/// A change that was begun and of which the record does not say how it ended.
#[derive(Debug, Clone)]
pub struct OpenIntent {
    /// The row.
    pub id: i64,
    /// What was asked for.
    pub change: Change,
    /// When it was written down, just before the call.
    pub created_at: Timestamp,
    /// AWS's request id, if its answer came.
    pub reference: Option<String>,
    /// How the try just before this one ended, if that was at the same change and in vain.
    pub before: Option<LastTry>,
}

/// Whether a change may be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The row of the intent.
    Intent(i64),
    /// Its person may hold nothing.
    Barred(Bar),
}

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// AWS confirmed it, or live state shows it.
    Succeeded,
    /// AWS refused it, or live state shows that it did not happen.
    Failed,
    /// It was not in force when we looked, but AWS may still carry it out.
    Unknown,
}

impl Outcome {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl Ledger {
    /// Writes down what is about to be asked of AWS, unless it is a grant to somebody who is barred by now: an order takes
    /// effect with its row, also against what was approved before it.
    ///
    /// # Errors
    /// [`LedgerError`]; without this row the call must not be made.
    pub async fn open_intent(
        &self,
        change: &Change,
        policy_revision: &str,
        now: Timestamp,
    ) -> Result<Opened, LedgerError> {
        let mut tx = self.begin().await?;
        if let (ChangeKind::Grant, Some(person)) = (change.kind, &change.person)
            && let Some(bar) = bar_on(&mut tx, person).await?
        {
            return Ok(Opened::Barred(bar));
        }
        let id = insert_intent(&mut tx, None, change, policy_revision, now).await?;
        self.commit(tx, now).await?;
        if let Some(redo) = &self.redo {
            redo.insist(&Entry::Asked {
                id,
                change: Box::new(change.clone()),
                policy: policy_revision.to_owned(),
                at: now,
            })?;
        }
        Ok(Opened::Intent(id))
    }

    /// Keeps AWS's request id, so that a restart can ask how the operation stands.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn note_reference(&self, intent: i64, reference: &str, now: Timestamp) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE intent SET reference = ? WHERE id = ? AND completed_at IS NULL")
            .bind(reference)
            .bind(intent)
            .execute(&mut *tx)
            .await?;
        self.commit(tx, now).await?;
        self.note(|| Entry::Answered {
            id: intent,
            reference: reference.to_owned(),
            at: now,
        });
        Ok(())
    }

    /// Completes an intent and, where it succeeded, begins or ends the interval of access in the same transaction: at
    /// `effective`, which lies before `now` where the answer was lost.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn complete(
        &self,
        intent: i64,
        change: &Change,
        outcome: Outcome,
        detail: Option<&str>,
        effective: Timestamp,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        complete_intent(&mut tx, intent, change, outcome.as_str(), detail, effective, now).await?;
        self.commit(tx, now).await?;
        self.note(|| Entry::Ended {
            id: intent,
            outcome: outcome.as_str().to_owned(),
            detail: detail.map(str::to_owned),
            effective,
            at: now,
        });
        Ok(())
    }

    /// Adds a line to the redo log, where this is the writer.
    pub(super) fn note(&self, entry: impl FnOnce() -> Entry) {
        if let Some(redo) = &self.redo {
            redo.note(&entry());
        }
    }

    /// Intents without an outcome, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn open_intents(&self) -> Result<Vec<OpenIntent>, LedgerError> {
        let rows = sqlx::query(
            "SELECT i.id, i.change, i.created_at, i.reference, b.completed_at, b.detail FROM intent i \
             LEFT JOIN intent b ON b.id = (SELECT max(j.id) FROM intent j WHERE j.target = i.target \
             AND j.principal = i.principal AND j.id < i.id) AND b.kind = i.kind AND b.outcome <> 'succeeded' \
             WHERE i.completed_at IS NULL ORDER BY i.id",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut intents = Vec::with_capacity(rows.len());
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let what = || format!("intent {id}");
            intents.push(OpenIntent {
                id,
                change: read_json(row.try_get(1)?, what)?,
                created_at: instant(row.try_get(2)?, what)?,
                reference: row.try_get(3)?,
                before: row
                    .try_get::<Option<i64>, _>(4)?
                    .map(|ended| Ok::<_, LedgerError>(last_try(instant(ended, what)?, row.try_get(5)?)))
                    .transpose()?,
            });
        }
        Ok(intents)
    }

    /// Keys of grants since `since` whose outcome was never learnt and that no later change settled.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn unknown_grants(&self, since: Timestamp) -> Result<BTreeSet<Key>, LedgerError> {
        let rows = sqlx::query(
            "SELECT i.id, i.target, i.principal FROM intent i WHERE i.outcome = 'unknown' AND i.kind = 'grant' AND i.created_at >= ? \
             AND NOT EXISTS (SELECT 1 FROM intent j WHERE j.target = i.target AND j.principal = i.principal AND j.id > i.id \
             AND j.outcome = 'succeeded')",
        )
        .bind(since.as_millisecond())
        .fetch_all(&self.pool)
        .await?;
        let mut keys = BTreeSet::new();
        for row in rows {
            let id: i64 = row.try_get(0)?;
            keys.insert((
                read_json(row.try_get(1)?, || format!("intent {id}"))?,
                PrincipalId(row.try_get::<&str, _>(2)?.into()),
            ));
        }
        Ok(keys)
    }

    /// What AWS confirmed since `since`, the last word for each key, except what was found gone since. Reads that AWS
    /// answers from a lagging copy may not show it yet.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn confirmed_since(&self, since: Timestamp) -> Result<BTreeMap<Key, ChangeKind>, LedgerError> {
        let rows = sqlx::query(
            "SELECT id, kind, target, principal FROM intent i WHERE outcome = 'succeeded' AND completed_at >= ? \
             AND NOT EXISTS (SELECT 1 FROM access a WHERE a.grant_intent = i.id AND a.revoked_at IS NOT NULL AND a.revoke_intent IS NULL) \
             ORDER BY completed_at, id",
        )
        .bind(since.as_millisecond())
        .fetch_all(&self.pool)
        .await?;
        let mut confirmed = BTreeMap::new();
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let kind = if row.try_get::<&str, _>(1)? == "grant" {
                ChangeKind::Grant
            } else {
                ChangeKind::Revoke
            };
            let target = read_json(row.try_get(2)?, || format!("intent {id}"))?;
            confirmed.insert((target, PrincipalId(row.try_get::<&str, _>(3)?.into())), kind);
        }
        Ok(confirmed)
    }
}

/// Writes an intent with the next id, or with the one that it has in the redo log.
pub(super) async fn insert_intent(
    tx: &mut SqliteConnection,
    id: Option<i64>,
    change: &Change,
    policy_revision: &str,
    at: Timestamp,
) -> Result<i64, LedgerError> {
    let kind = match change.kind {
        ChangeKind::Grant => "grant",
        ChangeKind::Revoke => "revoke",
    };
    let done = sqlx::query(
        "INSERT INTO intent (id, kind, entitlement, target, principal, person, change, policy, due_at, created_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(kind)
    .bind(change.entitlement.to_string())
    .bind(write_json(&change.target))
    .bind(change.principal.0.as_str())
    .bind(change.person.as_ref().map(Person::as_str))
    .bind(write_json(change))
    .bind(policy_revision)
    .bind(change.due.as_millisecond())
    .bind(at.as_millisecond())
    .execute(tx)
    .await?;
    Ok(done.last_insert_rowid())
}

/// Completes an intent that is open and, where it succeeded, begins or ends the interval of access.
pub(super) async fn complete_intent(
    tx: &mut SqliteConnection,
    intent: i64,
    change: &Change,
    outcome: &str,
    detail: Option<&str>,
    effective: Timestamp,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let done = sqlx::query(
        "UPDATE intent SET completed_at = ?, outcome = ?, detail = ? WHERE id = ? AND completed_at IS NULL",
    )
    .bind(now.as_millisecond())
    .bind(outcome)
    .bind(detail)
    .bind(intent)
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() == 1 && outcome == Outcome::Succeeded.as_str() {
        match (change.kind, &change.person) {
            (ChangeKind::Grant, Some(person)) => {
                let begun = sqlx::query(
                    "INSERT INTO access (entitlement, target, principal, person, granted_at, grant_intent) VALUES (?, ?, ?, ?, ?, ?) \
                     ON CONFLICT (target, principal) WHERE revoked_at IS NULL DO NOTHING",
                )
                .bind(change.entitlement.to_string())
                .bind(write_json(&change.target))
                .bind(change.principal.0.as_str())
                .bind(person.as_str())
                .bind(effective.as_millisecond())
                .bind(intent)
                .execute(&mut *tx)
                .await?;
                if begun.rows_affected() == 1 {
                    let access = begun.last_insert_rowid();
                    for cause in &change.causes {
                        insert_cause(tx, access, cause, now).await?;
                    }
                }
            }
            (ChangeKind::Grant, None) => {}
            (ChangeKind::Revoke, _) => {
                end_access(tx, &change.key(), Some(intent), "revoked", effective).await?;
            }
        }
    }
    Ok(())
}
