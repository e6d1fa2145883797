//! The reading half of a pass: from policy, snapshots and live state to a guarded plan. Has no way to write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, Unit};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::Config;
use crate::desired::{Desired, Snapshots, Timeline};
use crate::guard::{self, Conditions, Floor, Verdict};
use crate::identity_center::{AwsError, ChangeKind, Holders, Instance, Read, Resolution, UserPin};
use crate::ledger::{Bar, StoredSnapshots};
use crate::live::{Audit, LiveCache};
use crate::model::{EntitlementId, Interval, Person, ResolvedTarget, ScheduleKey, Snapshot, SourceName};
use crate::plan::{self, Foresight, Inputs, Key, Owned, Plan};
use crate::policy::Policy;
use crate::problem::{Problem, ProblemKind, collapse};

/// The longest that reading the world may take for what was foreseen to cover its end.
const LONGEST_READ: SignedDuration = SignedDuration::from_hours(2);

/// How long before somebody's turn their user is looked up, so that the hand-off itself needs no search.
const LOOK_AHEAD: SignedDuration = SignedDuration::from_mins(15);

/// A change that is later than this is said to be overdue: AWS takes seconds as a rule.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// What is known besides the providers' and AWS's word.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Since when grants of ours have been without a cause that ended before its time.
    pub surplus_since: BTreeMap<Key, Timestamp>,
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

/// Which instant a survey speaks of.
pub enum When<'a> {
    /// The present, taken anew once everything is read: what was true before minutes of reading is not acted on.
    Now(&'a dyn Clock),
    /// A coming instant, looked at from now.
    Then(Timestamp),
}

impl When<'_> {
    fn instant(&self) -> Timestamp {
        match self {
            Self::Now(clock) => clock.now(),
            Self::Then(at) => *at,
        }
    }
}

