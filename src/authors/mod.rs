//! Finds out who changed a schedule when a read shows somebody newly on duty, apart from everything that access depends on.
//!
//! What is to be found out is not handed over by whoever reads schedules but taken from the stored reads, so that a
//! restart, or a read by `apply`, loses nothing. One look at the provider's record is made for each, and further ones only
//! while the provider has not written the change down yet.

#[cfg(test)]
mod tests;
mod words;

pub use words::of_turn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerError, StoredSnapshots};
use crate::model::{Attribution, Authorship, Interval, ScheduleKey, Sighting, SourceName};
use crate::poll::Sources;
use crate::schedule::{ReadError, ReadErrorKind};
use crate::text::clean;

/// Time between looks at whether there is something to find out.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a provider may take to show what it keeps, and to recover from a fault.
const PATIENCE: SignedDuration = SignedDuration::from_mins(15);
/// Time until the second try; twice as long after each further one.
const AGAIN: SignedDuration = SignedDuration::from_secs(15);
/// By how much the clocks of this host and the provider may differ.
const CLOCKS: SignedDuration = SignedDuration::from_secs(30);
/// How long ago something may have been seen that nobody looked into; stored reads go back three days.
const OLDEST: SignedDuration = SignedDuration::from_hours(4 * 24);
/// PagerDuty shows no longer span at once (<https://support.pagerduty.com/docs/audit-trail-reporting>).
const LONGEST: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How many changes are kept of one sighting.
const KEPT: usize = 5;

/// A sighting by its schedule and the read that first showed it.
type Key = (ScheduleKey, Timestamp);

/// Finds out, for as long as it runs.
pub struct Authors {
    clock: Arc<dyn Clock>,
    ledger: Ledger,
    snapshots: Arc<Mutex<StoredSnapshots>>,
    sources: Sources,
    /// The stored reads that were looked at last, and which of each schedule.
    edition: Option<u64>,
    looked: BTreeMap<ScheduleKey, Timestamp>,
    /// What is to be found out.
    open: Vec<Open>,
    /// Sources that do not show it to us, with the reason; not asked again before the next start.
    refused: BTreeMap<SourceName, String>,
    said: Option<String>,
}

struct Open {
    sighting: Sighting,
    next: Timestamp,
    tries: u32,
}

