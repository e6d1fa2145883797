//! Reads of the record for people: past and present access, and why.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;
use serde::Serialize;
use smol_str::SmolStr;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{Ledger, LedgerError, instant, parse, read_json, write_json};
use crate::model::{Cause, EntitlementId, Interval, Person, PrincipalId, ResolvedTarget, Texts};
use crate::plan::Key;

/// One interval of access, with why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccessRow {
    /// The ledger's row.
    pub id: i64,
    /// As which entitlement.
    pub entitlement: EntitlementId,
    /// What in AWS.
    pub target: ResolvedTarget,
    /// Who in the identity store.
    pub principal: PrincipalId,
    /// Who.
    pub person: Person,
    /// Confirmed by AWS at this instant.
    pub granted_at: Timestamp,
    /// AWS's request or membership id.
    pub grant_reference: Option<String>,
    /// Content hash of the policy under which it was granted.
    pub policy: SmolStr,
    /// When it ended, if it did.
    pub revoked_at: Option<Timestamp>,
    /// How it ended.
    pub end_reason: Option<SmolStr>,
    /// Every cause it ever had.
    pub causes: Vec<RecordedCause>,
}

impl AccessRow {
    /// What earned it at `at`, by the record; where nothing did any more, what ended last.
    #[must_use]
    pub fn causes_at(&self, at: Timestamp) -> Vec<&RecordedCause> {
        let until = |c: &RecordedCause| c.ended_at.unwrap_or(Timestamp::MAX).min(c.cause.held.end());
        let in_force = |c: &&RecordedCause| c.recorded_at <= at && at < until(c);
        let found: Vec<_> = self.causes.iter().filter(in_force).collect();
        if !found.is_empty() {
            return found;
        }
        let last = self.causes.iter().map(until).max();
        self.causes.iter().filter(|c| Some(until(c)) == last).collect()
    }
}

/// A cause as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordedCause {
    /// The cause.
    pub cause: Cause,
    /// When it was first on record for this access.
    pub recorded_at: Timestamp,
    /// When it no longer was.
    pub ended_at: Option<Timestamp>,
}

/// Somebody's access to an entitlement around an instant at which they do not have it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Neighbours {
    /// The last interval that began before.
    pub before: Option<AccessRow>,
    /// The first that began after.
    pub after: Option<AccessRow>,
}

/// Tells whether anything about access has changed; see [`Ledger::access_mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessMark {
    newest: Option<i64>,
    open: i64,
    newest_cause: Option<i64>,
    ended_causes: i64,
    /// How many intervals were removed because of their age.
    pub removed: i64,
}

/// A macro, because the statement must be a literal to be known free of anything else.
macro_rules! access_with_causes {
    () => {
        "SELECT a.id, a.entitlement, a.target, a.principal, a.person, a.granted_at, i.reference, i.policy, a.revoked_at, \
         a.end_reason, c.body, c.recorded_at, c.ended_at \
         FROM access a JOIN intent i ON i.id = a.grant_intent LEFT JOIN cause c ON c.access_id = a.id"
    };
}

/// So many intervals are read together.
const PAGE: usize = 500;

/// With more texts than these the pool of those that are shared begins anew.
const LARGEST_POOL: usize = 200_000;

/// The access that overlaps the time from ?1 to ?2. A part for each of the indexes by how long intervals lasted, in the words
/// of these; of those that lasted longer than eight days there are few.
macro_rules! ids_of_access_in {
    () => {
        "\
    SELECT id FROM access WHERE revoked_at IS NULL AND entitlement >= '' AND granted_at < ?2 UNION ALL \
    SELECT id FROM access WHERE revoked_at <= granted_at + 86400000 \
        AND ?1 - 86400000 < granted_at AND granted_at < ?2 AND revoked_at > ?1 UNION ALL \
    SELECT id FROM access WHERE revoked_at > granted_at + 86400000 AND revoked_at <= granted_at + 691200000 \
        AND ?1 - 691200000 < granted_at AND granted_at < ?2 AND revoked_at > ?1 UNION ALL \
    SELECT id FROM access WHERE revoked_at > granted_at + 691200000 AND granted_at < ?2 AND revoked_at > ?1"
    };
}
pub(super) use ids_of_access_in;

