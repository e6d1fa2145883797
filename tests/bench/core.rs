//! The pure core at several sizes: parse and check, who should hold what, plan, guard, next boundary, access time.
//!
//! `cargo bench --bench core`. Other sizes, in percent of the large organisation: `DUTYBOUND_PERCENT=1,10`.

#[allow(dead_code, reason = "the other benches use the rest")]
mod rig;
mod world;

use std::sync::LazyLock;

use divan::{AllocProfiler, Bencher, black_box};
use dutybound::accounting;
use dutybound_sandbox::organisation::Organisation;
use mimalloc::MiMalloc;
use world::{World, before, weeks, year};

#[global_allocator]
static ALLOCATOR: AllocProfiler<MiMalloc> = AllocProfiler::new(MiMalloc);

fn main() {
    divan::main();
}

/// In percent of the large organisation.
static SIZES: LazyLock<Vec<usize>> = LazyLock::new(|| rig::sizes(&[1, 10, 100, 300]));

fn sizes() -> impl Iterator<Item = usize> {
    SIZES.iter().copied()
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
    let (weeks, year) = (weeks(size), year());
    bencher.bench(|| accounting::account(black_box(&weeks), year, year.end()));
}
