//! The reading half of a pass: from policy, snapshots and live state to a guarded plan. Has no way to write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, Unit};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::desired::{Desired, Snapshots, Timeline};
use crate::guard::{self, Conditions, Floor, Verdict};
use crate::identity_center::{AwsError, ChangeKind, Holders, Instance, Read, Resolution, UserPin};
use crate::ledger::{Bar, StoredSnapshots};
use crate::live::LiveCache;
use crate::model::{EntitlementId, Interval, Person, ResolvedTarget, ScheduleKey};
use crate::plan::{self, Foresight, Inputs, Key, Owned, Plan};
use crate::policy::Policy;
use crate::problem::{Problem, ProblemKind, collapse};

/// How long before somebody's turn their user is looked up, so that the hand-off itself needs no search.
const LOOK_AHEAD: SignedDuration = SignedDuration::from_mins(15);

/// A change that is later than this is said to be overdue: AWS takes seconds as a rule.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// What is known besides the providers' and AWS's word.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Grants of ours that stand.
    pub owned: BTreeMap<Key, Owned>,
    /// Grants of ours whose outcome was never learnt.
    pub unknown_outcomes: BTreeSet<Key>,
    /// What AWS confirmed within the grace for its own lag.
    pub confirmed: BTreeMap<Key, ChangeKind>,
    /// People who hold nothing until a person lifts it.
    pub bars: Vec<Bar>,
    /// Changes under way.
    pub in_flight: BTreeMap<Key, ChangeKind>,
    /// What AWS said to changes that it refused.
    pub failures: BTreeMap<Key, String>,
}

/// A guarded plan and everything that led to it.
#[derive(Debug)]
pub struct Survey {
    /// The instant it speaks of.
    pub at: Timestamp,
    /// Where the live state was read.
    pub instance: Instance,
    /// All causes from `at` to the horizon.
    pub timeline: Timeline,
    /// What should be at `at`.
    pub desired: Desired,
    /// The changes.
    pub plan: Plan,
    /// What the guards say to them.
    pub verdict: Verdict,
    /// Everything that people should look at, sorted.
    pub problems: Vec<Problem>,
    /// Targets that could not be read or resolved; with nothing else, the survey is complete.
    pub unresolved: usize,
}

/// Looks at the world for the instant `at` and plans.
///
/// # Errors
/// [`AwsError`] when AWS cannot be asked at all or is not the one that the configuration expects. Trouble with single
/// targets or people becomes problems instead.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different part of the world, and none is optional"
)]
pub async fn survey(
    reader: &Arc<dyn Read>,
    live: &mut LiveCache,
    config: &Config,
    policy: &Policy,
    stored: &StoredSnapshots,
    record: &Record,
    at: Timestamp,
    approved_digest: Option<&str>,
) -> Result<Survey, AwsError> {
    let instance = reader.instance().await?;
    let newest = stored.newest();
    let settled = stored.settled(at, config.timing.notice);
    let horizon =
        Interval::new(at, at.checked_add(config.timing.horizon).unwrap_or(Timestamp::MAX)).unwrap_or(Interval::ALWAYS);
    let instant = Interval::new(
        at,
        at.checked_add(SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MAX),
    )
    .unwrap_or(horizon);
    let timeline = Timeline::build(policy, &newest, &config.identities, horizon);
    let desired = timeline.at(at);
    let predicted = Timeline::build(policy, &settled, &config.identities, instant).at(at);

    let mut problems = timeline.problems.clone();
    let targets = plan::refuse_shared_targets(resolve_targets(reader, policy).await);
    for (id, target) in &targets {
        if let Err(message) = target {
            problems.push(Problem {
                entitlement: Some(id.clone()),
                ..Problem::new(ProblemKind::TargetUnresolved, message.clone())
            });
        }
    }
    let people = resolve_people(reader, config, people_of(&timeline, &desired, &predicted, at)).await;

    let managed: BTreeSet<ResolvedTarget> = targets
        .values()
        .flatten()
        .cloned()
        .chain(record.owned.keys().map(|(target, _)| target.clone()))
        .collect();
    let in_flight: BTreeSet<Key> = record.in_flight.keys().cloned().collect();
    let mut inputs = Inputs {
        at,
        policy,
        desired: &desired,
        predicted: &predicted,
        people: &people,
        targets: &targets,
        live: &BTreeMap::new(),
        owned: &record.owned,
        unknown_outcomes: &record.unknown_outcomes,
        bars: &record.bars,
        in_flight: &in_flight,
    };
    let suspects = plan::unsettled_targets(&inputs);
    let errors = live.refresh(reader, &managed, &suspects, at, config.timing.audit).await;
    for (target, error) in &errors {
        problems.push(Problem {
            entitlement: entitlement_of(&targets, target),
            ..Problem::new(
                ProblemKind::TargetUnresolved,
                format!("who holds {target} could not be read, so it is left alone: {error}"),
            )
        });
    }
    let holders = live.holders(&record.confirmed);
    inputs.live = &holders;
    let plan = plan::plan(&inputs);

    problems.extend(plan.problems.iter().cloned());
    problems.extend(change_problems(&plan, &record.in_flight, at));
    problems.extend(source_problems(config, policy, stored, &newest, at));
    for change in &plan.changes {
        if let Some(message) = record.failures.get(&change.key()) {
            problems.push(Problem {
                entitlement: Some(change.entitlement.clone()),
                person: change.person.clone(),
                ..Problem::new(
                    ProblemKind::ChangeFailed,
                    format!(
                        "the {} of {} for {} is not in force: {message}",
                        crate::apply::kind_word(change.kind),
                        change.entitlement,
                        change.who()
                    ),
                )
            });
        }
    }
    let problems = collapse(problems);

    let incomplete: BTreeSet<EntitlementId> = problems
        .iter()
        .filter(|p| p.kind.is_not_knowing() && p.holds_at(at))
        .filter_map(|p| p.entitlement.clone())
        .collect();
    let emptied = guard::emptied(&newest, &settled, at);
    let in_flight_grants = record
        .in_flight
        .iter()
        .filter(|(_, k)| **k == ChangeKind::Grant)
        .map(|(key, _)| key.clone())
        .collect();
    let floors = floors(policy, &targets, &holders);
    let conditions = Conditions {
        paused: config.pause_file.exists(),
        floors: &floors,
        mode: config.mode,
        limits: &config.limits,
        patience: config.timing.patience,
        max_staleness: config.timing.max_staleness,
        snapshots: &newest,
        emptied: &emptied,
        clock_skew: clock_skew(config, policy, &newest),
        incomplete: &incomplete,
        in_flight_grants: &in_flight_grants,
        owned: record.owned.len(),
        approved_digest,
    };
    let verdict = guard::guard(&plan, &conditions);
    let unresolved = targets.values().filter(|t| t.is_err()).count() + errors.len();
    Ok(Survey {
        at,
        instance,
        timeline,
        desired,
        plan,
        verdict,
        problems,
        unresolved,
    })
}