impl Ledger {
    /// All access that overlaps `range`, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn access_in(&self, range: Interval) -> Result<Vec<AccessRow>, LedgerError> {
        let mut found = Vec::new();
        self.each_access_in(range, |row| found.push(row)).await?;
        found.sort_by_key(|row| (row.granted_at, row.id));
        Ok(found)
    }

    /// Gives `each` all access that overlaps `range`, the lowest id first, so that no more than some of it is in memory.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn each_access_in(
        &self,
        range: Interval,
        mut each: impl FnMut(AccessRow) + Send,
    ) -> Result<(), LedgerError> {
        let mut tx = self.pool.begin().await?;
        let mut ids: Vec<i64> = sqlx::query_scalar(ids_of_access_in!())
            .bind(range.start().as_millisecond())
            .bind(range.end().as_millisecond())
            .fetch_all(&mut *tx)
            .await?;
        ids.sort_unstable();
        let mut texts = Texts::default();
        for page in ids.chunks(PAGE) {
            // Over months so many are met that those of long ago would only lie there.
            if LARGEST_POOL < texts.len() {
                texts = Texts::default();
            }
            let rows = access_by_id(&mut tx, page, &mut texts).await?;
            rows.into_iter().for_each(&mut each);
        }
        Ok(())
    }

    /// One person's access that overlaps `range`, the lowest id first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn access_of_person(&self, person: &Person, range: Interval) -> Result<Vec<AccessRow>, LedgerError> {
        let rows = sqlx::query(concat!(
            access_with_causes!(),
            " WHERE a.id IN (SELECT id FROM access WHERE person = ?3 AND granted_at < ?2 \
             AND (revoked_at IS NULL OR revoked_at > ?1)) ORDER BY a.id, c.id"
        ))
        .bind(range.start().as_millisecond())
        .bind(range.end().as_millisecond())
        .bind(person.as_str())
        .fetch_all(&self.pool)
        .await?;
        assemble(rows, &mut Texts::default())
    }

    /// The access to some entitlements that overlaps `range`, the lowest id first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn access_to(
        &self,
        entitlements: &BTreeSet<EntitlementId>,
        range: Interval,
    ) -> Result<Vec<AccessRow>, LedgerError> {
        let rows = sqlx::query(concat!(
            access_with_causes!(),
            " WHERE a.id IN (SELECT id FROM access WHERE entitlement IN (SELECT value FROM json_each(?3)) AND granted_at < ?2 \
             AND (revoked_at IS NULL OR revoked_at > ?1)) ORDER BY a.id, c.id"
        ))
        .bind(range.start().as_millisecond())
        .bind(range.end().as_millisecond())
        .bind(write_json(entitlements))
        .fetch_all(&self.pool)
        .await?;
        assemble(rows, &mut Texts::default())
    }

    /// The access to some entitlements that stands, the lowest id first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn standing_access_to(
        &self,
        entitlements: &BTreeSet<EntitlementId>,
    ) -> Result<Vec<AccessRow>, LedgerError> {
        let rows = sqlx::query(concat!(
            access_with_causes!(),
            " WHERE a.id IN (SELECT id FROM access WHERE revoked_at IS NULL \
             AND entitlement IN (SELECT value FROM json_each(?))) ORDER BY a.id, c.id"
        ))
        .bind(write_json(entitlements))
        .fetch_all(&self.pool)
        .await?;
        assemble(rows, &mut Texts::default())
    }

    /// How many grants stand, of each entitlement of which any does.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn standing_counts(&self) -> Result<BTreeMap<EntitlementId, usize>, LedgerError> {
        let found: Vec<(String, i64)> = sqlx::query_as(
            "SELECT entitlement, COUNT(*) FROM access WHERE revoked_at IS NULL AND entitlement >= '' GROUP BY entitlement",
        )
        .fetch_all(&self.pool)
        .await?;
        let what = || "an entitlement on record".to_owned();
        let count = |count| usize::try_from(count).unwrap_or(usize::MAX);
        found
            .into_iter()
            .map(|(id, n)| Ok((parse(id, what)?, count(n))))
            .collect()
    }

    /// How many people hold something.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn count_holders(&self) -> Result<usize, LedgerError> {
        let holders: i64 = sqlx::query_scalar(
            "SELECT COUNT(DISTINCT person) FROM access WHERE revoked_at IS NULL AND entitlement >= ''",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(usize::try_from(holders).unwrap_or(usize::MAX))
    }

    /// Those of the keys of which access stands.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn standing_of<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a Key>,
    ) -> Result<HashSet<&'a Key>, LedgerError> {
        let keys: Vec<&Key> = keys.into_iter().collect();
        let asked: Vec<(String, &PrincipalId)> = keys.iter().map(|key| (write_json(&key.0), &key.1)).collect();
        let found: Vec<i64> = sqlx::query_scalar(
            "SELECT asked.key FROM json_each(?) asked JOIN access a \
             ON a.target = asked.value ->> 0 AND a.principal = asked.value ->> 1 AND a.revoked_at IS NULL",
        )
        .bind(write_json(&asked))
        .fetch_all(&self.pool)
        .await?;
        let key = |n: i64| usize::try_from(n).ok().and_then(|n| keys.get(n)).copied();
        Ok(found.into_iter().filter_map(key).collect())
    }

    /// The entitlements that were something in an AWS account within `range`, by the record.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn entitlements_in_account(
        &self,
        account: &str,
        range: Interval,
    ) -> Result<BTreeSet<EntitlementId>, LedgerError> {
        // Targets are stored as JSON, the account first.
        let any = write_json(&ResolvedTarget::Assignment {
            account: account.into(),
            permission_set_arn: "".into(),
        });
        let from = any.trim_end_matches("\"}}");
        let found: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT a.entitlement FROM intent i JOIN access a ON a.grant_intent = i.id \
             WHERE ?3 <= i.target AND i.target < ?4 AND a.granted_at < ?2 AND (a.revoked_at IS NULL OR a.revoked_at > ?1)",
        )
        .bind(range.start().as_millisecond())
        .bind(range.end().as_millisecond())
        .bind(from)
        .bind(format!("{from}\u{10ffff}"))
        .fetch_all(&self.pool)
        .await?;
        let what = || "an entitlement on record".to_owned();
        found.into_iter().map(|id| parse(id, what)).collect()
    }

    /// Reads a value that differs whenever access was granted or ended, or a cause of standing access came or went.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn access_mark(&self) -> Result<AccessMark, LedgerError> {
        let row = sqlx::query(
            "SELECT (SELECT MAX(id) FROM access), COUNT(DISTINCT a.id), MAX(c.id), COUNT(c.ended_at), \
             (SELECT COALESCE(SUM(intervals), 0) FROM removed) \
             FROM access a LEFT JOIN cause c ON c.access_id = a.id WHERE a.revoked_at IS NULL",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(AccessMark {
            newest: row.try_get(0)?,
            open: row.try_get(1)?,
            newest_cause: row.try_get(2)?,
            ended_causes: row.try_get(3)?,
            removed: row.try_get(4)?,
        })
    }

    /// The record of somebody's access to an entitlement on both sides of an instant.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn neighbours(
        &self,
        entitlement: &EntitlementId,
        person: &Person,
        at: Timestamp,
    ) -> Result<Neighbours, LedgerError> {
        let mut found = Vec::with_capacity(2);
        for query in [
            concat!(
                access_with_causes!(),
                " WHERE a.id = (SELECT id FROM access WHERE person = ? AND entitlement = ? AND granted_at <= ? \
                 ORDER BY granted_at DESC, id DESC LIMIT 1) ORDER BY c.id"
            ),
            concat!(
                access_with_causes!(),
                " WHERE a.id = (SELECT id FROM access WHERE person = ? AND entitlement = ? AND granted_at > ? \
                 ORDER BY granted_at, id LIMIT 1) ORDER BY c.id"
            ),
        ] {
            let rows = sqlx::query(query)
                .bind(person.as_str())
                .bind(entitlement.to_string())
                .bind(at.as_millisecond())
                .fetch_all(&self.pool)
                .await?;
            found.push(assemble(rows, &mut Texts::default())?.pop());
        }
        let after = found.pop().flatten();
        Ok(Neighbours {
            before: found.pop().flatten(),
            after,
        })
    }
}

