//! An installation in a temporary directory, the simulated services beside it, and the real binary between them.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dutybound::ledger::{AccessRow, Ledger};
use dutybound::model::Interval;
use dutybound_sandbox::{Call, Sandbox, View, World};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything awaited may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) const ACCOUNT: &str = "111122223333";
pub(crate) const ADMIN: &str = "AdministratorAccess";
pub(crate) const READERS: &str = "payments-prod-readers";
pub(crate) const DATA_GROUP: &str = "data-oncall";
pub(crate) const ALICE: &str = "alice@example.com";
pub(crate) const BOB: &str = "bob@example.com";
pub(crate) const CAROL: &str = "carol@example.com";
pub(crate) const DAVE: &str = "dave@example.com";
pub(crate) const ERIN: &str = "erin@example.com";

/// Head and members of the payments project, for policies that a test completes.
pub(crate) const PAYMENTS: &str = r#"[project]
name    = "payments"
owners  = ["mira@example.com"]
context = "PCI scope: card data never leaves the account."

[[entitlement]]
name           = "prod-admin"
account        = "111122223333"
permission_set = "AdministratorAccess"

[[entitlement]]
name  = "prod-readers"
group = "payments-prod-readers"

[[member]]
email    = "alice@example.com"
added_by = "mira@example.com"

[[member]]
email    = "bob@example.com"
added_by = "mira@example.com"
"#;

/// Both kinds of entitlement for whoever is on call.
pub(crate) const ON_CALL: &str = r#"
[[rule]]
entitlement = "prod-admin"
on_call     = "pagerduty/PABC123"

[[rule]]
entitlement = "prod-readers"
on_call     = "pagerduty/PABC123"
"#;

/// The account assignment only, for tests of one change at a time.
pub(crate) const ADMIN_ON_CALL: &str = r#"
[[rule]]
entitlement = "prod-admin"
on_call     = "pagerduty/PABC123"
"#;

/// The project on Opsgenie, whole.
pub(crate) const DATA: &str = r#"[project]
name   = "data"
owners = ["mira@example.com"]

[[entitlement]]
name  = "on-call"
group = "data-oncall"

[[member]]
email    = "dave@example.com"
added_by = "mira@example.com"

[[member]]
email    = "erin@example.com"
added_by = "mira@example.com"

[[rule]]
entitlement = "on-call"
on_call     = "opsgenie/6fce1fd0-bbbb-4000-8000-000000000001"
"#;

/// Lines of the configuration that tests change.
pub(crate) struct Settings {
    pub(crate) mode: &'static str,
    pub(crate) pagerduty: String,
    pub(crate) opsgenie: String,
    pub(crate) identity_center: String,
    /// Further tables.
    pub(crate) more: String,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Panics with everything that was said unless the command ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Everything that was said.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Panics with everything that was said unless all of these are in it.
    #[track_caller]
    pub(crate) fn says(&self, words: &[&str]) {
        let all = self.all();
        for word in words {
            assert!(all.contains(word), "{word:?} is missing in:\n{all}");
        }
    }

    /// stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in:\n{}", self.all()))
    }
}

/// An installation and the simulated services that it is pointed at.
pub(crate) struct Site {
    pub(crate) sandbox: Sandbox,
    folder: TempDir,
    daemons: AtomicU32,
}

impl Site {
    /// An installation in mode `sync` with one policy file.
    pub(crate) async fn new(world: World, policy: &str) -> Self {
        let site = Self {
            sandbox: Sandbox::start(world).await.unwrap(),
            folder: tempfile::tempdir().unwrap(),
            daemons: AtomicU32::new(0),
        };
        fs::create_dir(site.path("access.d")).unwrap();
        site.secret("key", "test-key\n");
        site.configure(|_| {});
        site.policy("project.toml", policy);
        site
    }

