//! Who changed a schedule: what the stored reads newly show, and what was found out about it, as notes of the chain.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::json;
use sqlx::Row;

use super::chain::note;
use super::snapshots::Version;
use super::{Ledger, LedgerError, StoredSnapshots, read_json, write_json};
use crate::model::{Attribution, Interval, NewTurn, ScheduleKey, Sighting, spans};

/// As the chain calls it.
const KIND: &str = "schedule_change_attributed";
/// An edit of a rotation may bring any number of turns; so many are enough to find it by.
const MOST_TURNS: usize = 200;

impl StoredSnapshots {
    /// Every stored read that shows somebody newly on duty, in order of time for each schedule. What a read shows beyond
    /// the span of the one before is not new: the day went on.
    ///
    /// `looked` has, for each schedule, the content that was looked at last, by its first read; it is brought up to date.
    #[must_use]
    pub fn sightings(&self, looked: &mut BTreeMap<ScheduleKey, Timestamp>) -> Vec<Sighting> {
        let mut found = Vec::new();
        for (schedule, versions) in &self.versions {
            let Some(newest) = versions.last() else { continue };
            let before = looked.insert(schedule.clone(), newest.first_read_at);
            // Where that content is not kept any more, or the clock was set back, all are looked at again.
            let from = before.and_then(|before| versions.iter().position(|v| v.first_read_at == before));
            for pair in versions.get(from.unwrap_or(0)..).unwrap_or_default().windows(2) {
                if let [before, after] = pair {
                    found.extend(sighting(schedule, before, after));
                }
            }
        }
        found
    }
}

fn sighting(schedule: &ScheduleKey, before: &Version, after: &Version) -> Option<Sighting> {
    let mut turns = Vec::new();
    for shift in &after.snapshot.shifts {
        let Some(comparable) = shift.interval.intersect(&before.snapshot.window) else {
            continue;
        };
        let known = before.snapshot.shifts.iter().filter(|s| s.user.id == shift.user.id);
        let known: Vec<Interval> = known.map(|s| s.interval).collect();
        turns.extend(spans::without(&[comparable], &known).into_iter().map(|duty| NewTurn {
            user_id: shift.user.id.clone(),
            duty,
            via_override: shift.via_override.clone(),
        }));
    }
    turns.truncate(MOST_TURNS);
    (!turns.is_empty()).then(|| Sighting {
        schedule: schedule.clone(),
        unseen_at: as_stored(before.snapshot.read_at.min(after.first_read_at)),
        seen_at: as_stored(after.first_read_at),
        turns,
    })
}

/// As the ledger has it, so that a sighting is the same one after a restart.
fn as_stored(t: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(t.as_millisecond()).unwrap_or(t)
}

