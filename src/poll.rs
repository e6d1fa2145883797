//! Reads schedules from every source, each at its own pace, so that a slow or broken one keeps nobody else waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::http::Health;
use crate::ledger::{Accepted, Ledger, StoredSnapshots};
use crate::model::{Interval, ScheduleKey, Snapshot, SourceName};
use crate::schedule::{ReadError, ReadErrorKind, Source};
use crate::text::clean;

/// How long before a known hand-off its schedule is read once more.
const BEFORE_EDGES: SignedDuration = SignedDuration::from_secs(10);
/// How soon a schedule whose read failed is read again; twice as late after every further failure, up to the poll.
const AFTER_FAILURE: SignedDuration = SignedDuration::from_secs(10);
/// The longest sleep, so that a resumed host reads soon whatever its clocks say.
const LONGEST_SLEEP: SignedDuration = SignedDuration::from_secs(30);

/// The configured sources by name.
pub type Sources = BTreeMap<SourceName, Arc<dyn Source>>;

/// The span that a read at `at` asks about: whole days, so that a schedule's content changes once a day by the passing
/// of time and otherwise only by edits. It begins the day before, because access lingers for up to 24 hours after a turn
/// that has ended.
///
/// It begins at `back_to` where that is earlier, to learn of a time that is not on record:
/// [`Ledger::reads_back_to`].
#[must_use]
pub fn window(at: Timestamp, horizon: SignedDuration, back_to: Option<Timestamp>) -> Interval {
    let day = SignedDuration::from_hours(24);
    let midnight = at
        .to_zoned(TimeZone::UTC)
        .start_of_day()
        .map_or(at, |day| day.timestamp());
    let end = midnight
        .checked_add(horizon)
        .and_then(|t| t.checked_add(day))
        .unwrap_or(Timestamp::MAX);
    let start = midnight.checked_sub(day).unwrap_or(Timestamp::MIN);
    let start = back_to.map_or(start, |back_to| start.min(back_to));
    Interval::new(start, end).unwrap_or(Interval::ALWAYS)
}

/// Reads every schedule once: sources beside each other, the schedules of one source after each other.
pub async fn read_all(
    sources: &Sources,
    schedules: &BTreeSet<ScheduleKey>,
    window: Interval,
) -> Vec<Result<Snapshot, ReadError>> {
    let mut reads = JoinSet::new();
    let mut results = Vec::new();
    for (name, keys) in by_source(schedules) {
        match sources.get(&name).cloned() {
            Some(source) => {
                reads.spawn(async move {
                    let mut results = Vec::new();
                    for key in keys {
                        results.push(source.read(&key, window).await);
                    }
                    results
                });
            }
            None => results.extend(keys.into_iter().map(|key| Err(unknown_source(key)))),
        }
    }
    while let Some(read) = reads.join_next().await {
        match read {
            Ok(read) => results.extend(read),
            Err(error) => tracing::error!(%error, "a read of schedules broke off"),
        }
    }
    results
}

fn by_source(schedules: &BTreeSet<ScheduleKey>) -> BTreeMap<SourceName, Vec<ScheduleKey>> {
    let mut map: BTreeMap<SourceName, Vec<ScheduleKey>> = BTreeMap::new();
    for key in schedules {
        map.entry(key.source.clone()).or_default().push(key.clone());
    }
    map
}

fn unknown_source(schedule: ScheduleKey) -> ReadError {
    ReadError {
        message: format!(
            "no source {:?} is configured since the daemon started; restart it after adding one",
            schedule.source.0
        ),
        kind: ReadErrorKind::Rejected,
        schedule,
    }
}

/// Keeps the stored snapshots current in the background.
pub struct Poller {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where the snapshots are stored.
    pub ledger: Ledger,
    /// What passes plan from.
    pub snapshots: Arc<Mutex<StoredSnapshots>>,
    /// Told when a content changed and at the end of every round.
    pub news: Arc<Notify>,
    /// What is to be read at present.
    pub wanted: watch::Receiver<Wanted>,
    /// Told when a source has been tried completely.
    pub health: Arc<Health>,
}

/// What pollers read and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The schedules that rules name.
    pub schedules: BTreeSet<ScheduleKey>,
    /// Time between reads.
    pub poll: SignedDuration,
    /// How far ahead.
    pub horizon: SignedDuration,
}

