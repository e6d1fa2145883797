//! Tells people: who got what and why, what is in the way, what owners should look at. From a queue on disk, beside the
//! loop, so that no grant ever waits for a message.
//!
//! It reads the ledger as everybody else does and writes to its own file only. The daemon knows of it no more than that a
//! pass has ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Mutex, watch};

use crate::clock::Clock;
use crate::config::Config;
use crate::forecast::{self, Gap};
use crate::http::InUse;
use crate::identity_center::Read;
use crate::ledger::{EndedChange, Ledger, LedgerError, StoredSnapshots};
use crate::policy::Policy;
use crate::poll::Sources;
use crate::text::clean;
use deliver::Delivery;
use look::{Known, Seen};
use outbox::{Batch, Outbox, OutboxError};
use route::Routes;
use send::Sender;
use tally::{Outcome, Tally};

mod calendar;
mod deliver;
pub mod look;
pub mod message;
pub mod outbox;
pub mod render;
pub mod route;
pub mod send;
mod slack;
pub mod tally;

/// Time between looks when no pass has ended.
const LOOK: Duration = Duration::from_secs(30);
/// At least this much between looks, however many passes there are.
const BREATH: Duration = Duration::from_secs(1);
/// Changes run beside each other, and one may be recorded with an earlier time than another that was there before: a write
/// of the ledger waits for a minute at most.
const OVERLAP: SignedDuration = SignedDuration::from_mins(5);
/// Changes read at once.
const PAGE: u32 = 5000;
/// How far ahead gaps are looked for, in days.
const GAP_DAYS: u16 = 7;
/// Time between searches for gaps.
const GAPS_EVERY: SignedDuration = SignedDuration::from_mins(15);
/// Before the queue is tried again when it cannot be opened.
const REOPEN: Duration = Duration::from_secs(60);
/// How far the ledger was taken in.
const CHANGES: &str = "changes";

/// What the daemon knows and the ledger does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beat {
    /// Passes so far, so that each one counts as news.
    pub passes: u64,
    /// Why the policy in force is not the one in the directory.
    pub policy_refused: Option<String>,
    /// Why the configuration in force is not the one in the file.
    pub config_refused: Option<String>,
    /// Why the last pass came to no plan, where the ledger does not say it.
    pub pass_failed: Option<String>,
}

