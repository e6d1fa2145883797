//! When to make a pass: at the next boundary, when a poll brought news, when files or signals say so.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch as channel};
use tokio::task::JoinSet;

use crate::authors::Authors;
use crate::clock::Clock;
use crate::commands::diff::speed;
use crate::config::{Config, Mode};
use crate::diagnostics::{Report, Severity};
use crate::http::{Health, InUse};
use crate::live::AUDIT;
use crate::metrics::Metrics;
use crate::notify::Beat;
use crate::poll::{Poller, Sources, Wanted};
use crate::reconcile::{Pass, PassError, Reconciler};

pub mod files;
pub mod in_force;
mod journal;
mod keeper;
pub mod pace;
pub mod systemd;
mod watch;

use crate::plan::convergence::Convergence;
use crate::policy::Policy;
use crate::text::{clean, span};
use files::{Files, Seen};
use in_force::Reload;
use journal::Journal;
use keeper::Keeper;
use pace::Pace;
use systemd::notify;
use watch::StepWatch;

/// Time between looks at the policy directory.
const LOOK_AT_FILES: SignedDuration = SignedDuration::from_secs(2);
/// The longest sleep, so that a step of the wall clock or a resumed host is noticed within it.
const LONGEST_SLEEP: SignedDuration = SignedDuration::from_secs(1);
/// How long the first pass waits for the first reads, where the ledger has nothing to start from.
const FIRST_READS: SignedDuration = SignedDuration::from_secs(10);
/// At least this much between passes, however much news there is.
const BREATH: Duration = Duration::from_millis(100);
/// A pass that takes longer, and to which AWS no longer answers, no longer feeds the watchdog.
const PASS_DEADLINE: SignedDuration = SignedDuration::from_mins(15);
/// How often a pass that is under way is looked at.
const LOOK_AT_PASS: Duration = Duration::from_secs(5);
/// AWS counts as answering if it did so lately.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// How long a person's release of a plan stays valid.
const APPROVAL_HOLDS: SignedDuration = SignedDuration::from_hours(1);
/// How long a stopping daemon waits for calls under way.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Everything that the daemon runs on.
pub struct Daemon {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Configuration; limits, timing and identities are replaced by a reload.
    pub config: Config,
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// What tells of edits of the policy and the configuration.
    pub files: Files,
    /// What makes passes.
    pub reconciler: Reconciler,
    /// On-call sources.
    pub sources: Sources,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Whether it works, for supervisors.
    pub health: Arc<Health>,
    /// Whether the pause file existed at the last look.
    pub paused: bool,
    /// What whoever tells people cannot learn from the ledger.
    pub beat: channel::Sender<Beat>,
    /// What it works by, for the HTTP listener and for whoever tells people.
    pub shown: channel::Sender<Arc<InUse>>,
}

