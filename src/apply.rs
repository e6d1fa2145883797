//! Carries out an [`ApprovedPlan`]: intent to the ledger, call to AWS, outcome to the ledger, for each change.
//!
//! Changes run beside each other within AWS's limits and beside later passes, which leave them alone while they are in
//! flight: a slow operation never keeps another hand-off waiting. A revoke waits for the grants of its target first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::guard::{ApprovedPlan, Step};

use crate::identity_center::{AwsError, ChangeKind, Operation, Progress, Read, Slots, Started, Write};
use crate::ledger::{Ledger, LedgerError, Outcome};
use crate::model::ResolvedTarget;
use crate::plan::{Change, Key};

/// How long to wait before asking AWS again how an operation stands: it takes seconds as a rule, minutes at times.
const POLL_SECONDS: [u64; 6] = [1, 1, 2, 3, 5, 5];

/// Runs changes and knows which are in flight.
pub struct Applier {
    clock: Arc<dyn Clock>,
    reader: Arc<dyn Read>,
    writer: Arc<dyn Write>,
    ledger: Ledger,
    slots: Slots,
    operation_timeout: Duration,
    state: Mutex<State>,
    finished: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    in_flight: BTreeMap<Key, ChangeKind>,
    failures: BTreeMap<Key, String>,
    results: Vec<Applied>,
}

/// How one change ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The change.
    pub change: Change,
    /// When it ended.
    pub at: Timestamp,
    /// How.
    pub end: End,
}

/// How a change can end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// AWS confirmed it.
    Confirmed,
    /// AWS refused it, for this reason.
    Failed(String),
    /// No answer came; the next pass looks at live state.
    Unsettled(String),
    /// A revoke that stays for now because the incoming grant did not come.
    Deferred(String),
}

impl Applier {
    /// A runner with nothing to do yet.
    pub fn new(
        clock: Arc<dyn Clock>,
        reader: Arc<dyn Read>,
        writer: Arc<dyn Write>,
        ledger: Ledger,
        slots: Slots,
        operation_timeout: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            clock,
            reader,
            writer,
            ledger,
            slots,
            operation_timeout,
            state: Mutex::default(),
            finished: Notify::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Starts every change of the plan and returns at once.
    pub fn start(self: &Arc<Self>, plan: ApprovedPlan, policy_revision: &str) {
        let steps = plan.into_steps();
        let mut confirmations = BTreeMap::new();
        let mut senders = BTreeMap::new();
        for step in steps.iter().filter(|s| s.change.kind == ChangeKind::Grant) {
            let (sender, receiver) = watch::channel(None);
            confirmations.insert(step.change.key(), receiver);
            senders.insert(step.change.key(), sender);
        }
        let mut state = self.state();
        for step in &steps {
            state.in_flight.insert(step.change.key(), step.change.kind);
        }
        drop(state);
        for step in steps {
            let key = step.change.key();
            let waits: Vec<_> = step
                .waits_for
                .iter()
                .filter_map(|k| confirmations.get(k).cloned())
                .collect();
            let sender = senders.remove(&key);
            let this = Arc::clone(self);
            let revision = policy_revision.to_owned();
            self.tasks.spawn(async move {
                let change = step.change.clone();
                let end = this.step(step, waits, &revision).await;
                if let Some(sender) = sender {
                    sender.send_replace(Some(end == End::Confirmed));
                }
                this.finish(change, end);
            });
        }
    }

    /// Changes under way, by what they do.
    #[must_use]
    pub fn in_flight(&self) -> BTreeMap<Key, ChangeKind> {
        self.state().in_flight.clone()
    }

    /// What AWS last said to changes that it refused or did not confirm.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<Key, String> {
        self.state().failures.clone()
    }

    /// Forgets failures of changes that nobody wants any more.
    pub fn retain_failures(&self, wanted: impl Fn(&Key) -> bool) {
        self.state().failures.retain(|key, _| wanted(key));
    }

    /// Takes what ended since the last call.
    #[must_use]
    pub fn take_results(&self) -> Vec<Applied> {
        std::mem::take(&mut self.state().results)
    }

    /// Returns when some change has ended since the last call.
    pub async fn progress(&self) {
        self.finished.notified().await;
    }

