//! The pure core at several sizes: parse and check, who should hold what, plan, guard, next boundary, access time.
//!
//! `cargo bench --bench core`. Other sizes, in percent of the large organisation: `DUTYBOUND_PERCENT=1,10`.

#[allow(dead_code, reason = "the other benches use the rest")]
mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use divan::{AllocProfiler, Bencher, black_box};
use dutybound::accounting;
use dutybound::config::{Limits, Mode};
use dutybound::desired::{Desired, Snapshots, Timeline};
use dutybound::guard::{Conditions, Verdict, guard};
use dutybound::identity_center::{Holders, Resolution};
use dutybound::invariant::Ground;
use dutybound::ledger::AccessRow;
use dutybound::ledger::history::RecordedCause;
use dutybound::model::{Cause, EntitlementId, Interval, Person, ResolvedTarget};
use dutybound::plan::{Inputs, Key, Owned, Plan, plan};
use dutybound::policy::Policy;
use dutybound_sandbox::organisation::Organisation;
use jiff::{SignedDuration, Timestamp};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// In percent of the large organisation.
static SIZES: LazyLock<Vec<usize>> = LazyLock::new(|| rig::sizes(&[1, 10, 100, 300]));

fn sizes() -> impl Iterator<Item = usize> {
    SIZES.iter().copied()
}

/// Everything that a plan depends on, in an organisation in which everybody holds what they should.
struct World {
    policy: Policy,
    snapshots: Snapshots,
    people: BTreeMap<Person, Result<Resolution, String>>,
    targets: BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
    live: BTreeMap<ResolvedTarget, Arc<Holders>>,
    owned: BTreeMap<Key, Arc<Owned>>,
}

impl World {
    fn new(size: usize) -> Self {
        let organisation = Organisation::new(size, 1);
        let policy = rig::parse(rig::files(&organisation));
        let snapshots = rig::snapshots(&organisation, before());
        let snapshots: Snapshots = snapshots
            .into_iter()
            .map(|s| (s.schedule.clone(), Arc::new(s)))
            .collect();
        let targets: BTreeMap<_, _> = policy
            .entitlements()
            .map(|e| (e.id.clone(), Ok(rig::Aws::target(&e.target))))
            .collect();
        let mut world = Self {
            people: BTreeMap::new(),
            live: BTreeMap::new(),
            owned: BTreeMap::new(),
            policy,
            snapshots,
            targets,
        };
        let desired = world.timeline().at(before());
        for (entitlement, holders) in &desired.holders {
            let Some(Ok(target)) = world.targets.get(entitlement) else {
                continue;
            };
            let mut live = Holders::default();
            for (person, causes) in holders {
                let principal = rig::Aws::principal(person);
                world
                    .people
                    .insert(person.clone(), Ok(Resolution::Found(principal.clone())));
                live.users.insert(principal.clone(), None);
                let owned = Owned {
                    access_id: 1,
                    entitlement: entitlement.clone(),
                    person: person.clone(),
                    causes: causes.clone(),
                    lapsed: false,
                };
                world.owned.insert((target.clone(), principal), owned.into());
            }
            world.live.insert(target.clone(), live.into());
        }
        for member in world
            .policy
            .projects
            .values()
            .flat_map(|project| project.members.keys())
        {
            let found = || Ok(Resolution::Found(rig::Aws::principal(member)));
            world.people.entry(member.clone()).or_insert_with(found);
        }
        world
    }

    fn timeline(&self) -> Timeline {
        let horizon = Interval::new(before(), before() + SignedDuration::from_hours(14 * 24)).unwrap();
        Timeline::build(&self.policy, &self.snapshots, &[], horizon)
    }

    fn plan(&self, desired: &Desired, at: Timestamp) -> Plan {
        plan(&Inputs {
            at,
            policy: &self.policy,
            desired,
            predicted: desired,
            people: &self.people,
            targets: &self.targets,
            live: &self.live,
            owned: &self.owned,
            unknown_outcomes: &BTreeSet::new(),
            planned_since: &BTreeMap::new(),
            bars: &[],
            in_flight: &BTreeSet::new(),
        })
    }

