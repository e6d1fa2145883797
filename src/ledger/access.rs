//! Standing access that we caused, and its causes.

use std::collections::btree_map;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::history::ids_of_access_in;
use super::redo::Entry;
use super::{Ledger, LedgerError, instant, parse, read_json, write_json};
use crate::model::{Cause, EntitlementId, Person, PrincipalId, Texts};
use crate::plan::{Kept, Key, Owned};

/// What somebody held, from when, and until when if it has ended.
pub type HeldSpan = (EntitlementId, Person, Timestamp, Option<Timestamp>);

/// So many intervals are read together.
const PAGE: usize = 1_000;

impl Ledger {
    /// Everything that we granted and did not revoke.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn owned(&self) -> Result<BTreeMap<Key, Owned>, LedgerError> {
        owned_of(&self.pool, None, &mut Texts::default()).await
    }

    /// The user of each person who holds something through us; several where they differ from grant to grant.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn principals(&self) -> Result<Vec<(Person, PrincipalId)>, LedgerError> {
        let rows = sqlx::query(
            "SELECT DISTINCT person, principal FROM access WHERE revoked_at IS NULL ORDER BY person, principal",
        )
        .fetch_all(&self.pool)
        .await?;
        let principal = |row: &SqliteRow| {
            let person = parse(row.try_get::<String, _>(0)?, || "who holds access".to_owned())?;
            Ok((person, PrincipalId(row.try_get::<&str, _>(1)?.into())))
        };
        rows.iter().map(principal).collect()
    }

    /// When who held what through us, as far as it lasted beyond `since`; without an end what still stands.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn held_since(&self, since: Timestamp) -> Result<Vec<HeldSpan>, LedgerError> {
        let rows = sqlx::query(concat!(
            "SELECT id, entitlement, person, granted_at, revoked_at FROM access WHERE id IN (",
            ids_of_access_in!(),
            ") ORDER BY granted_at, id"
        ))
        .bind(since.as_millisecond())
        .bind(i64::MAX)
        .fetch_all(&self.pool)
        .await?;
        let mut held = Vec::with_capacity(rows.len());
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let what = || format!("access {id}");
            let ended: Option<i64> = row.try_get(4)?;
            held.push((
                parse(row.try_get::<String, _>(1)?, what)?,
                parse(row.try_get::<String, _>(2)?, what)?,
                instant(row.try_get(3)?, what)?,
                ended.map(|ended| instant(ended, what)).transpose()?,
            ));
        }
        Ok(held)
    }

    /// Ends the record of access that somebody else took away.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn close_lost(&self, key: &Key, now: Timestamp) -> Result<(), LedgerError> {
        let reason = "removed by somebody else";
        let mut tx = self.begin().await?;
        let grant: Option<i64> = sqlx::query_scalar(
            "SELECT grant_intent FROM access WHERE target = ? AND principal = ? AND revoked_at IS NULL",
        )
        .bind(write_json(&key.0))
        .bind(key.1.0.as_str())
        .fetch_optional(&mut *tx)
        .await?;
        end_access(&mut tx, key, None, reason, now).await?;
        self.commit(tx, now).await?;
        if let Some(grant) = grant {
            self.note(|| Entry::Gone {
                grant,
                reason: reason.to_owned(),
                effective: now,
                at: now,
            });
        }
        Ok(())
    }

    /// Brings the record of standing grants up to date, all in one transaction: causes that hold no longer end, new ones
    /// begin, and a renamed entitlement or person is noted.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn update_kept(&self, kept: &[Kept], now: Timestamp) -> Result<(), LedgerError> {
        let news: Vec<_> = kept
            .iter()
            .map(|k| {
                (
                    k,
                    k.recorded.iter().collect::<BTreeSet<_>>(),
                    k.causes.iter().collect::<BTreeSet<_>>(),
                )
            })
            .filter(|(kept, old, new)| kept.renamed || old != new)
            .collect();
        if news.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::with_capacity(news.len());
        let mut tx = self.begin().await?;
        for (kept, old, new) in news {
            let grant: i64 = sqlx::query_scalar("SELECT grant_intent FROM access WHERE id = ?")
                .bind(kept.access_id)
                .fetch_one(&mut *tx)
                .await?;
            let line = Entry::Kept {
                grant,
                entitlement: kept.entitlement.clone(),
                person: kept.person.clone(),
                ended: old.difference(&new).map(|cause| (*cause).clone()).collect(),
                begun: new.difference(&old).map(|cause| (*cause).clone()).collect(),
                at: now,
            };
            change_kept(&mut tx, &line).await?;
            lines.push(line);
        }
        self.commit(tx, now).await?;
        for line in lines {
            self.note(|| line);
        }
        Ok(())
    }
}

/// What stands, the lowest id first. By the plus SQLite sorts them; otherwise it would go through all that ever stood.
pub(super) async fn standing_ids(db: &mut SqliteConnection) -> Result<Vec<i64>, sqlx::Error> {
    let standing = "SELECT id FROM access WHERE revoked_at IS NULL ORDER BY +id";
    sqlx::query_scalar(standing).fetch_all(db).await
}