    /// Returns when nothing is in flight.
    pub async fn idle(&self) {
        loop {
            let notified = self.finished.notified();
            if self.state().in_flight.is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Begins nothing more, lets calls under way end, and returns when they have. Operations that AWS still works on
    /// stay open intents, which the next start settles.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, change: Change, end: End) {
        let key = change.key();
        match &end {
            End::Confirmed => tracing::info!(
                change = kind_word(change.kind), entitlement = %change.entitlement, principal = %change.principal, "confirmed"
            ),
            End::Failed(message) => tracing::error!(
                change = kind_word(change.kind), entitlement = %change.entitlement, principal = %change.principal, reason = %crate::text::clean(message),
                "refused; the next pass tries again"
            ),
            End::Unsettled(message) => tracing::warn!(
                change = kind_word(change.kind), entitlement = %change.entitlement, principal = %change.principal, reason = %crate::text::clean(message),
                "not confirmed; the next pass looks at the live state"
            ),
            End::Deferred(message) => tracing::warn!(
                change = kind_word(change.kind), entitlement = %change.entitlement, principal = %change.principal, reason = %crate::text::clean(message),
                "deferred"
            ),
        }
        let mut state = self.state();
        state.in_flight.remove(&key);
        match &end {
            End::Confirmed | End::Deferred(_) => state.failures.remove(&key),
            End::Failed(message) | End::Unsettled(message) => state.failures.insert(key, message.clone()),
        };
        state.results.push(Applied {
            change,
            at: self.clock.now(),
            end,
        });
        drop(state);
        self.finished.notify_waiters();
        self.finished.notify_one();
    }

    async fn step(&self, step: Step, waits: Vec<watch::Receiver<Option<bool>>>, revision: &str) -> End {
        if let Some(reason) = self.wait_for_grants(&step, waits).await {
            return End::Deferred(reason);
        }
        let change = &step.change;
        let _slot = match &change.target {
            ResolvedTarget::Assignment { account, .. } => Some(self.slots.acquire(account).await),
            ResolvedTarget::Group { .. } => None,
        };
        if self.stop.is_cancelled() {
            return End::Deferred("the daemon is stopping".to_owned());
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
                ended = confirmation.wait_for(Option::is_some) => ended.is_ok_and(|c| *c == Some(true)),
                () = self.clock.sleep(patience) => return None,
                () = self.stop.cancelled() => return Some("the daemon is stopping".to_owned()),
            };
            if !confirmed && self.clock.now() < step.patience_ends {
                return Some(format!(
                    "the incoming grant was not confirmed; waiting until {}",
                    step.patience_ends
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
                    self.ledger.note_reference(intent, &reference).await?;
                }
                self.complete(intent, change, End::Confirmed).await
            }
            Ok(Started::Pending(operation)) => {
                self.ledger.note_reference(intent, &operation.request_id).await?;
                match self.follow(&operation).await {
                    Ok(None) => Ok(End::Unsettled("AWS has not finished the operation yet".to_owned())),
                    Ok(Some(end)) => self.complete(intent, change, end).await,
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
        };
        let now = self.clock.now();
        self.ledger.complete(intent, change, outcome, detail, now, now).await?;
        Ok(end)
    }

    /// Asks until AWS has decided; `None` when it has not within the time limit.
    async fn follow(&self, operation: &Operation) -> Result<Option<End>, AwsError> {
        let began = self.clock.now();
        let mut waits = POLL_SECONDS
            .iter()
            .chain(std::iter::repeat(&POLL_SECONDS[POLL_SECONDS.len() - 1]));
        loop {
            let wait = Duration::from_secs(*waits.next().unwrap_or(&5));
            tokio::select! {
                () = self.clock.sleep(wait) => {}
                () = self.stop.cancelled() => return Ok(None),
            }
            let failed = match self.reader.operation(operation).await {
                Ok(Progress::InProgress) => None,
                Ok(Progress::Succeeded) => return Ok(Some(End::Confirmed)),
                Ok(Progress::Failed(reason)) => return Ok(Some(End::Failed(reason))),
                Ok(Progress::Forgotten) => return Ok(None),
                Err(error) => Some(error),
            };
            let waited = Duration::try_from(began.duration_until(self.clock.now())).unwrap_or_default();
            if self.operation_timeout < waited {
                return failed.map_or(Ok(None), Err);
            }
        }
    }
}

/// `grant` or `revoke`, for logs and labels.
#[must_use]
pub fn kind_word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Grant => "grant",
        ChangeKind::Revoke => "revoke",
    }
}
