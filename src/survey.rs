//! The reading half of a pass: from policy, snapshots and live state to a guarded plan. Has no way to write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Unit};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::Config;
use crate::desired::{Desired, Snapshots, Timeline};
use crate::guard::{self, Conditions, Floor, Verdict};
use crate::identity_center::{AwsError, AwsErrorKind, ChangeKind, Holders, Instance, Read, Resolution, UserPin};
use crate::ledger::{Bar, LastTry, StoredSnapshots};
use crate::live::{Audit, LiveCache};
use crate::model::{EntitlementId, Interval, Person, ResolvedTarget, ScheduleKey, Snapshot, SourceName};
use crate::plan::{self, Foresight, Inputs, Key, Owned, Plan};
use crate::policy::Policy;
use crate::problem::{Problem, ProblemKind, collapse};
use crate::unfinished::{self, Unsettled};

/// The longest that reading the world may take for what was foreseen to cover its end.
const LONGEST_READ: SignedDuration = SignedDuration::from_hours(2);

/// How long before somebody's turn their user is looked up, so that the hand-off itself needs no search.
const LOOK_AHEAD: SignedDuration = SignedDuration::from_mins(15);

/// What is known besides the providers' and AWS's word.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// When each change that is still to be made was first planned.
    pub planned_since: BTreeMap<Key, Timestamp>,
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
    /// Changes among those under way that no task of this process follows.
    pub unsettled: Vec<Unsettled>,
    /// How the last try ended of changes that AWS refused.
    pub failures: BTreeMap<Key, LastTry>,
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
    /// The next instant at which something begins or ends by the newest snapshots, by what was foreseen, or by the record.
    pub next_boundary: Option<Timestamp>,
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
    let vanished = guard::vanished(&newest, &settled, began, config.timing.max_staleness);
    let last = stored.last_with_turns(&vanished, began);
    let before = Timeline::build(policy, &last, &config.identities, ahead(LONGEST_READ));

    let targets = plan::refuse_shared_targets(resolve_targets(reader, policy, live.silence()).await);
    let mut people = people_of(&timeline, &foreseen, began);
    people.extend(people_of(&before, &before, began));
    if policy.entitlements().any(|e| e.exclusive) {
        // Whoever holds an exclusive entitlement without us is known by name only if they are looked up.
        people.extend(config.limits.protected.iter().cloned());
    }
    let people = resolve_people(reader, config, people, live.silence()).await;
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
        planned_since: &record.planned_since,
        bars: &record.bars,
        in_flight: &in_flight,
    };
    let suspects = plan::unsettled_targets(&inputs);
    let audit = Audit {
        at_most: audit,
        older_than: config.timing.audit,
    };
    let mut errors = live
        .refresh(reader, &managed, &suspects, &record.confirmed, audit, began)
        .await;
    let mut holders = live.holders();
    // What no entitlement means any more and AWS does not know is held by nobody; otherwise its record would never close.
    let meant: BTreeSet<&ResolvedTarget> = targets.values().flatten().collect();
    let gone =
        |target: &ResolvedTarget, error: &AwsError| error.kind == AwsErrorKind::NotFound && !meant.contains(target);
    for (target, _) in errors.extract_if(.., |target, error| gone(target, error)) {
        holders.insert(target, Holders::default());
    }

    let at = when.instant();
    let (mut desired, predicted) = (timeline.at(at), foreseen.at(at));
    let stand_in = stand_in(&mut desired, &before.at(at), &vanished, &record.owned);
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
    let barred = |person: &Person| record.bars.iter().any(|bar| bar.concerns(person));
    let wanted = |id: &EntitlementId, person: &Person| desired.calls_for(id, person) && !barred(person);
    problems.extend(unfinished::unsettled(&record.unsettled, wanted, at));
    problems.extend(source_problems(config, policy, stored, &newest, at));
    problems.extend(stand_in);
    let problems = collapse(problems);

    let of_kind = |is_kind: fn(ProblemKind) -> bool| -> BTreeSet<ResolvedTarget> {
        let here = problems.iter().filter(|p| is_kind(p.kind) && p.holds_at(at));
        here.filter_map(|p| targets.get(p.entitlement.as_ref()?)?.as_ref().ok())
            .cloned()
            .collect()
    };
    let mut unresolved_people = of_kind(|kind| kind == ProblemKind::PersonUnresolved);
    let protected = |person: &&Person| config.limits.protected.contains(person);
    if people
        .iter()
        .any(|(person, found)| protected(&person) && found.is_err())
    {
        // Any stranger may then be somebody who is protected.
        let exclusive = policy.entitlements().filter(|e| e.exclusive);
        unresolved_people.extend(exclusive.filter_map(|e| targets.get(&e.id)?.clone().ok()));
    }
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
        unresolved: &unresolved_people,
        in_flight_grants: &in_flight_grants,
        owned: record.owned.len(),
        approved_digest,
    };
    let verdict = guard::guard(&plan, &conditions);
    let unresolved = targets.values().filter(|t| t.is_err()).count() + errors.len();
    let recorded_ends = record.owned.values().flat_map(|owned| &owned.causes);
    let next_boundary = recorded_ends
        .filter(|cause| cause.end_known && at < cause.held.end())
        .map(|cause| cause.held.end())
        .chain(timeline.next_boundary(at))
        .chain(foreseen.next_boundary(at))
        .chain(before.next_boundary(at))
        .min();
    Ok(Survey {
        at,
        instance,
        timeline,
        desired,
        plan,
        verdict,
        problems,
        unresolved,
        next_boundary,
    })
}

