//! Days of operation in minutes: whether memory and file handles stay flat and the ledger grows as predicted.
//!
//! `cargo bench --bench soak`. Other sizes, in percent of the large organisation, and other lengths:
//! `DUTYBOUND_PERCENT=1,10 DUTYBOUND_DAYS=30`. Ends with 1 where something is not flat. The ledger lies below `TMPDIR`.
//!
//! Every day each schedule hands over once and one in thirty has an override of four hours, which a read shows four hours
//! before; one member leaves and another comes back; every schedule is read every hour, every read is followed by a pass,
//! and so is every boundary; after each hour's pass there is a scrape, and the ledger keeps its totals and removes what is
//! too old, as the daemon has it done.

mod flat;
mod meter;
#[allow(dead_code, reason = "the other benches use the rest")]
mod rig;

use std::alloc::System;
use std::sync::Arc;
use std::time::Duration;

use dutybound::apply::Applier;
use dutybound::clock::Clock;
use dutybound::config::{Config, Mode};
use dutybound::http::{self, Health, InUse, Site};
use dutybound::identity_center::{ChangeKind, Read};
use dutybound::ledger::{Ledger, StoredSnapshots};
use dutybound::metrics::Metrics;
use dutybound::model::{Interval, Shift, Snapshot};
use dutybound::plan::Change;
use dutybound::policy::Policy;
use dutybound::reconcile::Reconciler;
use dutybound::telemetry::ApiCalls;
use dutybound_sandbox::organisation::{OnCallSchedule, Organisation};
use flat::Day;
use jiff::{SignedDuration, Timestamp};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::watch;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const DAY: SignedDuration = SignedDuration::from_hours(24);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// When an override is seen, begins and ends, after the day's hand-over.
const SEEN: SignedDuration = SignedDuration::from_hours(2);
const OVERRIDDEN: (SignedDuration, SignedDuration) = (SignedDuration::from_hours(6), SignedDuration::from_hours(10));
/// When the policy is edited.
const EDITED: SignedDuration = SignedDuration::from_hours(12);

fn main() {
    let days = std::env::var("DUTYBOUND_DAYS").map_or(10, |days| days.parse().unwrap());
    println!(
        "A row for each simulated day, at its end; retention {} days. Heap is what the program holds, resident and peak",
        flat::RETENTION_DAYS
    );
    println!("also what the allocator, SQLite and the system keep. Sizes in percent of the large organisation.\n");
    let mut judged = true;
    for size in rig::sizes(&[1]) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let rows = runtime.block_on(soak(size, days));
        judged &= flat::judge(&rows);
        println!();
    }
    if !judged {
        std::process::exit(1);
    }
}

async fn soak(size: usize, days: usize) -> Vec<Day> {
    let (_dir, path) = rig::folder();
    let mut world = World::new(size, rig::config(&path)).await;
    flat::head();
    let mut rows = Vec::new();
    for day in 0..days {
        let row = world.day(day).await;
        println!("{}", row.line(size, day));
        rows.push(row);
    }
    rows
}

/// The daemon's parts and everything around them.
struct World {
    organisation: Organisation,
    config: Config,
    policy: Arc<Policy>,
    clock: rig::Hands,
    applier: Arc<Applier>,
    reconciler: Reconciler,
    metrics: Arc<Metrics>,
    shown: watch::Sender<Arc<InUse>>,
    client: reqwest::Client,
    address: std::net::SocketAddr,
    passes: usize,
    changes: usize,
    revokes: usize,
}

