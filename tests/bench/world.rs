//! An organisation in which everybody holds what they should, as the pure core sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dutybound::config::{Limits, Mode};
use dutybound::desired::{Desired, Snapshots, Timeline};
use dutybound::guard::{Conditions, Verdict, guard};
use dutybound::identity_center::{Holders, Resolution};
use dutybound::invariant::Ground;
use dutybound::ledger::AccessRow;
use dutybound::ledger::history::RecordedCause;
use dutybound::model::{Cause, EntitlementId, Interval, Person, ResolvedTarget};
use dutybound::plan::{Inputs, Key, Owned, Plan, PlannedSince, plan};
use dutybound::policy::Policy;
use dutybound_sandbox::organisation::Organisation;
use jiff::{SignedDuration, Timestamp};

use crate::rig;

/// Everything that a plan depends on.
pub(crate) struct World {
    policy: Policy,
    snapshots: Snapshots,
    people: BTreeMap<Person, Result<Resolution, String>>,
    targets: BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
    live: BTreeMap<ResolvedTarget, Arc<Holders>>,
    owned: BTreeMap<Key, Arc<Owned>>,
}

impl World {
    /// Of this percentage of the large organisation.
    pub(crate) fn new(size: usize) -> Self {
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
        for (entitlement, holders) in desired.entitlements() {
            let Some(Ok(target)) = world.targets.get(entitlement) else {
                continue;
            };
            let mut live = Holders::default();
            for (person, causes) in holders {
                let principal = rig::Aws::principal(person);
                world
                    .people
                    .insert(person.clone(), Ok(Resolution::Found(principal.clone())));
                live.users.insert(principal.clone());
                let owned = Owned {
                    access_id: 1,
                    entitlement: entitlement.clone(),
                    person: person.clone(),
                    causes: causes.to_vec(),
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

    /// Who should hold what for two weeks.
    pub(crate) fn timeline(&self) -> Timeline {
        let horizon = Interval::new(before(), before() + SignedDuration::from_hours(14 * 24)).unwrap();
        Timeline::build(&self.policy, &self.snapshots, &[], horizon)
    }

    /// The plan for `at`.
    pub(crate) fn plan(&self, desired: &Desired, at: Timestamp) -> Plan {
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
            planned_since: &PlannedSince::default(),
            bars: &[],
            in_flight: &BTreeSet::new(),
        })
    }

    /// What the guards say to it.
    pub(crate) fn guard(&self, plan: &Plan, timeline: &Timeline) -> Verdict {
        let conditions = Conditions {
            mode: Mode::Sync,
            paused: false,
            floors: &BTreeMap::new(),
            ground: &Ground::default(),
            limits: &Limits::default(),
            patience: SignedDuration::from_mins(10),
            max_staleness: SignedDuration::from_hours(24 * 7),
            max_clock_skew: SignedDuration::from_secs(60),
            timeline,
            snapshots: &self.snapshots,
            emptied: &BTreeSet::new(),
            unsteady: &BTreeSet::new(),
            clock_skew: None,
            unidentified: &BTreeSet::new(),
            unresolved: &BTreeSet::new(),
            owned: self.owned.len(),
            approved_digest: None,
            released: &BTreeMap::new(),
        };
        guard(plan, &conditions)
    }
}

/// Before Monday's hand-over.
pub(crate) fn before() -> Timestamp {
    rig::monday() - SignedDuration::from_hours(1)
}

/// The span that access time is measured over.
pub(crate) fn year() -> Interval {
    Interval::new(rig::monday(), rig::monday() + SignedDuration::from_hours(365 * 24)).unwrap()
}

/// So many thousand intervals of access, of a week each.
pub(crate) fn weeks(thousands: i64) -> Vec<AccessRow> {
    let timeline = World::new(1).timeline();
    (0..thousands * 1000).map(|id| week(&timeline, id)).collect()
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
        entitlement: cause.right.entitlement.clone(),
        target: ResolvedTarget::Group { group_id: "g".into() },
        principal: rig::Aws::principal(&cause.person),
        person: cause.person.clone(),
        granted_at: begins + SignedDuration::from_secs(5),
        grant_reference: None,
        policy: "".into(),
        revoked_at: Some(ends + SignedDuration::from_secs(7)),
        end_reason: None,
        causes: vec![RecordedCause {
            cause,
            recorded_at: begins,
            ended_at: Some(ends),
        }],
    }
}
