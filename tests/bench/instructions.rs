//! Each function of the pure core once, for callgrind to count: `tests/bench/instructions.sh` runs it and shows the counts.

#[allow(dead_code, reason = "the other benches use the rest")]
mod rig;
mod world;

use std::hint::black_box;

use dutybound_sandbox::organisation::Organisation;
use world::{World, before, weeks, year};

/// What is counted. A function here makes no closure, whose name would begin like its own: callgrind counts from the
/// entry of whatever is named so to its end.
mod measured {
    use dutybound::accounting::{self, Account};
    use dutybound::desired::{Desired, Timeline};
    use dutybound::guard::Verdict;
    use dutybound::ledger::AccessRow;
    use dutybound::model::Interval;
    use dutybound::plan::Plan;
    use dutybound::policy::Policy;
    use jiff::Timestamp;

    use crate::rig;
    use crate::world::World;

    #[inline(never)]
    pub(crate) fn parse_and_check(files: Vec<(String, Vec<u8>)>) -> Policy {
        rig::parse(files)
    }

    #[inline(never)]
    pub(crate) fn who_should_hold_what_for_two_weeks(world: &World) -> Timeline {
        world.timeline()
    }

    #[inline(never)]
    pub(crate) fn who_should_hold_what_now(timeline: &Timeline, at: Timestamp) -> Desired {
        timeline.at(at)
    }

    #[inline(never)]
    pub(crate) fn next_boundary(timeline: &Timeline, at: Timestamp) -> Option<Timestamp> {
        timeline.next_boundary(at)
    }

    #[inline(never)]
    pub(crate) fn plan_without_changes(world: &World, desired: &Desired, at: Timestamp) -> Plan {
        world.plan(desired, at)
    }

    #[inline(never)]
    pub(crate) fn plan_of_mondays_hand_over(world: &World, desired: &Desired) -> Plan {
        world.plan(desired, rig::monday())
    }

    #[inline(never)]
    pub(crate) fn guard_of_mondays_hand_over(world: &World, plan: &Plan, timeline: &Timeline) -> Verdict {
        world.guard(plan, timeline)
    }

    #[inline(never)]
    pub(crate) fn desired_plan_and_guard_from_scratch(world: &World) -> Verdict {
        let timeline = world.timeline();
        let plan = world.plan(&timeline.at(rig::monday()), rig::monday());
        world.guard(&plan, &timeline)
    }

    #[inline(never)]
    pub(crate) fn access_time_of_weeks(weeks: &[AccessRow], year: Interval) -> Account {
        accounting::account(weeks, year, year.end())
    }
}

fn main() {
    for size in rig::sizes(&[1]) {
        let files = rig::files(&Organisation::new(size, 1));
        drop(black_box(measured::parse_and_check(files)));
        let world = World::new(size);
        let timeline = measured::who_should_hold_what_for_two_weeks(&world);
        black_box(measured::next_boundary(&timeline, before()));
        let now = timeline.at(before());
        drop(black_box(measured::plan_without_changes(&world, &now, before())));
        let monday = measured::who_should_hold_what_now(&timeline, rig::monday());
        let plan = measured::plan_of_mondays_hand_over(&world, &monday);
        assert!(!plan.changes.is_empty());
        drop(black_box(measured::guard_of_mondays_hand_over(
            &world, &plan, &timeline,
        )));
        drop(black_box(measured::desired_plan_and_guard_from_scratch(&world)));
        // A thousand for every percent.
        let weeks = weeks(i64::try_from(size).unwrap());
        drop(black_box(measured::access_time_of_weeks(&weeks, year())));
    }
}
