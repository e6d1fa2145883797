//! What counters derive from: sums over everything that ended, kept so that nobody adds up the whole record again, and what
//! is not in them yet.
//!
//! The tables `uncounted_access` and `uncounted_unheld` name what ended and is in no sum; triggers fill them. Once nothing of
//! such an entry changes any more, [`Ledger::settle`] adds it to its entitlement's `total` and forgets it there, both in one
//! transaction. Sums, what is named there and what stands are therefore the whole record, each instant of it once.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::{Row, SqliteConnection};

use super::access::standing_ids;
use super::history::access_by_id;
use super::{Ledger, LedgerError, Moment, ends_of_chain, instant, parse, read_json, write_json};
use crate::accounting::{BACKDATE, Figures, LONGEST_SESSION, Sessions, Unheld, account, length, tail_of, uncovered};
use crate::ledger::{AccessRow, chain};
use crate::model::{EntitlementId, Interval, ResolvedTarget, Texts};

/// So many entries are looked at together.
const PAGE: usize = 500;
/// More events than these are not worth looking through for what they changed.
const FEW: i64 = 200_000;
/// A key is not granted more often than this while one tail of it lasts, but for a clock that was set back.
const GRANTS_LOOKED_AT: i64 = 2;

/// Sums of one entitlement.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Total {
    /// Access held.
    pub held: Figures,
    /// After revokes, for how long sessions may have lived on.
    #[serde(default)]
    pub tail: SignedDuration,
    /// On duty without access.
    #[serde(default)]
    pub uncovered: SignedDuration,
    /// What it was in AWS when it was granted last, of what is counted here.
    #[serde(default)]
    pub target: Option<ResolvedTarget>,
}

/// Everything that counters derive from besides rows of access, as of one instant.
#[derive(Debug)]
pub struct Counted {
    /// The last event of the chain.
    pub seq: i64,
    /// The highest id of an interval.
    pub newest: i64,
    /// What is counted already.
    pub totals: BTreeMap<EntitlementId, Total>,
    /// Duty without access that is not.
    pub unheld: Vec<Unheld>,
}

impl Ledger {
    /// Reads everything that counters derive from, in one transaction; `each` is given every interval that ended and is in
    /// no sum, then every one that stands.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn counted(&self, mut each: impl FnMut(AccessRow) + Send) -> Result<Counted, LedgerError> {
        let mut tx = self.pool.begin().await?;
        let (seq, newest): (i64, i64) = sqlx::query_as(
            "SELECT COALESCE((SELECT MAX(seq) FROM event), 0), COALESCE((SELECT MAX(id) FROM access), 0)",
        )
        .fetch_one(&mut *tx)
        .await?;
        let totals = totals(&mut tx).await?;
        let uncounted = "SELECT id FROM uncounted_access ORDER BY id";
        let uncounted: Vec<i64> = sqlx::query_scalar(uncounted).fetch_all(&mut *tx).await?;
        for ids in [uncounted, standing_ids(&mut tx).await?] {
            for page in ids.chunks(PAGE) {
                access_by_id(&mut tx, page, &mut Texts::default())
                    .await?
                    .into_iter()
                    .for_each(&mut each);
            }
        }
        let unheld = super::unheld::uncounted_unheld(&mut tx).await?;
        Ok(Counted {
            seq,
            newest,
            totals,
            unheld,
        })
    }

    /// Counts what ended so long before `now` that nothing of it changes any more, and returns how many entries that were.
    ///
    /// # Errors
    /// [`LedgerError`]; what was counted until then stays so.
    pub async fn settle(&self, now: Timestamp) -> Result<usize, LedgerError> {
        let certain = now.checked_sub(BACKDATE).unwrap_or(Timestamp::MIN);
        // Of what was asked for and not answered nobody knows yet whether it is held.
        let certain = certain.min(self.oldest_open_grant().await?.unwrap_or(Timestamp::MAX));
        let over = certain.checked_sub(LONGEST_SESSION).unwrap_or(Timestamp::MIN);
        let sessions = self.sessions().await?;
        let mut all = 0;
        loop {
            let mut tx = self.begin().await?;
            let ids: Vec<i64> = sqlx::query_scalar(
                "SELECT u.id FROM uncounted_access u JOIN access a ON a.id = u.id WHERE a.revoked_at <= ? ORDER BY u.id LIMIT ?",
            )
            .bind(over.as_millisecond())
            .bind(i64::try_from(PAGE).unwrap_or(i64::MAX))
            .fetch_all(&mut *tx)
            .await?;
            let rows = access_by_id(&mut tx, &ids, &mut Texts::default()).await?;
            count_access(&mut tx, &rows, &sessions).await?;
            let unheld = super::unheld::uncounted_unheld_until(&mut tx, certain, PAGE).await?;
            count_unheld(&mut tx, &unheld).await?;
            self.commit(tx, now).await?;
            let counted = ids.len() + unheld.len();
            all += counted;
            if counted == 0 {
                return Ok(all);
            }
        }
    }
}

