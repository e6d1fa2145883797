//! What the last pass saw and what its guards hold, for whoever looks at the record.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::{Ledger, LedgerError, instant, read_json, write_json};
use crate::guard::{Guard, Held};
use crate::model::EntitlementId;
use crate::plan::Drift;
use crate::problem::Problem;

/// A change that a guard holds, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoldRow {
    /// The first pass in a row that held it.
    pub since: Timestamp,
    /// What and why, by the last pass.
    pub held: HeldSummary,
}

/// What is held, for showing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSummary {
    /// `grant` or `revoke`.
    pub kind: crate::identity_center::ChangeKind,
    /// Which entitlement.
    pub entitlement: EntitlementId,
    /// Whose.
    pub who: String,
    /// Which guard.
    pub guard: Guard,
    /// Why.
    pub reason: String,
    /// What releases it.
    pub release: String,
}

/// What the last pass saw, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Board {
    /// The policy in force.
    pub policy_revision: String,
    /// What may be written.
    pub mode: String,
    /// Problems at that time.
    pub problems: Vec<Problem>,
    /// Drift at that time.
    pub drift: Vec<DriftSummary>,
    /// When the next known boundary is.
    pub next_boundary: Option<Timestamp>,
    /// Since when passes cannot see AWS; what is here besides is as last seen.
    #[serde(default)]
    pub unseen_since: Option<Timestamp>,
    /// The policy of the last pass that could say who is on duty without access.
    #[serde(default)]
    pub measured_policy: Option<String>,
}

/// Drift, for showing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftSummary {
    /// Which entitlement.
    pub entitlement: EntitlementId,
    /// The person where known, else the user or group id.
    pub holder: String,
    /// Whether duty calls for it at this moment.
    pub desired: bool,
}

impl From<&Drift> for DriftSummary {
    fn from(drift: &Drift) -> Self {
        Self {
            entitlement: drift.entitlement.clone(),
            holder: drift
                .person
                .as_ref()
                .map_or_else(|| drift.holder.clone(), ToString::to_string),
            desired: drift.desired,
        }
    }
}

