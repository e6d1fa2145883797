//! What a pass costs at several sizes of organisation, without a network: CPU time, allocations, calls, peak memory.
//!
//! `cargo bench --bench passes`. Other sizes, in percent of the large organisation: `DUTYBOUND_PERCENT=1,10`.

mod meter;
mod rig;

use std::alloc::System;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dutybound::clock::Clock;
use dutybound::config::Config;
use dutybound::identity_center::{ChangeKind, Read, Write};
use dutybound::ledger::{Ledger, StoredSnapshots};
use dutybound::policy::Policy;
use dutybound::reconcile::{Pass, Reconciler};
use dutybound_sandbox::organisation::Organisation;
use jiff::{SignedDuration, Timestamp};
use meter::{cpu, forget_peak, peak_mb};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    let sizes = rig::sizes(&[1, 10, 100]);
    if let Some(path) = std::env::var_os("DUTYBOUND_RESTART") {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(restart(sizes[0], Path::new(&path)));
    }
    println!(
        "CPU time of all threads, allocations, calls to AWS and the process's peak memory since the row before, and what"
    );
    println!("the program holds at its end, without SQLite;");
    println!("applying includes a ledger on disk. Sizes in percent of the large organisation (100,500 grants).\n");
    println!(
        "{:>5}  {:<44} {:>12} {:>13} {:>12} {:>8} {:>9} {:>9}",
        "size", "what", "CPU ms", "allocations", "bytes MB", "calls", "held MB", "peak MB"
    );
    for size in sizes {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(organisation(size));
    }
}

/// Measures between rows.
struct Meter {
    size: usize,
    region: Region<'static, System>,
    cpu: Duration,
    aws: Arc<rig::Aws>,
}

impl Meter {
    fn new(size: usize, aws: Arc<rig::Aws>) -> Self {
        Self {
            size,
            region: Region::new(ALLOCATOR),
            cpu: cpu(),
            aws,
        }
    }

    fn start(&mut self) {
        self.aws.calls();
        forget_peak();
        self.region.reset();
        self.cpu = cpu();
    }

    fn row(&mut self, what: &str) {
        let took = cpu() - self.cpu;
        let stats = self.region.change();
        println!(
            "{:>4}%  {:<44} {:>12.1} {:>13} {:>12.1} {:>8} {:>9.0} {:>9.0}",
            self.size,
            what,
            took.as_secs_f64() * 1e3,
            stats.allocations + stats.reallocations,
            stats.bytes_allocated as f64 / 1e6,
            self.aws.calls(),
            held_mb(),
            peak_mb()
        );
        self.start();
    }
}

/// What is allocated now. What SQLite holds is not counted.
fn held_mb() -> f64 {
    let all = ALLOCATOR.stats();
    (all.bytes_allocated as f64 - all.bytes_deallocated as f64) / 1e6
}

