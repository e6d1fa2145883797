//! Carries out an [`ApprovedPlan`]: intent to the ledger, call to AWS, outcome to the ledger, for each change.
//!
//! Changes run beside each other within AWS's limits and beside later passes, which leave them alone while they are in
//! flight: a slow operation never keeps another hand-off waiting. A revoke waits for the grants of its target first. What
//! has waited is looked at once more before it begins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::guard::ApprovedPlan;
use crate::identity_center::{ChangeKind, Read, Write};
use crate::ledger::{FailedTry, LastTries, LastTry, Ledger};
use crate::live::{CONSISTENCY_GRACE, Ended, Look};
use crate::model::{EntitlementId, ResolvedTarget};
use crate::plan::{Change, Key};
use durations::Durations;
use looks::Looks;
use queue::{Lane, Queue};

mod carry_out;
mod dispatch;
mod durations;
mod end;
mod looks;
mod queue;
mod sights;

pub use end::{Applied, End, kind_word};

/// While changes end one after the other, a pass is called for about this often.
const CALL_EVERY: SignedDuration = SignedDuration::from_secs(1);

/// Runs changes and knows which are in flight.
pub struct Applier {
    clock: Arc<dyn Clock>,
    reader: Arc<dyn Read>,
    writer: Arc<dyn Write>,
    ledger: Ledger,
    assignments_in_flight: usize,
    operation_timeout: Duration,
    pause_file: PathBuf,
    state: Mutex<State>,
    /// Tells the dispatcher that a place or a step has come.
    wake: Notify,
    ended: Notify,
    news: Notify,
    /// Told of an end that called for no pass at once.
    later: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    is_dispatching: bool,
    /// Steps that have not begun. A newer plan that does not repeat a step takes it away.
    queue: Queue,
    /// Changes that have begun: their target is looked at again, or their intent is, or is about to be, on record.
    in_flight: BTreeMap<Key, ChangeKind>,
    /// How many of those are in each lane.
    places: BTreeMap<Lane, usize>,
    /// When a pass was last called for by the end of a step.
    called_at: Option<Timestamp>,
    durations: Durations,
    failures: BTreeMap<Key, Failure>,
    results: Vec<Applied>,
    looks: Looks,
    /// What AWS confirmed last of each, and when, within the grace for its own lag before any look that counts.
    confirmed: BTreeMap<Key, (ChangeKind, Timestamp)>,
}

/// What has become of the work since a pass last asked, and what is under way at that same instant: whatever ends later is
/// still under way to whoever works with both, and nothing falls between them.
#[derive(Debug, Default)]
pub struct Stock {
    /// Changes that ended.
    pub ended: Vec<Applied>,
    /// Changes under way.
    pub in_flight: BTreeMap<Key, ChangeKind>,
    /// Targets of changes that have not begun.
    pub queued: BTreeSet<ResolvedTarget>,
    /// What AWS said of targets before changes of them began.
    pub looks: Vec<Ended>,
}

/// What AWS last said to a change that is not in force, and when to try it again.
#[derive(Debug, Clone)]
struct Failure {
    kind: ChangeKind,
    last: LastTry,
    tries: u32,
    not_before: Timestamp,
}

impl State {
    /// Whether a change of this has begun, or has ended and no pass has taken that in yet.
    fn is_news(&self, key: &Key) -> bool {
        let ended = |applied: &Applied| applied.change.target == key.0 && applied.change.principal == key.1;
        self.in_flight.contains_key(key) || self.results.iter().any(ended)
    }

    /// Revokes that have begun, or have ended and no pass has taken that in yet.
    fn begun_revokes(&self) -> Vec<Key> {
        let under_way = self.in_flight.iter().filter(|(_, kind)| **kind == ChangeKind::Revoke);
        let ended = self.results.iter().filter(|applied| {
            let begun = matches!(applied.end, End::Confirmed | End::Failed(_) | End::Unsettled(_));
            begun && applied.change.kind == ChangeKind::Revoke
        });
        let ended = ended.map(|applied| applied.change.key());
        under_way.map(|(key, _)| key.clone()).chain(ended).collect()
    }

    fn must_wait(&self, change: &Change, now: Timestamp) -> bool {
        let failure = self.failures.get(&change.key());
        failure.is_some_and(|f| f.kind == change.kind && now < f.not_before)
    }

