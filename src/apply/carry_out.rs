//! Carries out one change: waits for its turn, writes the intent, calls AWS, follows the operation, writes the outcome.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::{SemaphorePermit, watch};

use super::{Applier, End};
use crate::guard::Step;
use crate::identity_center::{AwsError, Operation, Progress, SlotGuard, Started};
use crate::ledger::{LedgerError, Outcome};
use crate::model::ResolvedTarget;
use crate::plan::Change;
use crate::text::{instant, span};

/// How long to wait before asking AWS again how an operation stands: it takes seconds as a rule, minutes at times.
const POLL_SECONDS: [u64; 6] = [1, 1, 2, 3, 5, 5];

/// What a change occupies while it runs.
enum Place<'a> {
    Assignment(#[expect(dead_code, reason = "held until the change ends")] SlotGuard),
    Group(#[expect(dead_code, reason = "held until the change ends")] SemaphorePermit<'a>),
}

impl Applier {
    pub(super) async fn step(
        &self,
        step: Step,
        waits: Vec<watch::Receiver<Option<bool>>>,
        revision: &str,
        ticket: u64,
    ) -> End {
        if let Some(reason) = self.wait_for_grants(&step, waits).await {
            return End::Deferred(reason);
        }
        let change = &step.change;
        let _place = match &change.target {
            ResolvedTarget::Assignment { account, .. } => Place::Assignment(self.slots.acquire(account).await),
            ResolvedTarget::Group { .. } => match self.group_changes.acquire().await {
                Ok(permit) => Place::Group(permit),
                Err(_) => return End::Superseded,
            },
        };
        if !self.begin(&step, ticket) {
            return End::Superseded;
        }
        match self.carry_out(change, revision).await {
            Ok(end) => end,
            Err(error) => End::Unsettled(format!("the ledger could not be written: {}", crate::chain(&error))),
        }
    }

    /// Make before break. Returns why the revoke must stay for now, if it must.
    async fn wait_for_grants(&self, step: &Step, waits: Vec<watch::Receiver<Option<bool>>>) -> Option<String> {
        for mut confirmation in waits {
            let left = self.clock.now().duration_until(step.patience_ends);
            let patience = Duration::try_from(left.max(SignedDuration::ZERO)).unwrap_or_default();
            let confirmed = tokio::select! {
                biased;
                ended = confirmation.wait_for(Option::is_some) => ended.is_ok_and(|c| *c == Some(true)),
                () = self.clock.sleep(patience) => return None,
                () = self.stop.cancelled() => return Some("the daemon is stopping".to_owned()),
            };
            if !confirmed && self.clock.now() < step.patience_ends {
                return Some(format!(
                    "the incoming grant was not confirmed; the access stays until it is, or until {} at most",
                    instant(step.patience_ends)
                ));
            }
        }
        None
    }

    async fn carry_out(&self, change: &Change, revision: &str) -> Result<End, LedgerError> {
        let intent = self.ledger.open_intent(change, revision, self.clock.now()).await?;
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
                match self.follow(&operation).await {
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
            End::Superseded => (Outcome::Failed, None),
        };
        let now = self.clock.now();
        self.ledger.complete(intent, change, outcome, detail, now, now).await?;
        Ok(end)
    }

    /// Asks until AWS has decided, or for as long as `operation_timeout` allows.
    async fn follow(&self, operation: &Operation) -> Result<End, AwsError> {
        let began = self.clock.now();
        let unsettled = |why: String| Ok(End::Unsettled(format!("{why} (request id {})", operation.request_id)));
        let mut waits = POLL_SECONDS
            .iter()
            .chain(std::iter::repeat(&POLL_SECONDS[POLL_SECONDS.len() - 1]));
        loop {
            let wait = Duration::from_secs(*waits.next().unwrap_or(&5));
            tokio::select! {
                biased;
                () = self.clock.sleep(wait) => {}
                () = self.stop.cancelled() => {
                    return unsettled("AWS had not finished the operation when dutybound was told to stop".to_owned());
                }
            }
            let failed = match self.reader.operation(operation).await {
                Ok(Progress::InProgress) => None,
                Ok(Progress::Succeeded) => return Ok(End::Confirmed),
                Ok(Progress::Failed(reason)) => return Ok(End::Failed(reason)),
                Ok(Progress::Forgotten) => {
                    return unsettled("AWS knows nothing of the operation that it began".to_owned());
                }
                Err(error) => Some(error),
            };
            let waited = Duration::try_from(began.duration_until(self.clock.now())).unwrap_or_default();
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
        }
    }
}

/// A step that has been started. If it breaks off, the change counts as unsettled and not as in flight for ever.
pub(super) struct Unfinished {
    pub(super) applier: Arc<Applier>,
    pub(super) change: Change,
    pub(super) confirmed: Option<watch::Sender<Option<bool>>>,
    pub(super) ended: bool,
}

impl Unfinished {
    pub(super) fn end(mut self, end: End) {
        self.settle(end);
    }

    fn settle(&mut self, end: End) {
        self.ended = true;
        if let Some(sender) = self.confirmed.take() {
            sender.send_replace(Some(end == End::Confirmed));
        }
        self.applier.finish(self.change.clone(), end);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.ended {
            self.settle(End::Unsettled("it broke off".to_owned()));
        }
    }
}
