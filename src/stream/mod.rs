//! Sends the ledger's events to other systems, each at least once and in order, without a pass ever waiting for it.
//!
//! The chain of events is itself the queue: each sink reads it through a connection of its own that can only read, and
//! remembers beside the ledger how far its receiver confirmed (`cursor`). How far a sink may fall behind is bounded by
//! the ledger's retention, and what retention removed before a sink took it is told as a gap; memory is bounded by one
//! batch for each sink. All of it runs on a thread of its own, so that neither a slow disk nor a slow receiver takes time
//! from the daemon.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{SinkConfig, SinkTarget};
use crate::ledger::{Ledger, LedgerError};

mod batch;
mod cursor;
mod feed;
mod figures;
mod file;
mod http;
mod record;
mod sink;
mod syslog;
mod worker;

use batch::Rendering;
use feed::Feed;
pub use figures::{Figures, FiguresCollector};
use worker::Worker;

/// Time between looks for new events.
const LOOK: Duration = Duration::from_secs(1);
/// How long a stopping daemon waits for what is on its way. The rest is sent after the next start.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// The running stream to all sinks.
pub struct Streams {
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
}

/// Why events cannot be streamed at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger cannot be read.
    #[error("cannot read the ledger for the sinks")]
    Ledger(#[from] LedgerError),
    /// A sink cannot be made ready.
    #[error("cannot make the sink {name} ready: {reason}")]
    Sink {
        /// Which one.
        name: String,
        /// Why.
        reason: String,
    },
    /// Its thread does not start.
    #[error("cannot start the thread of the sinks")]
    Thread(#[source] std::io::Error),
}

impl Streams {
    /// Begins to send. The ledger's writer must have it open. A receiver that does not answer is no error.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        sinks: &[SinkConfig],
        ledger_path: &Path,
        owner_id: &str,
        heads_every: SignedDuration,
        figures: &Arc<Figures>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let ledger = Ledger::open_read_only(ledger_path, owner_id).await?;
        let name = ledger.head().await?.and_then(|head| head.ledger).unwrap_or_default();
        let stop = CancellationToken::new();
        let (tell, ended) = oneshot::channel();
        let (news, seen) = watch::channel(0);
        let mut workers = Vec::new();
        for config in sinks {
            let refuse = |reason| StartError::Sink {
                name: config.name.clone(),
                reason,
            };
            let feed = Feed {
                ledger: ledger.clone(),
                name: name.clone(),
                rendering: Rendering::of(config),
                cursor: None,
                sink: config.name.clone(),
                heads_every,
                next_head: None,
                published: None,
                most_bytes: feed::MOST_BYTES,
            };
            let target: Box<dyn sink::Sink> = match &config.target {
                SinkTarget::File(path) => Box::new(file::File(path.clone())),
                SinkTarget::Syslog { address, .. } => Box::new(syslog::Syslog(address.clone())),
                SinkTarget::Http(http) => Box::new(http::Http::new(http, &name, Arc::clone(clock)).map_err(refuse)?),
            };
            workers.push(Worker {
                name: config.name.clone(),
                feed,
                target,
                cursor_path: cursor::path_of(ledger_path, &config.name),
                saved: true,
                unsaved: false,
                trouble: None,
                clock: Arc::clone(clock),
                figures: Arc::clone(figures),
                news: seen.clone(),
                stop: stop.clone(),
            });
        }
        let (clock, figures) = (Arc::clone(clock), Arc::clone(figures));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let run = move || {
            runtime.block_on(async move {
                let mut running: JoinSet<()> = workers.into_iter().map(Worker::run).collect();
                let look = look(ledger, figures, news, clock);
                tokio::pin!(look);
                loop {
                    tokio::select! {
                        ended = running.join_next() => match ended {
                            None => break,
                            Some(Ok(())) => {}
                            Some(Err(error)) => tracing::error!(%error, "a sink broke off; it goes on after the next start"),
                        },
                        () = &mut look => {}
                    }
                }
            });
            if tell.send(()).is_err() {
                tracing::debug!("nobody waited for the sinks to end");
            }
        };
        std::thread::Builder::new()
            .name("stream".to_owned())
            .spawn(run)
            .map_err(StartError::Thread)?;
        Ok(Self { stop, ended })
    }

    /// Has every sink send what is there, with a last head, and waits a moment for it.
    pub async fn stop(self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_PATIENCE, self.ended).await.is_err() {
            tracing::warn!("not every sink took all events in time; the rest is sent after the next start");
        }
    }
}

/// Tells the sinks of new events. One look serves all of them.
async fn look(ledger: Ledger, figures: Arc<Figures>, news: watch::Sender<i64>, clock: Arc<dyn Clock>) {
    loop {
        // A sink meets the same trouble itself when it reads, and tells of it.
        if let Ok(Some(head)) = ledger.head().await {
            figures.head(head.seq, head.at);
            news.send_if_modified(|seen| std::mem::replace(seen, head.seq) != head.seq);
        }
        clock.sleep(LOOK).await;
    }
}

/// How long from now to then; nothing where that is past.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_until(then)).unwrap_or_default()
}
