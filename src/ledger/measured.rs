//! What the measure of access time needs besides access: notes who is on duty without it, and how long role sessions live.

use std::collections::BTreeMap;

use foldhash::HashMap;
use jiff::{SignedDuration, Timestamp};
use smol_str::SmolStr;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Ledger, LedgerError, digest, instant, write_json};
use crate::accounting::Sessions;
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
    pub why: SmolStr,
}

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
            why: why.into(),
        }
    }

    async fn seconds(ledger: &Ledger, now: i64) -> Vec<(String, i64)> {
        let entries = ledger.unheld_in(Interval::ALWAYS).await.unwrap();
        entries
            .iter()
            .map(|unheld| (unheld.why.to_string(), length(uncovered(unheld, t(now))).as_secs()))
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