impl Ledger {
    /// Records what was found out about a sighting.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn attribute(&self, attribution: &Attribution, now: Timestamp) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        note(&mut tx, KIND, &json!(attribution)).await?;
        self.commit(tx, now).await
    }

    /// What was found out, of these schedules, and recorded at or after `since`; in the order in which it was recorded.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn attributions(
        &self,
        schedules: &BTreeSet<ScheduleKey>,
        since: Timestamp,
    ) -> Result<Vec<Attribution>, LedgerError> {
        if !self.has_chain().await? {
            return Ok(Vec::new());
        }
        // Written as it stands in the body, where keys are in order.
        let wanted: Vec<String> = schedules.iter().map(|key| json!(key).to_string()).collect();
        // Notes have no row of a table, by which the index finds them among all events.
        let rows = sqlx::query(
            "SELECT seq, body FROM event WHERE tbl = '' AND row IS NULL AND kind = ?1 AND ?2 <= at \
             AND json_extract(body, '$.schedule') IN (SELECT value FROM json_each(?3)) ORDER BY seq",
        )
        .bind(KIND)
        .bind(since.as_millisecond())
        .bind(write_json(&wanted))
        .fetch_all(&self.pool)
        .await?;
        let mut found = Vec::new();
        for row in rows {
            let seq: i64 = row.try_get(0)?;
            found.push(read_json(row.try_get(1)?, || format!("event {seq}"))?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::model::{ScheduleKind, Shift, Snapshot, SourceName, SourceUser, SourceUserState};

    fn t(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn span(from: i64, to: i64) -> Interval {
        Interval::new(t(from), t(to)).unwrap()
    }

    fn read(read_at: i64, window: Interval, turns: &[(&str, Interval, Option<&str>)]) -> Snapshot {
        Snapshot {
            schedule: ScheduleKey {
                source: SourceName("pagerduty".into()),
                kind: ScheduleKind::Schedule,
                id: "PABC123".into(),
            },
            read_at: t(read_at),
            window,
            shifts: turns
                .iter()
                .map(|(user, interval, via)| Shift {
                    interval: *interval,
                    start_known: true,
                    end_known: true,
                    user: SourceUser {
                        id: (*user).into(),
                        name: None,
                        email: None,
                        state: SourceUserState::Active,
                    }
                    .into(),
                    level: None,
                    permanent: false,
                    via_override: via.map(Into::into),
                })
                .collect(),
            notices: Vec::new(),
            clock_offset_ms: None,
        }
    }

    #[test]
    fn only_duty_that_the_read_before_did_not_have_is_seen_newly() {
        let mut stored = StoredSnapshots::default();
        let first = [("PALICE1", span(0, 100), None)];
        stored.accept(read(10, span(0, 1000), &first), t(10));
        // A day later the window has moved on: what lies beyond the old one was not to be seen.
        let next = [("PALICE1", span(0, 100), None), ("PBOB002", span(1000, 1100), None)];
        stored.accept(read(20, span(0, 2000), &next), t(20));
        let mut looked = BTreeMap::new();
        assert_eq!(stored.sightings(&mut looked), []);
        let edition = stored.edition();
        stored.accept(read(25, span(0, 2000), &next), t(25));
        assert_eq!(stored.edition(), edition, "nothing new was read");
        let overridden = [
            ("PALICE1", span(0, 50), None),
            ("PBOB002", span(50, 100), Some("override")),
            ("PBOB002", span(900, 1100), None),
        ];
        stored.accept(read(30, span(0, 2000), &overridden), t(30));
        let seen = stored.sightings(&mut looked);
        assert_eq!(stored.sightings(&mut looked), [], "it was looked at");
        assert_eq!(stored.sightings(&mut BTreeMap::new()), seen, "after a restart");
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!((seen[0].unseen_at, seen[0].seen_at), (t(25), t(30)));
        let turns: Vec<_> = seen[0]
            .turns
            .iter()
            .map(|turn| (turn.user_id.as_str(), turn.duty, turn.via_override.as_deref()))
            .collect();
        assert_eq!(
            turns,
            [
                ("PBOB002", span(50, 100), Some("override")),
                ("PBOB002", span(900, 1000), None)
            ]
        );
    }

    #[tokio::test]
    async fn what_was_found_out_is_kept_by_the_chain() {
        use crate::model::Authorship;
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.db"), "test", t(1))
            .await
            .unwrap();
        let schedule = read(0, span(0, 1), &[]).schedule;
        let known = Attribution {
            sighting: Sighting {
                schedule: schedule.clone(),
                unseen_at: t(10),
                seen_at: t(20),
                turns: vec![NewTurn {
                    user_id: "PBOB002".into(),
                    duty: span(50, 100),
                    via_override: None,
                }],
            },
            author: Authorship::Unknown("it is a test".to_owned()),
        };
        ledger.attribute(&known, t(30)).await.unwrap();
        let of = |schedule: &ScheduleKey| BTreeSet::from([schedule.clone()]);
        assert_eq!(ledger.attributions(&of(&schedule), t(30)).await.unwrap(), [known]);
        let later = t(30) + SignedDuration::from_secs(1);
        assert_eq!(ledger.attributions(&of(&schedule), later).await.unwrap(), []);
        let other = ScheduleKey {
            id: "POTHER1".into(),
            ..schedule
        };
        assert_eq!(ledger.attributions(&of(&other), t(0)).await.unwrap(), []);
    }
}
