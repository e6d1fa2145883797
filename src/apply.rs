//! Carries out an [`ApprovedPlan`]: intent to the ledger, call to AWS, outcome to the ledger, for each change.
//!
//! Changes run beside each other within AWS's limits and beside later passes, which leave them alone while they are in
//! flight: a slow operation never keeps another hand-off waiting. A revoke waits for the grants of its target first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::guard::{ApprovedPlan, Step};

use crate::identity_center::{AwsError, ChangeKind, Operation, Progress, Read, SlotGuard, Slots, Started, Write};
use crate::ledger::{Ledger, LedgerError, Outcome};
use crate::model::ResolvedTarget;
use crate::plan::{Change, Key};
use crate::text::clean;

/// How long to wait before asking AWS again how an operation stands: it takes seconds as a rule, minutes at times.
const POLL_SECONDS: [u64; 6] = [1, 1, 2, 3, 5, 5];

/// While changes end one after the other, a pass is called for about this often.
const CALL_EVERY: SignedDuration = SignedDuration::from_secs(1);

/// Group memberships changed at once; each waits for the limiter anyway.
const GROUP_CHANGES: usize = 16;

/// What a change occupies while it runs.
enum Place<'a> {
    Assignment(#[expect(dead_code, reason = "held until the change ends")] SlotGuard),
    Group(#[expect(dead_code, reason = "held until the change ends")] SemaphorePermit<'a>),
}

/// Runs changes and knows which are in flight.
pub struct Applier {
    clock: Arc<dyn Clock>,
    reader: Arc<dyn Read>,
    writer: Arc<dyn Write>,
    ledger: Ledger,
    slots: Slots,
    group_changes: Semaphore,
    operation_timeout: Duration,
    state: Mutex<State>,
    ended: Notify,
    news: Notify,
    /// Told of an end that called for no pass at once.
    later: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    /// The last ticket given out.
    ticket: u64,
    /// Steps that have not begun, by the ticket that lets them. A newer plan that does not repeat a step takes it away.
    queued: BTreeMap<Key, Queued>,
    /// Steps that have not ended, begun or not.
    unfinished: usize,
    /// When a pass was last called for by the end of a step.
    called_at: Option<Timestamp>,
    /// Changes that have begun: their intent is, or is about to be, on record.
    in_flight: BTreeMap<Key, ChangeKind>,
    failures: BTreeMap<Key, Failure>,
    results: Vec<Applied>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Queued {
    ticket: u64,
    kind: ChangeKind,
    waits_for: Vec<Key>,
    lapses_at: Timestamp,
}

/// What AWS last said to a change that is not in force, and when to try it again.
#[derive(Debug, Clone)]
struct Failure {
    message: String,
    tries: u32,
    not_before: Timestamp,
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
    /// It never began, because a newer plan decides.
    Superseded,
}

impl State {
    fn must_wait(&self, key: &Key, now: Timestamp) -> bool {
        self.failures.get(key).is_some_and(|f| now < f.not_before)
    }

    /// Notes how a change that had begun, or was to wait, has ended.
    fn note(&mut self, change: Change, end: End, now: Timestamp) {
        let key = change.key();
        self.in_flight.remove(&key);
        match &end {
            End::Superseded => {}
            End::Confirmed => {
                self.failures.remove(&key);
            }
            End::Failed(message) | End::Unsettled(message) | End::Deferred(message) => {
                let tries = self.failures.get(&key).map_or(0, |f| f.tries);
                let pause = SignedDuration::from_secs(5 << tries.min(6));
                let failure = Failure {
                    message: message.clone(),
                    tries: tries.saturating_add(1),
                    not_before: now.saturating_add(pause).unwrap_or(now),
                };
                self.failures.insert(key, failure);
            }
        }
        self.results.push(Applied { change, at: now, end });
    }
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
            group_changes: Semaphore::new(GROUP_CHANGES),
            operation_timeout,
            state: Mutex::default(),
            ended: Notify::new(),
            news: Notify::new(),
            later: Notify::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Starts the changes of the plan and returns at once. What an earlier plan has queued and not begun never begins:
    /// this plan has decided anew. A change that failed a moment ago waits, and so does a revoke whose incoming grant waits.
    pub fn start(self: &Arc<Self>, plan: ApprovedPlan, policy_revision: &str) {
        let now = self.clock.now();
        let mut state = self.state();
        let mut steps = plan.into_steps();
        steps.retain(|step| step.change.is_ordered() || !state.must_wait(&step.change.key(), now));
        let coming: BTreeSet<Key> = steps
            .iter()
            .filter(|s| s.change.kind == ChangeKind::Grant)
            .map(|s| s.change.key())
            .collect();
        steps.retain(|step| step.patience_ends <= now || step.waits_for.iter().all(|key| coming.contains(key)));
        // A step that is queued already and decided the same again keeps its place and its task.
        let before = std::mem::take(&mut state.queued);
        let mut fresh = Vec::new();
        for step in steps {
            let key = step.change.key();
            let same = |queued: &&Queued| {
                queued.kind == step.change.kind
                    && queued.waits_for == step.waits_for
                    && queued.lapses_at == step.lapses_at
            };
            if let Some(queued) = before.get(&key).filter(same).filter(|_| step.waits_for.is_empty()) {
                state.queued.insert(key, queued.clone());
                continue;
            }
            state.ticket += 1;
            let queued = Queued {
                ticket: state.ticket,
                kind: step.change.kind,
                waits_for: step.waits_for.clone(),
                lapses_at: step.lapses_at,
            };
            state.queued.insert(key, queued);
            fresh.push((step, state.ticket));
        }
        state.unfinished += fresh.len();
        let mut confirmations = BTreeMap::new();
        for (step, _) in fresh.iter().filter(|(step, _)| step.change.kind == ChangeKind::Grant) {
            confirmations.insert(step.change.key(), watch::channel(None));
        }
        drop(state);
        for (step, ticket) in fresh {
            // The grant of a step that keeps its place has no channel here: its revoke is planned anew when it has ended.
            let waits: Option<Vec<_>> = step
                .waits_for
                .iter()
                .map(|k| confirmations.get(k).map(|(_, receiver)| receiver.clone()))
                .collect();
            let unfinished = Unfinished {
                applier: Arc::clone(self),
                change: step.change.clone(),
                confirmed: confirmations.get(&step.change.key()).map(|(sender, _)| sender.clone()),
                ended: false,
            };
            let revision = policy_revision.to_owned();
            self.tasks.spawn(async move {
                let end = match waits {
                    Some(waits) => unfinished.applier.step(step, waits, &revision, ticket).await,
                    None => End::Superseded,
                };
                unfinished.end(end);
            });
        }
    }

    /// Lets nothing begin that has not begun. For when the world cannot be seen any more.
    pub fn supersede(&self) {
        self.state().queued.clear();
    }

    /// Changes under way, by what they do.
    #[must_use]
    pub fn in_flight(&self) -> BTreeMap<Key, ChangeKind> {
        self.state().in_flight.clone()
    }

    /// What AWS last said to changes that it refused or did not confirm.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<Key, String> {
        self.state()
            .failures
            .iter()
            .map(|(key, f)| (key.clone(), f.message.clone()))
            .collect()
    }

    /// The first instant at which a change that failed may be tried again.
    #[must_use]
    pub fn next_try(&self) -> Option<Timestamp> {
        self.state().failures.values().map(|f| f.not_before).min()
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

    /// Returns when something has ended that a pass should look at. No end goes without a pass, even if those that come
    /// after it never call for one.
    pub async fn progress(&self) {
        let later = async {
            self.later.notified().await;
            self.clock.sleep(CALL_EVERY.unsigned_abs()).await;
        };
        tokio::select! {
            () = self.news.notified() => {}
            () = later => {}
        }
    }

    /// Returns when every step has ended.
    pub async fn idle(&self) {
        loop {
            let notified = self.ended.notified();
            if self.state().unfinished == 0 {
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
        say(&change, &end);
        let now = self.clock.now();
        let mut state = self.state();
        state.unfinished = state.unfinished.saturating_sub(1);
        if end != End::Superseded {
            state.note(change, end.clone(), now);
        }
        // A pass has something to decide when a change did not come about, when all have ended, and otherwise now and then.
        let long_ago = state
            .called_at
            .is_none_or(|t| CALL_EVERY <= t.duration_until(now).abs());
        let call = end != End::Superseded && (end != End::Confirmed || state.unfinished == 0 || long_ago);
        if call {
            state.called_at = Some(now);
        }
        drop(state);
        self.ended.notify_waiters();
        if call {
            self.news.notify_one();
        } else if end != End::Superseded {
            self.later.notify_one();
        }
    }

    /// Marks the change as begun, unless a newer plan has taken its ticket away or it has waited for longer than it was
    /// right: then the pass of that boundary decides.
    fn begin(&self, step: &Step, ticket: u64) -> bool {
        let now = self.clock.now();
        let mut state = self.state();
        let key = step.change.key();
        if self.stop.is_cancelled() || state.queued.get(&key).is_none_or(|queued| queued.ticket != ticket) {
            return false;
        }
        state.queued.remove(&key);
        if step.lapses_at <= now {
            return false;
        }
        state.in_flight.insert(key, step.change.kind);
        true
    }

    async fn step(&self, step: Step, waits: Vec<watch::Receiver<Option<bool>>>, revision: &str, ticket: u64) -> End {
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
            End::Superseded => (Outcome::Failed, None),
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
                biased;
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

/// A step that has been started. If it breaks off, the change counts as unsettled and not as in flight for ever.
struct Unfinished {
    applier: Arc<Applier>,
    change: Change,
    confirmed: Option<watch::Sender<Option<bool>>>,
    ended: bool,
}

impl Unfinished {
    fn end(mut self, end: End) {
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

fn say(change: &Change, end: &End) {
    let (word, entitlement, principal) = (kind_word(change.kind), &change.entitlement, &change.principal);
    match end {
        End::Confirmed => tracing::info!(change = word, %entitlement, %principal, "confirmed"),
        End::Failed(message) => {
            tracing::error!(change = word, %entitlement, %principal, reason = %clean(message), "refused; it is tried again");
        }
        End::Unsettled(message) => {
            tracing::warn!(change = word, %entitlement, %principal, reason = %clean(message), "not confirmed; the next pass looks at the live state");
        }
        End::Deferred(message) => {
            tracing::warn!(change = word, %entitlement, %principal, reason = %clean(message), "deferred");
        }
        End::Superseded => tracing::debug!(change = word, %entitlement, %principal, "a newer plan decides"),
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
