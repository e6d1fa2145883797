//! The daemon's parts at the daemon's pace, in virtual time. One life lasts until the process is killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dutybound::apply::Applier;
use dutybound::clock::Clock;
use dutybound::config::{Config, IdentityCenterConfig, Limits, Mode, Timing};
use dutybound::daemon::pace::Pace;
use dutybound::http::Health;
use dutybound::identity_center::{Read, Slots};
use dutybound::ledger::Ledger;
use dutybound::live::LiveCache;
use dutybound::model::{Interval, SourceName};
use dutybound::policy::{self, Policy, PolicyContext};
use dutybound::poll::{Poller, Sources, Wanted};
use dutybound::reconcile::{Pass, PassError, Reconciler};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;

use crate::org::{Org, SOURCES, hours, minutes};
use crate::promises::Promises;
use crate::rng::Rng;
use crate::story::Story;
use crate::world::{Provider, World};

/// What a run came to.
pub(crate) struct Outcome {
    pub(crate) journal: Vec<String>,
    pub(crate) faults: Vec<String>,
    pub(crate) summary: String,
}

pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) config: Config,
    pub(crate) policy: Arc<Policy>,
    pub(crate) promises: Promises,
    pub(crate) story: Story,
    ledger: PathBuf,
    start: Timestamp,
    end: Timestamp,
    passes: u64,
    lives: u32,
}

/// The last breath between two passes, as in the daemon.
const BREATH: SignedDuration = SignedDuration::from_millis(100);

pub(crate) fn simulate(seed: u64, days: i64) -> Outcome {
    let mut rng = Rng::new(seed);
    // Spread over years, so that changes of clocks, leap days and year ends are met.
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let start = start + hours(24 * rng.range(0, 900)) + minutes(rng.range(0, 1439));
    let end = start + hours(24 * days);
    let org = Org::new(&mut rng, start, end);
    // Memory where there is some: every commit is synced.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .unwrap();
    let config = config(dir.path(), minutes(rng.range(20, 60)), minutes(rng.range(10, 120)));
    let policy = parse(&org);
    let timing = &config.timing;
    let mut run = Run {
        world: World::new(seed, org, start),
        promises: Promises::new(timing.poll, timing.notice, timing.max_staleness, start),
        story: Story::new(rng, start),
        policy,
        ledger: dir.path().join("ledger.db"),
        config,
        start,
        end,
        passes: 0,
        lives: 0,
    };
    while run.world.state().now < end {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(run.life());
        // Everything that was under way goes with it.
        drop(runtime);
        let mut state = run.world.state();
        state.forget_sleepers();
        state.crashed = false;
        state.life += 1;
    }
    let mut state = run.world.state();
    let summary = format!(
        "{} passes, {} calls to AWS, {} lives, {} events, {} states judged, {} excused",
        run.passes, state.calls, run.lives, run.story.events, run.promises.judged, run.promises.excused
    );
    Outcome {
        journal: std::mem::take(&mut state.journal),
        faults: std::mem::take(&mut state.faults),
        summary,
    }
}

pub(crate) fn parse(org: &Org) -> Arc<Policy> {
    let context = PolicyContext {
        sources: Some(SOURCES.iter().map(|s| (SourceName((*s).to_owned()), None)).collect()),
        roots: None,
        now: None,
    };
    let loaded = policy::parse(Path::new("access.d"), org.policy.files(&org.schedules), &context);
    Arc::new(loaded.unwrap_or_else(|report| panic!("{}", report.to_text(false))).0)
}

fn config(dir: &Path, poll: SignedDuration, audit: SignedDuration) -> Config {
    Config {
        mode: Mode::Sync,
        owner_id: "simulation".into(),
        policy_dir: dir.join("access.d"),
        roots: None,
        ledger: dir.join("ledger.db"),
        pause_file: dir.join("pause"),
        sources: BTreeMap::new(),
        identity_center: IdentityCenterConfig {
            region: "eu-central-1".into(),
            expected_account_id: "111122220000".into(),
            instance_arn: None,
            profile: None,
            endpoint_url: None,
            requests_per_second: 19,
            assignments_in_flight: 8,
            operation_timeout: Duration::from_secs(180),
            call_timeout: Duration::from_secs(10),
        },
        identities: Vec::new(),
        timing: Timing {
            poll,
            audit,
            ..Timing::default()
        },
        limits: Limits::default(),
        http: None,
    }
}

