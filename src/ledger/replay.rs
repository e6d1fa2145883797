//! Tells whether a ledger and the redo log beside it belong together, and brings an older copy up to date from the log.

use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use sqlx::Row;

use super::access::{change_kept, end_access};
use super::intents::{complete_intent, insert_intent};
use super::orders::insert_bar;
use super::redo::{self, Entry, Extent, Lines, Redo};
use super::restored::Found;
use super::{Ledger, LedgerError, instant, read_json};
use crate::plan::Change;

/// What the ledger says of itself.
struct Installation {
    ledger: Option<String>,
    /// When `backup` made this copy.
    copied_at: Option<Timestamp>,
    last_intent: i64,
    /// Nothing was ever recorded here.
    empty: bool,
}

/// What is to be done about ledger and log.
enum Standing {
    /// They belong together, and the ledger is not behind.
    Whole,
    /// Neither has begun.
    New,
    /// The ledger is behind the log, which reaches back to it.
    Behind(Extent),
    /// The ledger is a copy, and the log does not tell what came after it.
    Unknown { why: String, lost_to: Timestamp },
    /// One of the two is another installation's, or the ledger is gone.
    Replaced(&'static str),
}

/// Refuses a ledger that is gone while its log shows that there was one, before an empty one is made in its place.
pub(super) fn refuse_gone(path: &Path) -> Result<(), LedgerError> {
    let there = path.metadata().is_ok_and(|file| 0 < file.len());
    if there || redo::extent(&redo::path_of(path)).is_ok_and(|extent| extent.is_none_or(|e| e.after == 0)) {
        return Ok(());
    }
    Err(replaced(path, GONE))
}

const GONE: &str = "the ledger is gone or empty, and the log does not reach back to its beginning";
const OTHER: &str = "they are of two different ledgers";

fn replaced(path: &Path, why: &'static str) -> LedgerError {
    LedgerError::Replaced {
        path: path.to_owned(),
        redo: redo::path_of(path),
        why,
    }
}

fn judge(mine: &Installation, log: &io::Result<Option<Extent>>, now: Timestamp) -> Standing {
    let unknown = |why: &str, lost_to: Timestamp| Standing::Unknown {
        why: why.to_owned(),
        lost_to,
    };
    let log = match log {
        Ok(log) => log,
        Err(_) if mine.empty => return Standing::Replaced(GONE),
        Err(error) => {
            return unknown(
                &format!("the redo log of the ledger cannot be read ({error}), so that it may be an older copy"),
                now,
            );
        }
    };
    match (log, &mine.ledger) {
        (None, None) => Standing::New,
        // The first start was cut short.
        (None, Some(_)) if mine.empty && mine.copied_at.is_none() => Standing::New,
        (None, Some(_)) if mine.copied_at.is_some() => unknown(
            "the ledger was a copy made by `dutybound backup`, without its redo log",
            now,
        ),
        (None, Some(_)) => unknown(
            "the redo log of the ledger is gone, so that it may be an older copy",
            now,
        ),
        (Some(log), Some(ledger)) if log.ledger != *ledger => Standing::Replaced(OTHER),
        (Some(log), None) if mine.empty && 0 < log.after => Standing::Replaced(GONE),
        (Some(log), Some(_)) if log.last <= mine.last_intent => Standing::Whole,
        (Some(log), _) if log.after <= mine.last_intent => Standing::Behind(log.clone()),
        (Some(log), _) => unknown(
            "the ledger was an older copy, to which its redo log does not reach back",
            log.last_at.min(now),
        ),
    }
}

impl Ledger {
    /// Brings the ledger up to date where it is an older copy, and opens the log for what comes.
    pub(super) async fn join_redo(&mut self, path: &Path, now: Timestamp) -> Result<(), LedgerError> {
        let log = redo::path_of(path);
        let on_log = |source| LedgerError::Redo {
            path: log.clone(),
            source,
        };
        let mine = self.installation().await?;
        let mut standing = judge(&mine, &redo::extent(&log), now);
        if let Standing::Behind(extent) = &standing
            && let Err(error) = self.replay(&log, extent, now).await
        {
            // What the log tells is taken whole or not at all.
            let LedgerError::Redo { source, .. } = error else {
                return Err(error);
            };
            standing = Standing::Unknown {
                why: format!("the ledger was an older copy, and its redo log cannot be read ({source})"),
                lost_to: extent.last_at.min(now),
            };
        }
        let redo = match standing {
            Standing::Replaced(why) => return Err(replaced(path, why)),
            Standing::Whole | Standing::Behind(_) => match Redo::resume(&log, now) {
                Ok(redo) => redo,
                // It was readable a moment ago as far as its ends go: something in the middle is not.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    let why =
                        format!("the redo log of the ledger cannot be read ({error}), so that it may be an older copy");
                    self.begin_anew(&log, &why, now, &mine, now).await?
                }
                Err(error) => return Err(on_log(error)),
            },
            Standing::New => {
                let ledger = self.name_itself(now).await?;
                Redo::begin(&log, &ledger, mine.last_intent, now).map_err(on_log)?
            }
            Standing::Unknown { why, lost_to } => self.begin_anew(&log, &why, lost_to, &mine, now).await?,
        };
        sqlx::query("UPDATE installation SET copied_at = NULL WHERE copied_at IS NOT NULL")
            .execute(&self.pool)
            .await?;
        if let Some(bars) = redo.bars() {
            let mut tx = self.begin().await?;
            for bar in &bars {
                insert_bar(&mut tx, bar).await?;
            }
            self.commit(tx, now).await?;
        }
        self.redo = Some(Arc::new(redo));
        self.look_for_restoration().await
    }

