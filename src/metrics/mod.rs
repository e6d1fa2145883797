//! What Prometheus sees: events counted as they happen, state set after each pass, access time derived from the ledger.
//!
//! No label carries a person, a schedule, an account or a message: every label has a set of values that the operator's
//! configuration and the owners' policy bound.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use prometheus::{Error, Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::accounting::{Part, Phase};
use crate::apply::{Applied, End, kind_word};
use crate::config::{Identity, Mode};
use crate::desired::Snapshots;
use crate::guard::Guard;
use crate::identity_center::ChangeKind;
use crate::ledger::{Ledger, LedgerError, StoredSnapshots};
use crate::model::{EntitlementId, ScheduleKey, SourceName};
use crate::plan::Foresight;
use crate::plan::convergence::Convergence;
use crate::policy::Policy;
use crate::problem::ProblemKind;
use crate::reconcile::{Pass, PassError};
use crate::survey::Survey;
use crate::telemetry::ApiCalls;

mod access;
mod openmetrics;
mod outlook;
mod page;
mod sources;

use access::{AccessTime, Held};
use outlook::Outlook;
use page::{Format, Page, flag, number, unix};
use sources::SourceState;

/// The media type of Prometheus' text format; with another one a scrape fails.
const TEXT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const PASS_BUCKETS: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const DELAY_BUCKETS: [f64; 13] = [
    0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];
const MODES: [Mode; 4] = [Mode::Observe, Mode::GrantOnly, Mode::RevokeOnly, Mode::Sync];
const PASS_OUTCOMES: [&str; 4] = ["complete", "incomplete", "aws_error", "ledger_error"];
const CHANGE_OUTCOMES: [&str; 4] = ["confirmed", "failed", "unsettled", "deferred"];

/// Everything that the daemon tells Prometheus.
pub struct Metrics {
    registry: Registry,
    passes: IntCounterVec,
    pass_duration: Histogram,
    changes: IntCounterVec,
    change_delay: HistogramVec,
    version: String,
    state: Mutex<State>,
    access: tokio::sync::Mutex<AccessTime>,
}

#[derive(Default)]
struct State {
    /// What may be written to AWS.
    mode: Option<Mode>,
    last_attempt: Option<Timestamp>,
    last_success: Option<Timestamp>,
    pass: Option<Seen>,
    policy: Option<Loaded>,
    sources: BTreeMap<SourceName, SourceState>,
    outlook: Outlook,
    changes_in_flight: usize,
    /// How long AWS takes for the last pass's plan.
    convergence: Option<Convergence>,
    /// When the credentials of sources expire, as the configuration states it.
    expiries: BTreeMap<SourceName, Timestamp>,
    /// Whether the last pass could write its record.
    ledger_writable: Option<bool>,
    /// Whether the last read of the configuration was put in force.
    config_ok: Option<bool>,
}

/// What the last pass saw.
struct Seen {
    problems: BTreeMap<ProblemKind, usize>,
    problems_ahead: BTreeMap<ProblemKind, usize>,
    drift: BTreeMap<EntitlementId, usize>,
    next_boundary: Option<Timestamp>,
    open_intents: usize,
    /// Changes that AWS keeps waiting, not a guard: grants, revokes.
    overdue: [usize; 2],
}

struct Loaded {
    ok: bool,
    revision: String,
    at: Timestamp,
    /// When an edit replaced another policy of this process.
    edited: Option<Timestamp>,
}