fn floors(
    policy: &Policy,
    targets: &BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
    holders: &BTreeMap<ResolvedTarget, Holders>,
) -> BTreeMap<ResolvedTarget, Floor> {
    let mut floors = BTreeMap::new();
    for entitlement in policy.entitlements().filter(|e| 0 < e.min_holders) {
        if let Some(Ok(target)) = targets.get(&entitlement.id)
            && let Some(live) = holders.get(target)
        {
            let floor = Floor {
                holders: live.users.len(),
                min: entitlement.min_holders,
            };
            floors.insert(target.clone(), floor);
        }
    }
    floors
}

/// Changes that should have been in force a while ago, and duty that nobody could foresee.
fn change_problems(plan: &Plan, in_flight: &BTreeMap<Key, ChangeKind>, at: Timestamp) -> Vec<Problem> {
    let mut problems = Vec::new();
    for change in &plan.changes {
        let late = change.due.duration_until(at);
        let about = |kind, message| Problem {
            entitlement: Some(change.entitlement.clone()),
            person: change.person.clone(),
            rule: change.causes.first().map(|c| c.rule.clone()),
            ..Problem::new(kind, message)
        };
        if OVERDUE < late && Timestamp::MIN < change.due && !in_flight.contains_key(&change.key()) {
            problems.push(match change.kind {
                ChangeKind::Grant => about(
                    ProblemKind::GrantOverdue,
                    format!(
                        "{} has waited for {} since {}",
                        change.who(),
                        change.entitlement,
                        seconds(change.due)
                    ),
                ),
                ChangeKind::Revoke => about(
                    ProblemKind::RevokeOverdue,
                    format!(
                        "{} still holds {} although it was due to end at {}",
                        change.who(),
                        change.entitlement,
                        seconds(change.due)
                    ),
                ),
            });
        }
        if let (ChangeKind::Grant, Foresight::Surprising(why)) = (change.kind, &change.foresight) {
            problems.push(about(
                ProblemKind::SurprisingDuty,
                format!(
                    "{} comes on duty for {} out of the blue: {why}",
                    change.who(),
                    change.entitlement
                ),
            ));
        }
    }
    problems
}

