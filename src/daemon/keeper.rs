//! Publishes the head of the record's chain, keeps its totals and removes what is older than is to be kept.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::config::Audit;
use crate::ledger::{Head, Ledger};
use crate::text::clean;

/// Time between looks for what is too old.
const LOOK: SignedDuration = SignedDuration::from_hours(1);

/// Remembers when either is due.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    next_head: Option<Timestamp>,
    next_look: Option<Timestamp>,
    /// The head that was published last: one that says nothing new is not said again.
    published: Option<Head>,
    failed: Option<String>,
}

impl Keeper {
    /// Does what is due. Trouble is logged and never in the way of a pass.
    pub(super) async fn look(&mut self, ledger: &Ledger, audit: &Audit, now: Timestamp) {
        if is_due(self.next_look, now, LOOK) {
            self.next_look = now.checked_add(LOOK).ok();
            if let Err(error) = ledger.settle(now).await {
                self.trouble(&crate::chain(&error));
            }
            if let Err(error) = ledger.shorten_redo(now).await {
                self.trouble(&crate::chain(&error));
            }
            self.remove(ledger, audit, now).await;
        }
        if is_due(self.next_head, now, audit.heads_every) {
            self.next_head = now.checked_add(audit.heads_every).ok();
            self.publish(ledger, audit, now).await;
        }
    }

    /// Publishes the head where it is news.
    pub(super) async fn publish(&mut self, ledger: &Ledger, audit: &Audit, now: Timestamp) {
        let head = match ledger.head().await {
            Ok(Some(head)) if self.published.as_ref() != Some(&head) => head,
            Ok(_) => return,
            Err(error) => return self.trouble(&crate::chain(&error)),
        };
        tracing::info!(
            seq = head.seq, hash = head.hash, ledger = head.ledger, recorded = %head.at,
            "head of the ledger's chain"
        );
        if let Some(path) = &audit.heads
            && let Err(error) = append(path, &head, now)
        {
            self.trouble(&format!("cannot append the head to {}: {error}", path.display()));
            return;
        }
        self.published = Some(head);
        self.failed = None;
    }

    async fn remove(&mut self, ledger: &Ledger, audit: &Audit, now: Timestamp) {
        let Some(before) = audit.retention.and_then(|kept| now.checked_sub(kept).ok()) else {
            return;
        };
        match ledger.remove_before(before, now).await {
            Ok(None) => {}
            Ok(Some(removed)) => tracing::info!(
                %before, intervals = removed.intervals, intents = removed.intents, events = removed.events,
                "removed what is older than the ledger keeps"
            ),
            Err(error) => self.trouble(&crate::chain(&error)),
        }
    }

    /// Each trouble is said once until it is over.
    fn trouble(&mut self, why: &str) {
        if self.failed.as_deref() != Some(why) {
            tracing::error!(reason = %clean(why), "the record's chain could not be published or shortened, its totals not kept, or its redo log not shortened; it is tried again");
            self.failed = Some(why.to_owned());
        }
    }
}

/// A clock that was set back does not put it off for longer than it takes anyway.
fn is_due(next: Option<Timestamp>, now: Timestamp, every: SignedDuration) -> bool {
    next.is_none_or(|next| next <= now || every < now.duration_until(next))
}

/// Opens the file anew for each line, so that another program may rename it at any time, and writes the line at once, so
/// that nobody ever reads a part of one.
fn append(path: &Path, head: &Head, now: Timestamp) -> io::Result<()> {
    let line = serde_json::json!({
        "time": now, "seq": head.seq, "hash": head.hash, "ledger": head.ledger, "recorded": head.at,
    });
    let mut file = OpenOptions::new().create(true).append(true).mode(0o644).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}
