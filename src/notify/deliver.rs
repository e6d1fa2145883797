//! Delivers what waits for one destination, in order, for as long as it takes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::outbox::{Outbox, OutboxError, Waiting};
use super::send::{Failure, Sender};
use super::tally::{Outcome, Tally};
use crate::clock::Clock;
use crate::text::clean;

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Time between looks when nothing calls.
const IDLE: Duration = Duration::from_secs(30);

/// The worker of one destination. Each has its own, so that a dead one holds up no other.
pub(super) struct Delivery {
    pub(super) name: String,
    pub(super) outbox: Outbox,
    pub(super) sender: Sender,
    pub(super) tally: Tally,
    pub(super) clock: Arc<dyn Clock>,
    /// Changes when something was queued.
    pub(super) queued: watch::Receiver<u64>,
}

impl Delivery {
    /// Delivers for ever.
    pub(super) async fn run(mut self) {
        let mut failures = 0_u32;
        let mut complaints = BTreeSet::new();
        // What was sent and could not be marked as sent, so that a full disk does not make it be sent again and again.
        let mut unmarked = None;
        loop {
            self.queued.mark_unchanged();
            let pause = match self.outbox.next(&self.name, self.clock.now()).await {
                Ok(Some(waiting)) => {
                    let ended = match unmarked == Some(waiting.id) {
                        true => self.outbox.ended(waiting.id, self.clock.now()).await.map(|()| {
                            self.tally.count(&self.name, Outcome::Delivered, 1);
                            Duration::ZERO
                        }),
                        false => {
                            self.deliver(&waiting, &mut failures, &mut complaints, &mut unmarked)
                                .await
                        }
                    };
                    ended.unwrap_or_else(|error| self.complain(&error))
                }
                Ok(None) => {
                    tokio::select! {
                        () = self.clock.sleep(self.idle().await) => {}
                        changed = self.queued.changed() => if changed.is_err() { return },
                    }
                    continue;
                }
                Err(error) => self.complain(&error),
            };
            if !pause.is_zero() {
                self.clock.sleep(pause).await;
            }
        }
    }

    /// Until something that was put off is due, at most.
    async fn idle(&self) -> Duration {
        let due = self.outbox.next_try(&self.name).await.ok().flatten();
        let wait = due.map(|at| Duration::try_from(self.clock.now().duration_until(at)).unwrap_or_default());
        wait.map_or(IDLE, |wait| wait.clamp(Duration::from_millis(100), IDLE))
    }

    fn complain(&self, error: &OutboxError) -> Duration {
        let reason = clean(&crate::chain(error));
        tracing::error!(
            destination = self.name,
            reason,
            "messages wait, because their queue cannot be used"
        );
        IDLE
    }

    /// One try. Returns how long the destination has to be left alone.
    async fn deliver(
        &self,
        waiting: &Waiting,
        failures: &mut u32,
        complaints: &mut BTreeSet<String>,
        unmarked: &mut Option<i64>,
    ) -> Result<Duration, OutboxError> {
        let sent = self.sender.send(waiting).await;
        let now = self.clock.now();
        let kind = waiting.message.kind.as_str();
        match sent {
            Ok(()) => {
                *unmarked = Some(waiting.id);
                self.outbox.ended(waiting.id, now).await?;
                *unmarked = None;
                self.tally.count(&self.name, Outcome::Delivered, 1);
                let lane = format!("{}: ", waiting.lane);
                let before = complaints.len();
                complaints.retain(|said| !said.is_empty() && !said.starts_with(&lane));
                if complaints.len() < before {
                    tracing::info!(destination = self.name, to = %clean(&waiting.lane), "messages are delivered again");
                }
                *failures = 0;
                Ok(Duration::ZERO)
            }
            Err(Failure::Message(why)) => {
                self.outbox.ended(waiting.id, now).await?;
                self.tally.count(&self.name, Outcome::Refused, 1);
                tracing::warn!(destination = self.name, kind, to = %clean(&waiting.lane), reason = %clean(&why), "a message cannot be delivered");
                Ok(Duration::ZERO)
            }
            Err(Failure::Lane(why)) => {
                self.tally.count(&self.name, Outcome::Failed, 1);
                let until = now
                    .saturating_add(signed(pause(waiting.tries)))
                    .unwrap_or(Timestamp::MAX);
                self.outbox.put_off(waiting.id, until).await?;
                if complaints.insert(format!("{}: {why}", waiting.lane)) {
                    tracing::warn!(destination = self.name, kind, to = %clean(&waiting.lane), reason = %clean(&why), "a message waits; it is tried again");
                }
                Ok(Duration::ZERO)
            }
            Err(Failure::Destination(why, asked)) => {
                self.tally.count(&self.name, Outcome::Failed, 1);
                if complaints.insert(String::new()) {
                    tracing::warn!(destination = self.name, kind, reason = %clean(&why), "messages wait; they are tried again");
                }
                let pause = pause(*failures);
                *failures = failures.saturating_add(1);
                Ok(asked.map_or(pause, |asked| asked.max(Duration::from_millis(100))))
            }
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// A second, and twice as long after every further failure.
fn pause(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(9)).min(LONGEST_PAUSE)
}