/// Everything that telling people takes.
pub struct Notifier {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The configuration; its changes need a restart.
    pub config: Config,
    /// The record, opened for reading.
    pub ledger: Ledger,
    /// The policy in force.
    pub in_use: watch::Receiver<Arc<InUse>>,
    /// Changes when a pass has ended.
    pub beat: watch::Receiver<Beat>,
    /// On-call sources, for reviews.
    pub sources: Sources,
    /// What the pollers read, for gaps ahead.
    pub snapshots: Arc<Mutex<StoredSnapshots>>,
    /// Identity Center, for reviews.
    pub reader: Arc<dyn Read>,
    /// Where this process began: what happened before anybody wanted to be told is no news.
    pub started: Timestamp,
    /// For metrics.
    pub tally: Tally,
    /// Where messages go.
    pub routes: Routes,
}

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Notifier {
    /// Tells people for ever. Trouble with it is logged, and ends nothing else.
    pub async fn run(self) {
        let notify = &self.config.notify;
        let path = self.outbox_path();
        let outbox = loop {
            match Outbox::open(&path, notify.max_messages, notify.pace.max_age).await {
                Ok(outbox) => break outbox,
                Err(error) => {
                    let reason = clean(&crate::chain(&error));
                    tracing::error!(path = %path.display(), reason, "nobody is told anything, because the queue of messages cannot be opened; if that stays so, move the file away");
                    self.clock.sleep(REOPEN).await;
                }
            }
        };
        let (queue, queued) = watch::channel(0_u64);
        let mut deliveries = tokio::task::JoinSet::new();
        for (name, destination) in &notify.destinations {
            match Sender::new(destination.clone(), notify.zone.clone(), Arc::clone(&self.clock)) {
                Ok(sender) => {
                    let delivery = Delivery {
                        name: name.clone(),
                        outbox: outbox.clone(),
                        sender,
                        tally: self.tally.clone(),
                        clock: Arc::clone(&self.clock),
                        queued: queued.clone(),
                    };
                    deliveries.spawn(delivery.run());
                }
                Err(error) => {
                    tracing::error!(destination = name, %error, "cannot set up TLS, so nothing is delivered there")
                }
            }
        }
        tokio::join!(self.keep_looking(&outbox, &queue), self.keep_calendar(&outbox));
    }

    fn outbox_path(&self) -> PathBuf {
        let mut path = self.config.ledger.as_os_str().to_owned();
        path.push(".outbox");
        path.into()
    }

    async fn keep_looking(&self, outbox: &Outbox, queue: &watch::Sender<u64>) {
        let mut beat = self.beat.clone();
        let mut gaps = Gaps::default();
        let mut trouble = None;
        loop {
            let again = match self.look(outbox, &mut gaps).await {
                Ok(again) => {
                    if trouble.take().is_some() {
                        tracing::info!("people are told of what happens again");
                    }
                    again
                }
                Err(error) => {
                    let reason = clean(&crate::chain(&error));
                    if trouble.as_ref() != Some(&reason) {
                        tracing::error!(
                            reason,
                            "people are not told of what happens; it is made up for when this is over"
                        );
                    }
                    trouble = Some(reason);
                    None
                }
            };
            queue.send_modify(|looks| *looks = looks.wrapping_add(1));
            self.clock.sleep(BREATH).await;
            let wait = again.map_or(LOOK, |at| {
                Duration::try_from(self.clock.now().duration_until(at)).unwrap_or_default()
            });
            tokio::select! {
                () = self.clock.sleep(wait.min(LOOK)) => {}
                changed = beat.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Takes in what happened and queues what is to be told of it. Returns when to look again at the latest.
    async fn look(&self, outbox: &Outbox, gaps: &mut Gaps) -> Result<Option<Timestamp>, LookError> {
        let now = self.clock.now();
        let policy = Arc::clone(&self.in_use.borrow().policy);
        let beat = self.beat.borrow().clone();
        let known = Known {
            conditions: outbox.conditions().await?,
            events: outbox.events().await?,
        };
        let (done, record, unreadable) = match self.record(outbox, now).await {
            Ok((done, holds, board)) => (done, Some((holds, board)), None),
            Err(LookError::Ledger(error)) => (Vec::new(), None, Some(clean(&crate::chain(&error)))),
            Err(error) => return Err(error),
        };
        let ahead = gaps.look(self, &policy, now).await;
        let seen = Seen {
            policy: &policy,
            done: &done,
            record: record.as_ref().map(|(holds, board)| (holds.as_slice(), board)),
            gaps: ahead.as_deref(),
            beat: &beat,
            unreadable: unreadable.as_deref(),
        };
        let (mut batch, again) = look::look(&seen, &known, &self.routes, &self.config.notify.pace, now);
        if let Some(last) = done.iter().map(|change| change.at).max() {
            batch.marks.insert(CHANGES.to_owned(), last.min(now));
        }
        self.write(outbox, &batch).await?;
        self.drop_old(outbox, now).await?;
        self.tally
            .queued(self.config.notify.destinations.keys(), &outbox.waiting().await?);
        Ok(again)
    }

    /// What was recorded since the last look, what is held, and what the last pass saw.
    async fn record(
        &self,
        outbox: &Outbox,
        now: Timestamp,
    ) -> Result<(Vec<EndedChange>, Vec<crate::ledger::HoldRow>, crate::ledger::Board), LookError> {
        let mut done = Vec::new();
        match outbox.mark(CHANGES).await? {
            Some(mark) => {
                let since = mark.min(now).checked_sub(OVERLAP).unwrap_or(Timestamp::MIN);
                let mut taken = outbox.taken_since(since).await?;
                let mut from = since;
                loop {
                    let page = self.ledger.changes_done_since(from, PAGE).await?;
                    let last = page.last().map(|change| change.at);
                    let full = u32::try_from(page.len()) == Ok(PAGE);
                    done.extend(page.into_iter().filter(|change| taken.insert((change.id, change.at))));
                    match last {
                        Some(last) if full && from < last => from = last,
                        _ => break,
                    }
                }
            }
            None => {
                let overlap = self.started.checked_sub(OVERLAP).unwrap_or(Timestamp::MIN);
                let newest = self.ledger.changes_done_since(overlap, PAGE).await?;
                let (old, new): (Vec<_>, Vec<_>) = newest.into_iter().partition(|change| change.at < self.started);
                let batch = Batch {
                    marks: BTreeMap::from([(CHANGES.to_owned(), self.started)]),
                    taken: old.iter().map(|change| (change.id, change.at)).collect(),
                    ..Batch::default()
                };
                self.write(outbox, &batch).await?;
                done = new;
            }
        }
        let holds = self.ledger.holds().await?;
        let board = self.ledger.board().await?.unwrap_or_default();
        Ok((done, holds, board))
    }

    async fn write(&self, outbox: &Outbox, batch: &Batch) -> Result<(), OutboxError> {
        if batch.is_empty() {
            return Ok(());
        }
        let dropped = outbox.write(batch, self.clock.now()).await?;
        self.count_dropped(&dropped, "too many wait; the oldest are dropped");
        Ok(())
    }

    async fn drop_old(&self, outbox: &Outbox, now: Timestamp) -> Result<(), OutboxError> {
        let dropped = outbox.tidy(now).await?;
        self.count_dropped(&dropped, "they waited for longer than `max_age`");
        Ok(())
    }

    fn count_dropped(&self, dropped: &BTreeMap<String, u64>, why: &str) {
        for (destination, count) in dropped {
            self.tally.count(destination, Outcome::Dropped, *count);
            tracing::error!(destination, count, why, "messages are dropped");
        }
    }
}

/// The search for gaps, now and then: they are days ahead, and finding them takes a moment.
#[derive(Default)]
struct Gaps {
    next: Option<Timestamp>,
    revision: String,
}

impl Gaps {
    /// The gaps ahead; `None` when it is not time to look.
    async fn look(&mut self, notifier: &Notifier, policy: &Arc<Policy>, now: Timestamp) -> Option<Vec<Gap>> {
        // A look from before the clock was set back counts as due.
        let due = self
            .next
            .is_none_or(|next| next <= now || GAPS_EVERY < now.duration_until(next));
        if !notifier.routes.wants(message::Kind::Gap) || (!due && self.revision == policy.revision) {
            return None;
        }
        let snapshots = notifier.snapshots.lock().await.newest(&policy.schedules());
        // A schedule that was not read yet is no gap ahead; one that cannot be read is told of as a problem.
        if snapshots.len() < policy.schedules().len() && self.next.is_none() && notifier.beat.borrow().passes < 2 {
            return None;
        }
        let period = forecast::days_from(now, GAP_DAYS)?;
        let (policy_then, identities) = (Arc::clone(policy), notifier.config.identities.clone());
        let search = tokio::task::spawn_blocking(move || {
            forecast::forecast(&policy_then, &snapshots, &identities, &None, period).gaps
        });
        let gaps = search.await.ok()?;
        self.next = Some(now.saturating_add(GAPS_EVERY).unwrap_or(Timestamp::MAX));
        self.revision.clone_from(&policy.revision);
        Some(
            gaps.into_iter()
                .filter(|gap| gap.kind != forecast::GapKind::NotRead)
                .collect(),
        )
    }
}
