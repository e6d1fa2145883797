//! Stored snapshots: every content that a schedule was seen to have, and which of them counts as known in advance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::written::shared;
use super::{Failures, write_json};
use crate::along::Along;
use crate::desired::Snapshots;
use crate::model::{Interval, ScheduleKey, Snapshot};
use crate::schedule::ReadError;

/// How long replaced contents are kept.
pub(super) const KEPT: SignedDuration = SignedDuration::from_hours(3 * 24);
/// How often a read that brought nothing new is written down, for the age of what is stored after a restart.
const NOTED_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// All stored contents in memory, as the ledger has them.
#[derive(Debug, Clone, Default)]
pub struct StoredSnapshots {
    pub(super) versions: BTreeMap<ScheduleKey, Arc<Vec<Version>>>,
    pub(super) failures: Failures,
    /// How many contents were taken in since the start.
    edition: u64,
}

/// One content of a schedule.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) first_read_at: Timestamp,
    pub(super) content: String,
    /// The last read that the ledger knows of.
    pub(super) noted_at: Timestamp,
    /// Its `read_at` is that of the last read that found this content.
    pub(super) snapshot: Arc<Snapshot>,
}

/// Why a schedule cannot be read at present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadFailure {
    /// The first failed read in a row.
    pub since: Timestamp,
    /// [`crate::schedule::ReadErrorKind`] as a word.
    pub kind: String,
    /// What happened and what to do.
    pub message: String,
}

/// What a complete read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Nothing: a newer read was there already.
    Late,
    /// The content known before, which the ledger knows to be current.
    Same,
    /// The content known before, whose age the ledger should note.
    Confirmed,
    /// Another content.
    Changed,
}

/// What schedules say at one instant.
#[derive(Debug)]
pub struct KnownSchedules<'a> {
    /// The instant.
    pub at: Timestamp,
    /// Everything that is stored of them.
    pub stored: &'a StoredSnapshots,
    /// Which they are.
    pub schedules: BTreeSet<ScheduleKey>,
    /// Their last complete reads.
    pub newest: Arc<Snapshots>,
    /// What counts as known in advance; see [`StoredSnapshots::settled`].
    pub settled: Snapshots,
}