impl Moment {
    /// Gives `each` every interval of access that changed, or whose causes did, after the event `seen`, and returns the last
    /// event. `None` where the events do not follow on it any more, or are too many.
    ///
    /// # Errors
    /// [`LedgerError`]; some may have been given then.
    pub async fn access_after(
        &mut self,
        seen: i64,
        mut each: impl FnMut(AccessRow) + Send,
    ) -> Result<Option<i64>, LedgerError> {
        let tx = &mut *self.0;
        let (first, last) = ends_of_chain(tx).await?;
        if seen + 1 < first || last < seen || FEW < last - seen {
            return Ok(None);
        }
        // By the plus SQLite goes along the few new events, and not through all that ever told of access.
        let ids: Vec<i64> = sqlx::query_scalar(
            "SELECT row FROM event WHERE seq > ?1 AND seq <= ?2 AND +tbl = 'access' AND op <> 'restate' UNION \
             SELECT c.access_id FROM event e JOIN cause c ON c.id = e.row \
             WHERE e.seq > ?1 AND e.seq <= ?2 AND +e.tbl = 'cause' AND e.op <> 'restate' ORDER BY 1",
        )
        .bind(seen)
        .bind(last)
        .fetch_all(&mut *tx)
        .await?;
        for page in ids.chunks(PAGE) {
            access_by_id(tx, page, &mut Texts::default())
                .await?
                .into_iter()
                .for_each(&mut each);
        }
        Ok(Some(last))
    }
}

/// The sums as they are.
pub(super) async fn totals(connection: &mut SqliteConnection) -> Result<BTreeMap<EntitlementId, Total>, LedgerError> {
    let rows = sqlx::query("SELECT entitlement, body FROM total")
        .fetch_all(connection)
        .await?;
    let mut totals = BTreeMap::new();
    for row in rows {
        let entitlement: String = row.try_get(0)?;
        let what = || format!("the total of {entitlement}");
        let total = read_json(row.try_get(1)?, what)?;
        totals.insert(parse(entitlement.clone(), what)?, total);
    }
    Ok(totals)
}