    /// An installation whose policy is [`PAYMENTS`] with [`ON_CALL`], with alice on call for hours.
    pub(crate) async fn payments() -> Self {
        Self::new(organisation(), &format!("{PAYMENTS}{ON_CALL}")).await
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn secret(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Writes a policy file.
    pub(crate) fn policy(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path("access.d").join(name), text).unwrap();
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings {
            mode: "sync",
            pagerduty: format!(
                "base_url = \"{}\"\ntoken = {{ file = \"key\" }}",
                self.sandbox.pagerduty_url()
            ),
            opsgenie: format!(
                "base_url = \"{}\"\napi_key = {{ file = \"key\" }}",
                self.sandbox.opsgenie_url()
            ),
            identity_center: format!(
                "region = \"eu-central-1\"\nexpected_account_id = \"999999999999\"\nendpoint_url = \"{}\"",
                self.sandbox.aws_url()
            ),
            more: "[timing]\npoll = \"1s\"\nnotice = \"0s\"\n".to_owned(),
        };
        change(&mut settings);
        let text = format!(
            "mode = \"{}\"\nowner_id = \"test\"\nledger = \"ledger.db\"\n\n\
             [source.pagerduty]\nkind = \"pagerduty\"\n{}\n\n[source.opsgenie]\nkind = \"opsgenie\"\n{}\n\n\
             [identity_center]\n{}\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n{}\n",
            settings.mode, settings.pagerduty, settings.opsgenie, settings.identity_center, settings.more
        );
        fs::write(self.path("config.toml"), text).unwrap();
    }

    /// The binary in an environment of its own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dutybound"));
        command
            .arg("--config")
            .arg(self.path("config.toml"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .env("USER", "tester")
            // Sentences stay whole, to be looked for by their words.
            .env("COLUMNS", "10000")
            .env("AWS_ACCESS_KEY_ID", "AKIATEST")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        Output {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts the daemon.
    pub(crate) fn daemon(&self) -> Daemon {
        self.daemon_by(self.command(&["run"]))
    }

    /// Starts the daemon by a command that was made for it.
    pub(crate) fn daemon_by(&self, mut command: Command) -> Daemon {
        let number = self.daemons.fetch_add(1, Ordering::Relaxed);
        let log = self.path(&format!("daemon-{number}.log"));
        let child = command
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Daemon { child, log }
    }

    /// Starts the daemon and waits until it serves.
    pub(crate) async fn ready_daemon(&self) -> Daemon {
        let daemon = self.daemon();
        daemon.ready().await;
        daemon
    }

    /// Waits until the services are in this state.
    pub(crate) async fn until(&self, what: &str, predicate: impl FnMut(View<'_>) -> bool) {
        if self.sandbox.wait_for(predicate, PATIENCE).await.is_err() {
            panic!("waited in vain until {what}; {}", self.story());
        }
    }

    /// Waits until somebody holds the administrator's assignment or no longer does.
    pub(crate) async fn until_admin(&self, who: &str, holds: bool) {
        self.until(
            &format!("{who} {} admin", if holds { "holds" } else { "no longer holds" }),
            |view| view.world.aws.holds(ACCOUNT, ADMIN, who) == holds,
        )
        .await;
    }

    /// Waits until a provider has answered two more reads, so that the first of them has been taken in.
    pub(crate) async fn until_polled(&self, operation: &str) {
        let before = self.sandbox.journal().last().map_or(0, |call| call.seq);
        self.until(&format!("{operation} was read twice"), |view| {
            let reads = view
                .journal
                .iter()
                .filter(|call| before < call.seq && call.operation == operation);
            reads.filter(|call| call.status.is_some()).count() > 1
        })
        .await;
    }

    /// Everything that helps to understand a failed test.
    pub(crate) fn story(&self) -> String {
        let calls: Vec<String> = self
            .sandbox
            .journal()
            .iter()
            .map(|call| {
                format!(
                    "{} {} {:?} {:?} {}",
                    call.seq, call.operation, call.status, call.fault, call.body
                )
            })
            .collect();
        let last = calls.len().saturating_sub(60);
        let logs: Vec<String> = (0..self.daemons.load(Ordering::Relaxed))
            .map(|n| fs::read_to_string(self.path(&format!("daemon-{n}.log"))).unwrap_or_default())
            .collect();
        format!(
            "the last calls:\n{}\nlogs:\n{}",
            calls[last..].join("\n"),
            logs.join("\n---\n")
        )
    }

    pub(crate) fn admin(&self, who: &str) -> bool {
        self.sandbox.edit(|world| world.aws.holds(ACCOUNT, ADMIN, who))
    }

    pub(crate) fn member(&self, group: &str, who: &str) -> bool {
        self.sandbox.edit(|world| world.aws.is_member(group, who))
    }

    /// The calls so far that would change AWS.
    pub(crate) fn writes(&self) -> Vec<Call> {
        self.sandbox.journal().into_iter().filter(Call::is_write).collect()
    }

    /// The writes so far by operation.
    pub(crate) fn written(&self) -> Vec<String> {
        self.writes().into_iter().map(|call| call.operation).collect()
    }

    /// The user's id in the identity store.
    pub(crate) fn user_id(&self, who: &str) -> String {
        self.sandbox.edit(|world| world.aws.user_id(who).unwrap().to_owned())
    }

    /// Every interval of access on record.
    pub(crate) async fn intervals(&self) -> Vec<AccessRow> {
        let ledger = Ledger::open_read_only(&self.path("ledger.db"), "test").await.unwrap();
        ledger.access_in(Interval::ALWAYS).await.unwrap()
    }

    /// Replaces the shifts of schedule `PABC123`.
    pub(crate) fn shifts(&self, shifts: &[(&str, Timestamp, Timestamp)]) {
        self.sandbox.edit(|world| set_shifts(world, shifts));
    }
}

/// The running daemon; dropping it kills it.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log has these words.
    pub(crate) async fn until_says(&self, words: &str) {
        eventually(&format!("the daemon says {words:?}"), async || {
            self.log().contains(words)
        })
        .await;
    }

    /// Asks its listener. `None` while it does not answer.
    pub(crate) async fn get(&self, page: &str) -> Option<(u16, String)> {
        let log = self.log();
        let address = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|line| line["address"].as_str().map(str::to_owned))?;
        let answer = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .get(format!("http://{address}{page}"));
        let answer = answer.send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// The value of a sample of `/metrics`, such as `dutybound_problems{kind="x"}`.
    pub(crate) async fn metric(&self, sample: &str) -> Option<f64> {
        let (_, page) = self.get("/metrics").await?;
        let line = page.lines().find(|line| line.starts_with(sample))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    pub(crate) async fn ready(&self) {
        let began = Instant::now();
        loop {
            let answer = self.get("/readyz").await;
            if answer.as_ref().is_some_and(|(status, _)| *status == 200) {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "the daemon is not ready, but {answer:?}; its log:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `-TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        // Without unsafe code or a dependency, the ordinary way to send a signal is the ordinary program for it.
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Ends it as systemd would and gives the log.
    pub(crate) async fn term(mut self) -> String {
        self.signal("-TERM");
        let mut ended: Option<ExitStatus> = None;
        let began = Instant::now();
        while ended.is_none() {
            assert!(began.elapsed() < PATIENCE, "the daemon does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
            ended = self.child.try_wait().unwrap();
        }
        assert_eq!(ended.and_then(|status| status.code()), Some(0), "{}", self.log());
        self.log()
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already, and a failing test must not panic twice.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Asks again and again until it is so.
pub(crate) async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !so().await {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The small organisation with alice on call for hours.
pub(crate) fn organisation() -> World {
    World::small_organisation(Timestamp::now(), SignedDuration::from_hours(8))
}

/// So many seconds from now, or before.
pub(crate) fn from_now(seconds: i64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap()
}

/// Replaces the shifts of schedule `PABC123`.
pub(crate) fn set_shifts(world: &mut World, shifts: &[(&str, Timestamp, Timestamp)]) {
    let schedule = world.pagerduty.schedule_mut("PABC123").unwrap();
    let mut new = dutybound_sandbox::world::pagerduty::Schedule::new("PABC123", "payments primary");
    for (user, start, end) in shifts {
        new = new.with_entry(user, *start, *end);
    }
    *schedule = new;
}

/// A digest of a file's content, for telling whether it changed; `None` when it is not there.
pub(crate) fn content(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok()
}
