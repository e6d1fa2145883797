//! The reading half of a pass: from policy, snapshots and live state to a guarded plan. Has no way to write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashSet;
use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;
use crate::config::Config;
use crate::desired::{Desired, Timeline};
use crate::guard::{self, Conditions, Floor, Guard, Verdict};
use crate::identity_center::{AwsError, AwsErrorKind, ChangeKind, Holders, Instance, Read};
use crate::invariant::Past;
use crate::ledger::{Bar, KnownSchedules, LastTries, OnDuty, OpenIntent};
use crate::live::{Audit, LiveCache, PLANNED};
use crate::model::{Cause, EntitlementId, Interval, Person, PrincipalId, ResolvedTarget, ScheduleKey};
use crate::plan::{self, Inputs, Key, Owned, Plan, PlannedSince};
use crate::policy::Policy;
use crate::problem::{Problem, ProblemKind, collapse};
use crate::unfinished::{self, Unsettled};

mod ground;
mod lookups;
mod problems;
mod rest;
mod unheld;

pub(crate) use ground::past;
use ground::{ground, standing_problems};
pub use lookups::KnownPeople;
use lookups::people_of;
pub(crate) use lookups::{UNANSWERED, known_people, not_looked_up, resolve_people, resolve_targets};
use problems::{change_problems, clock_skew, source_problems, target_problems};
pub(crate) use rest::News;
pub use rest::Resting;
use rest::Seen;

/// The longest that reading the world may take for what was foreseen to cover its end.
const LONGEST_READ: SignedDuration = SignedDuration::from_hours(2);

/// When the next pass is due that has something to do already.
const AT_ONCE: SignedDuration = SignedDuration::from_millis(1);

/// What is known besides the providers' and AWS's word.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// When each change that is still to be made was first planned.
    pub planned_since: PlannedSince,
    /// Grants of ours that stand, without those of entitlements at rest.
    pub owned: BTreeMap<Key, Arc<Owned>>,
    /// How many grants of ours stand in all.
    pub owned_in_all: usize,
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
    /// The others: this process carries them out.
    pub at_work: Vec<OpenIntent>,
    /// Changes that a person released and that are still to be made.
    pub released: BTreeMap<Key, ChangeKind>,
    /// Targets of approved changes that wait for their turn.
    pub queued: BTreeSet<ResolvedTarget>,
    /// What was taken back by a person's release, and when.
    pub taken_by_release: BTreeMap<(EntitlementId, Person), Timestamp>,
    /// How the last try ended of changes that AWS refused.
    pub failures: LastTries,
    /// How long access has lasted, where a statement asks.
    pub past: Past,
    /// Whom not to look up anew.
    pub known_people: KnownPeople,
}

impl Record {
    /// The changes that are under way or open, that failed, or whose outcome was never learnt.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = &Key> {
        let open = self.in_flight.keys().chain(&self.unknown_outcomes);
        open.chain(self.failures.keys())
    }
}