    fn guard(&self, plan: &Plan, timeline: &Timeline) -> Verdict {
        let conditions = Conditions {
            mode: Mode::Sync,
            paused: false,
            floors: &BTreeMap::new(),
            ground: &Ground::default(),
            limits: &Limits::default(),
            patience: SignedDuration::from_mins(10),
            max_staleness: SignedDuration::from_hours(24 * 7),
            timeline,
            snapshots: &self.snapshots,
            emptied: &BTreeSet::new(),
            unsteady: &BTreeSet::new(),
            clock_skew: None,
            unidentified: &BTreeSet::new(),
            unresolved: &BTreeSet::new(),
            owned: self.owned.len(),
            approved_digest: None,
        };
        guard(plan, &conditions)
    }
}

/// Before Monday's hand-over.
fn before() -> Timestamp {
    rig::monday() - SignedDuration::from_hours(1)
}

#[divan::bench(args = sizes())]
fn parse_and_check(bencher: Bencher<'_, '_>, size: usize) {
    let files = rig::files(&Organisation::new(size, 1));
    bencher.with_inputs(|| files.clone()).bench_values(rig::parse);
}

#[divan::bench(args = sizes())]
fn who_should_hold_what_for_two_weeks(bencher: Bencher<'_, '_>, size: usize) {
    let world = World::new(size);
    bencher.bench(|| black_box(&world).timeline());
}

#[divan::bench(args = sizes())]
fn who_should_hold_what_now(bencher: Bencher<'_, '_>, size: usize) {
    let timeline = World::new(size).timeline();
    bencher.bench(|| black_box(&timeline).at(rig::monday()));
}

#[divan::bench(args = sizes())]
fn next_boundary(bencher: Bencher<'_, '_>, size: usize) {
    let timeline = World::new(size).timeline();
    bencher.bench(|| black_box(&timeline).next_boundary(before()));
}

#[divan::bench(args = sizes())]
fn plan_without_changes(bencher: Bencher<'_, '_>, size: usize) {
    let world = World::new(size);
    let desired = world.timeline().at(before());
    bencher.bench(|| black_box(&world).plan(&desired, before()));
}

#[divan::bench(args = sizes())]
fn plan_of_mondays_hand_over(bencher: Bencher<'_, '_>, size: usize) {
    let world = World::new(size);
    let desired = world.timeline().at(rig::monday());
    bencher.bench(|| black_box(&world).plan(&desired, rig::monday()));
}

#[divan::bench(args = sizes())]
fn guard_of_mondays_hand_over(bencher: Bencher<'_, '_>, size: usize) {
    let world = World::new(size);
    let timeline = world.timeline();
    let plan = world.plan(&timeline.at(rig::monday()), rig::monday());
    bencher.bench(|| black_box(&world).guard(&plan, &timeline));
}

#[divan::bench(args = sizes())]
fn desired_plan_and_guard_from_scratch(bencher: Bencher<'_, '_>, size: usize) {
    let world = World::new(size);
    bencher.bench(|| {
        let world = black_box(&world);
        let timeline = world.timeline();
        let plan = world.plan(&timeline.at(rig::monday()), rig::monday());
        world.guard(&plan, &timeline)
    });
}

/// A thousand intervals of a week each, for every percent; a year of the large organisation has three million.
#[divan::bench(args = [1, 10, 100])]
fn access_time_of_weeks(bencher: Bencher<'_, '_>, size: i64) {
    let timeline = World::new(1).timeline();
    let weeks: Vec<AccessRow> = (0..size * 1000).map(|id| week(&timeline, id)).collect();
    let year = Interval::new(rig::monday(), rig::monday() + SignedDuration::from_hours(365 * 24)).unwrap();
    bencher.bench(|| accounting::account(black_box(&weeks), year, year.end()));
}

fn week(timeline: &Timeline, id: i64) -> AccessRow {
    let begins = rig::monday() + SignedDuration::from_hours(id % 50 * 7 * 24);
    let ends = begins + SignedDuration::from_hours(7 * 24);
    let of = &timeline.causes[usize::try_from(id).unwrap() % timeline.causes.len()];
    let cause = Cause {
        held: Interval::new(begins, ends).unwrap(),
        duty: Interval::new(begins, ends).unwrap(),
        ..(**of).clone()
    };
    AccessRow {
        id,
        entitlement: cause.entitlement.clone(),
        target: ResolvedTarget::Group { group_id: "g".into() },
        principal: rig::Aws::principal(&cause.person),
        person: cause.person.clone(),
        granted_at: begins + SignedDuration::from_secs(5),
        grant_reference: None,
        policy: String::new(),
        revoked_at: Some(ends + SignedDuration::from_secs(7)),
        end_reason: None,
        causes: vec![RecordedCause {
            cause,
            recorded_at: begins,
            ended_at: Some(ends),
        }],
    }
}