/// The access that stands through us: all of it, or that of some rows, as of one instant.
pub(super) async fn owned_of(
    pool: &SqlitePool,
    ids: Option<&[i64]>,
    texts: &mut Texts,
) -> Result<BTreeMap<Key, Owned>, LedgerError> {
    let mut tx = pool.begin().await?;
    let ids = match ids {
        Some(ids) => ids.to_vec(),
        None => standing_ids(&mut tx).await?,
    };
    let mut owned: BTreeMap<Key, Owned> = BTreeMap::new();
    for page in ids.chunks(PAGE) {
        let rows = sqlx::query(
            "SELECT a.id, a.entitlement, a.target, a.principal, a.person, c.body, c.ended_at IS NOT NULL \
             FROM access a LEFT JOIN cause c ON c.access_id = a.id AND c.ended_at IS \
             (SELECT CASE WHEN COUNT(*) = COUNT(ended_at) THEN MAX(ended_at) END FROM cause WHERE access_id = a.id) \
             WHERE a.revoked_at IS NULL AND a.id IN (SELECT value FROM json_each(?)) ORDER BY a.id, c.id",
        )
        .bind(write_json(&page))
        .fetch_all(&mut *tx)
        .await?;
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let what = || format!("access {id}");
            let mut target = read_json(row.try_get(2)?, what)?;
            texts.target(&mut target);
            let mut principal = PrincipalId(row.try_get::<&str, _>(3)?.into());
            texts.principal(&mut principal);
            let owned = match owned.entry((target, principal)) {
                btree_map::Entry::Occupied(entry) => entry.into_mut(),
                btree_map::Entry::Vacant(entry) => {
                    let mut entitlement = parse(row.try_get::<String, _>(1)?, what)?;
                    texts.entitlement(&mut entitlement);
                    let mut person = parse(row.try_get::<String, _>(4)?, what)?;
                    texts.person(&mut person);
                    entry.insert(Owned {
                        access_id: id,
                        entitlement,
                        person,
                        causes: Vec::with_capacity(1),
                        lapsed: row.try_get(6)?,
                    })
                }
            };
            if let Some(body) = row.try_get::<Option<&str>, _>(5)? {
                let mut cause: Cause = read_json(body, what)?;
                texts.cause(&mut cause);
                owned.causes.push(Arc::new(cause));
            }
        }
    }
    Ok(owned)
}

/// Changes the causes and the names of standing access, as a [`Entry::Kept`] says. Doing it again changes nothing.
pub(super) async fn change_kept(tx: &mut SqliteConnection, kept: &Entry) -> Result<(), LedgerError> {
    let Entry::Kept {
        grant,
        entitlement,
        person,
        ended,
        begun,
        at,
    } = kept
    else {
        return Ok(());
    };
    let access: Option<i64> = sqlx::query_scalar("SELECT id FROM access WHERE grant_intent = ? AND revoked_at IS NULL")
        .bind(grant)
        .fetch_optional(&mut *tx)
        .await?;
    let Some(access) = access else { return Ok(()) };
    sqlx::query(
        "UPDATE access SET entitlement = ?1, person = ?2 WHERE id = ?3 AND (entitlement <> ?1 OR person <> ?2)",
    )
    .bind(entitlement.to_string())
    .bind(person.as_str())
    .bind(access)
    .execute(&mut *tx)
    .await?;
    for cause in ended {
        sqlx::query("UPDATE cause SET ended_at = ?1 WHERE access_id = ?2 AND body = ?3 AND recorded_at <= ?1 AND ended_at IS NULL")
            .bind(at.as_millisecond())
            .bind(access)
            .bind(write_json(cause))
            .execute(&mut *tx)
            .await?;
    }
    for cause in begun {
        let known: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM cause WHERE access_id = ? AND body = ? AND recorded_at = ?)",
        )
        .bind(access)
        .bind(write_json(cause))
        .bind(at.as_millisecond())
        .fetch_one(&mut *tx)
        .await?;
        if !known {
            insert_cause(tx, access, cause, *at).await?;
        }
    }
    Ok(())
}

pub(super) async fn insert_cause(
    tx: &mut SqliteConnection,
    access: i64,
    cause: &Cause,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO cause (access_id, body, recorded_at) VALUES (?, ?, ?)")
        .bind(access)
        .bind(write_json(cause))
        .bind(now.as_millisecond())
        .execute(tx)
        .await?;
    Ok(())
}

pub(super) async fn end_access(
    tx: &mut SqliteConnection,
    key: &Key,
    intent: Option<i64>,
    reason: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let target = write_json(&key.0);
    sqlx::query(
        "UPDATE cause SET ended_at = ?1 WHERE ended_at IS NULL AND access_id IN \
         (SELECT id FROM access WHERE target = ?2 AND principal = ?3 AND revoked_at IS NULL)",
    )
    .bind(now.as_millisecond())
    .bind(&target)
    .bind(key.1.0.as_str())
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE access SET revoked_at = MAX(granted_at, ?), revoke_intent = ?, end_reason = ? \
         WHERE target = ? AND principal = ? AND revoked_at IS NULL",
    )
    .bind(now.as_millisecond())
    .bind(intent)
    .bind(reason)
    .bind(&target)
    .bind(key.1.0.as_str())
    .execute(&mut *tx)
    .await?;
    Ok(())
}