async fn resolve_targets(
    reader: &Arc<dyn Read>,
    policy: &Policy,
) -> BTreeMap<EntitlementId, Result<ResolvedTarget, String>> {
    let mut lookups = JoinSet::new();
    for entitlement in policy.entitlements() {
        let (reader, id, target) = (Arc::clone(reader), entitlement.id.clone(), entitlement.target.clone());
        let origin = entitlement.origin.clone();
        lookups.spawn(async move {
            let resolved = reader.resolve_target(&target).await;
            (id, resolved.map_err(|error| format!("{origin}: {target}: {error}")))
        });
    }
    let mut targets = BTreeMap::new();
    while let Some(lookup) = lookups.join_next().await {
        match lookup {
            Ok((id, target)) => {
                targets.insert(id, target);
            }
            Err(error) => tracing::error!(%error, "a lookup of an entitlement broke off"),
        }
    }
    targets
}

fn people_of(timeline: &Timeline, desired: &Desired, predicted: &Desired, at: Timestamp) -> BTreeSet<Person> {
    let soon = at.checked_add(LOOK_AHEAD).unwrap_or(Timestamp::MAX);
    let now = desired
        .holders
        .values()
        .chain(predicted.holders.values())
        .flat_map(BTreeMap::keys);
    let coming = timeline
        .causes
        .iter()
        .filter(|c| c.held.start() <= soon)
        .map(|c| &c.person);
    now.chain(coming).cloned().collect()
}

async fn resolve_people(
    reader: &Arc<dyn Read>,
    config: &Config,
    people: BTreeSet<Person>,
) -> BTreeMap<Person, Result<Resolution, String>> {
    let mut lookups = JoinSet::new();
    for person in people {
        let pin: Option<UserPin> = config
            .identities
            .iter()
            .find(|i| i.person == person)
            .and_then(|i| i.identity_center.clone());
        let reader = Arc::clone(reader);
        lookups.spawn(async move {
            let found = reader.resolve_person(&person, pin.as_ref()).await;
            (person, found.map_err(|error| error.to_string()))
        });
    }
    let mut resolved = BTreeMap::new();
    while let Some(lookup) = lookups.join_next().await {
        match lookup {
            Ok((person, found)) => {
                resolved.insert(person, found);
            }
            Err(error) => tracing::error!(%error, "a lookup of a person broke off"),
        }
    }
    resolved
}

fn entitlement_of(
    targets: &BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
    target: &ResolvedTarget,
) -> Option<EntitlementId> {
    targets
        .iter()
        .find(|(_, t)| t.as_ref() == Ok(target))
        .map(|(id, _)| id.clone())
}

/// What is wrong with the sources: failing, stale, worth a notice, or with another idea of the time.
fn source_problems(
    config: &Config,
    policy: &Policy,
    stored: &StoredSnapshots,
    newest: &Snapshots,
    at: Timestamp,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let about = |key: &ScheduleKey, kind, message| Problem {
        schedule: Some(key.clone()),
        ..Problem::new(kind, message)
    };
    for key in policy.schedules() {
        let snapshot = newest.get(&key);
        if let Some(failure) = stored.failures().get(&key) {
            let standing_in = snapshot.map_or_else(
                || "nothing is stored to stand in for it".to_owned(),
                |s| format!("the snapshot of {} stands in", seconds(s.read_at)),
            );
            problems.push(about(
                &key,
                ProblemKind::ScheduleFailing,
                format!(
                    "{key} cannot be read since {}: {}; {standing_in}",
                    seconds(failure.since),
                    failure.message
                ),
            ));
        }
        let Some(snapshot) = snapshot else { continue };
        if config.timing.max_staleness < snapshot.read_at.duration_until(at) {
            problems.push(about(&key, ProblemKind::ScheduleStale, format!(
                "{key} was last read completely at {}, longer ago than max_staleness; its grants are held as they are", seconds(snapshot.read_at)
            )));
        }
        for notice in &snapshot.notices {
            problems.push(about(&key, ProblemKind::ScheduleNotice, format!("{key}: {notice}")));
        }
    }
    if let Some(skew) = clock_skew(config, policy, newest) {
        problems.push(Problem::new(ProblemKind::ClockSkew, skew));
    }
    problems
}

fn clock_skew(config: &Config, policy: &Policy, newest: &Snapshots) -> Option<String> {
    let limit = config.timing.max_clock_skew;
    let offsets = policy
        .schedules()
        .into_iter()
        .flat_map(|key| newest.get(&key).map(|s| (key, s.clock_offset_ms)));
    let worst = offsets
        .flat_map(|(key, offset)| offset.map(|ms| (key, SignedDuration::from_millis(ms))))
        .max_by_key(|(_, offset)| offset.abs())?;
    (limit < worst.1.abs()).then(|| {
        format!(
            "the clock of {} differs from this host's by {:#}, more than max_clock_skew; new grants wait",
            worst.0.source, worst.1
        )
    })
}

fn seconds(t: Timestamp) -> Timestamp {
    t.round(Unit::Second).unwrap_or(t)
}
