//! Reads what a sink has not confirmed, and notices where the chain is not what the sink knows of it.

use jiff::{SignedDuration, Timestamp};

use super::batch::{Batch, Rendering};
use super::cursor::Cursor;
use super::record::{Mark, MarkKind, Record};
use crate::ledger::{Ledger, LedgerError};

/// No batch has more events.
const MOST_EVENTS: usize = 1000;
/// No batch has more bytes, unless its first event alone has.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// What one sink is to be sent.
pub(super) struct Feed {
    pub(super) ledger: Ledger,
    /// The ledger's name.
    pub(super) name: String,
    pub(super) rendering: Rendering,
    /// What was confirmed last; none at the beginning.
    pub(super) cursor: Option<Cursor>,
    /// The sink's name.
    pub(super) sink: String,
    pub(super) heads_every: SignedDuration,
    pub(super) next_head: Option<Timestamp>,
    /// The head that was sent last.
    pub(super) published: Option<i64>,
    /// Less than [`MOST_BYTES`] for a receiver that does not take as much.
    pub(super) most_bytes: usize,
}

/// The next batch, and how many events before it can never be sent.
pub(super) struct Next {
    pub(super) batch: Batch,
    pub(super) lost: i64,
}

impl Feed {
    /// The next batch: events, or else the head where it is due. `None` where there is neither.
    pub(super) async fn next(&mut self, now: Timestamp, stopping: bool) -> Result<Option<Next>, LedgerError> {
        let seq = self.cursor.as_ref().map_or(0, |cursor| cursor.seq);
        let mut stretch = self.ledger.events_after(seq, MOST_EVENTS).await?;
        let mut next = Next {
            batch: Batch::default(),
            lost: 0,
        };
        let mut before = self.cursor.clone();
        let mut removed = true;
        if let Some(cursor) = &self.cursor {
            // The hash covers everything before it. Where the event was removed, only the ledger's name can tell.
            removed = cursor.seq < stretch.oldest;
            let same = stretch.hash_before.as_ref() == Some(&cursor.hash);
            if !(same || removed && cursor.ledger == self.name) {
                let detail = format!(
                    "event {} with the hash that was sent is not in the ledger any more: it was restored, replaced or \
                     changed; all events that it has follow",
                    cursor.seq
                );
                self.mark(&mut next.batch, cursor, now, MarkKind::StreamRestarted, None, detail);
                stretch = self.ledger.events_after(0, MOST_EVENTS).await?;
                before = None;
            }
        }
        for event in stretch.events {
            let (lines, end) = (next.batch.lines.len(), next.batch.end.clone());
            let lost = before
                .as_ref()
                .map_or(0, |b| event.seq.saturating_sub(b.seq).saturating_sub(1));
            if let Some(before) = before.take_if(|_| 0 < lost) {
                let why = if removed {
                    "were removed before they were sent, by retention unless `dutybound audit verify` says otherwise"
                } else {
                    "are missing in the ledger; `dutybound audit verify` tells more"
                };
                let detail = format!("{lost} events after event {} {why}", before.seq);
                self.mark(&mut next.batch, &before, now, MarkKind::StreamGap, Some(lost), detail);
            }
            before = Some(self.cursor_at(event.seq, &event.hash));
            removed = false;
            let record = Record::Event(Box::new(event));
            next.batch.push(&record, &self.rendering, &self.name);
            if end.is_some() && 0 < lines && self.most_bytes < next.batch.size() {
                next.batch.lines.truncate(lines);
                next.batch.end = end;
                break;
            }
            next.lost += lost;
        }
        if next.batch.end.is_some() {
            return Ok(Some(next));
        }
        self.head(now, stopping).await
    }

    fn cursor_at(&self, seq: i64, hash: &str) -> Cursor {
        Cursor {
            ledger: self.name.clone(),
            seq,
            hash: hash.to_owned(),
        }
    }

    fn mark(
        &self,
        batch: &mut Batch,
        cursor: &Cursor,
        now: Timestamp,
        kind: MarkKind,
        events: Option<i64>,
        detail: String,
    ) {
        tracing::error!(sink = self.sink, detail, "the stream of events is not continuous");
        let mark = Mark {
            kind,
            time: now,
            seq: cursor.seq,
            hash: cursor.hash.clone(),
            recorded: None,
            events,
            detail,
        };
        batch.push(&Record::Mark(mark), &self.rendering, &self.name);
    }

    /// The head, once all events before it were confirmed.
    async fn head(&mut self, now: Timestamp, stopping: bool) -> Result<Option<Next>, LedgerError> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let due = self
            .next_head
            .is_none_or(|next| next <= now || self.heads_every < now.duration_until(next));
        let due = if stopping {
            self.published != Some(cursor.seq)
        } else {
            due
        };
        if !due {
            return Ok(None);
        }
        // Something newer is sent first.
        let Some(head) = self.ledger.head().await?.filter(|head| head.seq == cursor.seq) else {
            return Ok(None);
        };
        let mut batch = Batch::default();
        let mark = Mark {
            kind: MarkKind::Head,
            time: now,
            seq: head.seq,
            hash: head.hash,
            recorded: Some(head.at),
            events: None,
            detail: format!("the ledger's chain ends with event {} at this time", head.seq),
        };
        batch.push(&Record::Mark(mark), &self.rendering, &self.name);
        Ok(Some(Next { batch, lost: 0 }))
    }

    /// The receiver has this batch.
    pub(super) fn confirmed(&mut self, batch: &Batch, now: Timestamp) {
        match &batch.end {
            Some((seq, hash)) => {
                self.cursor = Some(self.cursor_at(*seq, hash));
            }
            None => {
                self.published = batch.lines.last().map(|line| line.seq);
                self.next_head = now.checked_add(self.heads_every).ok();
            }
        }
    }
}