impl Metrics {
    /// Metrics of a daemon that has done nothing yet.
    ///
    /// # Errors
    /// Never in practice: names and labels are constants that the prometheus crate checks.
    pub fn new(calls: &ApiCalls, version: &str, mode: Mode) -> Result<Self, Error> {
        let registry = Registry::new();
        let passes = IntCounterVec::new(
            Opts::new(
                "dutybound_passes_total",
                "Reconciliation passes, by outcome: complete, incomplete (some targets could not be read), aws_error, ledger_error.",
            ),
            &["outcome"],
        )?;
        let pass_duration = Histogram::with_opts(
            HistogramOpts::new(
                "dutybound_pass_duration_seconds",
                "Time from the start of a pass to its plan; changes run on beside later passes.",
            )
            .buckets(PASS_BUCKETS.to_vec()),
        )?;
        let changes = IntCounterVec::new(
            Opts::new(
                "dutybound_changes_total",
                "Changes to AWS that ended, by kind and outcome: confirmed, failed, unsettled (no answer; settled later), deferred (not begun: make before break, or barred).",
            ),
            &["kind", "outcome"],
        )?;
        let change_delay = HistogramVec::new(
            HistogramOpts::new(
                "dutybound_change_delay_seconds",
                "Time from the boundary that called for a change to AWS's confirmation, for changes known in advance.",
            )
            .buckets(DELAY_BUCKETS.to_vec()),
            &["kind"],
        )?;
        for outcome in PASS_OUTCOMES {
            passes.get_metric_with_label_values(&[outcome])?;
        }
        for kind in [ChangeKind::Grant, ChangeKind::Revoke].map(kind_word) {
            change_delay.get_metric_with_label_values(&[kind])?;
            for outcome in CHANGE_OUTCOMES {
                changes.get_metric_with_label_values(&[kind, outcome])?;
            }
        }
        registry.register(Box::new(passes.clone()))?;
        registry.register(Box::new(pass_duration.clone()))?;
        registry.register(Box::new(changes.clone()))?;
        registry.register(Box::new(change_delay.clone()))?;
        registry.register(Box::new(calls.collector()))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self {
            registry,
            passes,
            pass_duration,
            changes,
            change_delay,
            version: version.to_owned(),
            state: Mutex::new(State {
                mode: Some(mode),
                ..State::default()
            }),
            access: tokio::sync::Mutex::default(),
        })
    }

    /// Adds what another part counts.
    ///
    /// # Errors
    /// When something of the same name is there already.
    pub fn add(&self, collectors: impl IntoIterator<Item = Box<dyn prometheus::core::Collector>>) -> Result<(), Error> {
        collectors
            .into_iter()
            .try_for_each(|collector| self.registry.register(collector))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pass came to a plan at `now`, `duration` after it had begun. Includes what it says about changes that ended.
    pub fn pass_ended(&self, pass: &Pass, duration: Duration, now: Timestamp) {
        let survey = &pass.survey;
        let outcome = if survey.unresolved == 0 {
            "complete"
        } else {
            "incomplete"
        };
        self.passes.with_label_values(&[outcome]).inc();
        self.pass_duration.observe(duration.as_secs_f64());
        for applied in &pass.ended {
            self.applied(applied);
        }
        let mut seen = Seen {
            problems: BTreeMap::new(),
            problems_ahead: BTreeMap::new(),
            drift: BTreeMap::new(),
            next_boundary: survey.next_boundary,
            open_intents: pass.open_intents,
            overdue: [
                overdue(survey, ProblemKind::GrantOverdue, ChangeKind::Grant),
                overdue(survey, ProblemKind::RevokeOverdue, ChangeKind::Revoke),
            ],
        };
        for problem in &survey.problems {
            if problem.holds_at(survey.at) {
                *seen.problems.entry(problem.kind).or_default() += 1;
            } else if problem.during.is_some_and(|during| survey.at < during.start()) {
                *seen.problems_ahead.entry(problem.kind).or_default() += 1;
            }
        }
        for drift in &survey.plan.drift {
            *seen.drift.entry(drift.entitlement.clone()).or_default() += 1;
        }
        let mut state = self.state();
        state.last_attempt = Some(now);
        state.last_success = Some(now);
        state.ledger_writable = Some(true);
        state.pass = Some(seen);
    }

    /// A pass did not come to a plan.
    pub fn pass_failed(&self, error: &PassError, now: Timestamp) {
        let outcome = match error {
            PassError::Aws(_) => "aws_error",
            PassError::Ledger(_) => "ledger_error",
        };
        self.passes.with_label_values(&[outcome]).inc();
        let mut state = self.state();
        state.last_attempt = Some(now);
        if matches!(error, PassError::Ledger(_)) {
            state.ledger_writable = Some(false);
        }
        if let (PassError::Aws(_), Some(seen)) = (error, &mut state.pass) {
            seen.problems.insert(ProblemKind::AwsUnavailable, 1);
        }
    }

    /// A change ended. [`Self::pass_ended`] does this for the changes that a pass hands over.
    pub fn applied(&self, applied: &Applied) {
        let kind = kind_word(applied.change.kind);
        let outcome = match applied.end {
            End::Confirmed => "confirmed",
            End::Failed(_) => "failed",
            End::Unsettled(_) => "unsettled",
            End::Deferred(_) | End::Overtaken | End::Superseded => "deferred",
        };
        self.changes.with_label_values(&[kind, outcome]).inc();
        if applied.end == End::Confirmed && self.has_boundary(applied) {
            let delay = applied.change.due.duration_until(applied.at);
            self.change_delay
                .with_label_values(&[kind])
                .observe(delay.as_secs_f64().max(0.0));
        }
    }

    /// A delay is the daemon's only where a boundary was known in advance: not for plain membership, which has always
    /// begun, not for surprises, and not for what an edit of the policy brought about after the fact.
    fn has_boundary(&self, applied: &Applied) -> bool {
        let change = &applied.change;
        let edited = self.state().policy.as_ref().and_then(|loaded| loaded.edited);
        change.foresight == Foresight::Predicted
            && Timestamp::MIN < change.due
            && edited.is_none_or(|edited| edited <= change.due)
    }

    /// The policy was read, at the start or again: `ok` says whether what was read is now in force, `revision` which one
    /// is.
    pub fn policy_loaded(&self, ok: bool, revision: &str, now: Timestamp) {
        let mut state = self.state();
        let before = state.policy.take();
        let replaced = before.as_ref().is_some_and(|b| b.revision != revision);
        let edited = if replaced {
            Some(now)
        } else {
            before.and_then(|b| b.edited)
        };
        state.policy = Some(Loaded {
            ok,
            revision: revision.to_owned(),
            at: now,
            edited,
        });
    }

    /// What may be written to AWS from now on.
    pub fn mode(&self, mode: Mode) {
        self.state().mode = Some(mode);
    }

    /// The configuration was read, at the start or again.
    pub fn config_loaded(&self, ok: bool) {
        self.state().config_ok = Some(ok);
    }

    /// What the policy and the schedules show for the time up to the horizon.
    pub fn outlook(
        &self,
        policy: &Policy,
        snapshots: &Snapshots,
        identities: &[Identity],
        horizon: SignedDuration,
        now: Timestamp,
    ) {
        // Worked out aside, so that no scrape waits for it.
        let mut outlook = std::mem::take(&mut self.state().outlook);
        outlook.look(policy, snapshots, identities, horizon, now);
        self.state().outlook = outlook;
    }

    /// When the credentials of sources expire, as far as the configuration states it: no provider tells.
    pub fn credentials(&self, expiries: BTreeMap<SourceName, Timestamp>) {
        self.state().expiries = expiries;
    }

    /// How many changes are under way at AWS.
    pub fn changes_in_flight(&self, count: usize) {
        self.state().changes_in_flight = count;
    }

    /// How long AWS takes for the plan of the last pass.
    pub fn convergence(&self, convergence: Convergence) {
        self.state().convergence = Some(convergence);
    }

    /// How the configured sources stand: `schedules` are those that the policy names.
    pub fn sources<'a>(
        &self,
        stored: &StoredSnapshots,
        schedules: &BTreeSet<ScheduleKey>,
        configured: impl IntoIterator<Item = &'a SourceName>,
    ) {
        let sources = sources::look(stored, schedules, configured);
        self.state().sources = sources;
    }

    /// Everything in Prometheus' text format 0.0.4. Where the ledger cannot be read, what derives from it is left out and
    /// `dutybound_ledger_up` is 0.
    ///
    /// # Errors
    /// Never in practice; see [`Metrics::new`].
    pub async fn encode(&self, ledger: &Ledger, policy: &Policy, now: Timestamp) -> Result<String, Error> {
        self.written(Format::Text, ledger, policy, now).await
    }

    /// The same in the format that the `Accept` header asks for, with its media type.
    ///
    /// # Errors
    /// Never in practice; see [`Metrics::new`].
    pub async fn negotiate(
        &self,
        accept: &str,
        ledger: &Ledger,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<(&'static str, String), Error> {
        let (kind, format) = if openmetrics::wanted(accept) {
            (openmetrics::TYPE, Format::OpenMetrics)
        } else {
            (TEXT_TYPE, Format::Text)
        };
        Ok((kind, self.written(format, ledger, policy, now).await?))
    }

    /// Everything, sorted by name.
    async fn written(&self, format: Format, ledger: &Ledger, policy: &Policy, now: Timestamp) -> Result<String, Error> {
        let mut page = Page::default();
        let mut access = self.access.lock().await;
        match recorded(&mut access, ledger, now).await {
            Ok((held, holds)) => {
                page.gauge("dutybound_ledger_up", "Whether the ledger could be read.", 1.0)?;
                access_families(&mut page, held, policy)?;
                hold_families(&mut page, &holds)?;
            }
            Err(error) => {
                tracing::warn!(
                    error = crate::chain(&error),
                    "the ledger could not be read for the metrics"
                );
                page.gauge("dutybound_ledger_up", "Whether the ledger could be read.", 0.0)?;
            }
        }
        drop(access);
        self.state_families(&mut page, policy)?;
        page.encode(self.registry.gather(), format)
    }

    fn state_families(&self, page: &mut Page, policy: &Policy) -> Result<(), Error> {
        let state = self.state();
        page.gauges(
            "dutybound_build_info",
            "Always 1; the label says which version runs.",
            &["version"],
            [([self.version.as_str()], 1.0)],
        )?;
        page.gauges(
            "dutybound_mode",
            "1 for the mode in force: what may be written to AWS.",
            &["mode"],
            MODES.map(|mode| ([mode.as_str()], flag(state.mode == Some(mode)))),
        )?;
        let or_zero = |t: Option<Timestamp>| t.map_or(0.0, unix);
        page.gauge(
            "dutybound_last_attempt_timestamp_seconds",
            "When the last pass ended, however it ended; 0 before the first.",
            or_zero(state.last_attempt),
        )?;
        page.gauge(
            "dutybound_last_success_timestamp_seconds",
            "When the last pass that came to a plan ended; 0 before the first.",
            or_zero(state.last_success),
        )?;
        page.gauge(
            "dutybound_in_flight_changes",
            "Changes under way at AWS.",
            number(state.changes_in_flight),
        )?;
        if let Some(convergence) = &state.convergence {
            page.gauge(
                "dutybound_convergence_seconds",
                "How long AWS is expected to take for the changes of the last pass's plan; 0 when there are none.",
                convergence.about_seconds,
            )?;
            page.gauge(
                "dutybound_convergence_at_least_seconds",
                "How long AWS's limits make those changes take at best: operations under way at once, one per account, requests a second.",
                convergence.at_least_seconds,
            )?;
            page.gauge(
                "dutybound_convergence_lead_seconds",
                "Time until the first duty begins that a grant of the last pass's plan is for: 0 when it has begun, +Inf without grants.",
                convergence.lead_seconds.unwrap_or(f64::INFINITY),
            )?;
            if let Some(takes) = convergence.operation_seconds {
                page.gauge(
                    "dutybound_assignment_operation_seconds",
                    "What AWS takes for an account assignment operation, as seen lately; absent while none was seen.",
                    takes,
                )?;
            }
        }
        if let Some(writable) = state.ledger_writable {
            page.gauge(
                "dutybound_ledger_writable",
                "Whether the last pass that came to a plan, or failed at the ledger, could keep its record.",
                flag(writable),
            )?;
        }
        if let Some(ok) = state.config_ok {
            page.gauge(
                "dutybound_config_reload_success",
                "Whether the last read of the configuration was put in force; 0 means that an edit was refused.",
                flag(ok),
            )?;
        }
        if let Some(seen) = &state.pass {
            seen.families(page, policy)?;
        }
        state.outlook.families(page, policy)?;
        if let Some(loaded) = &state.policy {
            page.gauge(
                "dutybound_policy_reload_success",
                "Whether the last read of the policy was put in force; 0 means that an edit was refused.",
                flag(loaded.ok),
            )?;
            page.gauge(
                "dutybound_policy_last_reload_timestamp_seconds",
                "When the policy was last read, whether or not it was put in force.",
                unix(loaded.at),
            )?;
            page.gauges(
                "dutybound_policy_info",
                "Always 1; the label says which policy is in force.",
                &["revision"],
                [([loaded.revision.as_str()], 1.0)],
            )?;
        }
        page.gauges(
            "dutybound_credential_expiry_timestamp_seconds",
            "When the credential of the source expires, as the configuration states it; absent where it does not.",
            &["source"],
            state.expiries.iter().map(|(name, at)| ([name.0.as_str()], unix(*at))),
        )?;
        sources::families(page, &state.sources)
    }
}