    /// Goes on without what the log may have known. The old log is put aside first: a ledger without one is found to be
    /// a copy again, should this be cut short.
    async fn begin_anew(
        &self,
        log: &Path,
        why: &str,
        lost_to: Timestamp,
        mine: &Installation,
        now: Timestamp,
    ) -> Result<Redo, LedgerError> {
        let on_log = |source| LedgerError::Redo {
            path: log.to_owned(),
            source,
        };
        let mut aside = log.as_os_str().to_owned();
        aside.push(format!(".{}", now.as_second()));
        match std::fs::rename(log, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(on_log(error)),
            _ => {}
        }
        let lost_from = match mine.copied_at {
            Some(copied_at) => copied_at,
            None => self.last_instant().await?,
        };
        tracing::warn!(%why, from = %lost_from, to = %lost_to, "the ledger is an older copy; what came after it is found out from schedules and AWS");
        let found = Found {
            at: now,
            why,
            lost_from: lost_from.min(now),
            lost_to: lost_to.max(lost_from).min(now.max(lost_from)),
            last_intent: mine.last_intent,
            replayed: None,
        };
        let mut tx = self.begin().await?;
        // Another name, so that the file that this is a copy of is not taken for it later.
        sqlx::query("UPDATE installation SET ledger_id = NULL")
            .execute(&mut *tx)
            .await?;
        self.record_restoration(&mut tx, &found).await?;
        self.commit(tx, now).await?;
        let ledger = self.name_itself(now).await?;
        Redo::begin(log, &ledger, mine.last_intent, now).map_err(on_log)
    }

    async fn installation(&self) -> Result<Installation, LedgerError> {
        let row = sqlx::query(
            "SELECT ledger_id, copied_at, (SELECT COALESCE(MAX(id), 0) FROM intent), \
             EXISTS (SELECT 1 FROM intent) OR EXISTS (SELECT 1 FROM snapshot) OR EXISTS (SELECT 1 FROM bar) \
             OR EXISTS (SELECT 1 FROM board) FROM installation",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Installation {
            copied_at: row
                .try_get::<Option<i64>, _>(1)?
                .map(|ms| instant(ms, || "the time of the copy".to_owned()))
                .transpose()?,
            last_intent: row.try_get(2)?,
            empty: !row.try_get::<bool, _>(3)?,
            ledger: row.try_get(0)?,
        })
    }

