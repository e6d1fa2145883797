//! What is on record about older copies of the ledger that were put in its place, and what was found out since.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::{Row, SqliteConnection};

use super::access::{end_access, insert_cause};
use super::board::{Board, DriftSummary};
use super::intents::insert_intent;
use super::redo::Entry;
use super::{Ledger, LedgerError, instant, read_json, write_json};
use crate::model::{PrincipalId, ScheduleKey};
use crate::plan::{Change, Key};

/// Access may linger for this long after the turn that earned it.
const LONGEST_LINGER: SignedDuration = SignedDuration::from_hours(24);
/// Schedules are not read farther back than this: longer than any shift.
const FARTHEST_BACK: SignedDuration = SignedDuration::from_hours(35 * 24);

/// One time that the ledger turned out to be an older copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restoration {
    /// The ledger's row.
    pub id: i64,
    /// When that was noticed.
    pub found_at: Timestamp,
    /// What was noticed, in words.
    pub why: String,
    /// The last moment that the copy knew of.
    pub lost_from: Timestamp,
    /// Until when changes were made that the copy did not know of, at the latest.
    pub lost_to: Timestamp,
    /// The copy's last intent.
    pub last_intent: i64,
    /// How many changes the redo log brought back; `None` where it could not and the record of that time is lost.
    pub replayed: Option<i64>,
    /// What the copy's last pass saw as somebody else's.
    pub drift: Vec<DriftSummary>,
    /// What is still to be found out; `None` once nothing is.
    pub outstanding: Option<Outstanding>,
    /// How many grants stood that are ours by the schedule and were not on record.
    pub found: i64,
    /// How many grants on record no longer stood.
    pub gone: i64,
}

/// What is still to be found out about a span that is not on record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outstanding {
    /// Whether grants on record have been compared with AWS, and members' grants looked for.
    pub begun: bool,
    /// Schedules that have not been read for that span. Filled by the first pass.
    pub schedules: BTreeSet<ScheduleKey>,
}

/// What was noticed when the ledger was opened.
pub(super) struct Found<'a> {
    pub(super) at: Timestamp,
    pub(super) why: &'a str,
    pub(super) lost_from: Timestamp,
    pub(super) lost_to: Timestamp,
    pub(super) last_intent: i64,
    pub(super) replayed: Option<i64>,
}

/// A grant on record that no longer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// What and whose.
    pub key: Key,
    /// The intent that granted it.
    pub grant: i64,
    /// When it ended, as far as can be told.
    pub ended: Timestamp,
    /// How that is known.
    pub reason: String,
}

/// A grant that stands without a record and is ours by the schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The grant as it must have been.
    pub change: Change,
    /// When it began, as far as can be told.
    pub began: Timestamp,
    /// Whether it is certain enough to end like any other grant. Otherwise its end counts as a surprise.
    pub certain: bool,
}

impl Restoration {
    /// Whether the record of that time is lost.
    #[must_use]
    pub fn is_gap(&self) -> bool {
        self.replayed.is_none()
    }

    /// What to say about this instant, if its record is lost.
    #[must_use]
    pub fn lost_at(&self, at: Timestamp) -> Option<String> {
        (self.is_gap() && self.lost_from <= at && at < self.found_at).then(|| self.loss())
    }

    /// Which record is lost, in words.
    #[must_use]
    pub fn loss(&self) -> String {
        format!(
            "the record from {} to {} is lost ({}): what was held then is known only as far as schedules and AWS could tell \
             at {}",
            crate::text::instant(self.lost_from),
            crate::text::instant(self.lost_to),
            self.why,
            crate::text::instant(self.found_at)
        )
    }
}

