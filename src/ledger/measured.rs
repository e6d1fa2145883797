//! What the measure of access time needs besides access: who was on duty without it, and how long role sessions live.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::HashMap;
use jiff::{SignedDuration, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{Ledger, LedgerError, digest, instant, parse, write_json};
use crate::accounting::{Sessions, Unheld};
use crate::model::{EntitlementId, Interval, Person};

/// Somebody who is on duty and does not hold what it earns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDuty {
    /// What should be held.
    pub entitlement: EntitlementId,
    /// By whom.
    pub person: Person,
    /// The duty; its end is `Timestamp::MAX` where it is not known.
    pub duty: Interval,
    /// What is known about why, as a stable word.
    pub why: String,
}

/// Tells whether anything about duty without access has changed; see [`Ledger::unheld_mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnheldMark {
    newest: Option<i64>,
    open: i64,
}

impl UnheldMark {
    /// The highest id, or 0.
    #[must_use]
    pub fn newest(&self) -> i64 {
        self.newest.unwrap_or_default()
    }
}

/// A macro, because the statement must be a literal to be known free of anything else. What was held in the meantime is looked
/// for by the indexes by how long intervals lasted, in the words of these; the signs keep another index from being taken.
macro_rules! unheld_with_access {
    () => {
        "SELECT u.id, u.entitlement, u.person, u.duty_from, u.duty_to, u.why, u.ended_at, a.granted_at, a.revoked_at \
         FROM unheld u LEFT JOIN access a ON a.id IN (\
             SELECT x.id FROM access x WHERE x.entitlement = u.entitlement AND x.person = u.person \
                 AND x.revoked_at IS NULL AND +x.granted_at < u.duty_to UNION ALL \
             SELECT x.id FROM access x WHERE x.entitlement = u.entitlement AND x.person = u.person \
                 AND x.revoked_at <= x.granted_at + 691200000 AND u.duty_from - 691200000 < x.granted_at \
                 AND x.granted_at < u.duty_to AND u.duty_from < x.revoked_at UNION ALL \
             SELECT x.id FROM access x WHERE x.entitlement = u.entitlement AND x.person = u.person \
                 AND x.revoked_at > x.granted_at + 691200000 AND +x.granted_at < u.duty_to AND u.duty_from < x.revoked_at)"
    };
}

/// What overlaps the time from ?1 to ?2: a part for each of the indexes by how long it lasted, in the words of these.
macro_rules! unheld_in {
    () => {
        concat!(
            unheld_with_access!(),
            " WHERE u.id IN (\
             SELECT id FROM unheld WHERE ended_at IS NULL AND duty_from < ?2 UNION ALL \
             SELECT id FROM unheld WHERE ended_at <= duty_from + 86400000 \
                 AND ?1 - 86400000 < duty_from AND duty_from < ?2 AND ended_at > ?1 UNION ALL \
             SELECT id FROM unheld WHERE ended_at > duty_from + 86400000 AND duty_from < ?2 AND ended_at > ?1) \
             ORDER BY u.id, a.id"
        )
    };
}

/// Asks how SQLite would go about it.
#[cfg(test)]
pub(super) const PLAN_OF_UNHELD_IN: &str = concat!("EXPLAIN QUERY PLAN ", unheld_in!());

/// So much duty is noted in one statement, whose text holds all of it.
const AT_ONCE: usize = 10_000;

/// Duty without a beginning of its own counts from where the record leaves off, or from now.
const BEGIN_UNHELD: &str = "\
    INSERT INTO unheld (entitlement, person, duty_from, duty_to, why, noted_at) \
    SELECT entitlement, person, duty_from, duty_to, why, ?2 FROM (\
        SELECT entitlement, person, duty_to, why, MIN(?2, CASE \
            WHEN ?3 THEN ?2 \
            WHEN begin IS NULL THEN COALESCE(MAX(held_to, unheld_to), held_to, unheld_to, ?2) \
            ELSE MAX(begin, COALESCE(held_to, begin), COALESCE(unheld_to, begin)) END) AS duty_from \
        FROM (\
            SELECT json_extract(n.value, '$[0]') AS entitlement, json_extract(n.value, '$[1]') AS person, \
                json_extract(n.value, '$[2]') AS begin, json_extract(n.value, '$[3]') AS duty_to, \
                json_extract(n.value, '$[4]') AS why, \
                (SELECT MAX(a.revoked_at) FROM access a WHERE a.entitlement = json_extract(n.value, '$[0]') \
                    AND a.person = json_extract(n.value, '$[1]')) AS held_to, \
                (SELECT MAX(MIN(u.duty_to, u.ended_at)) FROM unheld u WHERE u.entitlement = json_extract(n.value, '$[0]') \
                    AND u.person = json_extract(n.value, '$[1]')) AS unheld_to \
            FROM json_each(?1) n)) \
    WHERE duty_from < duty_to";