impl Ledger {
    /// What guards held at a past instant, the oldest first, by the events of the chain.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn holds_at(&self, at: Timestamp) -> Result<Vec<HoldRow>, LedgerError> {
        if !self.has_chain().await? {
            return Ok(Vec::new());
        }
        let rows = sqlx::query("SELECT row, op, body FROM event WHERE tbl = 'hold' AND at <= ? ORDER BY seq")
            .bind(at.as_millisecond())
            .fetch_all(&self.pool)
            .await?;
        let mut standing: BTreeMap<i64, serde_json::Map<String, serde_json::Value>> = BTreeMap::new();
        for row in rows {
            let id: i64 = row.try_get(0)?;
            if row.try_get::<&str, _>(1)? == "delete" {
                standing.remove(&id);
            } else {
                standing
                    .entry(id)
                    .or_default()
                    .extend(read_json::<serde_json::Map<_, _>>(row.try_get(2)?, || {
                        format!("hold {id}")
                    })?);
            }
        }
        let mut holds = Vec::new();
        for (id, columns) in standing {
            let what = || format!("hold {id} in the chain");
            let text = |name: &str| {
                columns
                    .get(name)
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or_default()
            };
            let since = columns
                .get("since")
                .and_then(serde_json::Value::as_i64)
                .unwrap_or_default();
            holds.push(HoldRow {
                since: instant(since, what)?,
                held: read_json(text("body"), what)?,
            });
        }
        holds.sort_by_key(|hold| hold.since);
        Ok(holds)
    }

    /// Replaces the list of held changes, keeping since when for those that were held before.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn set_holds(&self, held: &[Held], now: Timestamp) -> Result<(), LedgerError> {
        // What is taken out of it goes on; the rest has ended. While a large organisation is only observed, everything is held.
        let mut before: BTreeMap<(String, String), (Timestamp, String)> = self.hold_rows().await?;
        let mut tx = self.begin().await?;
        for hold in held {
            let subject = write_json(&(hold.change.kind, &hold.change.target, &hold.change.principal));
            let summary = write_json(&HeldSummary {
                kind: hold.change.kind,
                entitlement: hold.change.entitlement.clone(),
                who: hold.change.who(),
                guard: hold.guard,
                reason: hold.reason.clone(),
                release: hold.release.clone(),
            });
            let key = (subject, hold.guard.as_str().to_owned());
            if before.remove(&key).is_none_or(|(_, body)| body != summary) {
                sqlx::query(
                    "INSERT INTO hold (subject, guard, since, body) VALUES (?, ?, ?, ?) \
                     ON CONFLICT (subject, guard) DO UPDATE SET body = excluded.body",
                )
                .bind(&key.0)
                .bind(&key.1)
                .bind(now.as_millisecond())
                .bind(&summary)
                .execute(&mut *tx)
                .await?;
            }
        }
        for (subject, guard) in before.keys() {
            sqlx::query("DELETE FROM hold WHERE subject = ? AND guard = ?")
                .bind(subject)
                .bind(guard)
                .execute(&mut *tx)
                .await?;
        }
        self.commit(tx, now).await
    }

    async fn hold_rows(&self) -> Result<BTreeMap<(String, String), (Timestamp, String)>, LedgerError> {
        let rows = sqlx::query("SELECT subject, guard, since, body FROM hold")
            .fetch_all(&self.pool)
            .await?;
        let mut holds = BTreeMap::new();
        for row in rows {
            let subject: String = row.try_get(0)?;
            let since = instant(row.try_get(2)?, || format!("hold {subject}"))?;
            holds.insert((subject, row.try_get(1)?), (since, row.try_get(3)?));
        }
        Ok(holds)
    }

    /// What is held at present, the oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn holds(&self) -> Result<Vec<HoldRow>, LedgerError> {
        let mut holds = Vec::new();
        for ((subject, _), (since, body)) in self.hold_rows().await? {
            holds.push(HoldRow {
                since,
                held: read_json(&body, || format!("hold {subject}"))?,
            });
        }
        holds.sort_by(|a, b| {
            (a.since, &a.held.entitlement, &a.held.who).cmp(&(b.since, &b.held.entitlement, &b.held.who))
        });
        Ok(holds)
    }

    /// How many changes each guard holds at present, and since when the first of them.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn holds_by_guard(&self) -> Result<BTreeMap<Guard, (usize, Timestamp)>, LedgerError> {
        let rows = sqlx::query("SELECT guard, COUNT(*), MIN(since) FROM hold GROUP BY guard")
            .fetch_all(&self.pool)
            .await?;
        let mut holds = BTreeMap::new();
        for row in rows {
            let name: &str = row.try_get(0)?;
            let what = || format!("what the guard {name} holds");
            let damaged = || LedgerError::Damaged { what: what() };
            let guard = Guard::ALL.into_iter().find(|guard| guard.as_str() == name);
            let count = usize::try_from(row.try_get::<i64, _>(1)?).map_err(|_| damaged())?;
            holds.insert(guard.ok_or_else(damaged)?, (count, instant(row.try_get(2)?, what)?));
        }
        Ok(holds)
    }

    /// Replaces the board if it says something new.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn set_board(&self, board: &Board, now: Timestamp) -> Result<(), LedgerError> {
        sqlx::query(
            "INSERT INTO board (id, updated_at, body) VALUES (1, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at, body = excluded.body WHERE body <> excluded.body",
        )
        .bind(now.as_millisecond())
        .bind(write_json(board))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The board of the last pass.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn board(&self) -> Result<Option<Board>, LedgerError> {
        let body: Option<String> = sqlx::query_scalar("SELECT body FROM board")
            .fetch_optional(&self.pool)
            .await?;
        body.map(|body| read_json(&body, || "the board".to_owned())).transpose()
    }
}
