//! Reads schedules from every source, each at its own pace, so that a slow or broken one keeps nobody else waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use tokio::sync::{Mutex, Notify, Semaphore, watch};
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
/// How many schedules of one source are read at once.
const AT_ONCE: usize = 4;
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

/// Reads every schedule once: sources beside each other, and a few schedules of one source.
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
                let places = Arc::new(Semaphore::new(AT_ONCE));
                for key in keys {
                    let (source, places) = (Arc::clone(&source), Arc::clone(&places));
                    reads.spawn(async move {
                        // Nobody closes it; without a place the read would only be made sooner.
                        let _place = places.acquire().await;
                        source.read(&key, window).await
                    });
                }
            }
            None => results.extend(keys.into_iter().map(|key| Err(unknown_source(key)))),
        }
    }
    while let Some(read) = reads.join_next().await {
        match read {
            Ok(read) => results.push(read),
            Err(error) => tracing::error!(%error, "a read of schedules broke off"),
        }
    }
    results
}

/// Reads every schedule once and takes in what was read. Returns what could not be read, and why, in words for people.
pub async fn read_into(
    stored: &mut StoredSnapshots,
    sources: &Sources,
    schedules: &BTreeSet<ScheduleKey>,
    window: Interval,
    now: Timestamp,
) -> Vec<String> {
    let mut unread = Vec::new();
    for read in read_all(sources, schedules, window).await {
        match read {
            Ok(snapshot) => {
                stored.accept(snapshot, now);
            }
            Err(error) => unread.push(error.to_string()),
        }
    }
    unread
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
    /// Told when a content changed, when a read failed and when it succeeds again, and at the end of every round.
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
    /// Whether each read brings a pass, although it shows the same as before; see [`Verdict::waits_for_reads`].
    ///
    /// [`Verdict::waits_for_reads`]: crate::guard::Verdict::waits_for_reads
    pub each_is_news: bool,
}