/// A schedule that from one read to the next has nobody at any time to come is not believed at once: hand-offs that were
/// known before go on meanwhile. Whoever holds the entitlement already is left to the guards. Returns what to tell people.
fn stand_in(
    desired: &mut Desired,
    before: &Desired,
    vanished: &BTreeSet<ScheduleKey>,
    owned: &BTreeMap<Key, Owned>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let held: BTreeSet<(&EntitlementId, &Person)> = owned.values().map(|o| (&o.entitlement, &o.person)).collect();
    for (entitlement, holders) in &before.holders {
        for (person, causes) in holders
            .iter()
            .filter(|(person, _)| !held.contains(&(entitlement, *person)))
        {
            for cause in causes {
                let Some(key) = cause.schedule().filter(|key| vanished.contains(*key)) else {
                    continue;
                };
                let here = desired.holders.entry(entitlement.clone()).or_default();
                let causes = here.entry(person.clone()).or_default();
                if causes.contains(cause) {
                    continue;
                }
                causes.push(cause.clone());
                problems.push(Problem {
                    entitlement: Some(entitlement.clone()),
                    person: Some(person.clone()),
                    schedule: Some(key.clone()),
                    ..Problem::new(
                        ProblemKind::ScheduleNotice,
                        format!(
                            "{key} suddenly has nobody on call for all time to come; until it has said so for the notice period, {person} takes over {entitlement} as was known before"
                        ),
                    )
                });
            }
        }
    }
    problems
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
        let planned = record.planned_since.get(&change.key()).copied();
        problems.extend(unfinished::overdue(change, planned, at));
        // A grant that failed for an earlier turn says nothing of this one.
        let of_this_turn = |last: &&LastTry| change.kind == ChangeKind::Revoke || change.due <= last.at;
        if let Some(last) = record.failures.get(&change.key()).filter(of_this_turn) {
            problems.push(unfinished::failed(change, last));
        }
        if let (ChangeKind::Grant, Foresight::Surprising(why)) = (change.kind, &change.foresight) {
            problems.push(unfinished::about(
                change,
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

/// Takes in what lookups find. When none has ended for `silence`, the rest goes on beside the pass, for a later one to
/// find the answer remembered.
async fn gather<T: 'static>(
    mut lookups: JoinSet<T>,
    silence: Option<Duration>,
    what: &'static str,
    mut take: impl FnMut(T),
) {
    loop {
        let next = lookups.join_next();
        let ended = match silence {
            Some(silence) => tokio::time::timeout(silence, next).await,
            None => Ok(next.await),
        };
        match ended {
            Ok(Some(Ok(found))) => take(found),
            Ok(Some(Err(error))) => tracing::error!(%error, "a lookup of {what} broke off"),
            Ok(None) => return,
            Err(_elapsed) => return lookups.detach_all(),
        }
    }
}

/// What every entitlement of the policy is in AWS, or why that is not known.
pub(crate) async fn resolve_targets(
    reader: &Arc<dyn Read>,
    policy: &Policy,
    silence: Option<Duration>,
) -> BTreeMap<EntitlementId, Result<ResolvedTarget, String>> {
    let mut targets = BTreeMap::new();
    let mut lookups = JoinSet::new();
    for entitlement in policy.entitlements() {
        // A lookup that does not end leaves this: not knowing, which revokes nobody.
        let unanswered = format!(
            "{}: {}: AWS has not answered yet",
            entitlement.origin, entitlement.target
        );
        targets.insert(entitlement.id.clone(), Err(unanswered));
        let (reader, id, target) = (Arc::clone(reader), entitlement.id.clone(), entitlement.target.clone());
        let origin = entitlement.origin.clone();
        lookups.spawn(async move {
            let resolved = reader.resolve_target(&target).await;
            (id, resolved.map_err(|error| format!("{origin}: {target}: {error}")))
        });
    }
    gather(lookups, silence, "an entitlement", |(id, target)| {
        targets.insert(id, target);
    })
    .await;
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

/// Looks everybody up in the identity store, beside each other. Whoever is not known in time is missing in the answer.
pub(crate) async fn resolve_people(
    reader: &Arc<dyn Read>,
    config: &Config,
    people: BTreeSet<Person>,
    silence: Option<Duration>,
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
    gather(lookups, silence, "a person", |(person, found)| {
        resolved.insert(person, found);
    })
    .await;
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
                |s| stands_in(s.read_at, config.timing.max_staleness, at),
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

/// For how long the last complete read of a schedule serves in place of newer ones.
pub(crate) fn stands_in(read_at: Timestamp, max_staleness: SignedDuration, at: Timestamp) -> String {
    let until = read_at.saturating_add(max_staleness).unwrap_or(Timestamp::MAX);
    let (read_at, verb) = (seconds(read_at), if until < at { "stood" } else { "stands" });
    format!("the snapshot read at {read_at} {verb} in until {}", seconds(until))
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