impl World {
    async fn new(size: usize, config: Config) -> Self {
        let organisation = Organisation::new(size, 1);
        let policy = Arc::new(rig::parse(rig::files(&organisation)));
        let begin = rig::monday() - HOUR;
        let clock = rig::Hands::at(begin);
        let ledger = Ledger::open(&config.ledger, "bench", begin).await.unwrap();
        let held: Arc<dyn Clock> = Arc::new(clock.clone());
        let aws = Arc::new(rig::Aws::default());
        let reader: Arc<dyn Read> = aws.clone();
        let stored = StoredSnapshots::default();
        let (reconciler, applier) = rig::reconciler(Arc::clone(&held), reader, aws, ledger, stored, &config);

        let metrics = Arc::new(Metrics::new(&ApiCalls::new().unwrap(), "0.1.0", Mode::Sync).unwrap());
        let (shown, in_use) = watch::channel(Arc::new(InUse::new(&policy, &config, false)));
        let site = Site {
            metrics: Arc::clone(&metrics),
            health: Arc::new(Health::new([], config.timing.poll, Duration::from_secs(180), begin)),
            ledger: Ledger::open_read_only(&config.ledger, "bench").await.unwrap(),
            ledger_path: config.ledger.clone(),
            snapshots: Arc::clone(&reconciler.snapshots),
            in_use,
            clock: held,
            token: None,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(http::serve(listener, site, std::future::pending()));
        // One connection that stays, so that handles can be compared.
        let client = reqwest::Client::builder().pool_idle_timeout(None).build().unwrap();
        Self {
            organisation,
            config,
            policy,
            clock,
            applier,
            reconciler,
            metrics,
            shown,
            client,
            address,
            passes: 0,
            changes: 0,
            revokes: 0,
        }
    }

    /// From an hour before a hand-over to an hour before the next.
    async fn day(&mut self, day: usize) -> Day {
        let hand_over = rig::monday() + DAY * i32::try_from(day).unwrap();
        let (begin, end) = (hand_over - HOUR, hand_over - HOUR + DAY);
        meter::forget_peak();
        let cpu = meter::cpu();
        (self.passes, self.changes, self.revokes) = (0, 0, 0);
        let (mut now, mut next_read) = (begin, begin);
        while now < end {
            self.clock.set(now);
            let reads = next_read <= now;
            if reads {
                next_read = now + HOUR;
                if now == hand_over + EDITED {
                    self.edit(day);
                }
                self.read(now, day).await;
            }
            let boundary = self.settle().await;
            if reads {
                self.after(now).await;
            }
            now = boundary.filter(|t| now < *t).map_or(next_read, |t| t.min(next_read));
        }
        let unended = self.pass().await;
        assert!(unended.0 == 0, "the day ends with changes still to be made");
        let ledger = flat::read(&self.config.ledger).await;
        let stats = ALLOCATOR.stats();
        Day {
            passes: self.passes,
            changes: self.changes,
            revokes: self.revokes,
            cpu: meter::cpu() - cpu,
            heap_mb: (stats.bytes_allocated as f64 - stats.bytes_deallocated as f64) / 1e6,
            resident_mb: meter::resident_mb(),
            peak_mb: meter::peak_mb(),
            handles: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            ledger,
        }
    }

    /// Passes until there is nothing to do. Gives the next boundary.
    async fn settle(&mut self) -> Option<Timestamp> {
        loop {
            let (changes, boundary) = self.pass().await;
            if changes == 0 {
                return boundary;
            }
            self.applier.idle().await;
        }
    }

    async fn pass(&mut self) -> (usize, Option<Timestamp>) {
        let began = std::time::Instant::now();
        let pass = self.reconciler.look(&self.config, &self.policy, None).await.unwrap();
        self.reconciler.act(&pass, &self.config, &self.policy).await.unwrap();
        let held = &pass.survey.verdict.held;
        assert!(held.is_empty(), "{:?}", held.first());
        let revokes = |change: &&Arc<Change>| change.kind == ChangeKind::Revoke;
        let revokes = pass.survey.plan.changes.iter().filter(revokes).count();
        let changes = pass.survey.plan.changes.len();
        self.metrics.pass_ended(&pass, began.elapsed(), self.clock.now());
        self.passes += 1;
        self.changes += changes;
        self.revokes += revokes;
        (changes, pass.survey.next_boundary)
    }

    /// What the daemon does besides passes: what is shown of schedules and the days to come, totals, retention, a scrape.
    async fn after(&mut self, now: Timestamp) {
        let schedules = self.policy.schedules();
        let newest = {
            let stored = self.reconciler.snapshots.lock().await;
            self.metrics.sources(&stored, &schedules, []);
            stored.newest(&schedules)
        };
        let horizon = self.config.timing.horizon;
        self.metrics.outlook(&self.policy, &newest, &[], horizon, now);
        let ledger = &self.reconciler.ledger;
        ledger.settle(now).await.unwrap();
        let retention = DAY * i32::try_from(flat::RETENTION_DAYS).unwrap();
        ledger.shorten_redo(now).await.unwrap();
        ledger.remove_before(now - retention, now).await.unwrap();
        self.get("/metrics").await;
        self.get("/").await;
    }

    async fn get(&self, path: &str) {
        let url = format!("http://{}{path}", self.address);
        let response = self.client.get(url).send().await.unwrap();
        drop(response.bytes().await.unwrap());
    }

    /// Another project each day is without its last member until the day after.
    fn edit(&mut self, day: usize) {
        let project = &self.organisation.projects()[day % self.organisation.projects().len()];
        let name = format!("{}.toml", project.name);
        let mut files = rig::files(&self.organisation);
        let edited = files.iter_mut().find(|(file, _)| *file == name).unwrap();
        let cut = String::from_utf8_lossy(&edited.1).rfind("\n[[member]]").unwrap();
        edited.1.truncate(cut);
        self.policy = Arc::new(rig::parse(files));
        self.metrics
            .policy_loaded(true, &self.policy.revision, self.clock.now());
        let in_use = InUse::new(&self.policy, &self.config, false);
        self.shown.send_replace(Arc::new(in_use));
    }

    /// Reads every schedule.
    async fn read(&mut self, now: Timestamp, day: usize) {
        let window = dutybound::poll::window(now, self.config.timing.horizon, None);
        let days = i32::try_from(day).unwrap();
        let turns: Vec<_> = (days - 3..days + 18)
            .map(|turn| (usize::try_from(turn + 55).unwrap(), rig::monday() + DAY * turn))
            .collect();
        let projects = self.organisation.projects().iter();
        let mut stored = self.reconciler.snapshots.lock().await;
        for (number, schedule) in projects.flat_map(|project| &project.schedules).enumerate() {
            let mut snapshot = rig::read(schedule, &turns, DAY, window, now);
            for of in day.saturating_sub(2)..=day {
                replace(&mut snapshot, schedule, number, of);
            }
            let ledger = &self.reconciler.ledger;
            ledger.store_snapshot(&mut stored, snapshot, now).await.unwrap();
        }
    }
}

/// One schedule in thirty is stood in for on a day, as far as the read shows that yet.
fn replace(snapshot: &mut Snapshot, schedule: &OnCallSchedule, number: usize, day: usize) {
    let hand_over = rig::monday() + DAY * i32::try_from(day).unwrap();
    if !(number + day).is_multiple_of(30) || snapshot.read_at < hand_over + SEEN {
        return;
    }
    let (from, to) = (hand_over + OVERRIDDEN.0, hand_over + OVERRIDDEN.1);
    let (id, email) = schedule.turn(day + 57);
    let mut shifts = Vec::new();
    for shift in snapshot.shifts.drain(..) {
        let (start, end) = (shift.interval.start(), shift.interval.end());
        let piece = |from: Timestamp, to: Timestamp| Interval::new(start.max(from), end.min(to));
        let mut part = |interval: Option<Interval>, stands_in: bool| {
            let Some(interval) = interval else { return };
            let mut part = Shift {
                interval,
                ..shift.clone()
            };
            if stands_in {
                Arc::make_mut(&mut part.user).id = id.clone().into();
                Arc::make_mut(&mut part.user).name = Some(email.to_owned());
                Arc::make_mut(&mut part.user).email = Some(email.to_owned());
            }
            shifts.push(part);
        };
        part(piece(Timestamp::MIN, from), false);
        part(piece(from, to), true);
        part(piece(to, Timestamp::MAX), false);
    }
    snapshot.shifts = shifts;
}