impl Seen {
    fn families(&self, page: &mut Page, policy: &Policy) -> Result<(), Error> {
        let of = |counts: &BTreeMap<ProblemKind, usize>| {
            ProblemKind::ALL.map(|kind| ([kind.as_str()], number(counts.get(&kind).copied().unwrap_or_default())))
        };
        page.gauges(
            "dutybound_problems",
            "Problems that matter now, as of the last pass, by kind.",
            &["kind"],
            of(&self.problems),
        )?;
        page.gauges(
            "dutybound_upcoming_problems",
            "Problems that the schedules show ahead, as of the last pass, by kind.",
            &["kind"],
            of(&self.problems_ahead),
        )?;
        let ids: BTreeSet<&EntitlementId> = policy.entitlements().map(|e| &e.id).chain(self.drift.keys()).collect();
        page.gauges(
            "dutybound_drift_holders",
            "Users and groups that hold a managed entitlement which the ledger did not grant them, as of the last pass.",
            &["project", "entitlement"],
            ids.into_iter()
                .map(|id| (labels(id), number(self.drift.get(id).copied().unwrap_or_default()))),
        )?;
        page.gauge(
            "dutybound_open_intents",
            "Changes of which the outcome is not known, as of the last pass.",
            number(self.open_intents),
        )?;
        page.gauges(
            "dutybound_overdue_changes",
            "Changes that should have been in force a while ago and that no guard holds, as of the last pass, by kind.",
            &["kind"],
            [ChangeKind::Grant, ChangeKind::Revoke]
                .map(kind_word)
                .into_iter()
                .zip(self.overdue)
                .map(|(kind, count)| ([kind], number(count))),
        )?;
        match self.next_boundary {
            Some(boundary) => page.gauge(
                "dutybound_next_boundary_timestamp_seconds",
                "When the next known shift, window or membership begins or ends; absent when none is known.",
                unix(boundary),
            ),
            None => Ok(()),
        }
    }
}