impl Ledger {
    /// Notes how long the sessions of permission sets live, where that is not on record already.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn note_sessions(
        &self,
        found: &BTreeMap<String, SignedDuration>,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        if found.is_empty() {
            return Ok(());
        }
        let known = self.sessions().await?;
        for (arn, duration) in found.iter().filter(|(arn, found)| known.newest(arn) != Some(**found)) {
            sqlx::query("INSERT INTO session_length (permission_set, found_at, milliseconds) VALUES (?, ?, ?)")
                .bind(arn)
                .bind(now.as_millisecond())
                .bind(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    /// Reads since when there is a record.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn begins(&self) -> Result<Timestamp, LedgerError> {
        let created = sqlx::query_scalar("SELECT created_at FROM installation")
            .fetch_one(&self.pool)
            .await?;
        instant(created, || "the beginning of the record".to_owned())
    }

    /// How long the sessions of permission sets live, and lived.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn sessions(&self) -> Result<Sessions, LedgerError> {
        let rows =
            sqlx::query("SELECT permission_set, found_at, milliseconds FROM session_length ORDER BY found_at, id")
                .fetch_all(&self.pool)
                .await?;
        let mut sessions = Sessions::default();
        for row in rows {
            let arn: String = row.try_get(0)?;
            let at = instant(row.try_get(1)?, || format!("the session duration of {arn}"))?;
            sessions.add(&arn, at, SignedDuration::from_millis(row.try_get(2)?));
        }
        Ok(sessions)
    }

    /// Brings the record of duty without access up to date with what a pass saw at `now`. Duty counts from its own
    /// beginning, however late it was noticed, but not from before its person last held the entitlement, and where the
    /// policy is another than that of the pass before (`policy_is_new`), not from before this pass.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn note_unheld(&self, seen: &[OnDuty], policy_is_new: bool, now: Timestamp) -> Result<(), LedgerError> {
        let mut wanted: HashMap<_, &OnDuty> = HashMap::default();
        for duty in seen {
            let (entitlement, to) = (
                duty.entitlement.to_string(),
                duty.duty.end().as_millisecond().to_string(),
            );
            wanted.insert(digest(&[&entitlement, duty.person.as_str(), &to, &duty.why]), duty);
        }
        let known = "SELECT id, entitlement, person, CAST(duty_to AS TEXT), why FROM unheld WHERE ended_at IS NULL";
        let rows = sqlx::query(known).try_map(|row: SqliteRow| {
            let texts = [row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?];
            Ok((row.try_get::<i64, _>(0)?, digest(&texts)))
        });
        let mut over = rows.fetch_all(&self.pool).await?;
        over.retain(|(_, duty)| wanted.remove(duty).is_none());
        let over: Vec<i64> = over.into_iter().map(|(id, _)| id).collect();
        if over.is_empty() && wanted.is_empty() {
            return Ok(());
        }
        // Statements and no transaction: what a later one lacks, the next pass adds from the same instant on.
        if !over.is_empty() {
            sqlx::query(
                "UPDATE unheld SET ended_at = ? WHERE ended_at IS NULL AND id IN (SELECT value FROM json_each(?))",
            )
            .bind(now.as_millisecond())
            .bind(write_json(&over))
            .execute(&self.pool)
            .await?;
        }
        let news = wanted.into_values().map(|on_duty| {
            let (begin, end) = (on_duty.duty.start(), on_duty.duty.end());
            let begin = (Timestamp::MIN < begin).then(|| begin.as_millisecond());
            let (entitlement, person) = (on_duty.entitlement.to_string(), on_duty.person.as_str());
            (entitlement, person, begin, end.as_millisecond(), &on_duty.why)
        });
        let mut news: Vec<_> = news.collect();
        news.sort_unstable();
        for news in news.chunks(AT_ONCE) {
            sqlx::query(BEGIN_UNHELD)
                .bind(write_json(&news))
                .bind(now.as_millisecond())
                .bind(policy_is_new)
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    /// Duty without access that overlaps `range`, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn unheld_in(&self, range: Interval) -> Result<Vec<Unheld>, LedgerError> {
        let rows = sqlx::query(unheld_in!())
            .bind(range.start().as_millisecond())
            .bind(range.end().as_millisecond())
            .fetch_all(&self.pool)
            .await?;
        assemble(rows)
    }