impl StoredSnapshots {
    /// What these schedules say at `at`, where what is known for `notice` counts as known in advance.
    #[must_use]
    pub fn known_at(
        &self,
        schedules: BTreeSet<ScheduleKey>,
        at: Timestamp,
        notice: SignedDuration,
    ) -> KnownSchedules<'_> {
        KnownSchedules {
            at,
            stored: self,
            newest: Arc::new(self.newest(&schedules)),
            settled: self.settled(&schedules, at, notice),
            schedules,
        }
    }

    /// The last complete read of each of these schedules.
    #[must_use]
    pub fn newest(&self, wanted: &BTreeSet<ScheduleKey>) -> Snapshots {
        let mut versions = Along::new(&self.versions);
        let newest = wanted.iter().filter_map(|key| Some((key, versions.find(key)?.last()?)));
        newest.map(|(key, v)| (key.clone(), v.snapshot.clone())).collect()
    }

    /// The last complete read of every schedule.
    #[must_use]
    pub fn all_newest(&self) -> Snapshots {
        let newest = self
            .versions
            .iter()
            .filter_map(|(key, v)| Some((key.clone(), v.last()?.snapshot.clone())));
        newest.collect()
    }

    /// Grows whenever a schedule turns out to have another content.
    #[must_use]
    pub fn edition(&self) -> u64 {
        self.edition
    }

    /// When any schedule was last read completely.
    #[must_use]
    pub fn last_read(&self) -> Option<Timestamp> {
        let newest = self.versions.values().filter_map(|versions| versions.last());
        newest.map(|v| v.snapshot.read_at).max()
    }

    /// The newest content of each of these schedules in which somebody is on call at or after `at`.
    #[must_use]
    pub fn last_with_turns(&self, wanted: &BTreeSet<ScheduleKey>, at: Timestamp) -> Snapshots {
        let ahead = |v: &&Version| v.snapshot.shifts.iter().any(|shift| at < shift.interval.end());
        let last = |key: &ScheduleKey| self.versions.get(key)?.iter().rev().find(ahead);
        let known = wanted
            .iter()
            .filter_map(|key| Some((key.clone(), last(key)?.snapshot.clone())));
        known.collect()
    }

    /// What was known of every schedule `notice` before `at`: the content in force then, if reads went on finding it for
    /// as long, because a single read, before an outage or a long poll, confirms nothing. Where a schedule was first read
    /// later than that, its first content counts, because nothing before it could contradict it.
    #[must_use]
    pub fn settled(&self, wanted: &BTreeSet<ScheduleKey>, at: Timestamp, notice: SignedDuration) -> Snapshots {
        let known_since = at.checked_sub(notice).unwrap_or(Timestamp::MIN);
        let mut settled = Vec::new();
        let mut all = Along::new(&self.versions);
        for key in wanted {
            let Some(versions) = all.find(key) else {
                continue;
            };
            let in_force = versions
                .iter()
                .rev()
                .find(|v| {
                    v.first_read_at <= known_since && notice <= v.first_read_at.duration_until(v.snapshot.read_at)
                })
                .or(versions.first());
            let known = match (in_force, versions.last()) {
                (Some(v), _) if v.snapshot.window.contains(at) => v.snapshot.clone(),
                // What was known reaches no further; whoever was on duty at its edge was not known to end there.
                (Some(v), Some(last)) if v.snapshot.window.end() <= at && v.content != last.content => {
                    Arc::new(continued(&v.snapshot, last.snapshot.window))
                }
                (_, Some(last)) => last.snapshot.clone(),
                (_, None) => continue,
            };
            settled.push((key.clone(), known));
        }
        // A map is built from what is sorted in one go.
        settled.into_iter().collect()
    }

    /// Schedules that within `notice` went back more than once to something that they had said before, and have not said
    /// the same for `notice` since: their provider answers now from one copy and now from another, and which one is right
    /// is not known. Once is an override that was taken back.
    #[must_use]
    pub fn unsteady(
        &self,
        wanted: &BTreeSet<ScheduleKey>,
        at: Timestamp,
        notice: SignedDuration,
    ) -> BTreeSet<ScheduleKey> {
        let is_unsteady = |versions: &[Version]| {
            let lately = |version: &Version| version.first_read_at.duration_until(at) < notice;
            let Some(last) = versions.last().filter(|version| lately(version)) else {
                return false;
            };
            let since = last.first_read_at.checked_sub(notice).unwrap_or(Timestamp::MIN);
            let returns = versions.iter().enumerate().filter(|(place, version)| {
                let said_before = || versions[..*place].iter().any(|v| v.content == version.content);
                since < version.first_read_at && said_before()
            });
            1 < returns.count()
        };
        let unsteady = self.versions.iter().filter(|(_, versions)| is_unsteady(versions));
        unsteady
            .map(|(key, _)| key)
            .filter(|key| wanted.contains(*key))
            .cloned()
            .collect()
    }

    /// Takes in a complete read at `now`.
    pub fn accept(&mut self, snapshot: Snapshot, now: Timestamp) -> Accepted {
        let accepted = self.judge(&snapshot, now);
        self.take(snapshot, accepted, now);
        accepted
    }

    /// What a complete read brings. A snapshot whose read began before that of the newest one is late and brings nothing,
    /// unless the newest claims to be of a time that has not come: then the clock was wrong when it was read.
    pub(super) fn judge(&self, snapshot: &Snapshot, now: Timestamp) -> Accepted {
        match self
            .versions
            .get(&snapshot.schedule)
            .and_then(|versions| versions.last())
        {
            Some(newest) if snapshot.read_at < newest.snapshot.read_at && newest.snapshot.read_at <= now => {
                Accepted::Late
            }
            Some(newest) if newest.content == content_of(snapshot) && newest.snapshot.read_at <= now => {
                let unnoted = newest.noted_at.duration_until(snapshot.read_at);
                if NOTED_EVERY <= unnoted {
                    Accepted::Confirmed
                } else {
                    Accepted::Same
                }
            }
            _ => Accepted::Changed,
        }
    }

    pub(super) fn take(&mut self, mut snapshot: Snapshot, accepted: Accepted, now: Timestamp) {
        self.failures.remove(&snapshot.schedule);
        let read_at = snapshot.read_at;
        let versions = Arc::make_mut(self.versions.entry(snapshot.schedule.clone()).or_default());
        if let Some(newest) = versions.last() {
            share_users(&mut snapshot, &newest.snapshot);
        }
        let snapshot = Arc::new(snapshot);
        match (accepted, versions.last_mut()) {
            (Accepted::Late, _) => {}
            (Accepted::Same | Accepted::Confirmed, Some(newest)) => {
                if accepted == Accepted::Confirmed {
                    newest.noted_at = read_at;
                }
                newest.snapshot = snapshot;
            }
            _ => {
                let old = read_at.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
                // What was known last stays, however long nothing could be read: a surprise is measured against it.
                let last = versions.len().saturating_sub(1);
                let mut place = 0..;
                versions.retain(|v| {
                    let is_last = place.next() == Some(last);
                    (is_last || old <= v.snapshot.read_at) && v.snapshot.read_at <= now
                });
                self.edition += 1;
                versions.push(Version {
                    first_read_at: read_at,
                    content: content_of(&snapshot),
                    noted_at: read_at,
                    snapshot,
                });
            }
        }
    }

    /// Takes in a failed read. Returns whether it says something new.
    pub fn fail(&mut self, error: &ReadError, now: Timestamp) -> bool {
        let failure = ReadFailure {
            since: self.failures.get(&error.schedule).map_or(now, |f| f.since),
            kind: error.kind.as_str().to_owned(),
            message: error.message.clone(),
        };
        self.failures.insert(error.schedule.clone(), failure.clone()) != Some(failure)
    }

    /// Schedules whose last read failed.
    #[must_use]
    pub fn failures(&self) -> &Failures {
        &self.failures
    }
}