impl Daemon {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// Only when signals cannot be listened to; trouble with the world never ends the daemon.
    pub async fn run(mut self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let news = Arc::new(Notify::new());
        let (wanted, receiver) = channel::channel(self.wanted());
        let mut background = JoinSet::new();
        for source in self.sources.values() {
            let poller = Poller {
                clock: Arc::clone(&self.clock),
                ledger: self.reconciler.ledger.clone(),
                snapshots: Arc::clone(&self.reconciler.snapshots),
                news: Arc::clone(&news),
                wanted: receiver.clone(),
                health: Arc::clone(&self.health),
            };
            background.spawn(poller.run(Arc::clone(source)));
        }
        let authors = Authors::new(
            Arc::clone(&self.clock),
            self.reconciler.ledger.clone(),
            Arc::clone(&self.reconciler.snapshots),
            self.sources.clone(),
        );
        background.spawn(authors.run());
        if let Some(applier) = self.reconciler.applier.clone() {
            let news = Arc::clone(&news);
            background.spawn(async move {
                loop {
                    applier.progress().await;
                    news.notify_one();
                }
            });
        }
        tracing::info!(
            mode = self.config.mode.as_str(),
            policy = self.policy.revision,
            "started"
        );
        self.warn_of_a_slow_audit();

        // The listener answers and the loop runs: that is what being started means. /readyz tells about the first pass.
        notify(&[sd_notify::NotifyState::Ready]);
        let mut journal = Journal::default();
        let mut pace = Pace::default();
        let mut keeper = Keeper::default();
        let mut next_pass = self.clock.now();
        let mut next_look = self.clock.now();
        let mut orders = None;
        let mut steps = StepWatch::new(&*self.clock);
        let mut starting = Some(self.clock.now().saturating_add(FIRST_READS).unwrap_or(Timestamp::MAX));
        if self.knows_every_schedule().await {
            starting = None;
        }
        loop {
            let now = self.clock.now();
            if let Some(step) = steps.look(&*self.clock) {
                tracing::warn!(%step, %now, "the wall clock was set or the host was asleep; everything is looked at again");
                (next_pass, next_look) = (now, now);
            }
            if next_look <= now {
                next_look = now.saturating_add(LOOK_AT_FILES).unwrap_or(now);
                self.files.look(now);
            }
            if let Some(since) = self.files.hangs(now) {
                tracing::error!(%since, "the policy directory or the configuration does not answer; what is in force stays, and no edit is seen until it does");
                self.metrics.policy_loaded(false, &self.policy.revision, now);
            }
            let given = self.reconciler.ledger.orders_mark().await.ok();
            if given != orders {
                orders = given;
                next_pass = now;
            }
            if starting.is_some_and(|end| end <= now) || self.health.all_sources_read() {
                starting = None;
            }
            if next_pass <= now && starting.is_none() {
                next_pass = tokio::select! {
                    pass = self.pass(&mut journal, &mut pace) => pass,
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                };
                self.after_pass(&journal).await;
                wanted.send_if_modified(|wanted| {
                    let before = std::mem::replace(&mut wanted.each_is_news, pace.waits_for_reads());
                    before != wanted.each_is_news
                });
                self.clock.sleep(BREATH).await;
                continue;
            }
            keeper.look(&self.reconciler.ledger, &self.config.audit, now).await;
            notify(&[sd_notify::NotifyState::Watchdog]);
            let wake = if starting.is_some() {
                next_look
            } else {
                next_pass.min(next_look)
            };
            let nap = now.duration_until(wake).min(LONGEST_SLEEP);
            tokio::select! {
                () = self.clock.sleep(Duration::try_from(nap).unwrap_or_default()) => {}
                () = news.notified() => next_pass = self.clock.now(),
                _ = hangup.recv() => {
                    notify(&[sd_notify::NotifyState::Reloading]);
                    self.files.look_at_once(now);
                }
                seen = self.files.seen() => {
                    let Some((seen, hung)) = seen else {
                        self.stop(background, keeper).await;
                        return Err(std::io::Error::other("the thread that watches the files broke off"));
                    };
                    if self.take_up(seen, hung) {
                        wanted.send_replace(self.wanted());
                        next_pass = self.clock.now();
                    }
                }
                Some(ended) = background.join_next() => {
                    let why = format!("a part of the daemon broke off: {ended:?}");
                    self.stop(background, keeper).await;
                    return Err(std::io::Error::other(why));
                }
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        self.stop(background, keeper).await;
        Ok(())
    }

    /// A ledger that knows every schedule serves at once; otherwise the first reads are worth a moment.
    async fn knows_every_schedule(&self) -> bool {
        let schedules = self.policy.schedules();
        let known = self.reconciler.snapshots.lock().await.newest(&schedules);
        schedules.iter().all(|key| known.contains_key(key))
    }

    async fn after_pass(&self, journal: &Journal) {
        let schedules = self.policy.schedules();
        let stored = self.reconciler.snapshots.lock().await;
        self.metrics.sources(&stored, &schedules, self.sources.keys());
        let expiries = self.config.sources.iter();
        let expiries = expiries.flat_map(|(name, source)| Some((name.clone(), source.expires?)));
        self.metrics.credentials(expiries.collect());
        let newest = stored.newest(&schedules);
        drop(stored);
        let (config, now) = (&self.config, self.clock.now());
        self.metrics
            .outlook(&self.policy, &newest, &config.identities, config.timing.horizon, now);
        self.beat.send_modify(|beat| beat.passes = beat.passes.wrapping_add(1));
        let status = journal.status_line(self.clock.now());
        notify(&[
            sd_notify::NotifyState::Watchdog,
            sd_notify::NotifyState::Status(&status),
        ]);
    }

    async fn stop(self, mut background: JoinSet<()>, mut keeper: Keeper) {
        notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!("stopping; calls under way may end, nothing new is begun");
        background.abort_all();
        if let Some(applier) = &self.reconciler.applier
            && tokio::time::timeout(STOP_PATIENCE, applier.stop()).await.is_err()
        {
            tracing::warn!("some changes had not ended; the next start settles them");
        }
        keeper
            .publish(&self.reconciler.ledger, &self.config.audit, self.clock.now())
            .await;
        tracing::info!("stopped");
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            schedules: self.policy.schedules(),
            poll: self.config.timing.poll,
            horizon: self.config.timing.horizon,
            each_is_news: false,
        }
    }

    /// One pass, and when the next one is due at the latest.
    async fn pass(&mut self, journal: &mut Journal, pace: &mut Pace) -> Timestamp {
        let began = self.clock.now();
        let result = self.watched_reconcile(began).await;
        let ended = self.clock.now();
        let took = Duration::try_from(began.duration_until(ended)).unwrap_or_default();
        if let Some(applier) = &self.reconciler.applier {
            self.metrics.changes_in_flight(applier.in_flight().len());
        }
        // That AWS is out of sight is on the board.
        let failed = match &result {
            Err(error @ PassError::Ledger(_)) => Some(crate::chain(error)),
            Ok(_) | Err(PassError::Aws(_)) => None,
        };
        self.beat.send_modify(|beat| beat.pass_failed = failed);
        match result {
            Ok(look) => {
                self.metrics.pass_ended(&look, took, ended);
                self.metrics.convergence(self.convergence(&look));
                self.health.pass_ended(true, ended);
                journal.pass(&look);
                let applier = self.reconciler.applier.as_ref();
                let retry = applier.and_then(|applier| applier.next_try(ended));
                let next = pace.passed(&look, &self.config.timing, ended);
                retry.map_or(next, |t| t.min(next))
            }
            Err(error) => {
                // What was decided before the world went out of sight is not begun any more.
                if let Some(applier) = &self.reconciler.applier {
                    applier.supersede();
                }
                self.metrics.pass_failed(&error, ended);
                self.health.pass_ended(false, ended);
                journal.failed(&error);
                pace.failed(&self.config.timing, ended)
            }
        }
    }

    /// How long AWS takes for what the pass approved.
    fn convergence(&self, look: &Pass) -> Convergence {
        let applier = self.reconciler.applier.as_ref();
        let speed = speed(&self.config, applier.and_then(|applier| applier.operation_takes()));
        let steps = look.survey.verdict.approved.steps().iter();
        Convergence::of(steps.map(|step| &*step.change), speed, look.survey.at)
    }

    /// A pass that feeds the watchdog while it runs: up to the deadline, and beyond it for as long as AWS answers, which
    /// allows so many questions a second that all of a large organisation takes many minutes.
    async fn watched_reconcile(&mut self, began: Timestamp) -> Result<Pass, PassError> {
        let (clock, health) = (Arc::clone(&self.clock), Arc::clone(&self.health));
        let reader = Arc::clone(&self.reconciler.reader);
        let pass = self.reconcile(began);
        tokio::pin!(pass);
        loop {
            tokio::select! {
                result = &mut pass => return result,
                () = clock.sleep(LOOK_AT_PASS) => {
                    let goes_on = reader.last_answer().is_some_and(|answer| answer.elapsed() < ANSWERS_WITHIN);
                    if goes_on {
                        health.pass_goes_on(clock.now());
                    }
                    if goes_on || began.duration_until(clock.now()) < PASS_DEADLINE {
                        notify(&[sd_notify::NotifyState::Watchdog]);
                    }
                }
            }
        }
    }

    async fn reconcile(&mut self, now: Timestamp) -> Result<Pass, PassError> {
        let policy = Arc::clone(&self.policy);
        let since = now.checked_sub(APPROVAL_HOLDS).unwrap_or(Timestamp::MIN);
        let approval = self.reconciler.ledger.open_approval(since).await?;
        let digest = approval.as_ref().map(|approval| approval.digest.as_str());
        let pass = self.reconciler.look(&self.config, &policy, digest).await?;
        if let Some(digest) = digest {
            let released = pass.survey.plan.digest == digest;
            if released {
                tracing::warn!(plan = digest, "a person released the held changes of this plan");
            } else {
                tracing::warn!(
                    approved = digest,
                    plan = pass.survey.plan.digest,
                    "the approved plan is not the present one; nothing is released"
                );
            }
            self.reconciler.ledger.use_approvals(released, self.clock.now()).await?;
        }
        self.reconciler.act(&pass, &self.config, &policy).await?;
        Ok(pass)
    }

    /// Puts in force what a look at the files brought. Returns whether that calls for a pass.
    fn take_up(&mut self, seen: Seen, hung: bool) -> bool {
        let now = self.clock.now();
        let was_slow = self.slow_audit().is_some();
        self.policy = seen.policy;
        let loaded = matches!(seen.reload, Reload::Loaded(_));
        if hung || !matches!(seen.reload, Reload::Unchanged) {
            self.metrics.policy_loaded(!seen.refusing, &self.policy.revision, now);
        }
        match seen.reload {
            Reload::Unchanged => {}
            Reload::Restored => {
                tracing::info!("the policy directory holds the policy in force again");
                self.beat.send_modify(|beat| beat.policy_refused = None);
            }
            Reload::Loaded(warnings) => {
                for warning in &warnings {
                    tracing::warn!(place = warning.place(), detail = %clean(&warning.message), "policy warning");
                }
                tracing::info!(policy = self.policy.revision, "a new policy is in force");
                self.beat.send_modify(|beat| beat.policy_refused = None);
            }
            Reload::Refused(report) => {
                for mistake in report.diagnostics() {
                    tracing::error!(place = mistake.place(), detail = %clean(&mistake.message), "policy refused; the one in force stays");
                }
                self.beat
                    .send_modify(|beat| beat.policy_refused = refusal("policy", &report));
            }
        }
        if hung {
            tracing::info!("the policy directory and the configuration answer again");
        }
        let reconfigured = seen.config.is_some();
        if let Some(config) = seen.config {
            self.reload_config(config);
        }
        if reconfigured || !was_slow {
            self.warn_of_a_slow_audit();
        }
        let refusal_changed = self.shown.borrow().policy_refused != seen.refusing;
        if loaded || reconfigured || refusal_changed {
            let in_use = InUse::new(&self.policy, &self.config, seen.refusing);
            self.shown.send_replace(Arc::new(in_use));
        }
        if self.files.is_ordered() {
            self.files.look(now);
        } else if seen.ordered {
            notify(&[sd_notify::NotifyState::Ready]);
        }
        let pause_changed = std::mem::replace(&mut self.paused, seen.paused) != seen.paused;
        loaded || reconfigured || pause_changed || seen.ordered
    }

    fn slow_audit(&self) -> Option<SignedDuration> {
        pace::slow_audit(self.policy.entitlements().count(), &self.config.timing)
    }

    fn warn_of_a_slow_audit(&self) {
        if let Some(takes) = self.slow_audit() {
            tracing::warn!(
                at_least = span(takes),
                audit = span(self.config.timing.audit),
                "a look at all of AWS takes longer than `audit` says, and drift is noticed that much later: once a `poll`, up \
                 to {AUDIT} targets are read that nothing is planned for; set `audit` to what is true, or `poll` shorter"
            );
        }
    }

    /// Everything of the configuration that can change without a restart.
    fn reload_config(&mut self, new: Config) {
        let mut waits = self.config.written.needing_restart(&new.written);
        let mode = match (self.config.mode, new.mode) {
            (Mode::Observe, Mode::Observe) => Mode::Observe,
            (Mode::Observe, _) | (_, Mode::Observe) => {
                waits.insert("mode (to or from observe)".to_owned());
                self.config.mode
            }
            (_, mode) => mode,
        };
        tracing::info!("limits, timing, identities, statements, audit and mode are reloaded");
        if waits != self.reconciler.awaits_restart {
            let keys: Vec<&str> = waits.iter().map(String::as_str).collect();
            let keys = clean(&keys.join(", "));
            if keys.is_empty() {
                tracing::info!("no edit of the configuration waits for a restart any more");
            } else {
                tracing::warn!(
                    keys,
                    "an edit of the configuration is not in force before the daemon is restarted"
                );
            }
            self.reconciler.awaits_restart = waits;
        }
        self.metrics.mode(mode);
        self.config = Config {
            mode,
            identities: new.identities,
            timing: new.timing,
            limits: new.limits,
            audit: new.audit,
            ..self.config.clone()
        };
    }
}

/// That an edit was refused, with the first mistake, for people.
pub(crate) fn refusal(what: &str, report: &Report) -> Option<String> {
    let first = report.diagnostics().iter().find(|d| d.severity == Severity::Error)?;
    Some(format!(
        "an edit of the {what} was refused and the one in force stays; the first mistake is at {}: {}",
        first.place(),
        first.message
    ))
}