impl Ledger {
    /// Records that the ledger is an older copy. What schedules were seen to hold back then says nothing about now, and
    /// must end nobody's access.
    pub(super) async fn record_restoration(
        &self,
        tx: &mut SqliteConnection,
        found: &Found<'_>,
    ) -> Result<(), LedgerError> {
        for forget in [
            "DELETE FROM snapshot",
            "DELETE FROM read_failure",
            // Whether it was used since is not known.
            "UPDATE approval SET used_at = approved_at, released = 0 WHERE used_at IS NULL",
        ] {
            sqlx::query(forget).execute(&mut *tx).await?;
        }
        let outstanding = found.replayed.is_none().then(Outstanding::default);
        let board: Option<String> = sqlx::query_scalar("SELECT body FROM board")
            .fetch_optional(&mut *tx)
            .await?;
        let board: Option<Board> = board.map(|b| read_json(&b, || "the board".to_owned())).transpose()?;
        if outstanding.is_some() {
            // Cut short and begun again: the span only grows, and everything is looked at once more.
            let again = sqlx::query(
                "UPDATE restoration SET found_at = ?1, lost_to = MAX(lost_to, ?2), outstanding = ?3 WHERE outstanding IS NOT NULL",
            )
            .bind(found.at.as_millisecond())
            .bind(found.lost_to.as_millisecond())
            .bind(write_json(&outstanding))
            .execute(&mut *tx)
            .await?;
            if 0 < again.rows_affected() {
                return Ok(());
            }
        }
        sqlx::query(
            "INSERT INTO restoration (found_at, why, lost_from, lost_to, last_intent, replayed, drift, outstanding) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(found.at.as_millisecond())
        .bind(found.why)
        .bind(found.lost_from.as_millisecond())
        .bind(found.lost_to.as_millisecond())
        .bind(found.last_intent)
        .bind(found.replayed)
        .bind(write_json(&board.unwrap_or_default().drift))
        .bind(outstanding.map(|o| write_json(&o)))
        .execute(&mut *tx)
        .await?;
        Ok(())
    }

    /// Every time that the ledger turned out to be an older copy, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn restorations(&self) -> Result<Vec<Restoration>, LedgerError> {
        if !self.knows_restorations().await? {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(
            "SELECT id, found_at, why, lost_from, lost_to, last_intent, replayed, drift, outstanding, found, gone \
             FROM restoration ORDER BY id",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut restorations = Vec::with_capacity(rows.len());
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let what = || format!("restoration {id}");
            restorations.push(Restoration {
                id,
                found_at: instant(row.try_get(1)?, what)?,
                why: row.try_get(2)?,
                lost_from: instant(row.try_get(3)?, what)?,
                lost_to: instant(row.try_get(4)?, what)?,
                last_intent: row.try_get(5)?,
                replayed: row.try_get(6)?,
                drift: read_json(row.try_get(7)?, what)?,
                outstanding: row
                    .try_get::<Option<&str>, _>(8)?
                    .map(|text| read_json(text, what))
                    .transpose()?,
                found: row.try_get(9)?,
                gone: row.try_get(10)?,
            });
        }
        Ok(restorations)
    }

    /// A reader may meet a ledger that no writer of this version has opened yet.
    pub(super) async fn knows_restorations(&self) -> Result<bool, LedgerError> {
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'restoration')",
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Since when schedules must be read at present, where that is earlier than ordinary reads reach back.
    #[must_use]
    pub fn reads_back_to(&self) -> Option<Timestamp> {
        *self
            .reads_back_to
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) async fn look_for_restoration(&self) -> Result<(), LedgerError> {
        let open = self.restorations().await?.into_iter().find(|r| r.outstanding.is_some());
        let back = open.map(|r| {
            let farthest = r.found_at.checked_sub(FARTHEST_BACK).unwrap_or(Timestamp::MIN);
            let lingering = r.lost_from.checked_sub(LONGEST_LINGER).unwrap_or(Timestamp::MIN);
            lingering.max(farthest)
        });
        *self
            .reads_back_to
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = back;
        Ok(())
    }

    /// Keys about which anything was asked of AWS after an intent, and those that are being changed.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn changed_after(&self, intent: i64) -> Result<BTreeSet<Key>, LedgerError> {
        let rows = sqlx::query("SELECT id, target, principal FROM intent WHERE id > ? OR completed_at IS NULL")
            .bind(intent)
            .fetch_all(&self.pool)
            .await?;
        let mut keys = BTreeSet::new();
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let target = read_json(row.try_get(1)?, || format!("intent {id}"))?;
            keys.insert((target, PrincipalId(row.try_get::<&str, _>(2)?.into())));
        }
        Ok(keys)
    }

    /// The intent that granted each standing access.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn granting_intents(&self) -> Result<std::collections::BTreeMap<i64, i64>, LedgerError> {
        let rows = sqlx::query("SELECT id, grant_intent FROM access WHERE revoked_at IS NULL")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Records what was found out about the time that is not on record, all or none of it, and what is still open.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn settle_restoration(
        &self,
        restoration: &Restoration,
        gone: &[Gone],
        adopted: &[Adopted],
        outstanding: Option<&Outstanding>,
        policy_revision: &str,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut lines = Vec::new();
        let mut tx = self.begin().await?;
        for gone in gone {
            end_access(&mut tx, &gone.key, None, &gone.reason, gone.ended).await?;
            lines.push(Entry::Gone {
                grant: gone.grant,
                reason: gone.reason.clone(),
                effective: gone.ended,
                at: now,
            });
        }
        for adopted in adopted {
            let mut line = Entry::Found {
                id: 0,
                change: Box::new(adopted.change.clone()),
                policy: policy_revision.to_owned(),
                outcome: if adopted.certain { "succeeded" } else { "unknown" }.to_owned(),
                detail: format!(
                    "found standing when the ledger was restored; its record from {} to {} is lost",
                    crate::text::instant(restoration.lost_from),
                    crate::text::instant(restoration.lost_to)
                ),
                effective: adopted.began,
                at: now,
            };
            let intent = self.take_in(&mut tx, &line).await?;
            if let Entry::Found { id, .. } = &mut line {
                *id = intent;
            }
            lines.push(line);
        }
        sqlx::query("UPDATE restoration SET outstanding = ?, found = found + ?, gone = gone + ? WHERE id = ?")
            .bind(outstanding.map(write_json))
            .bind(i64::try_from(adopted.len()).unwrap_or(i64::MAX))
            .bind(i64::try_from(gone.len()).unwrap_or(i64::MAX))
            .bind(restoration.id)
            .execute(&mut *tx)
            .await?;
        self.commit(tx, now).await?;
        self.look_for_restoration().await?;
        if let Some(redo) = &self.redo {
            for line in &lines {
                redo.insist(line)?;
            }
        }
        Ok(())
    }

    /// Records access that was found to be ours, as a [`Entry::Found`] says. Returns its intent; id 0 takes the next.
    pub(super) async fn take_in(&self, tx: &mut SqliteConnection, found: &Entry) -> Result<i64, LedgerError> {
        let Entry::Found {
            id,
            change,
            policy,
            outcome,
            detail,
            effective,
            at,
        } = found
        else {
            return Ok(0);
        };
        let intent = insert_intent(tx, Some(*id).filter(|id| 0 < *id), change, policy, *at).await?;
        sqlx::query("UPDATE intent SET completed_at = ?, outcome = ?, detail = ? WHERE id = ?")
            .bind(at.as_millisecond())
            .bind(outcome)
            .bind(detail)
            .bind(intent)
            .execute(&mut *tx)
            .await?;
        let begun = sqlx::query(
            "INSERT INTO access (entitlement, target, principal, person, granted_at, grant_intent) VALUES (?, ?, ?, ?, ?, ?) \
             ON CONFLICT (target, principal) WHERE revoked_at IS NULL DO NOTHING",
        )
        .bind(change.entitlement.to_string())
        .bind(write_json(&change.target))
        .bind(change.principal.0.as_str())
        .bind(change.person.as_ref().map(crate::model::Person::as_str))
        .bind(effective.as_millisecond())
        .bind(intent)
        .execute(&mut *tx)
        .await?;
        if begun.rows_affected() == 1 {
            for cause in &change.causes {
                insert_cause(tx, begun.last_insert_rowid(), cause, *at).await?;
            }
        }
        Ok(intent)
    }
}