/// Keeps one copy of each user whom the read before named likewise: most contents of a schedule are about the same people.
fn share_users(snapshot: &mut Snapshot, before: &Snapshot) {
    let mut known = before.shifts.iter().map(|shift| Arc::clone(&shift.user)).collect();
    for shift in &mut snapshot.shifts {
        shift.user = shared(&shift.user, &mut known);
    }
}

/// The snapshot with turns whose end it did not reach going on through `window`.
fn continued(snapshot: &Snapshot, window: Interval) -> Snapshot {
    let mut continued = snapshot.clone();
    for shift in continued.shifts.iter_mut().filter(|shift| !shift.end_known) {
        shift.interval = Interval::new(shift.interval.start(), window.end()).unwrap_or(shift.interval);
    }
    continued.window = Interval::new(snapshot.window.start(), window.end()).unwrap_or(snapshot.window);
    continued
}

/// Identifies what the provider said, whenever it was read.
pub(super) fn content_of(snapshot: &Snapshot) -> String {
    let hash = Sha256::digest(write_json(&(&snapshot.shifts, &snapshot.notices)).as_bytes());
    hash.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ScheduleKind, Shift, SourceName, SourceUser, SourceUserState};

    fn shift(user: &str, interval: Interval) -> Shift {
        Shift {
            interval,
            start_known: true,
            end_known: true,
            user: SourceUser {
                id: user.into(),
                name: None,
                email: None,
                state: SourceUserState::Active,
            }
            .into(),
            level: None,
            permanent: false,
            via_override: None,
        }
    }

    #[test]
    fn a_schedule_that_goes_back_and_forth_is_unsteady_until_it_says_the_same_for_the_notice_period() {
        let t = |minute: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
        let key = ScheduleKey {
            source: SourceName("pagerduty".into()),
            kind: ScheduleKind::Schedule,
            id: "P1".into(),
        };
        let wanted = BTreeSet::from([key.clone()]);
        let notice = SignedDuration::from_mins(15);
        let mut stored = StoredSnapshots::default();
        let mut unsteady = Vec::new();
        for (minute, who) in [
            (0, "a"),
            (100, "b"),
            (101, "a"),
            (102, "a"),
            (103, "b"),
            (104, "b"),
            (110, "b"),
        ] {
            let shift = shift(who, Interval::new(t(-60), t(10_000)).unwrap());
            let snapshot = Snapshot {
                schedule: key.clone(),
                read_at: t(minute),
                window: shift.interval,
                shifts: vec![shift],
                notices: Vec::new(),
                clock_offset_ms: None,
            };
            stored.accept(snapshot, t(minute));
            unsteady.push(!stored.unsteady(&wanted, t(minute), notice).is_empty());
        }
        // An override that is taken back is one return.
        assert_eq!(unsteady, [false, false, false, false, true, true, true]);
        assert!(!stored.unsteady(&wanted, t(117), notice).is_empty());
        assert!(stored.unsteady(&wanted, t(118), notice).is_empty());
    }

    #[test]
    fn a_schedule_that_was_empty_once_before_an_outage_does_not_count_as_settled() {
        let t = |minute: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
        let window = Interval::new(t(-60), t(10_000)).unwrap();
        let shift = shift("U1", window);
        let schedule = ScheduleKey {
            source: SourceName("s".into()),
            kind: ScheduleKind::Schedule,
            id: "A".into(),
        };
        let wanted = BTreeSet::from([schedule.clone()]);
        let read = |minute, shifts: &[Shift]| Snapshot {
            schedule: schedule.clone(),
            read_at: t(minute),
            window,
            shifts: shifts.to_vec(),
            notices: Vec::new(),
            clock_offset_ms: None,
        };
        let mut stored = StoredSnapshots::default();
        let on_duty = |stored: &StoredSnapshots, minute| {
            let notice = SignedDuration::from_mins(15);
            stored.settled(&wanted, t(minute), notice)[&schedule].shifts.len()
        };
        stored.accept(read(0, std::slice::from_ref(&shift)), t(0));
        stored.accept(read(60, std::slice::from_ref(&shift)), t(60));
        stored.accept(read(61, &[]), t(61));
        assert_eq!(on_duty(&stored, 90), 1, "nothing was read since");
        stored.accept(read(80, &[]), t(80));
        assert_eq!(on_duty(&stored, 90), 0, "it has been found again for the notice period");
    }

    #[test]
    fn contents_of_a_schedule_name_each_user_once() {
        let t = |minute: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
        let schedule = ScheduleKey {
            source: SourceName("s".into()),
            kind: ScheduleKind::Schedule,
            id: "A".into(),
        };
        let read = |minute: i64, users: &[&str]| Snapshot {
            schedule: schedule.clone(),
            read_at: t(minute),
            window: Interval::new(t(0), t(100)).unwrap(),
            shifts: users
                .iter()
                .map(|user| shift(user, Interval::new(t(minute), t(100)).unwrap()))
                .collect(),
            notices: Vec::new(),
            clock_offset_ms: None,
        };
        let mut stored = StoredSnapshots::default();
        stored.accept(read(0, &["U1", "U2"]), t(0));
        stored.accept(read(1, &["U2", "U3", "U3"]), t(1));
        let users = stored.versions[&schedule].iter().flat_map(|v| &v.snapshot.shifts);
        let users: Vec<_> = users.map(|shift| &shift.user).collect();
        let named: BTreeSet<_> = users.iter().map(|user| user.id.as_str()).collect();
        let kept: BTreeSet<_> = users.iter().map(|user| Arc::as_ptr(user)).collect();
        assert_eq!((users.len(), named.len(), kept.len()), (5, 3, 3));
    }

    /// Found by an adversary: what was known before an outage longer than replaced contents are kept was dropped, so that
    /// the first answer after it, empty as it was, counted as known all along.
    #[test]
    fn after_an_outage_of_any_length_a_change_is_measured_against_what_was_known_before() {
        let t = |hour: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour);
        let schedule = ScheduleKey {
            source: SourceName("s".into()),
            kind: ScheduleKind::Schedule,
            id: "A".into(),
        };
        let window = |hour: i64| Interval::new(t(hour), t(hour + 48)).unwrap();
        let shift = |interval| Shift {
            interval,
            start_known: true,
            end_known: false,
            user: SourceUser {
                id: "U1".into(),
                name: None,
                email: None,
                state: SourceUserState::Active,
            }
            .into(),
            level: None,
            permanent: false,
            via_override: None,
        };
        let read = |hour, shifts: Vec<Shift>| Snapshot {
            schedule: schedule.clone(),
            read_at: t(hour),
            window: window(hour),
            shifts,
            notices: Vec::new(),
            clock_offset_ms: None,
        };
        let mut stored = StoredSnapshots::default();
        stored.accept(read(0, vec![shift(window(0))]), t(0));
        stored.accept(read(1, vec![shift(window(0))]), t(1));
        stored.accept(read(200, vec![]), t(200));
        let wanted = BTreeSet::from([schedule.clone()]);
        let settled = stored.settled(&wanted, t(200), SignedDuration::from_mins(15));
        let on_duty = settled[&schedule].shifts.iter().filter(|s| s.interval.contains(t(200)));
        assert_eq!(on_duty.count(), 1);
    }
}