/// Looks at the world and plans. `audit` is how many targets are read of which nothing is expected.
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
    when: When<'_>,
    audit: usize,
    approved_digest: Option<&str>,
) -> Result<Survey, AwsError> {
    let instance = reader.instance().await?;
    let began = when.instant();
    let schedules = policy.schedules();
    let newest = stored.newest(&schedules);
    let settled = stored.settled(&schedules, began, config.timing.notice);
    let ahead =
        |span| Interval::new(began, began.checked_add(span).unwrap_or(Timestamp::MAX)).unwrap_or(Interval::ALWAYS);
    let timeline = Timeline::build(policy, &newest, &config.identities, ahead(config.timing.horizon));
    let foreseen = Timeline::build(policy, &settled, &config.identities, ahead(LONGEST_READ));

    let targets = plan::refuse_shared_targets(resolve_targets(reader, policy).await);
    let people = people_of(&timeline, &foreseen, began);
    let people = resolve_people(reader, config, people).await;
    let managed: BTreeSet<ResolvedTarget> = targets
        .values()
        .flatten()
        .cloned()
        .chain(record.owned.keys().map(|(target, _)| target.clone()))
        .collect();
    let in_flight: BTreeSet<Key> = record.in_flight.keys().cloned().collect();
    let (desired, predicted) = (timeline.at(began), foreseen.at(began));
    let no_live = BTreeMap::new();
    let inputs = Inputs {
        at: began,
        policy,
        desired: &desired,
        predicted: &predicted,
        people: &people,
        targets: &targets,
        live: &no_live,
        owned: &record.owned,
        unknown_outcomes: &record.unknown_outcomes,
        surplus_since: &record.surplus_since,
        bars: &record.bars,
        in_flight: &in_flight,
    };
    let suspects = plan::unsettled_targets(&inputs);
    let audit = Audit {
        at_most: audit,
        older_than: config.timing.audit,
    };
    let errors = live
        .refresh(reader, &managed, &suspects, &record.confirmed, audit, began)
        .await;
    let holders = live.holders();

    let at = when.instant();
    let (desired, predicted) = (timeline.at(at), foreseen.at(at));
    let plan = plan::plan(&Inputs {
        at,
        desired: &desired,
        predicted: &predicted,
        live: &holders,
        ..inputs
    });

    let mut problems = timeline.problems.clone();
    problems.extend(plan.problems.iter().cloned());
    problems.extend(target_problems(&targets, &errors));
    problems.extend(change_problems(&plan, record, at));
    problems.extend(source_problems(config, policy, stored, &newest, at));
    let problems = collapse(problems);

    let of_kind = |is_kind: fn(ProblemKind) -> bool| -> BTreeSet<ResolvedTarget> {
        let here = problems.iter().filter(|p| is_kind(p.kind) && p.holds_at(at));
        here.filter_map(|p| targets.get(p.entitlement.as_ref()?)?.as_ref().ok())
            .cloned()
            .collect()
    };
    let in_flight_grants = record
        .in_flight
        .iter()
        .filter(|(_, k)| **k == ChangeKind::Grant)
        .map(|(key, _)| key.clone())
        .collect();
    let conditions = Conditions {
        // A file that cannot be looked for counts as there: a pause must never fail open.
        paused: config.pause_file.try_exists().unwrap_or(true),
        floors: &floors(policy, &targets, &holders, &record.in_flight),
        mode: config.mode,
        limits: &config.limits,
        patience: config.timing.patience,
        max_staleness: config.timing.max_staleness,
        timeline: &timeline,
        snapshots: &newest,
        emptied: &guard::emptied(&newest, &settled, at),
        clock_skew: clock_skew(config, &newest, at),
        unidentified: &of_kind(ProblemKind::is_not_knowing),
        unresolved: &of_kind(|kind| kind == ProblemKind::PersonUnresolved),
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

fn target_problems(
    targets: &BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
    errors: &BTreeMap<ResolvedTarget, AwsError>,
) -> Vec<Problem> {
    let unresolved = targets.iter().filter_map(|(id, target)| {
        let message = target.as_ref().err()?.clone();
        Some((Some(id.clone()), message))
    });
    let unread = errors.iter().map(|(target, error)| {
        let entitlement = entitlement_of(targets, target);
        let name = entitlement
            .as_ref()
            .map_or_else(|| target.to_string(), |id| format!("{id} ({target})"));
        (
            entitlement,
            format!("who holds {name} could not be read, so it is left alone: {error}"),
        )
    });
    unresolved
        .chain(unread)
        .map(|(entitlement, message)| Problem {
            entitlement,
            ..Problem::new(ProblemKind::TargetUnresolved, message)
        })
        .collect()
}

fn floors(
    policy: &Policy,
    targets: &BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
    holders: &BTreeMap<ResolvedTarget, Holders>,
    in_flight: &BTreeMap<Key, ChangeKind>,
) -> BTreeMap<ResolvedTarget, Floor> {
    let mut floors = BTreeMap::new();
    for entitlement in policy.entitlements().filter(|e| 0 < e.min_holders) {
        if let Some(Ok(target)) = targets.get(&entitlement.id)
            && let Some(live) = holders.get(target)
        {
            let leaving = |key: &&Key| key.0 == *target && live.users.contains_key(&key.1);
            let revoked = in_flight.iter().filter(|(_, kind)| **kind == ChangeKind::Revoke);
            let floor = Floor {
                holders: live.users.len() - revoked.map(|(key, _)| key).filter(leaving).count(),
                min: entitlement.min_holders,
            };
            floors.insert(target.clone(), floor);
        }
    }
    floors
}

/// Changes that should have been in force a while ago, and duty that nobody could foresee.
fn change_problems(plan: &Plan, record: &Record, at: Timestamp) -> Vec<Problem> {
    let mut problems = Vec::new();
    for change in &plan.changes {
        let late = change.due.duration_until(at);
        let about = |kind, message| Problem {
            entitlement: Some(change.entitlement.clone()),
            person: change.person.clone(),
            rule: change.causes.first().map(|c| c.rule.clone()),
            ..Problem::new(kind, message)
        };
        // One that is seen for the first time is being carried out now; late is what has been tried or held for a while.
        let planned = record.surplus_since.get(&change.key());
        let stands_out = planned.is_some_and(|since| OVERDUE < since.duration_until(at));
        if stands_out && OVERDUE < late && Timestamp::MIN < change.due {
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
        if let Some(message) = record.failures.get(&change.key()) {
            let word = crate::apply::kind_word(change.kind);
            problems.push(about(
                ProblemKind::ChangeFailed,
                format!(
                    "the {word} of {} for {} is not in force: {message}",
                    change.entitlement,
                    change.who()
                ),
            ));
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
    let mut targets = BTreeMap::new();
    let mut lookups = JoinSet::new();
    for entitlement in policy.entitlements() {
        // A lookup that breaks off leaves this: not knowing, which revokes nobody.
        targets.insert(entitlement.id.clone(), Err("its lookup broke off".to_owned()));
        let (reader, id, target) = (Arc::clone(reader), entitlement.id.clone(), entitlement.target.clone());
        let origin = entitlement.origin.clone();
        lookups.spawn(async move {
            let resolved = reader.resolve_target(&target).await;
            (id, resolved.map_err(|error| format!("{origin}: {target}: {error}")))
        });
    }
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

/// Everybody who is concerned now or soon; looking them up before their turn makes the hand-off itself need no search.
fn people_of(timeline: &Timeline, foreseen: &Timeline, at: Timestamp) -> BTreeSet<Person> {
    let soon = at.checked_add(LOOK_AHEAD).unwrap_or(Timestamp::MAX);
    let causes = timeline.causes.iter().chain(&foreseen.causes);
    causes
        .filter(|c| c.held.start() <= soon)
        .map(|c| c.person.clone())
        .collect()
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
    if let Some(skew) = clock_skew(config, newest, at) {
        problems.push(Problem::new(ProblemKind::ClockSkew, skew));
    }
    problems
}

/// The worst difference between a source's clock and ours, by the source's last read, if that is recent: an offset
/// measured before the clock was corrected says nothing.
fn clock_skew(config: &Config, newest: &Snapshots, at: Timestamp) -> Option<String> {
    let recent = config.timing.poll.saturating_mul(3).max(SignedDuration::from_mins(5));
    let mut last: BTreeMap<&SourceName, &Snapshot> = BTreeMap::new();
    for snapshot in newest.values() {
        let entry = last.entry(&snapshot.schedule.source).or_insert(snapshot);
        if entry.read_at < snapshot.read_at {
            *entry = snapshot;
        }
    }
    let current = last.into_iter().filter(|(_, s)| s.read_at.duration_until(at) <= recent);
    let offsets = current.filter_map(|(source, s)| Some((source, SignedDuration::from_millis(s.clock_offset_ms?))));
    let (source, offset) = offsets.max_by_key(|(_, offset)| offset.abs())?;
    (config.timing.max_clock_skew < offset.abs()).then(|| {
        format!(
            "the clock of {source} differs from this host's by {offset:#}, more than max_clock_skew; new grants wait"
        )
    })
}

fn seconds(t: Timestamp) -> Timestamp {
    t.round(Unit::Second).unwrap_or(t)
}