/// The entitlements of which the sum of access held is not what the intervals that are counted add up to. Tails and duty
/// without access are not looked at: of what was removed they are known from the sums alone.
pub(super) async fn wrong_totals(connection: &mut SqliteConnection) -> Result<Vec<EntitlementId>, LedgerError> {
    let mut sums: BTreeMap<EntitlementId, Figures> = BTreeMap::new();
    let rows = sqlx::query("SELECT entitlement, body FROM removed")
        .fetch_all(&mut *connection)
        .await?;
    for row in rows {
        let entitlement: String = row.try_get(0)?;
        let what = || format!("the total of {entitlement}");
        let figures: Figures = read_json(row.try_get(1)?, what)?;
        sums.insert(parse(entitlement.clone(), what)?, figures);
    }
    let mut after = i64::MIN;
    loop {
        let ids: Vec<i64> = sqlx::query_scalar(
            "SELECT id FROM access WHERE id > ? AND revoked_at IS NOT NULL \
             AND id NOT IN (SELECT id FROM uncounted_access) ORDER BY id LIMIT ?",
        )
        .bind(after)
        .bind(i64::try_from(PAGE).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await?;
        let Some(last) = ids.last() else { break };
        after = *last;
        for row in access_by_id(connection, &ids, &mut Texts::default()).await? {
            let held = account(std::slice::from_ref(&row), Interval::ALWAYS, Timestamp::MAX).total();
            *sums.entry(row.entitlement).or_default() += held;
        }
    }
    let totals = totals(connection).await?;
    let ids: BTreeSet<&EntitlementId> = sums.keys().chain(totals.keys()).collect();
    let nothing = Figures::default();
    let wrong = ids.into_iter().filter(|id| {
        let counted = totals.get(id).map_or(nothing, |total| total.held);
        counted != sums.get(id).copied().unwrap_or(nothing)
    });
    Ok(wrong.cloned().collect())
}

/// Adds intervals that ended to the sums, with all of their tails.
pub(super) async fn count_access(
    tx: &mut chain::Writing,
    rows: &[AccessRow],
    sessions: &Sessions,
) -> Result<(), LedgerError> {
    let mut sums: BTreeMap<EntitlementId, Total> = BTreeMap::new();
    for row in rows {
        let tail = tail_of(row, granted_again(tx, row).await?, sessions);
        let sum = sums.entry(row.entitlement.clone()).or_default();
        sum.held += account(std::slice::from_ref(row), Interval::ALWAYS, Timestamp::MAX).total();
        sum.tail = sum
            .tail
            .saturating_add(tail.map_or(SignedDuration::ZERO, |tail| tail.duration()));
        sum.target = Some(row.target.clone());
    }
    add(tx, sums).await?;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    forget(
        tx,
        "DELETE FROM uncounted_access WHERE id IN (SELECT value FROM json_each(?))",
        &ids,
    )
    .await
}

/// Which of these intervals are in no sum yet.
pub(super) async fn uncounted_among(tx: &mut chain::Writing, ids: &[i64]) -> Result<BTreeSet<i64>, LedgerError> {
    let found: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM uncounted_access WHERE id IN (SELECT value FROM json_each(?))")
            .bind(write_json(&ids))
            .fetch_all(&mut **tx)
            .await?;
    Ok(found.into_iter().collect())
}

async fn count_unheld(tx: &mut chain::Writing, entries: &[Unheld]) -> Result<(), LedgerError> {
    let mut sums: BTreeMap<EntitlementId, Total> = BTreeMap::new();
    for unheld in entries {
        let sum = sums.entry(unheld.entitlement.clone()).or_default();
        sum.uncovered = sum.uncovered.saturating_add(length(uncovered(unheld, Timestamp::MAX)));
    }
    add(tx, sums).await?;
    let ids: Vec<i64> = entries.iter().map(|unheld| unheld.id).collect();
    forget(
        tx,
        "DELETE FROM uncounted_unheld WHERE id IN (SELECT value FROM json_each(?))",
        &ids,
    )
    .await
}

async fn forget(tx: &mut chain::Writing, query: &'static str, ids: &[i64]) -> Result<(), LedgerError> {
    if !ids.is_empty() {
        sqlx::query(query).bind(write_json(&ids)).execute(&mut **tx).await?;
    }
    Ok(())
}

async fn add(tx: &mut chain::Writing, sums: BTreeMap<EntitlementId, Total>) -> Result<(), LedgerError> {
    for (entitlement, sum) in sums {
        let known: Option<String> = sqlx::query_scalar("SELECT body FROM total WHERE entitlement = ?")
            .bind(entitlement.to_string())
            .fetch_optional(&mut **tx)
            .await?;
        let mut total: Total = match known {
            Some(known) => read_json(&known, || format!("the total of {entitlement}"))?,
            None => Total::default(),
        };
        total.held += sum.held;
        total.tail = total.tail.saturating_add(sum.tail);
        total.uncovered = total.uncovered.saturating_add(sum.uncovered);
        total.target = sum.target.or(total.target);
        sqlx::query(
            "INSERT INTO total (entitlement, body) VALUES (?, ?) ON CONFLICT (entitlement) DO UPDATE SET body = excluded.body",
        )
        .bind(entitlement.to_string())
        .bind(write_json(&total))
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// When the same access was granted again, if it was.
async fn granted_again(tx: &mut chain::Writing, row: &AccessRow) -> Result<Option<Timestamp>, LedgerError> {
    let again: Option<i64> = sqlx::query_scalar(
        "SELECT MIN(granted_at) FROM (SELECT b.granted_at FROM intent i JOIN access b ON b.grant_intent = i.id \
         WHERE i.target = ?1 AND i.principal = ?2 AND i.id > (SELECT grant_intent FROM access WHERE id = ?3) \
         AND b.granted_at >= ?4 AND b.granted_at > ?5 ORDER BY i.id LIMIT ?6)",
    )
    .bind(write_json(&row.target))
    .bind(row.principal.0.as_str())
    .bind(row.id)
    .bind(row.revoked_at.map(Timestamp::as_millisecond))
    .bind(row.granted_at.as_millisecond())
    .bind(GRANTS_LOOKED_AT)
    .fetch_one(&mut **tx)
    .await?;
    again
        .map(|ms| instant(ms, || format!("what follows on access {}", row.id)))
        .transpose()
}

#[cfg(test)]
mod tests;