impl Poller {
    /// Reads the schedules of one source for ever: each once per poll, and once more just before a turn begins or ends
    /// there. The one that has waited longest comes first, so that a new one is read at once.
    pub async fn run(mut self, source: Arc<dyn Source>) {
        let mut due: BTreeMap<ScheduleKey, Timestamp> = BTreeMap::new();
        let mut unstored = None;
        let mut failures: BTreeMap<ScheduleKey, u32> = BTreeMap::new();
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            due.retain(|key, _| wanted.schedules.contains(key));
            failures.retain(|key, _| wanted.schedules.contains(key));
            for key in wanted.schedules.iter().filter(|key| key.source == *source.name()) {
                due.entry(key.clone()).or_insert(Timestamp::MIN);
            }
            let now = self.clock.now();
            let next = due.iter().min_by_key(|(_, t)| **t).map(|(key, t)| (key.clone(), *t));
            if let Some((key, _)) = next.as_ref().filter(|(_, t)| *t <= now) {
                let result = source
                    .read(key, window(now, wanted.horizon, self.ledger.reads_back_to()))
                    .await;
                let poll = if result.is_ok() {
                    failures.remove(key);
                    wanted.poll
                } else {
                    let before = failures.entry(key.clone()).or_default();
                    let soon = AFTER_FAILURE.saturating_mul(1 << (*before).min(12));
                    *before = before.saturating_add(1);
                    wanted.poll.min(soon)
                };
                self.take(result, &mut unstored).await;
                due.insert(key.clone(), self.next_read(key, now, poll).await);
                if due.values().all(|t| now < *t) {
                    self.health.source_read(source.name());
                    self.news.notify_one();
                }
                continue;
            }
            self.health.source_read(source.name());
            let left = next.map_or(LONGEST_SLEEP, |(_, t)| now.duration_until(t).min(LONGEST_SLEEP));
            tokio::select! {
                () = self.clock.sleep(Duration::try_from(left).unwrap_or_default()) => {}
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// When a schedule that was read at `began` is read again: after the poll, or shortly before the next turn begins or
    /// ends, so that an override made in the last minute counts from its first second.
    async fn next_read(&self, key: &ScheduleKey, began: Timestamp, poll: SignedDuration) -> Timestamp {
        let next = began.saturating_add(poll).unwrap_or(began);
        let Some(snapshot) = self
            .snapshots
            .lock()
            .await
            .newest(&BTreeSet::from([key.clone()]))
            .remove(key)
        else {
            return next;
        };
        let edges = snapshot
            .shifts
            .iter()
            .flat_map(|shift| [shift.interval.start(), shift.interval.end()]);
        let before = edges.flat_map(|edge| edge.checked_sub(BEFORE_EDGES));
        let soon = before.filter(|t| BEFORE_EDGES < began.duration_until(*t)).min();
        soon.map_or(next, |t| t.min(next))
    }

    /// Takes in a read. `unstored` is why the one before could not be stored, which is said once.
    async fn take(&self, result: Result<Snapshot, ReadError>, unstored: &mut Option<String>) {
        let mut stored = self.snapshots.lock().await;
        let written = match result {
            Ok(snapshot) => {
                let schedule = snapshot.schedule.clone();
                let recovered = stored.failures().contains_key(&schedule);
                let accepted = self
                    .ledger
                    .store_snapshot(&mut stored, snapshot, self.clock.now())
                    .await;
                if recovered {
                    tracing::info!(%schedule, "can be read again");
                }
                accepted.map(|a| a == Accepted::Changed)
            }
            Err(error) => {
                let news = self.ledger.store_failure(&mut stored, &error, self.clock.now()).await;
                if let Ok(true) = news {
                    tracing::warn!(
                        schedule = %error.schedule, kind = error.kind.as_str(), reason = %clean(&error.message),
                        "cannot read the schedule; the stored snapshot stands in"
                    );
                }
                news
            }
        };
        drop(stored);
        if let Ok(true) = written {
            self.news.notify_one();
        }
        let trouble = written.err().map(|error| clean(&crate::chain(&error)));
        if let Some(error) = trouble.as_ref().filter(|_| *unstored != trouble) {
            tracing::error!(%error, "a read could not be stored; it is tried again at every poll");
        }
        *unstored = trouble;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by simulation: a turn that ended just before midnight, with linger beyond it, fell out of the window.
    #[test]
    fn a_read_reaches_back_over_the_longest_linger() {
        let at: Timestamp = "2026-03-02T00:00:05Z".parse().unwrap();
        let horizon = SignedDuration::from_hours(14 * 24);
        let window = window(at, horizon, None);
        assert!(window.start() <= at - SignedDuration::from_hours(24));
        assert!(at + horizon <= window.end());
    }
}
