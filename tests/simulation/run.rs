//! A run from its seed to its end: one world, one ledger, as many lives of the process as it takes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use dutybound::config::{Audit, Config, IdentityCenterConfig, Limits, Mode, Timing, notify::Notify};
use dutybound::daemon::in_force::InForce;
use dutybound::ledger::Ledger;
use dutybound::model::{Interval, Person, SourceName};
use dutybound::policy::PolicyContext;
use jiff::{SignedDuration, Timestamp};

use crate::org::{Org, SOURCES, email, hours, minutes};
use crate::promises::{Bounds, Promises};
use crate::rng::Rng;
use crate::story::Story;
use crate::world::aws::IN_FLIGHT;
use crate::world::{State, World};

/// What a run came to.
pub(crate) struct Outcome {
    pub(crate) journal: Vec<String>,
    pub(crate) faults: Vec<String>,
    pub(crate) summary: String,
}

pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) config: Config,
    pub(crate) in_force: InForce,
    pub(crate) promises: Promises,
    pub(crate) story: Story,
    start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) passes: u64,
    pub(crate) lives: u32,
}

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
    let mut config = config(dir.path(), minutes(rng.range(20, 60)), minutes(rng.range(10, 120)));
    let protected = org.protected.map(|person| Person::parse(&email(person)).unwrap());
    config.limits.protected.extend(protected);
    std::fs::create_dir(&config.policy_dir).unwrap();
    write_files(&config.policy_dir, &org.policy.files(&org.schedules));
    let timing = &config.timing;
    let bounds = Bounds {
        poll: timing.poll,
        audit: timing.audit,
        notice: timing.notice,
        patience: timing.patience,
        max_staleness: timing.max_staleness,
    };
    let mut run = Run {
        world: World::new(seed, org, start),
        promises: Promises::new(bounds, start),
        story: Story::new(rng, start),
        in_force: load(&config.policy_dir).unwrap(),
        config,
        start,
        end,
        passes: 0,
        lives: 0,
    };
    let timeout = run.config.identity_center.operation_timeout;
    run.world.state().aws.operation_timeout = SignedDuration::try_from(timeout).unwrap();
    while run.world.state().now < end {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(run.life());
        // Everything that was under way goes with it.
        drop(runtime);
        let mut state = run.world.state();
        state.forget_sleepers();
        state.crashed = false;
    }
    let mut state = run.world.state();
    let (journal, faults) = (std::mem::take(&mut state.journal), std::mem::take(&mut state.faults));
    let summary = format!(
        "{} passes, {} calls to AWS, {} lives, {} events, {} states judged, {} excused",
        run.passes, state.aws.calls, run.lives, run.story.events, run.promises.judged, run.promises.excused
    );
    Outcome {
        journal,
        faults,
        summary,
    }
}

fn load(dir: &Path) -> Result<InForce, String> {
    let sources = SOURCES.iter().map(|s| (SourceName((*s).into()), None));
    let context = PolicyContext {
        sources: Some(sources.collect()),
        roots: None,
        invariants: Vec::new(),
        now: None,
    };
    let loaded = InForce::load(dir.to_owned(), context);
    loaded
        .map(|(in_force, _)| in_force)
        .map_err(|report| report.to_text(false))
}

fn write_files(dir: &Path, files: &[(String, Vec<u8>)]) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if !files.iter().any(|(name, _)| path.ends_with(name)) {
            std::fs::remove_file(path).unwrap();
        }
    }
    for (name, content) in files {
        std::fs::write(dir.join(name), content).unwrap();
    }
}

fn config(dir: &Path, poll: SignedDuration, audit: SignedDuration) -> Config {
    Config {
        mode: Mode::Sync,
        owner_id: "simulation".into(),
        policy_dir: dir.join("access.d"),
        roots: None,
        invariants: Vec::new(),
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
            assignments_in_flight: IN_FLIGHT,
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
        audit: Audit {
            retention: None,
            heads: None,
            heads_every: SignedDuration::from_hours(1),
        },
        sinks: Vec::new(),
        notify: Notify::default(),
        written: Default::default(),
    }
}

impl Run {
    pub(crate) fn write_files(&self, files: &[(String, Vec<u8>)]) {
        write_files(&self.config.policy_dir, files);
    }

    /// The files say what the world's policy says; the process sees it at its second look.
    pub(crate) fn write_policy(&mut self, state: &mut State) {
        self.write_files(&state.org.policy.files(&state.org.schedules));
        for _ in 0..2 {
            self.in_force.look(state.host(), false);
        }
        if self.in_force.is_refusing() {
            state.fault("a good policy was refused".to_owned());
        }
    }

    /// What a new process finds. Where the files are wrong it does not start, and somebody mends them.
    pub(crate) fn load_policy(&mut self) {
        self.in_force = match load(&self.config.policy_dir) {
            Ok(in_force) => in_force,
            Err(_) => {
                let state = self.world.state();
                self.write_files(&state.org.policy.files(&state.org.schedules));
                load(&self.config.policy_dir).unwrap()
            }
        };
    }

    pub(crate) fn die(&mut self, how: &str) {
        let mut state = self.world.state();
        state.say(&format!("killed {how}"));
        state.crashed = true;
        state.crash_at = None;
        state.leave_untold();
        state.life += 1;
        self.promises.look(&mut state);
        // Nobody is there to wait for until it is back; AWS goes on with what it was asked for.
        let down = self.story.rng.range(1, 1800);
        let back = (state.now + SignedDuration::from_secs(down)).min(self.end);
        self.promises.excuses.down = back + minutes(2);
        state.pass_without_us(back);
        self.promises.look(&mut state);
        self.promises.soil();
    }

    /// The record at the end says what the world says.
    pub(crate) async fn finish(&mut self, ledger: &Ledger) {
        let rows = ledger.access_in(Interval::ALWAYS).await.unwrap();
        let mut state = self.world.state();
        self.promises.look(&mut state);
        let period = Interval::new(self.start, self.end).unwrap();
        self.promises.judge_record(&mut state, &rows, period);
    }
}