fn overdue(survey: &Survey, problem: ProblemKind, kind: ChangeKind) -> usize {
    let held: BTreeSet<_> = survey
        .verdict
        .held
        .iter()
        .filter(|held| held.change.kind == kind)
        .map(|held| (Some(&held.change.entitlement), held.change.person.as_ref()))
        .collect();
    let late = survey
        .problems
        .iter()
        .filter(|p| p.kind == problem && p.holds_at(survey.at));
    late.filter(|p| !held.contains(&(p.entitlement.as_ref(), p.person.as_ref())))
        .count()
}

/// How many changes each guard holds, and since when the first of them.
type Holds = BTreeMap<Guard, (usize, Timestamp)>;

async fn recorded<'a>(
    access: &'a mut AccessTime,
    ledger: &Ledger,
    now: Timestamp,
) -> Result<(&'a BTreeMap<EntitlementId, Held>, Holds), LedgerError> {
    let holds = ledger.holds_by_guard().await?;
    Ok((access.read(ledger, now).await?, holds))
}

fn access_families(page: &mut Page, held: &BTreeMap<EntitlementId, Held>, policy: &Policy) -> Result<(), Error> {
    let mut all: BTreeMap<&EntitlementId, Held> = policy.entitlements().map(|e| (&e.id, Held::default())).collect();
    all.extend(held.iter().map(|(id, held)| (id, *held)));
    let times = all.iter().flat_map(|(id, held)| {
        let bases = held.bases;
        Phase::BASES
            .into_iter()
            .zip(bases)
            .map(|(basis, time)| ([id.project.0.as_str(), id.name.as_str(), basis], time.as_secs_f64()))
    });
    page.counters(
        "dutybound_access_seconds_total",
        "Access time that people held through dutybound, from the ledger: on duty by basis, or overhang (lead, linger, late), which counts five minutes behind while access stands.",
        &["project", "entitlement", "basis"],
        times,
    )?;
    let overhang = all.iter().flat_map(|(id, held)| {
        let times = held.overhang;
        let named = Part::OVERHANG.into_iter().zip(times);
        named.map(|(part, time)| {
            (
                [id.project.0.as_str(), id.name.as_str(), part.as_str()],
                time.as_secs_f64(),
            )
        })
    });
    page.counters(
        "dutybound_overhang_seconds_total",
        "Access time that people held off duty: lead and linger as rules ask for, late after the last cause had ended. Counts five minutes behind while access stands.",
        &["project", "entitlement", "part"],
        overhang,
    )?;
    page.counters(
        "dutybound_uncovered_seconds_total",
        "Time that people were on duty without the access that it earns; counts five minutes behind, and not while a grant is open.",
        &["project", "entitlement"],
        all.iter().map(|(id, held)| (labels(id), held.uncovered.as_secs_f64())),
    )?;
    page.counters(
        "dutybound_session_tail_seconds_total",
        "For how long role sessions can have lived on after revokes, at the most; counts five minutes behind, and not while a grant is open. Nothing for groups.",
        &["project", "entitlement"],
        all.iter().map(|(id, held)| (labels(id), held.tail.as_secs_f64())),
    )?;
    page.gauges(
        "dutybound_session_duration_seconds",
        "The session duration of the entitlement's permission set; absent for groups and before the first grant.",
        &["project", "entitlement"],
        all.iter()
            .filter_map(|(id, held)| Some((labels(id), held.session?.as_secs_f64()))),
    )?;
    page.gauges(
        "dutybound_uncovered_people",
        "People who are on duty without the access that it earns, as of the last pass; not those whom an order keeps from it.",
        &["project", "entitlement"],
        all.iter().map(|(id, held)| (labels(id), f64::from(held.unheld))),
    )?;
    page.gauges(
        "dutybound_active_grants",
        "Access that dutybound granted and that stands.",
        &["project", "entitlement"],
        all.iter().map(|(id, held)| (labels(id), f64::from(held.active))),
    )
}

fn hold_families(page: &mut Page, holds: &Holds) -> Result<(), Error> {
    let count = |guard| holds.get(&guard).map_or(0, |(count, _)| *count);
    page.gauges(
        "dutybound_held_changes",
        "Changes that a guard refuses for now, by guard.",
        &["guard"],
        Guard::ALL.map(|guard| ([guard.as_str()], number(count(guard)))),
    )?;
    page.gauges(
        "dutybound_oldest_hold_timestamp_seconds",
        "Since when the longest held change is held, by guard; absent while the guard holds nothing.",
        &["guard"],
        holds.iter().map(|(guard, (_, since))| ([guard.as_str()], unix(*since))),
    )
}

fn labels(id: &EntitlementId) -> [&str; 2] {
    [&id.project.0, &id.name]
}

#[cfg(test)]
mod tests;