    async fn name_itself(&self, now: Timestamp) -> Result<String, LedgerError> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE installation SET ledger_id = lower(hex(randomblob(16))) WHERE ledger_id IS NULL")
            .execute(&mut *tx)
            .await?;
        self.commit(tx, now).await?;
        Ok(sqlx::query_scalar("SELECT ledger_id FROM installation")
            .fetch_one(&self.pool)
            .await?)
    }

    /// The last moment of which the ledger knows anything.
    async fn last_instant(&self) -> Result<Timestamp, LedgerError> {
        let ms: i64 = sqlx::query_scalar(
            "SELECT MAX(t) FROM (SELECT created_at AS t FROM installation \
             UNION ALL SELECT (SELECT MAX(completed_at) FROM intent) \
             UNION ALL SELECT (SELECT MAX(created_at) FROM intent WHERE completed_at IS NULL) \
             UNION ALL SELECT MAX(last_read_at) FROM snapshot UNION ALL SELECT updated_at FROM board)",
        )
        .fetch_one(&self.pool)
        .await?;
        instant(ms, || "the last instant on record".to_owned())
    }

    /// Whether a writer would find this ledger, opened for reading, to be an older copy or another one; in words.
    pub(super) async fn doubt(&self, path: &Path, now: Timestamp) -> Result<Option<String>, LedgerError> {
        // The writer writes the ledger first; read in the other order, the log is never ahead of it.
        let log = redo::extent(&redo::path_of(path));
        Ok(match judge(&self.installation().await?, &log, now) {
            Standing::Whole | Standing::New => None,
            Standing::Behind(extent) => Some(format!(
                "the ledger is an older copy; the next start brings it up to date to {} from the redo log beside it, \
                 and until then nothing after the copy is shown",
                crate::text::instant(extent.last_at)
            )),
            Standing::Unknown { why, .. } => Some(format!(
                "{why}; the next start finds out from schedules and AWS what it lacks, and until then it is not shown"
            )),
            Standing::Replaced(why) => Some(crate::chain(&replaced(path, why))),
        })
    }

    /// Carries out the lines of the log that the ledger lacks, all or none.
    async fn replay(&self, log: &Path, extent: &Extent, now: Timestamp) -> Result<(), LedgerError> {
        let on_log = |source| LedgerError::Redo {
            path: log.to_owned(),
            source,
        };
        let mine = self.installation().await?;
        let lost_from = match mine.copied_at {
            Some(copied_at) => copied_at,
            None => self.last_instant().await?,
        };
        let mut tx = self.begin().await?;
        if mine.ledger.is_none() {
            sqlx::query("UPDATE installation SET ledger_id = ?")
                .bind(&extent.ledger)
                .execute(&mut *tx)
                .await?;
        }
        let mut replayed = 0;
        let mut orders = None;
        for entry in Lines::of(log).map_err(on_log)? {
            let entry = entry.map_err(on_log)?;
            if entry.intent().is_some_and(|id| id <= mine.last_intent) {
                continue;
            }
            match entry {
                Entry::Of { .. } => {}
                Entry::Asked { id, change, policy, at } => {
                    insert_intent(&mut tx, Some(id), &change, &policy, at).await?;
                    replayed += 1;
                }
                Entry::Answered { id, reference, .. } => {
                    sqlx::query("UPDATE intent SET reference = ? WHERE id = ? AND completed_at IS NULL")
                        .bind(reference)
                        .bind(id)
                        .execute(&mut *tx)
                        .await?;
                }
                Entry::Ended {
                    id,
                    outcome,
                    detail,
                    effective,
                    at,
                } => {
                    let change: Option<String> =
                        sqlx::query_scalar("SELECT change FROM intent WHERE id = ? AND completed_at IS NULL")
                            .bind(id)
                            .fetch_optional(&mut *tx)
                            .await?;
                    if let Some(change) = change {
                        let change: Change = read_json(&change, || format!("intent {id}"))?;
                        complete_intent(&mut tx, id, &change, &outcome, detail.as_deref(), effective, at).await?;
                    }
                }
                Entry::Gone {
                    grant,
                    reason,
                    effective,
                    ..
                } => {
                    let found = sqlx::query(
                        "SELECT target, principal FROM access WHERE grant_intent = ? AND revoked_at IS NULL",
                    )
                    .bind(grant)
                    .fetch_optional(&mut *tx)
                    .await?;
                    if let Some(row) = found {
                        let target = read_json(row.try_get(0)?, || format!("access by intent {grant}"))?;
                        let key = (target, crate::model::PrincipalId(row.try_get::<&str, _>(1)?.into()));
                        end_access(&mut tx, &key, None, &reason, effective).await?;
                    }
                }
                Entry::Found { .. } => {
                    self.take_in(&mut tx, &entry).await?;
                    replayed += 1;
                }
                Entry::Kept { .. } => change_kept(&mut tx, &entry).await?,
                Entry::Orders { bars, at } => orders = Some((bars, at)),
            }
        }
        if let Some((bars, at)) = orders {
            // What the copy has in force and the last line does not list was lifted in between.
            let listed = super::write_json(&bars.iter().map(|bar| bar.person.clone()).collect::<Vec<_>>());
            sqlx::query(
                "UPDATE bar SET lifted_at = ?1, lifted_by = 'by the redo log' WHERE lifted_at IS NULL AND since <= ?1 \
                 AND NOT EXISTS (SELECT 1 FROM json_each(?2) WHERE value IS bar.person)",
            )
            .bind(at.as_millisecond())
            .bind(listed)
            .execute(&mut *tx)
            .await?;
        }
        tracing::warn!(changes = replayed, from = %lost_from, to = %extent.last_at, "the ledger is an older copy; the redo log beside it brings it up to date");
        let found = Found {
            at: now,
            why: if mine.empty {
                "the ledger was gone or empty"
            } else {
                "the ledger was an older copy"
            },
            lost_from: lost_from.min(extent.last_at),
            lost_to: extent.last_at,
            last_intent: mine.last_intent,
            replayed: Some(replayed),
        };
        self.record_restoration(&mut tx, &found).await?;
        self.commit(tx, now).await?;
        Ok(())
    }
}