/// A guarded plan and everything that led to it.
#[derive(Debug)]
pub struct Survey {
    /// The instant it speaks of.
    pub at: Timestamp,
    /// Where the live state was read.
    pub instance: Instance,
    /// All causes from `at` to the horizon, without those of entitlements at rest.
    pub timeline: Timeline,
    /// What should be at `at`, without those.
    pub desired: Desired,
    /// The changes.
    pub plan: Plan,
    /// What the guards say to them.
    pub verdict: Verdict,
    /// Everything that people should look at, sorted.
    pub problems: Vec<Problem>,
    /// Who is on duty without the access that it earns.
    pub unheld: Vec<OnDuty>,
    /// Targets that could not be read or resolved; with nothing else, the survey is complete.
    pub unresolved: usize,
    /// Targets of which the record is believed, because nobody has looked at them since the start.
    pub never_looked_at: usize,
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

/// Looks at the world and plans. `audit` is how many targets are read of which nothing is expected. What is at rest is
/// passed over, and what is found in order is laid to rest.
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
    resting: &mut Resting,
    config: &Config,
    policy: &Policy,
    known: &KnownSchedules<'_>,
    record: &Record,
    when: When<'_>,
    audit: usize,
    approved_digest: Option<&str>,
) -> Result<Survey, AwsError> {
    let instance = reader.instance().await?;
    let KnownSchedules {
        at: began,
        stored,
        ref schedules,
        ref newest,
        ref settled,
    } = *known;
    let ahead =
        |span| Interval::new(began, began.checked_add(span).unwrap_or(Timestamp::MAX)).unwrap_or(Interval::ALWAYS);
    let awake: HashSet<&EntitlementId> = {
        let mut not_at_rest = resting.awake();
        let all = policy.entitlements().map(|e| &e.id);
        all.filter(|id| not_at_rest(id)).collect()
    };
    let is_awake = |id: &EntitlementId| awake.contains(id);
    let timeline_of = |snapshots, span| Timeline::of_some(policy, snapshots, &config.identities, ahead(span), is_awake);
    let timeline = timeline_of(newest, config.timing.horizon);
    let mut foreseen = timeline_of(settled, LONGEST_READ);
    foreseen.share_causes_of(&timeline);
    let vanished = guard::vanished(newest, settled, began, config.timing.max_staleness);
    let before = match vanished.is_empty() {
        true => Timeline::default(),
        false => timeline_of(&stored.last_with_turns(&vanished, began), LONGEST_READ),
    };

    let targets = resolve_targets(reader, policy, is_awake, live.silence()).await;
    let targets = resting.refuse_what_others_are(plan::refuse_shared_targets(targets));
    let mut people = people_of(&timeline, &foreseen, began);
    people.extend(people_of(&before, &before, began));
    if policy.entitlements().any(|e| e.exclusive) {
        // Whoever holds an exclusive entitlement without us is known by name only if they are looked up.
        people.extend(config.limits.protected.iter().cloned());
    }
    let looked_up = resolve_people(reader, config, people, &record.known_people, live.silence()).await;
    let causes = [&timeline, &foreseen, &before]
        .into_iter()
        .flat_map(|timeline| &timeline.causes);
    let people = resting.remember_people(looked_up, causes.map(|cause| &cause.person));
    let managed: BTreeSet<ResolvedTarget> = targets
        .values()
        .flatten()
        .cloned()
        .chain(record.owned.keys().map(|(target, _)| target.clone()))
        .collect();
    let at_rest = resting.targets().map(|(_, target)| target);
    let kept: HashSet<&ResolvedTarget> = managed.iter().chain(at_rest).collect();
    let in_flight: BTreeSet<Key> = record.in_flight.keys().cloned().collect();
    let (nobody, no_live) = (Desired::default(), BTreeMap::new());
    let inputs = Inputs {
        at: began,
        policy,
        desired: &nobody,
        predicted: &nobody,
        people: &people,
        targets: &targets,
        live: &no_live,
        owned: &record.owned,
        unknown_outcomes: &record.unknown_outcomes,
        planned_since: &record.planned_since,
        bars: &record.bars,
        in_flight: &in_flight,
    };
    let unsettled_at = |at| {
        let desired = &timeline.at(at);
        plan::unsettled_targets(&Inputs { desired, ..inputs })
    };
    let mut suspects = unsettled_at(began);
    let audit = Audit {
        at_most: audit,
        older_than: config.timing.audit,
        of_plans: PLANNED,
        queued: &record.queued,
    };
    // What no entitlement means any more and AWS does not know is held by nobody; otherwise its record would never close.
    // That rests on a read of this pass.
    let meant: BTreeSet<&ResolvedTarget> = targets.values().flatten().collect();
    let gone =
        |target: &ResolvedTarget, error: &AwsError| error.kind == AwsErrorKind::NotFound && !meant.contains(target);
    let not_found = live.failures(&managed).into_iter();
    suspects.extend(
        not_found
            .filter(|(target, error)| gone(target, error))
            .map(|(target, _)| target),
    );
    live.refresh(reader, &kept, &suspects, &record.confirmed, audit, began)
        .await;
    // Turns may begin and end while this reads.
    let (mut looked_at, mut at) = (began, when.instant());
    while timeline.next_boundary(looked_at).is_some_and(|boundary| boundary <= at) {
        let news = &unsettled_at(at) - &suspects;
        if news.is_empty() {
            break;
        }
        live.refresh_also(reader, &kept, &news, &record.confirmed, audit, at)
            .await;
        suspects.extend(news);
        (looked_at, at) = (at, when.instant());
    }
    let never_looked_at = live.never_looked_at(&kept);
    let mut holders = live.holders(&managed);
    // What an audit finds of something at rest ends that rest; the pass for it comes at once.
    resting.take_first_reads(live);
    let disturbed = resting.is_disturbed_by(live);
    let mut errors = live.failures(&managed);
    for (target, _) in errors.extract_if(.., |target, error| gone(target, error)) {
        holders.insert(target, Arc::default());
    }

    let (mut desired, predicted) = (timeline.at(at), foreseen.at(at));
    let stand_in = stand_in(&mut desired, &before.at(at), &vanished, record, at);
    let mut plan = plan::plan(&Inputs {
        at,
        desired: &desired,
        predicted: &predicted,
        live: &holders,
        ..inputs
    });
    plan.unchanged += resting.standing();
    plan.drift.extend(resting.drift().cloned());
    plan.drift.sort();

    let mut problems = timeline.problems.clone();
    problems.extend(plan.problems.iter().cloned());
    problems.extend(target_problems(&targets, &errors));
    problems.extend(change_problems(&plan, record, at));
    let barred = |person: &Person| record.bars.iter().any(|bar| bar.concerns(person));
    let wanted = |id: &EntitlementId, person: &Person| desired.calls_for(id, person) && !barred(person);
    problems.extend(unfinished::unsettled(&record.unsettled, wanted, at));
    problems.extend(unfinished::late_at_work(
        &record.at_work,
        &record.planned_since,
        wanted,
        at,
    ));
    problems.extend(source_problems(config, schedules, stored, newest, at));
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
    let ground = ground(policy, &targets, &holders, &people, &plan, record);
    let conditions = Conditions {
        // A file that cannot be looked for counts as there: a pause must never fail open.
        paused: config.pause_file.try_exists().unwrap_or(true),
        floors: &floors(policy, &targets, &holders, &record.in_flight),
        mode: config.mode,
        ground: &ground,
        limits: &config.limits,
        patience: config.timing.patience,
        max_staleness: config.timing.max_staleness,
        max_clock_skew: config.timing.max_clock_skew,
        timeline: &timeline,
        snapshots: newest,
        emptied: &(&guard::emptied(newest, settled, at) | &vanished),
        unsteady: &stored.unsteady(schedules, at, config.timing.notice),
        clock_skew: clock_skew(config, newest, at).and_then(|skew| skew.of_ours()),
        unidentified: &of_kind(ProblemKind::is_not_knowing),
        unresolved: &unresolved_people,
        owned: record.owned_in_all,
        approved_digest,
        released: &record.released,
    };
    let verdict = guard::guard(&plan, &conditions);
    let mut problems = problems;
    problems.extend(standing_problems(&ground, &verdict, record, at));
    let problems = collapse(problems);
    let unresolved = targets.values().filter(|t| t.is_err()).count() + errors.len();
    let by_statement = verdict.held.iter().filter(|held| held.guard == Guard::Invariant);
    let waiting = by_statement.filter_map(|held| held.change.person.as_ref());
    let recorded_ends = record.owned.values().flat_map(|owned| &owned.causes);
    let next_boundary = recorded_ends
        .filter(|cause| cause.end_known && at < cause.held.end())
        .map(|cause| cause.held.end())
        .chain(timeline.next_boundary(at))
        .chain(foreseen.next_boundary(at))
        .chain(before.next_boundary(at))
        .chain(ground.next_change(waiting, at))
        .chain(resting.next_boundary(at))
        .chain(disturbed.then(|| at.saturating_add(AT_ONCE).unwrap_or(at)))
        .min();
    let unheld = unheld::unheld(&desired, record, &plan, &verdict, &problems, at);
    let survey = Survey {
        at,
        instance,
        timeline,
        desired,
        plan,
        verdict,
        problems,
        unheld,
        unresolved,
        never_looked_at,
        next_boundary,
    };
    let seen = Seen {
        awake: &awake,
        newest,
        settled,
        targets: &targets,
        live: holders.keys().collect(),
        failed: &errors,
    };
    resting.lay_down(&survey, &seen, policy, record);
    resting.keep_people(people);
    Ok(survey)
}