async fn organisation(size: usize) {
    let organisation = Organisation::new(size, 1);
    let (_dir, path) = rig::folder();
    let config = rig::config(&path);
    let aws = Arc::new(rig::Aws::default());
    let mut meter = Meter::new(size, Arc::clone(&aws));
    let files = rig::files(&organisation);
    meter.start();
    let policy = Arc::new(rig::parse(files));
    meter.row("parse and check the policy");

    let before = rig::monday() - SignedDuration::from_hours(30);
    let clock = rig::Hands::at(before);
    let ledger = Ledger::open(&config.ledger, "bench", before).await.unwrap();
    let mut stored = StoredSnapshots::default();
    for snapshot in rig::snapshots(&organisation, before) {
        ledger.store_snapshot(&mut stored, snapshot, before).await.unwrap();
    }
    meter.row("store the first reads");

    let held: Arc<dyn Clock> = Arc::new(clock.clone());
    let reader: Arc<dyn Read> = aws.clone();
    let (mut reconciler, applier) = rig::reconciler(held, reader, aws, ledger.clone(), stored, &config);
    // The guards' limits are for surprises; the first snapshot of all counts as foreseen.
    let first = reconciler.look(&config, &policy, None).await.unwrap();
    meter.row("cold start to the first complete plan");
    let wanted = first.survey.plan.changes.len();
    reconciler.act(&first, &config, &policy).await.unwrap();
    drop(first);
    applier.idle().await;
    meter.row(&format!("apply {wanted} grants"));
    let pass = pass(&mut reconciler, &config, &policy).await;
    assert!(
        pass.survey.plan.changes.is_empty(),
        "{:?}",
        pass.survey.plan.changes.first()
    );
    drop(pass);
    meter.row("the pass that takes the results in");

    for minute in 1..=3 {
        clock.set(before + SignedDuration::from_mins(minute));
        drop(self::pass(&mut reconciler, &config, &policy).await);
        meter.row(&format!("a pass with nothing to do, number {minute}"));
    }

    // Somebody edits one file: a member leaves a project that has no schedule of theirs at this moment.
    let policy = Arc::new(rig::parse(rig::edited(&organisation)));
    meter.row("parse the policy with one file edited");
    clock.set(before + SignedDuration::from_mins(4));
    let pass = self::pass(&mut reconciler, &config, &policy).await;
    let changes = pass.survey.plan.changes.len();
    drop(pass);
    meter.row(&format!("the plan for that edit ({changes} changes)"));
    applier.idle().await;
    drop(self::pass(&mut reconciler, &config, &policy).await);
    meter.row("its changes, and the pass after them");

    // Every schedule says so again, an hour before Monday's hand-over; then all of them hand over.
    let soon = rig::monday() - SignedDuration::from_hours(1);
    read_again(&mut reconciler, &organisation, soon, &clock).await;
    meter.row("the reads an hour before the hand-over");
    drop(self::pass(&mut reconciler, &config, &policy).await);
    meter.row("the pass after them");
    clock.set(rig::monday());
    let pass = self::pass(&mut reconciler, &config, &policy).await;
    let (changes, held) = (pass.survey.plan.changes.len(), pass.survey.verdict.held.len());
    drop(pass);
    meter.row(&format!("the plan of Monday's {changes} changes ({held} held)"));
    applier.idle().await;
    meter.row("applying them");
    drop(self::pass(&mut reconciler, &config, &policy).await);
    meter.row("the pass after them");
    clock.set(rig::monday() + SignedDuration::from_mins(1));
    drop(self::pass(&mut reconciler, &config, &policy).await);
    meter.row("a pass with nothing to do");
    drop(reconciler);
    applier.stop().await;
    drop(applier);
    ledger.close().await;
    let this = std::env::current_exe().unwrap();
    let mut again = Command::new(this);
    again
        .env("DUTYBOUND_RESTART", &path)
        .env("DUTYBOUND_PERCENT", size.to_string());
    assert!(again.status().unwrap().success());
    println!();
}

/// In a process of its own: the daemon begins anew with everything on record.
async fn restart(size: usize, path: &Path) {
    let organisation = Organisation::new(size, 1);
    let config = rig::config(path);
    let aws = Arc::new(rig::Aws::default());
    let now = rig::monday() + SignedDuration::from_mins(30);
    let clock = rig::Hands::at(now);
    let ledger = Ledger::open(&config.ledger, "bench", now).await.unwrap();
    for (target, principal) in ledger.owned().await.unwrap().into_keys() {
        aws.start(ChangeKind::Grant, &target, &principal).await.unwrap();
    }
    let mut meter = Meter::new(size, Arc::clone(&aws));
    meter.start();
    let policy = Arc::new(rig::parse(rig::edited(&organisation)));
    let stored = ledger.load_snapshots().await.unwrap();
    meter.row("after a restart: the policy and the schedules");
    let (held, reader): (Arc<dyn Clock>, Arc<dyn Read>) = (Arc::new(clock.clone()), aws.clone());
    let (mut reconciler, _applier) = rig::reconciler(held, reader, aws, ledger, stored, &config);
    // The schedules are read on, so that what they say now has been known for the notice period.
    let later = now + SignedDuration::from_mins(16);
    for at in [now, later] {
        read_again(&mut reconciler, &organisation, at, &clock).await;
    }
    meter.row("reads of all schedules, twice");
    let first = pass(&mut reconciler, &config, &policy).await;
    let plan = &first.survey.plan;
    let (stands, changes) = (plan.unchanged, plan.changes.len());
    drop(first);
    meter.row(&format!("the first pass ({stands} stand, {changes} changes)"));
    for minute in 1..=3 {
        clock.set(later + SignedDuration::from_mins(minute));
        drop(pass(&mut reconciler, &config, &policy).await);
        meter.row("a pass with nothing to do");
    }
}

async fn read_again(reconciler: &mut Reconciler, organisation: &Organisation, at: Timestamp, clock: &rig::Hands) {
    clock.set(at);
    let mut stored = reconciler.snapshots.lock().await;
    for snapshot in rig::snapshots(organisation, at) {
        reconciler
            .ledger
            .store_snapshot(&mut stored, snapshot, at)
            .await
            .unwrap();
    }
}

async fn pass(reconciler: &mut Reconciler, config: &Config, policy: &Arc<Policy>) -> Pass {
    let pass = reconciler.look(config, policy, None).await.unwrap();
    reconciler.act(&pass, config, policy).await.unwrap();
    pass
}