impl Poller {
    /// Reads the schedules of one source for ever: each once per poll, and once more just before a turn begins or ends
    /// there. The one that has waited longest comes first, so that a new one is read at once; several are read beside each
    /// other, so that one that hangs keeps no other waiting.
    pub async fn run(mut self, source: Arc<dyn Source>) {
        let mut due: BTreeMap<ScheduleKey, Timestamp> = BTreeMap::new();
        let mut unstored = None;
        let mut failures: BTreeMap<ScheduleKey, u32> = BTreeMap::new();
        let mut reads = JoinSet::new();
        let mut under_way: BTreeSet<ScheduleKey> = BTreeSet::new();
        let mut round = Round::default();
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let now = self.clock.now();
            let latest = now.saturating_add(wanted.poll).unwrap_or(Timestamp::MAX);
            due.retain(|key, _| wanted.schedules.contains(key));
            failures.retain(|key, _| wanted.schedules.contains(key));
            for key in wanted.schedules.iter().filter(|key| key.source == *source.name()) {
                // Later than a poll from now means that the clock was set back, or the poll made shorter.
                let at = due.entry(key.clone()).or_insert(Timestamp::MIN);
                *at = latest.min(*at);
            }
            while reads.len() < AT_ONCE {
                let waiting = due.iter().filter(|(key, t)| **t <= now && !under_way.contains(*key));
                let Some(key) = waiting.min_by_key(|(_, t)| **t).map(|(key, _)| key.clone()) else {
                    break;
                };
                under_way.insert(key.clone());
                let (source, window) = (
                    Arc::clone(&source),
                    window(now, wanted.horizon, self.ledger.reads_back_to()),
                );
                reads.spawn(async move {
                    let result = source.read(&key, window).await;
                    (key, now, result)
                });
            }
            // A read that takes longer than the poll is followed by the next one at once, so that some may always be
            // under way; what counts is that each has ended once.
            if due.values().all(|t| Timestamp::MIN < *t) {
                self.health.source_read(source.name());
            }
            let next = due
                .iter()
                .filter(|(key, _)| !under_way.contains(*key))
                .map(|(_, t)| *t)
                .min();
            let left = next.map_or(LONGEST_SLEEP, |t| now.duration_until(t).min(LONGEST_SLEEP));
            // What is due and waits for its place is read when a read ends.
            let left = if AT_ONCE <= reads.len() { LONGEST_SLEEP } else { left };
            tokio::select! {
                Some(ended) = reads.join_next() => {
                    let (key, began, result) = match ended {
                        Ok(ended) => ended,
                        Err(error) => {
                            // Which one it was is not known, so all that are not read at present are due again.
                            tracing::error!(%error, "a read of a schedule broke off");
                            reads.abort_all();
                            while reads.join_next().await.is_some() {}
                            under_way.clear();
                            continue;
                        }
                    };
                    under_way.remove(&key);
                    let poll = if result.is_ok() {
                        failures.remove(&key);
                        wanted.poll
                    } else {
                        let before = failures.entry(key.clone()).or_default();
                        let soon = AFTER_FAILURE.saturating_mul(1 << (*before).min(12));
                        *before = before.saturating_add(1);
                        wanted.poll.min(soon)
                    };
                    self.take(result, &mut unstored, wanted.each_is_news).await;
                    let next = self.next_read(&key, began, poll).await;
                    if round.is_over_with(&key, due.keys()) {
                        self.news.notify_one();
                    }
                    due.insert(key, next);
                }
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

    /// Takes in a read, which brings a pass where it `is_news` or tells something new. `unstored` is why the one before could
    /// not be stored, which is said once.
    async fn take(&self, result: Result<Snapshot, ReadError>, unstored: &mut Option<String>, is_news: bool) {
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
                accepted.map(|a| a == Accepted::Changed || recovered || is_news)
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

/// The reads of all schedules of a source, after which a pass looks at the world however little they brought. Not after each
/// of them as a rule: the reads of thousands are spread over the poll, and a pass costs more than a read.
#[derive(Debug, Default)]
struct Round {
    /// Those read in it.
    read: BTreeSet<ScheduleKey>,
}

impl Round {
    /// Notes that this one was read, and says whether that was the last of `all`; then the next round begins.
    fn is_over_with<'a>(&mut self, key: &ScheduleKey, mut all: impl Iterator<Item = &'a ScheduleKey>) -> bool {
        self.read.insert(key.clone());
        let is_over = all.all(|key| self.read.contains(key));
        if is_over {
            self.read.clear();
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::fixtures::{schedule, snapshots, t};
    use crate::identity_center::tests::SimClock;
    use crate::model::{ScheduleKind, SourceName};
    use crate::schedule::ReadErrorKind;

    #[test]
    fn a_round_is_over_when_each_schedule_was_read() {
        let key = |id: &str| ScheduleKey {
            source: SourceName("pagerduty".into()),
            kind: ScheduleKind::Schedule,
            id: id.into(),
        };
        let mut round = Round::default();
        let all = ["a", "b", "c"].map(key);
        let mut over = |id: &str, all: &[ScheduleKey]| round.is_over_with(&key(id), all.iter());
        let rounds = ["a", "b", "a", "c", "c", "b", "a", "a"].map(|id| over(id, &all));
        assert_eq!(rounds, [false, false, false, true, false, false, true, false]);
        // The policy names one of them no more, and then only one that was read before.
        assert!(over("b", &all[..2]));
        assert!(over("a", &all[..1]));
    }

    #[tokio::test]
    async fn a_read_brings_a_pass_by_what_it_tells_or_when_a_guard_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&dir.path().join("ledger.db"), "test", t(0)).await.unwrap();
        let (_wanted, receiver) = watch::channel(Wanted {
            schedules: BTreeSet::new(),
            poll: SignedDuration::from_mins(1),
            horizon: SignedDuration::from_hours(1),
            each_is_news: false,
        });
        let clock = Arc::new(SimClock::default());
        clock.set("2030-01-01T00:00:00Z");
        let poller = Poller {
            clock,
            ledger,
            snapshots: Arc::default(),
            news: Arc::default(),
            wanted: receiver,
            health: Arc::new(Health::new(
                [],
                SignedDuration::from_mins(1),
                Duration::from_secs(1),
                t(0),
            )),
        };
        let mut snapshot = (*snapshots()[&schedule()]).clone();
        let mut brings_a_pass = async |read: Result<(), ReadErrorKind>, is_news| {
            snapshot.read_at += SignedDuration::from_secs(60);
            let read = read.map(|()| snapshot.clone()).map_err(|kind| ReadError {
                schedule: schedule(),
                kind,
                message: "no".to_owned(),
            });
            poller.take(read, &mut None, is_news).await;
            tokio::select! {
                biased;
                () = poller.news.notified() => true,
                () = std::future::ready(()) => false,
            }
        };
        let down = || Err(ReadErrorKind::Unreachable);
        assert!(brings_a_pass(Ok(()), false).await, "another content");
        assert!(!brings_a_pass(Ok(()), false).await, "the same");
        assert!(brings_a_pass(Ok(()), true).await, "the same, for which a guard waits");
        assert!(brings_a_pass(down(), false).await, "a failure");
        assert!(!brings_a_pass(down(), false).await, "the same failure");
        assert!(brings_a_pass(Ok(()), false).await, "it can be read again");
        assert!(!brings_a_pass(Ok(()), false).await, "the same");
    }

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