/// A schedule that from one read to the next has nobody at any time to come is not believed at once: hand-offs that were
/// known before go on meanwhile. Whoever holds the entitlement because of such a schedule is left to the guards, which hold
/// the revoke; nothing else would stop the revoke of who holds it for another reason that ends. What a person released is
/// not given again. Returns what to tell people.
fn stand_in(
    desired: &mut Desired,
    before: &Desired,
    vanished: &BTreeSet<ScheduleKey>,
    record: &Record,
    at: Timestamp,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if vanished.is_empty() {
        return problems;
    }
    let doubted = |cause: &Cause| cause.schedule().is_some_and(|key| vanished.contains(key));
    let doubtful = |owned: &Owned| {
        let mut causes = owned.causes.iter();
        !owned.lapsed && causes.any(|cause| doubted(cause) && !cause.has_ended_as_known(at))
    };
    let is_released = |key: &Key| record.released.get(key) == Some(&ChangeKind::Revoke);
    let held: BTreeSet<(&EntitlementId, &Person)> = record
        .owned
        .iter()
        .filter(|(key, owned)| doubtful(owned) || is_released(key))
        .map(|(_, owned)| (&owned.entitlement, &owned.person))
        .collect();
    let is_taken = |entitlement: &EntitlementId, person: &Person, cause: &Cause| {
        let taken = record.taken_by_release.get(&(entitlement.clone(), person.clone()));
        taken.is_some_and(|taken| cause.held.start() < *taken)
    };
    for (entitlement, holders) in before.entitlements() {
        for (person, causes) in holders.filter(|(person, _)| !held.contains(&(entitlement, *person))) {
            for cause in causes {
                let Some(key) = cause.schedule().filter(|key| vanished.contains(*key)) else {
                    continue;
                };
                if is_taken(entitlement, person, cause) {
                    continue;
                }
                if !desired.add(cause) {
                    continue;
                }
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

fn floors(
    policy: &Policy,
    targets: &BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
    holders: &BTreeMap<ResolvedTarget, Arc<Holders>>,
    in_flight: &BTreeMap<Key, ChangeKind>,
) -> BTreeMap<ResolvedTarget, Floor> {
    let mut floors = BTreeMap::new();
    for entitlement in policy.entitlements().filter(|e| 0 < e.min_holders) {
        if let Some(Ok(target)) = targets.get(&entitlement.id)
            && let Some(live) = holders.get(target)
        {
            let leaving = |user: &PrincipalId| {
                let key = (target.clone(), user.clone());
                in_flight.get(&key) == Some(&ChangeKind::Revoke)
            };
            let staying = live.users.iter().filter(|user| !leaving(user));
            let floor = Floor {
                holders: staying.cloned().collect(),
                min: entitlement.min_holders,
            };
            floors.insert(target.clone(), floor);
        }
    }
    floors
}
