//! What the last pass saw and what its guards hold, for whoever looks at the record.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::HashMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::chain::seal;
use super::{Ledger, LedgerError, digest, instant, read_json, write_json};
use crate::guard::{Guard, Held};
use crate::model::EntitlementId;
use crate::plan::Drift;
use crate::problem::Problem;

/// So many rows are written before the chain takes them in, because until then the notes of them are in memory.
const AT_ONCE: usize = 1_000;

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
    pub reason: SmolStr,
    /// What releases it.
    pub release: SmolStr,
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

fn hold_of(row: &SqliteRow) -> Result<HoldRow, LedgerError> {
    let subject: &str = row.try_get(0)?;
    let what = || format!("hold {subject}");
    Ok(HoldRow {
        since: instant(row.try_get(1)?, what)?,
        held: read_json(row.try_get(2)?, what)?,
    })
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
        let rows = sqlx::query("SELECT id, subject, guard, body FROM hold").try_map(|row: SqliteRow| {
            let key = digest(&[row.try_get(1)?, row.try_get(2)?]);
            Ok((key, (row.try_get::<i64, _>(0)?, digest(&[row.try_get(3)?]))))
        });
        let mut before: HashMap<_, _> = rows.fetch_all(&self.pool).await?.into_iter().collect();
        let mut tx = self.begin().await?;
        for (number, hold) in held.iter().enumerate() {
            if number % AT_ONCE == 0 {
                seal(&mut tx, now).await?;
            }
            let subject = write_json(&(hold.change.kind, &hold.change.target, &hold.change.principal));
            let summary = write_json(&HeldSummary {
                kind: hold.change.kind,
                entitlement: hold.change.entitlement.clone(),
                who: hold.change.who(),
                guard: hold.guard,
                reason: hold.reason.clone(),
                release: hold.release.clone(),
            });
            let known = before.remove(&digest(&[&subject, hold.guard.as_str()]));
            if known.is_none_or(|(_, body)| body != digest(&[&summary])) {
                sqlx::query(
                    "INSERT INTO hold (subject, guard, since, body) VALUES (?, ?, ?, ?) \
                     ON CONFLICT (subject, guard) DO UPDATE SET body = excluded.body",
                )
                .bind(&subject)
                .bind(hold.guard.as_str())
                .bind(now.as_millisecond())
                .bind(&summary)
                .execute(&mut *tx)
                .await?;
            }
        }
        let over: BTreeSet<i64> = before.into_values().map(|(id, _)| id).collect();
        for id in over {
            sqlx::query("DELETE FROM hold WHERE id = ?")
                .bind(id)
                .execute(&mut *tx)
                .await?;
        }
        self.commit(tx, now).await
    }

    /// What is held at present, the oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn holds(&self) -> Result<Vec<HoldRow>, LedgerError> {
        let rows = sqlx::query("SELECT subject, since, body FROM hold").try_map(|row: SqliteRow| Ok(hold_of(&row)));
        let holds: Result<Vec<HoldRow>, LedgerError> = rows.fetch_all(&self.pool).await?.into_iter().collect();
        let mut holds = holds?;
        fn order(hold: &HoldRow) -> impl Ord {
            let held = &hold.held;
            (hold.since, &held.entitlement, &held.who, held.kind, held.guard.as_str())
        }
        holds.sort_by(|a, b| order(a).cmp(&order(b)));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::accounting::fixtures::{id, person, t};
    use crate::identity_center::ChangeKind;
    use crate::model::{PrincipalId, ResolvedTarget};
    use crate::plan::{Change, Foresight};

    fn held(number: i64, guard: Guard, reason: &str) -> Held {
        let change = Change {
            kind: ChangeKind::Grant,
            entitlement: id("payments/admin"),
            person: Some(person(&format!("p{number}@example.com"))),
            target: ResolvedTarget::Group { group_id: "g".into() },
            principal: PrincipalId(format!("u{number}").into()),
            causes: Vec::new(),
            rests_on: BTreeSet::new(),
            due: t(0),
            foresight: Foresight::Predicted,
            context: None,
        };
        Held {
            change: Arc::new(change),
            guard,
            reason: reason.into(),
            release: SmolStr::default(),
        }
    }

    /// All that an observer of a large organisation plans is held: more than the chain takes in at once.
    #[tokio::test]
    async fn what_is_held_on_keeps_its_beginning_and_the_rest_has_ended_however_much_it_is() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("ledger.sqlite");
        let ledger = Ledger::open(&path, "test", t(0)).await.unwrap();
        let before = ledger.check_chain(std::iter::empty()).await.unwrap();
        let many = 2 * i64::try_from(AT_ONCE).unwrap() + 1;
        let all: Vec<Held> = (0..many).map(|number| held(number, Guard::Mode, "observe")).collect();
        ledger.set_holds(&all, t(0)).await.unwrap();
        assert_eq!(ledger.holds().await.unwrap().len(), all.len());

        let some: Vec<Held> = (0..many)
            .filter(|number| number % 2 == 0)
            .map(|number| match number {
                0 => held(0, Guard::Pause, "paused"),
                2 => held(2, Guard::Mode, "observe still"),
                _ => held(number, Guard::Mode, "observe"),
            })
            .collect();
        ledger.set_holds(&some, t(60)).await.unwrap();
        let mut now = ledger.holds().await.unwrap();
        assert_eq!(now.len(), some.len());
        // By another guard it is held since now; for another reason since then.
        let newest = now.pop().unwrap();
        assert_eq!((newest.since, newest.held.guard), (t(60), Guard::Pause));
        assert!(now.iter().all(|hold| hold.since == t(0)));
        let other = now.iter().filter(|hold| hold.held.reason == "observe still");
        assert_eq!(
            other.map(|hold| hold.held.who.as_str()).collect::<Vec<_>>(),
            ["p2@example.com"]
        );
        ledger.set_holds(&[], t(120)).await.unwrap();
        assert!(ledger.holds().await.unwrap().is_empty());
        // Held; held by another guard, for another reason or not any more; and not any more.
        let (begun, changed, ended) = (all.len(), 2 + 1 + all.len() - some.len(), some.len());
        let events = i64::try_from(begun + changed + ended).unwrap();
        let chain = ledger.check_chain(std::iter::empty()).await.unwrap();
        assert_eq!((chain.intact, chain.events - before.events), (true, events));
    }
}
