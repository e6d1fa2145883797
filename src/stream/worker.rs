//! One sink's work: read, send until it is confirmed, remember.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::feed::{Feed, MOST_BYTES};
use super::figures::Figures;
use super::sink::{Again, Refusal, Sink};
use super::{cursor, until};
use crate::clock::Clock;
use crate::text::clean;

const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);
/// Time between tries where a receiver refuses what it is sent.
const SELDOM: Duration = Duration::from_secs(5 * 60);
/// No receiver puts us off for longer at once.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

pub(super) struct Worker {
    pub(super) name: String,
    pub(super) feed: Feed,
    pub(super) target: Box<dyn Sink>,
    pub(super) cursor_path: PathBuf,
    /// Whether the file has the cursor.
    pub(super) saved: bool,
    /// Whether it was said that the cursor cannot be kept.
    pub(super) unsaved: bool,
    /// What went wrong last, until it is over.
    pub(super) trouble: Option<Trouble>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) figures: Arc<Figures>,
    pub(super) news: watch::Receiver<i64>,
    pub(super) stop: CancellationToken,
}

/// Each kind is said once until it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Unread,
    Unsent,
    Refused,
}

impl Worker {
    /// Runs until it is told to stop and all is sent, or cannot be sent at the first try.
    pub(super) async fn run(mut self) {
        self.load().await;
        let mut pauses = pauses();
        loop {
            let stopping = self.stop.is_cancelled();
            let now = self.clock.now();
            match self.feed.next(now, stopping).await {
                Ok(Some(next)) => {
                    pauses = self::pauses();
                    if 0 < next.lost {
                        self.figures.lost(&self.name, next.lost);
                    }
                    if !self.deliver(next.batch).await {
                        return;
                    }
                }
                Ok(None) => {
                    self.save().await;
                    if stopping {
                        return;
                    }
                    self.idle().await;
                }
                Err(error) => {
                    self.failed(Trouble::Unread, &crate::chain(&error));
                    let pause = pauses.next().unwrap_or(LATEST);
                    if stopping || !self.pause(pause).await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for news, the next head, or the end.
    async fn idle(&mut self) {
        let now = self.clock.now();
        let head = self.feed.next_head.map_or(LATEST, |next| until(now, next));
        // A cursor that could not be written is written as soon as possible.
        let wait = if self.saved { head } else { head.min(LATEST) };
        tokio::select! {
            // Its sender lives as long as this does.
            changed = self.news.changed() => drop(changed),
            () = self.clock.sleep(wait.max(SOONEST)) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Sends a batch until it is confirmed. Returns whether to go on.
    async fn deliver(&mut self, mut batch: Batch) -> bool {
        self.figures.waiting(&self.name, batch.oldest);
        let mut pauses = pauses();
        while !batch.lines.is_empty() {
            let Err(refusal) = self.target.send(&batch).await else {
                break;
            };
            self.figures.failure(&self.name);
            let pause = match refusal.again {
                Again::Smaller if batch.halve() => {
                    self.feed.most_bytes = batch.size();
                    continue;
                }
                Again::Seldom | Again::Smaller => {
                    self.refused(&refusal);
                    SELDOM
                }
                Again::Soon => {
                    self.failed(Trouble::Unsent, &refusal.reason);
                    pauses.next().unwrap_or(LATEST)
                }
                Again::After(asked) => {
                    self.failed(Trouble::Unsent, &refusal.reason);
                    let own = pauses.next().unwrap_or(LATEST);
                    asked.min(LONGEST_ASKED).max(own)
                }
            };
            if !self.pause(pause).await {
                return false;
            }
        }
        let (events, reached) = (batch.events(), batch.end.as_ref().map(|(seq, _)| *seq));
        self.feed.confirmed(&batch, self.clock.now());
        self.feed.most_bytes = self.feed.most_bytes.saturating_mul(2).min(MOST_BYTES);
        if let Some(reached) = reached {
            self.figures.confirmed(&self.name, events, reached);
            self.saved = false;
            self.save().await;
        }
        if self.trouble.take().is_some() {
            tracing::info!(sink = self.name, seq = reached, "the sink takes events again");
        }
        true
    }

    /// Returns whether to go on.
    async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.clock.sleep(pause) => true,
            () = self.stop.cancelled() => false,
        }
    }

    async fn load(&mut self) {
        let path = self.cursor_path.clone();
        let read = tokio::task::spawn_blocking(move || cursor::read(&path)).await;
        match read {
            Ok(Ok(cursor)) => self.feed.cursor = cursor,
            Ok(Err(error)) => tracing::error!(
                sink = self.name, path = %self.cursor_path.display(), %error,
                "what the sink confirmed cannot be read; everything that the ledger keeps is sent again"
            ),
            Err(error) => tracing::error!(sink = self.name, %error, "what the sink confirmed cannot be read"),
        }
        let seq = self.feed.cursor.as_ref().map_or(0, |cursor| cursor.seq);
        self.figures.begin(&self.name, seq);
    }

    async fn save(&mut self) {
        let Some(cursor) = self.feed.cursor.clone().filter(|_| !self.saved) else {
            return;
        };
        let path = self.cursor_path.clone();
        let written = tokio::task::spawn_blocking(move || cursor::write(&path, &cursor)).await;
        match written {
            Ok(Ok(())) => (self.saved, self.unsaved) = (true, false),
            Ok(Err(error)) => {
                self.figures.failure(&self.name);
                if !std::mem::replace(&mut self.unsaved, true) {
                    tracing::error!(
                        sink = self.name, path = %self.cursor_path.display(), %error,
                        "what the sink confirmed cannot be kept; after a restart some events are sent again"
                    );
                }
            }
            Err(error) => tracing::error!(sink = self.name, %error, "what the sink confirmed cannot be kept"),
        }
    }

    fn failed(&mut self, trouble: Trouble, reason: &str) {
        if trouble == Trouble::Unread {
            self.figures.failure(&self.name);
        }
        if self.trouble.replace(trouble) != Some(trouble) {
            tracing::warn!(
                sink = self.name, reason = %clean(reason),
                "events cannot be sent; they stay in the ledger and are tried again, and nothing else waits for them"
            );
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        if self.trouble.replace(Trouble::Refused) != Some(Trouble::Refused) {
            tracing::error!(
                sink = self.name, reason = %clean(&refusal.reason), again_in_seconds = SELDOM.as_secs(),
                "the sink refuses events; they stay in the ledger, and the sink stands still until it takes them"
            );
        }
    }
}

fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::new()
        .with_min_delay(SOONEST)
        .with_max_delay(LATEST)
        .with_factor(2.0)
        .without_max_times()
        .with_jitter()
        .build()
}