/// The intervals with these ids, the lowest first, which share with others the `texts`.
pub(super) async fn access_by_id(
    connection: &mut SqliteConnection,
    ids: &[i64],
    texts: &mut Texts,
) -> Result<Vec<AccessRow>, LedgerError> {
    let query = concat!(
        access_with_causes!(),
        " WHERE a.id IN (SELECT value FROM json_each(?)) ORDER BY a.id, c.id"
    );
    let rows = sqlx::query(query).bind(write_json(&ids)).fetch_all(connection).await?;
    assemble(rows, texts)
}

/// Rows of one interval stand together.
fn assemble(rows: Vec<SqliteRow>, texts: &mut Texts) -> Result<Vec<AccessRow>, LedgerError> {
    let mut found: Vec<AccessRow> = Vec::new();
    for row in rows {
        let id: i64 = row.try_get(0)?;
        let what = || format!("access {id}");
        if found.last().is_none_or(|last| last.id != id) {
            let mut access = AccessRow {
                id,
                entitlement: parse(row.try_get::<String, _>(1)?, what)?,
                target: read_json(row.try_get(2)?, what)?,
                principal: PrincipalId(row.try_get::<&str, _>(3)?.into()),
                person: parse(row.try_get::<String, _>(4)?, what)?,
                granted_at: instant(row.try_get(5)?, what)?,
                grant_reference: row.try_get(6)?,
                policy: row.try_get::<&str, _>(7)?.into(),
                revoked_at: row
                    .try_get::<Option<i64>, _>(8)?
                    .map(|ms| instant(ms, what))
                    .transpose()?,
                end_reason: row.try_get::<Option<&str>, _>(9)?.map(Into::into),
                causes: Vec::with_capacity(1),
            };
            texts.entitlement(&mut access.entitlement);
            texts.target(&mut access.target);
            texts.principal(&mut access.principal);
            texts.person(&mut access.person);
            texts.share(&mut access.policy);
            access.end_reason.iter_mut().for_each(|reason| texts.share(reason));
            found.push(access);
        }
        if let (Some(body), Some(access)) = (row.try_get::<Option<&str>, _>(10)?, found.last_mut()) {
            let mut cause = read_json(body, what)?;
            texts.cause(&mut cause);
            access.causes.push(RecordedCause {
                cause,
                recorded_at: instant(row.try_get(11)?, what)?,
                ended_at: row
                    .try_get::<Option<i64>, _>(12)?
                    .map(|ms| instant(ms, what))
                    .transpose()?,
            });
        }
    }
    Ok(found)
}