    /// Notes how a change that had begun, or was to wait, has ended.
    fn note(&mut self, change: Arc<Change>, end: End, now: Timestamp) {
        let key = change.key();
        if self.in_flight.remove(&key).is_some() {
            self.leave_place(&Lane::of(&change));
        }
        match &end {
            End::Superseded | End::Overtaken => {}
            End::Confirmed => {
                self.failures.remove(&key);
                self.confirmed.insert(key, (change.kind, now));
            }
            End::Failed(message) | End::Unsettled(message) | End::Deferred(message) => {
                let before = self.failures.get(&key).filter(|f| f.kind == change.kind);
                let tries = before.map_or(0, |f| f.tries);
                // A revoke that was not even tried owes AWS no pause: it goes when its grant has come or patience ends.
                let deferred = matches!(end, End::Deferred(_));
                let pause = SignedDuration::from_secs(if deferred { 0 } else { 5 << tries.min(6) });
                let failure = Failure {
                    kind: change.kind,
                    last: LastTry {
                        at: now,
                        why: message.clone(),
                    },
                    tries: tries.saturating_add(u32::from(!deferred)),
                    not_before: now.saturating_add(pause).unwrap_or(now),
                };
                self.failures.insert(key, failure);
            }
        }
        self.results.push(Applied { change, at: now, end });
    }

    fn leave_place(&mut self, lane: &Lane) {
        if let Some(taken) = self.places.get_mut(lane) {
            *taken -= 1;
            if *taken == 0 {
                self.places.remove(lane);
            }
        }
    }

    /// Steps that have not ended, begun or not.
    fn unfinished(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }

    /// A pass has something to decide when a change did not come about, when all have ended, and otherwise now and then.
    fn is_pass_due(&mut self, end: &End, now: Timestamp) -> bool {
        let long_ago = self.called_at.is_none_or(|t| CALL_EVERY <= t.duration_until(now).abs());
        let due = *end != End::Confirmed || self.unfinished() == 0 || long_ago;
        if due {
            self.called_at = Some(now);
        }
        due
    }
}