type Passing = JoinHandle<(Reconciler, Result<Pass, PassError>)>;

impl Run {
    /// Lives until the end of the run or until it is killed.
    async fn life(&mut self) {
        self.lives += 1;
        let world = self.world.clone();
        let clock: Arc<dyn Clock> = Arc::new(world.clone());
        let reader: Arc<dyn Read> = Arc::new(world.clone());
        let ledger = Ledger::open(&self.ledger, "simulation", world.now()).await.unwrap();
        let stored = ledger.load_snapshots().await.unwrap();
        let schedules = self.policy.schedules();
        let mut starting = schedules.len() > stored.newest(&schedules).len();
        let started = world.state().now;
        let snapshots = Arc::new(Mutex::new(stored));
        let operation_timeout = self.config.identity_center.operation_timeout;
        let applier = Applier::new(
            Arc::clone(&clock),
            Arc::clone(&reader),
            Arc::new(world.clone()),
            ledger.clone(),
            Slots::new(self.config.identity_center.assignments_in_flight),
            operation_timeout,
            self.config.pause_file.clone(),
        );
        let sources: Sources = SOURCES
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let name = SourceName((*name).to_owned());
                let provider = Provider {
                    world: world.clone(),
                    name: name.clone(),
                    index,
                };
                (name, Arc::new(provider) as Arc<dyn dutybound::schedule::Source>)
            })
            .collect();
        let health = Arc::new(Health::new(
            sources.keys().cloned(),
            self.config.timing.poll,
            operation_timeout,
            world.now(),
        ));
        let told = Arc::new(Notify::new());
        let news = Arc::new(AtomicBool::new(false));
        let (wanted, receiver) = watch::channel(self.wanted());
        for source in sources.values() {
            let poller = Poller {
                clock: Arc::clone(&clock),
                ledger: ledger.clone(),
                snapshots: Arc::clone(&snapshots),
                news: Arc::clone(&told),
                wanted: receiver.clone(),
                health: Arc::clone(&health),
            };
            tokio::spawn(poller.run(Arc::clone(source)));
        }
        let (flag, waits) = (Arc::clone(&news), Arc::clone(&told));
        tokio::spawn(async move {
            loop {
                waits.notified().await;
                flag.store(true, Ordering::Relaxed);
            }
        });
        let (flag, waits) = (Arc::clone(&news), Arc::clone(&applier));
        tokio::spawn(async move {
            loop {
                waits.progress().await;
                flag.store(true, Ordering::Relaxed);
            }
        });
        let mut reconciler = Some(Reconciler {
            clock,
            reader,
            ledger: ledger.clone(),
            snapshots,
            applier: Some(Arc::clone(&applier)),
            live: LiveCache::default(),
            planned_since: BTreeMap::new(),
        });
        let mut pace = Pace::default();
        let mut passing: Option<Passing> = None;
        let mut idle = false;
        let mut next_pass = world.now();
        let mut not_before = world.state().now;
        let mut offset = world.state().offset;
        loop {
            quiet(&ledger).await;
            let now = world.state().now;
            if world.state().crashed {
                self.die("in the middle of a call");
                return;
            }
            if passing.as_ref().is_some_and(JoinHandle::is_finished)
                && let Some(done) = passing.take()
            {
                let (back, result) = done.await.unwrap();
                reconciler = Some(back);
                self.passes += 1;
                not_before = now + BREATH;
                match result {
                    Ok(pass) => {
                        next_pass = pace.passed(&pass, &self.config.timing, world.now());
                        let mut state = world.state();
                        for held in &pass.survey.verdict.held {
                            let line = format!(
                                "held {:?} {} {}: {}",
                                held.change.kind,
                                held.change.target,
                                held.change.who(),
                                held.reason
                            );
                            state.say(&line);
                        }
                        for step in pass.survey.verdict.approved.steps() {
                            state.say(&format!(
                                "planned {:?} {} {}: {:?}",
                                step.change.kind,
                                step.change.target,
                                step.change.who(),
                                step.change.foresight
                            ));
                        }
                        for ended in pass.ended.iter().filter(|a| a.end != dutybound::apply::End::Confirmed) {
                            state.say(&format!(
                                "{:?} {} {}: {:?}",
                                ended.change.kind,
                                ended.change.target,
                                ended.change.who(),
                                ended.end
                            ));
                        }
                        self.promises.look(&mut state);
                        self.promises.after_pass(&mut state, &pass, idle);
                    }
                    Err(error) => {
                        applier.supersede();
                        world
                            .state()
                            .say(&format!("a pass failed: {}", dutybound::chain(&error)));
                        next_pass = pace.failed(&self.config.timing, world.now());
                    }
                }
            }
            if passing.is_none() && news.swap(false, Ordering::Relaxed) {
                next_pass = world.now();
            }
            // The daemon looks at the clock every second, so a step is seen at once for all that matters here.
            let stepped = world.state().offset;
            if stepped < offset {
                next_pass = world.now();
            }
            offset = stepped;
            if starting && (health.all_sources_read() || started + SignedDuration::from_secs(10) <= now) {
                starting = false;
            }
            if !starting
                && not_before <= now
                && next_pass <= world.now()
                && let Some(mut with) = reconciler.take()
            {
                idle = applier.in_flight().is_empty();
                let (config, policy) = (self.config.clone(), Arc::clone(&self.policy));
                passing = Some(tokio::spawn(async move {
                    let result = pass(&mut with, &config, &policy).await;
                    (with, result)
                }));
                continue;
            }
            if world.state().turn() {
                continue;
            }
            if now >= self.end {
                self.finish(&ledger).await;
                return;
            }
            let due = if passing.is_some() {
                None
            } else {
                Some((next_pass - offset).max(not_before).max(now))
            };
            let due = if starting {
                Some(started + SignedDuration::from_secs(10))
            } else {
                due
            };
            let events = [world.state().next(), due, Some(self.story.next), Some(self.end)];
            let next = events.into_iter().flatten().min().unwrap().max(now);
            world.state().now = next;
            if next == self.story.next {
                let policy_before = Arc::clone(&self.policy);
                if self.tell() {
                    self.die("between two calls");
                    return;
                }
                if policy_before.revision != self.policy.revision {
                    wanted.send_replace(self.wanted());
                    news.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn wanted(&self) -> Wanted {
        let timing = &self.config.timing;
        Wanted {
            schedules: self.policy.schedules(),
            poll: timing.poll,
            horizon: timing.horizon,
        }
    }

    fn die(&mut self, how: &str) {
        let mut state = self.world.state();
        state.say(&format!("killed {how}"));
        state.crashed = true;
        let down = self.story.rng.range(1, 1800);
        self.promises.look(&mut state);
        // Nobody is there to wait for until it is back; then it settles what was open.
        state.now = (state.now + SignedDuration::from_secs(down)).min(self.end);
        self.promises.disturb_with_restart(state.now);
        self.promises.soil();
    }

    /// The record at the end says what the world says.
    async fn finish(&mut self, ledger: &Ledger) {
        let rows = ledger.access_in(Interval::ALWAYS).await.unwrap();
        let mut state = self.world.state();
        crate::promises::judge_record(&mut state, &rows, Interval::new(self.start, self.end).unwrap());
    }
}

async fn pass(reconciler: &mut Reconciler, config: &Config, policy: &Policy) -> Result<Pass, PassError> {
    let pass = reconciler.look(config, policy, None).await?;
    reconciler.act(&pass, config, policy).await?;
    Ok(pass)
}

/// Lets everything run that can without time going on. The ledger works on a thread of its own, so it is asked; the
/// turns after that are for what wakes each other.
async fn quiet(ledger: &Ledger) {
    let mut calm = 0;
    while calm < 16 {
        tokio::task::yield_now().await;
        if ledger.is_idle() {
            calm += 1;
        } else {
            calm = 0;
            std::thread::sleep(Duration::from_micros(30));
        }
    }
}