    /// One person's duty without access that overlaps `range`, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn unheld_of(&self, person: &Person, range: Interval) -> Result<Vec<Unheld>, LedgerError> {
        let rows = sqlx::query(concat!(
            unheld_with_access!(),
            " WHERE u.person = ? AND u.duty_from < ? AND (u.ended_at IS NULL OR u.ended_at > ?) ORDER BY u.id, a.id"
        ))
        .bind(person.as_str())
        .bind(range.end().as_millisecond())
        .bind(range.start().as_millisecond())
        .fetch_all(&self.pool)
        .await?;
        assemble(rows)
    }

    /// Reads a value that differs whenever duty without access began or ended.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn unheld_mark(&self) -> Result<UnheldMark, LedgerError> {
        let row = sqlx::query("SELECT MAX(id), (SELECT COUNT(*) FROM unheld WHERE ended_at IS NULL) FROM unheld")
            .fetch_one(&self.pool)
            .await?;
        Ok(UnheldMark {
            newest: row.try_get(0)?,
            open: row.try_get(1)?,
        })
    }

    /// What may differ from an earlier look: entries with a higher id than `after`, and those of `open`.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn unheld_since(&self, after: i64, open: &BTreeSet<i64>) -> Result<Vec<Unheld>, LedgerError> {
        let rows = sqlx::query(concat!(
            unheld_with_access!(),
            " WHERE u.id IN (SELECT id FROM unheld WHERE id > ? UNION SELECT value FROM json_each(?)) ORDER BY u.id, a.id"
        ))
        .bind(after)
        .bind(write_json(open))
        .fetch_all(&self.pool)
        .await?;
        assemble(rows)
    }

    /// When the oldest grant was asked for of which the outcome is not known: since then somebody may hold what the record
    /// does not show yet.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn oldest_open_grant(&self) -> Result<Option<Timestamp>, LedgerError> {
        let oldest: Option<i64> =
            sqlx::query_scalar("SELECT MIN(created_at) FROM intent WHERE completed_at IS NULL AND kind = 'grant'")
                .fetch_one(&self.pool)
                .await?;
        oldest
            .map(|ms| instant(ms, || "the oldest open intent".to_owned()))
            .transpose()
    }
}

/// Duty without access that is in no sum yet.
pub(super) async fn uncounted_unheld(connection: &mut SqliteConnection) -> Result<Vec<Unheld>, LedgerError> {
    let rows = sqlx::query(concat!(
        unheld_with_access!(),
        " WHERE u.id IN (SELECT id FROM uncounted_unheld) ORDER BY u.id, a.id"
    ))
    .fetch_all(connection)
    .await?;
    assemble(rows)
}