impl Applier {
    /// A runner with nothing to do yet, for so many account assignments at once; 0 counts as 1.
    pub fn new(
        clock: Arc<dyn Clock>,
        reader: Arc<dyn Read>,
        writer: Arc<dyn Write>,
        ledger: Ledger,
        assignments_in_flight: u32,
        operation_timeout: Duration,
        pause_file: PathBuf,
    ) -> Arc<Self> {
        Arc::new(Self {
            clock,
            reader,
            writer,
            ledger,
            assignments_in_flight: usize::try_from(assignments_in_flight.max(1)).unwrap_or(1),
            operation_timeout,
            pause_file,
            state: Mutex::default(),
            wake: Notify::new(),
            ended: Notify::new(),
            news: Notify::new(),
            later: Notify::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Starts the changes of the plan and returns at once; those of entitlements with a lower `priority` begin first. What
    /// an earlier plan has queued and not begun never begins: this plan has decided anew. A change that failed a moment
    /// ago waits, and so does a revoke whose incoming grant waits. `look` tells by what look at a target the plan was made; one
    /// that is old when the turn of a change has come is taken anew, and the change begins only if AWS shows the same.
    pub fn start(
        self: &Arc<Self>,
        plan: ApprovedPlan,
        policy_revision: &str,
        priority: impl Fn(&EntitlementId) -> u8,
        look: impl Fn(&ResolvedTarget) -> Option<Look>,
    ) {
        let now = self.clock.now();
        let mut state = self.state();
        let overtaken = plan.is_overtaken(|key| state.is_news(key));
        let surprised = plan.surprised_by(state.begun_revokes().iter());
        let mut steps = plan.into_steps();
        // Statements were asked without it; the pass that its end calls for decides anew.
        steps.retain(|step| !overtaken || step.change.kind == ChangeKind::Revoke);
        // The plan could not know of what has begun or ended since its look; the pass that the end calls for decides anew.
        steps.retain(|step| !state.is_news(&step.change.key()));
        steps.retain(|step| {
            let Change { kind, target, .. } = &*step.change;
            let waits = *kind == ChangeKind::Revoke && now < step.patience_ends && !step.change.is_ordered();
            !(waits && surprised.contains(target))
        });
        steps.retain(|step| step.change.is_ordered() || !state.must_wait(&step.change, now));
        let coming: BTreeSet<Key> = steps
            .iter()
            .filter(|s| s.change.kind == ChangeKind::Grant)
            .map(|s| s.change.key())
            .collect();
        steps.retain(|step| step.patience_ends <= now || step.waits_for.iter().all(|key| coming.contains(key)));
        let dropped = state.queue.replace(
            steps,
            policy_revision,
            |step| priority(&step.change.entitlement),
            look,
            now,
        );
        let dispatches = std::mem::replace(&mut state.is_dispatching, true);
        drop(state);
        self.say_superseded(&dropped);
        if !dispatches {
            self.tasks.spawn(Arc::clone(self).dispatch());
        }
        self.wake.notify_one();
    }

    /// Lets nothing begin that has not begun. For when the world cannot be seen any more.
    pub fn supersede(&self) {
        let dropped = self
            .state()
            .queue
            .replace(Vec::new(), "", |_| 0, |_| None, Timestamp::MIN);
        self.say_superseded(&dropped);
    }

    fn say_superseded(&self, dropped: &[Arc<Change>]) {
        for change in dropped {
            end::say(change, &End::Superseded);
        }
        if !dropped.is_empty() {
            self.ended.notify_waiters();
        }
    }

    /// Whether a change of this is under way or has ended since [`Self::take_results`], so that what was seen before may
    /// be over.
    #[must_use]
    pub fn is_news(&self, key: &Key) -> bool {
        self.state().is_news(key)
    }

    /// Changes under way, by what they do.
    #[must_use]
    pub fn in_flight(&self) -> BTreeMap<Key, ChangeKind> {
        self.state().in_flight.clone()
    }

    /// How the last try ended of changes that AWS refused or did not confirm.
    #[must_use]
    pub fn failures(&self) -> LastTries {
        self.state()
            .failures
            .iter()
            .map(|(key, f)| (key.clone(), (f.kind, f.last.clone())))
            .collect()
    }

    /// Takes over from the record what an earlier process tried in vain. Nothing waits for it: it is tried again at once.
    pub fn recall(&self, failed: Vec<FailedTry>) {
        let mut state = self.state();
        for FailedTry { change, last } in failed {
            let failure = Failure {
                kind: change.kind,
                not_before: last.at,
                last,
                tries: 0,
            };
            state.failures.insert(change.key(), failure);
        }
    }

    /// Takes over from the record what assignment operations took, the latest first.
    pub fn recall_durations(&self, seen: Vec<(ChangeKind, SignedDuration)>) {
        let mut state = self.state();
        for (kind, took) in seen.into_iter().rev() {
            state.durations.recall(kind, took);
        }
    }

    /// What an assignment operation takes, as seen lately; `None` while none was seen.
    #[must_use]
    pub fn operation_takes(&self) -> Option<SignedDuration> {
        self.state().durations.mean()
    }

    /// The first instant after `now` at which a change that failed may be tried again.
    #[must_use]
    pub fn next_try(&self, now: Timestamp) -> Option<Timestamp> {
        let state = self.state();
        let tries = state.failures.values().map(|f| f.not_before);
        tries.filter(|at| now < *at).min()
    }

    /// Forgets failures of changes that nobody wants any more. One that is tried again at this moment is still wanted,
    /// although no plan repeats it.
    pub fn retain_failures(&self, wanted: impl Fn(&Key, ChangeKind) -> bool) {
        let mut state = self.state();
        let state = &mut *state;
        let in_flight = &state.in_flight;
        state
            .failures
            .retain(|key, f| wanted(key, f.kind) || in_flight.get(key) == Some(&f.kind));
    }

    /// Takes what ended since the last call, and tells what is under way.
    #[must_use]
    pub fn take_stock(&self) -> Stock {
        let now = self.clock.now();
        let mut state = self.state();
        let state = &mut *state;
        let looks = state.looks.take(&state.confirmed, now);
        let since = now
            .checked_sub(CONSISTENCY_GRACE + CONSISTENCY_GRACE)
            .unwrap_or(Timestamp::MIN);
        state.confirmed.retain(|_, (_, at)| since <= *at);
        Stock {
            ended: std::mem::take(&mut state.results),
            in_flight: state.in_flight.clone(),
            queued: state.queue.targets(),
            looks,
        }
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
            if self.state().unfinished() == 0 {
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

    /// Whether a pause was ordered after the changes had been approved. Like the guard, it takes a file that cannot be
    /// looked for as there.
    fn is_paused(&self) -> bool {
        self.pause_file.try_exists().unwrap_or(true)
    }
}