impl Authors {
    /// Asks nobody anything yet.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        ledger: Ledger,
        snapshots: Arc<Mutex<StoredSnapshots>>,
        sources: Sources,
    ) -> Self {
        Self {
            clock,
            ledger,
            snapshots,
            sources,
            edition: None,
            looked: BTreeMap::new(),
            open: Vec::new(),
            refused: BTreeMap::new(),
            said: None,
        }
    }

    /// Looks again and again, for ever.
    pub async fn run(mut self) {
        loop {
            self.look().await;
            self.clock.sleep(PAUSE).await;
        }
    }

    /// Finds out what can be found out now. Trouble with the record is said once and tried again.
    pub async fn look(&mut self) {
        let trouble = self.try_look().await.err();
        let trouble = trouble.map(|error| clean(&crate::chain(&error)));
        if let Some(reason) = trouble.as_ref().filter(|_| self.said != trouble) {
            tracing::error!(
                reason,
                "who changed a schedule could not be recorded; it is tried again"
            );
        }
        self.said = trouble;
    }

    async fn try_look(&mut self) -> Result<(), LedgerError> {
        let now = self.clock.now();
        self.take_up(now).await?;
        let mut waiting = std::mem::take(&mut self.open);
        let mut looked_into = Ok(());
        // Whatever is not recorded yet stays open, also when the record cannot be written.
        while let Some(mut open) = waiting.pop() {
            if now < open.next || looked_into.is_err() {
                self.open.push(open);
                continue;
            }
            match self.find_out(&open.sighting, now).await {
                Found::Nothing => {}
                Found::Author(author) => {
                    looked_into = self.record(&open.sighting, author).await;
                    if looked_into.is_err() {
                        self.open.push(open);
                    }
                }
                Found::Later => {
                    let pause = AGAIN.saturating_mul(1 << open.tries.min(6));
                    open.next = now.checked_add(pause).unwrap_or(now);
                    open.tries += 1;
                    self.open.push(open);
                }
            }
        }
        looked_into
    }

    /// Takes up what the reads since the last look newly show.
    async fn take_up(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let stored = {
            let stored = self.snapshots.lock().await;
            if self.edition == Some(stored.edition()) {
                return Ok(());
            }
            stored.clone()
        };
        let mut looked = self.looked.clone();
        let sightings = stored.sightings(&mut looked);
        let recorded = self.on_record(&sightings, now).await?;
        let waiting: BTreeSet<Key> = self.open.iter().map(|open| key_of(&open.sighting)).collect();
        let old = now.checked_sub(OLDEST).unwrap_or(Timestamp::MIN);
        let new = sightings.into_iter().filter(|sighting| {
            let key = key_of(sighting);
            old <= sighting.seen_at && !recorded.contains(&key) && !waiting.contains(&key)
        });
        self.open.extend(new.map(|sighting| Open {
            sighting,
            next: now,
            tries: 0,
        }));
        (self.looked, self.edition) = (looked, Some(stored.edition()));
        Ok(())
    }

    async fn record(&self, sighting: &Sighting, author: Authorship) -> Result<(), LedgerError> {
        let found = Attribution {
            sighting: sighting.clone(),
            author,
        };
        self.ledger.attribute(&found, self.clock.now()).await?;
        tracing::info!(schedule = %sighting.schedule, "{}", clean(&words::found(&found)));
        Ok(())
    }

    async fn on_record(&self, sightings: &[Sighting], now: Timestamp) -> Result<BTreeSet<Key>, LedgerError> {
        if sightings.is_empty() {
            return Ok(BTreeSet::new());
        }
        let schedules = sightings.iter().map(|s| s.schedule.clone()).collect();
        let since = now.checked_sub(OLDEST).unwrap_or(Timestamp::MIN);
        let recorded = self.ledger.attributions(&schedules, since).await?;
        Ok(recorded.iter().map(|a| key_of(&a.sighting)).collect())
    }

    async fn find_out(&mut self, sighting: &Sighting, now: Timestamp) -> Found {
        let schedule = &sighting.schedule;
        let unknown = |why: String| Found::Author(Authorship::Unknown(why));
        let patient = (-PATIENCE..PATIENCE).contains(&sighting.seen_at.duration_until(now));
        let Some(source) = self.sources.get(&schedule.source) else {
            return Found::Nothing;
        };
        if let Some(reason) = self.refused.get(&schedule.source) {
            return unknown(reason.clone());
        }
        match source.changes(schedule, asked(sighting)).await {
            Ok(None) => Found::Nothing,
            Ok(Some(changes)) if changes.is_empty() && patient => Found::Later,
            Ok(Some(changes)) if changes.is_empty() => {
                unknown("PagerDuty's audit records name no change of the schedule".to_owned())
            }
            Ok(Some(mut latest)) => {
                let more = latest.len().saturating_sub(KEPT);
                latest.truncate(KEPT);
                Found::Author(Authorship::Changes { latest, more })
            }
            Err(error) if is_refusal(&error) => {
                let reason = format!(
                    "the credential may not read PagerDuty's audit records ({})",
                    in_short(&error)
                );
                tracing::warn!(
                    source = %schedule.source, reason = %clean(&error.message),
                    "who changes schedules cannot be told: the credential may not read audit records \
                     (audit_records.read); nothing else depends on it, and it is not tried again before the next start"
                );
                self.refused.insert(schedule.source.clone(), reason.clone());
                unknown(reason)
            }
            Err(_) if patient => Found::Later,
            Err(error) => unknown(format!(
                "PagerDuty's audit records could not be read ({})",
                in_short(&error)
            )),
        }
    }
}

/// What a look brought.
enum Found {
    Author(Authorship),
    /// Nothing yet.
    Later,
    /// The provider tells nobody.
    Nothing,
}

/// What happened, without what to do about it, which is said of reads that access depends on.
fn in_short(error: &ReadError) -> &str {
    error.message.split(';').next().unwrap_or_default()
}

/// 401 is a refusal too: OAuth servers answer so when the app may not have the scope at all, and a key that is wrong
/// altogether is told by the reads of schedules.
fn is_refusal(error: &ReadError) -> bool {
    matches!(error.kind, ReadErrorKind::Forbidden | ReadErrorKind::Unauthorized)
}

fn key_of(sighting: &Sighting) -> Key {
    (sighting.schedule.clone(), sighting.seen_at)
}

/// The time in which it must have been changed, by whichever clock.
fn asked(sighting: &Sighting) -> Interval {
    let earliest = sighting.seen_at.checked_sub(LONGEST).unwrap_or(Timestamp::MIN);
    let span = Interval::new(sighting.unseen_at.max(earliest), sighting.seen_at);
    let instant = Interval::new(sighting.seen_at, sighting.seen_at + SignedDuration::from_secs(1));
    span.or(instant).unwrap_or(Interval::ALWAYS).widen(CLOCKS, CLOCKS)
}