/// The first of it, as far as it was over at `until`; `limit` of them at most.
pub(super) async fn uncounted_unheld_until(
    connection: &mut SqliteConnection,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<Unheld>, LedgerError> {
    let rows = sqlx::query(concat!(
        unheld_with_access!(),
        " WHERE u.id IN (SELECT n.id FROM uncounted_unheld n JOIN unheld o ON o.id = n.id WHERE o.ended_at <= ? \
         ORDER BY n.id LIMIT ?) ORDER BY u.id, a.id"
    ))
    .bind(until.as_millisecond())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    assemble(rows)
}

/// Rows of one entry stand together.
fn assemble(rows: Vec<SqliteRow>) -> Result<Vec<Unheld>, LedgerError> {
    let mut found: Vec<Unheld> = Vec::new();
    for row in rows {
        let id: i64 = row.try_get(0)?;
        let what = || format!("duty without access {id}");
        let at = |ms: i64| instant(ms, what);
        if found.last().is_none_or(|last| last.id != id) {
            let end: i64 = row.try_get(4)?;
            // The end of time has more digits than a millisecond.
            let end = if end < Timestamp::MAX.as_millisecond() {
                at(end)?
            } else {
                Timestamp::MAX
            };
            let duty = Interval::new(at(row.try_get(3)?)?, end);
            found.push(Unheld {
                id,
                entitlement: parse(row.try_get::<String, _>(1)?, what)?,
                person: parse(row.try_get::<String, _>(2)?, what)?,
                duty: duty.ok_or_else(|| LedgerError::Damaged { what: what() })?,
                why: row.try_get(5)?,
                ended_at: row.try_get::<Option<i64>, _>(6)?.map(at).transpose()?,
                held: Vec::new(),
            });
        }
        if let (Some(granted), Some(unheld)) = (row.try_get::<Option<i64>, _>(7)?, found.last_mut()) {
            let revoked = row.try_get::<Option<i64>, _>(8)?.map(at).transpose()?;
            unheld
                .held
                .extend(Interval::new(at(granted)?, revoked.unwrap_or(Timestamp::MAX)));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::accounting::fixtures::{id, person, span, t};
    use crate::accounting::{length, uncovered};

    async fn ledger(dir: &TempDir) -> Ledger {
        let path = dir.path().join("ledger.sqlite");
        Ledger::open(&path, "test", t(0)).await.unwrap()
    }

    fn alice(from: i64, to: i64, why: &str) -> OnDuty {
        OnDuty {
            entitlement: id("payments/admin"),
            person: person("alice@example.com"),
            duty: span(from, to),
            why: why.to_owned(),
        }
    }

    async fn seconds(ledger: &Ledger, now: i64) -> Vec<(String, i64)> {
        let entries = ledger.unheld_in(Interval::ALWAYS).await.unwrap();
        entries
            .iter()
            .map(|unheld| (unheld.why.clone(), length(uncovered(unheld, t(now))).as_secs()))
            .collect()
    }

    #[tokio::test]
    async fn duty_counts_from_its_beginning_whenever_a_pass_notices_it() {
        let dir = TempDir::new().unwrap();
        let ledger = ledger(&dir).await;
        let granting = |s: i64| ("granting".to_owned(), s);
        ledger.note_unheld(&[], true, t(0)).await.unwrap();
        for now in [1060, 1120, 1180] {
            ledger
                .note_unheld(&[alice(1000, 5000, "granting")], false, t(now))
                .await
                .unwrap();
        }
        assert_eq!(
            seconds(&ledger, 1200).await,
            [granting(200)],
            "one entry, however many passes"
        );
        ledger.note_unheld(&[], false, t(1300)).await.unwrap();
        assert_eq!(seconds(&ledger, 9000).await, [granting(300)]);
        // Away and back: by the schedule's last word it was duty all along.
        ledger
            .note_unheld(&[alice(1000, 5000, "granting")], false, t(2000))
            .await
            .unwrap();
        ledger.note_unheld(&[], false, t(2010)).await.unwrap();
        assert_eq!(seconds(&ledger, 9000).await, [granting(300), granting(710)]);
    }

    #[tokio::test]
    async fn a_new_policy_does_not_judge_the_time_before_it() {
        let dir = TempDir::new().unwrap();
        let ledger = ledger(&dir).await;
        ledger
            .note_unheld(&[alice(1000, 5000, "granting")], true, t(3000))
            .await
            .unwrap();
        let always = OnDuty {
            duty: Interval::ALWAYS,
            person: person("bob@example.com"),
            ..alice(0, 1, "barred")
        };
        ledger
            .note_unheld(&[alice(1000, 5000, "granting"), always], false, t(3100))
            .await
            .unwrap();
        assert_eq!(
            seconds(&ledger, 3200).await,
            [("granting".to_owned(), 200), ("barred".to_owned(), 100)]
        );
    }

    #[tokio::test]
    async fn another_reason_or_the_next_shift_goes_on_where_the_last_ended() {
        let dir = TempDir::new().unwrap();
        let ledger = ledger(&dir).await;
        ledger
            .note_unheld(&[alice(1000, 2000, "granting")], false, t(1001))
            .await
            .unwrap();
        ledger
            .note_unheld(&[alice(1000, 2000, "held_by_pause")], false, t(1500))
            .await
            .unwrap();
        ledger
            .note_unheld(&[alice(2000, 3000, "held_by_pause")], false, t(2003))
            .await
            .unwrap();
        let expected = [("granting", 500), ("held_by_pause", 500), ("held_by_pause", 1000)];
        assert_eq!(
            seconds(&ledger, 9000).await,
            expected.map(|(why, s)| (why.to_owned(), s))
        );
    }

    #[tokio::test]
    async fn session_durations_are_noted_once_for_each_change() {
        let dir = TempDir::new().unwrap();
        let ledger = ledger(&dir).await;
        let found = |hours| BTreeMap::from([("arn:ps".to_owned(), SignedDuration::from_hours(hours))]);
        for (hours, now) in [(1, 0), (1, 10), (4, 20), (4, 30), (1, 40)] {
            ledger.note_sessions(&found(hours), t(now)).await.unwrap();
        }
        let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM session_length")
            .fetch_one(&ledger.pool)
            .await
            .unwrap();
        assert_eq!(rows, 3);
        assert_eq!(
            ledger.sessions().await.unwrap().newest("arn:ps"),
            Some(SignedDuration::from_hours(1))
        );
    }
}
