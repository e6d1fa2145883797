//! Carries out one change whose turn has come: looks again if the plan's look is old, writes the intent, calls AWS, follows
//! the operation, writes the outcome.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::durations::FirstLook;
use super::queue::Queued;
use super::{Applier, End};
use crate::identity_center::{AwsError, ChangeKind, Operation, Progress, Started};
use crate::ledger::{LedgerError, Opened, Outcome};
use crate::plan::Change;
use crate::text::span;

/// How long after the end of `operation_timeout` AWS is asked once more.
const LAST_LOOK: Duration = Duration::from_secs(1);

impl Applier {
    pub(super) async fn carry_out(self: Arc<Self>, queued: Queued) {
        let change = &queued.step.change;
        let unfinished = Unfinished {
            applier: Arc::clone(&self),
            change: Arc::clone(change),
            ended: false,
        };
        let end = match self.write(&queued).await {
            Ok(end) => end,
            Err(error) => End::Unsettled(format!("the ledger could not be written: {}", crate::chain(&error))),
        };
        unfinished.end(end);
    }

    async fn write(&self, queued: &Queued) -> Result<End, LedgerError> {
        if let Some(end) = self.look_again(queued).await {
            return Ok(end);
        }
        let change = &*queued.step.change;
        let intent = match self
            .ledger
            .open_intent(change, &queued.revision, self.clock.now())
            .await?
        {
            Opened::Intent(intent) => intent,
            Opened::Barred(bar) => {
                let why = format!("it was not begun: barred by {}: {}", bar.ordered_by, bar.reason);
                return Ok(End::Deferred(why));
            }
        };
        let started = self.writer.start(change.kind, &change.target, &change.principal).await;
        match started {
            Ok(Started::Done { reference }) => {
                if let Some(reference) = reference {
                    self.ledger.note_reference(intent, &reference, self.clock.now()).await?;
                }
                self.complete(intent, change, End::Confirmed).await
            }
            Ok(Started::Pending(operation)) => {
                self.ledger
                    .note_reference(intent, &operation.request_id, self.clock.now())
                    .await?;
                match self.follow(change.kind, &operation).await {
                    Ok(end @ End::Unsettled(_)) => Ok(end),
                    Ok(end) => self.complete(intent, change, end).await,
                    Err(error) => Ok(End::Unsettled(error.to_string())),
                }
            }
            Err(error) if error.outcome_unknown => Ok(End::Unsettled(error.to_string())),
            Err(error) => self.complete(intent, change, End::Failed(error.to_string())).await,
        }
    }

    async fn complete(&self, intent: i64, change: &Change, end: End) -> Result<End, LedgerError> {
        let (outcome, detail) = match &end {
            End::Confirmed => (Outcome::Succeeded, None),
            End::Failed(message) | End::Unsettled(message) | End::Deferred(message) => {
                (Outcome::Failed, Some(message.as_str()))
            }
            End::Superseded | End::Overtaken => (Outcome::Failed, None),
        };
        let now = self.clock.now();
        self.ledger.complete(intent, change, outcome, detail, now, now).await?;
        Ok(end)
    }

    /// Asks until AWS has decided, or for as long as `operation_timeout` allows.
    async fn follow(&self, kind: ChangeKind, operation: &Operation) -> Result<End, AwsError> {
        let began = self.clock.now();
        let unsettled = |why: String| Ok(End::Unsettled(format!("{why} (request id {})", operation.request_id)));
        let mut under_way = None;
        let first = self.first_look(kind);
        let mut wait = first.after;
        loop {
            tokio::select! {
                biased;
                () = self.clock.sleep(wait) => {}
                () = self.stop.cancelled() => {
                    return unsettled("AWS had not finished the operation when dutybound was told to stop".to_owned());
                }
            }
            let failed = match self.reader.operation(operation).await {
                Ok(Progress::InProgress) => None,
                Ok(Progress::Succeeded) => {
                    let now = self.clock.now();
                    self.state()
                        .durations
                        .saw(kind, first, under_way, self.since(began), now);
                    return Ok(End::Confirmed);
                }
                Ok(Progress::Failed(reason)) => return Ok(End::Failed(reason)),
                Ok(Progress::Forgotten) => {
                    return unsettled("AWS knows nothing of the operation that it began".to_owned());
                }
                Err(error) => Some(error),
            };
            let waited = self.since(began);
            if self.operation_timeout < waited {
                let limit = span(SignedDuration::try_from(self.operation_timeout).unwrap_or(SignedDuration::MAX));
                return failed.map_or_else(
                    || {
                        unsettled(format!(
                            "AWS has not finished the operation within operation_timeout, {limit}"
                        ))
                    },
                    Err,
                );
            }
            if failed.is_none() {
                under_way = Some(waited);
            }
            let state = self.state();
            wait = state
                .durations
                .next_look(kind, first, waited, state.queue.is_contended());
            // The last question comes just after the time is over.
            wait = wait.min(self.operation_timeout.saturating_sub(waited) + LAST_LOOK);
        }
    }

    fn first_look(&self, kind: ChangeKind) -> FirstLook {
        let mut state = self.state();
        let contended = state.queue.is_contended();
        let first = state.durations.first_look(kind, contended, self.clock.now());
        first.at_most(self.operation_timeout + LAST_LOOK)
    }

    fn since(&self, began: Timestamp) -> Duration {
        Duration::try_from(began.duration_until(self.clock.now())).unwrap_or_default()
    }
}

/// A step that has begun. If it breaks off, the change counts as unsettled and not as in flight for ever.
struct Unfinished {
    applier: Arc<Applier>,
    change: Arc<Change>,
    ended: bool,
}

impl Unfinished {
    fn end(mut self, end: End) {
        self.ended = true;
        self.applier.finish(Arc::clone(&self.change), end);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.ended {
            self.applier
                .finish(Arc::clone(&self.change), End::Unsettled("it broke off".to_owned()));
        }
    }
}
