//! Runs the files in `tests/scenarios`: what happens to an installation, what must be seen, and all that is said, as the
//! golden text beside each file. `DUTYBOUND_BLESS=1 cargo test scenarios` rewrites the texts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dutybound_sandbox::world::{opsgenie, pagerduty};
use dutybound_sandbox::{Call, Sandbox, Service, World};
use jiff::{SignedDuration, Timestamp};
use regex::Regex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use toml::{Table, Value};

use self::difference::difference;
use self::file::{Replacement, Scenario, Step, Turn};
use crate::harness::*;

mod difference;
mod file;

/// Scenarios that run at once; most of their time is spent waiting.
const AT_ONCE: usize = 8;

#[tokio::test]
async fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let turnstile = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    let mut names = BTreeMap::new();
    for file in &files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        match file.extension().and_then(|e| e.to_str()) {
            Some("out") => {
                let source = file.with_extension("toml");
                assert!(source.exists(), "{} belongs to no scenario", file.display());
            }
            Some("toml") if name.contains(&only) => {
                let (file, turnstile) = (file.clone(), turnstile.clone());
                let task = running.spawn(async move {
                    let _turn = turnstile.acquire_owned().await.unwrap();
                    play(&file).await;
                });
                names.insert(task.id(), name);
            }
            Some("toml") => {}
            _ => panic!("{} is neither a scenario nor a golden text", file.display()),
        }
    }
    assert!(!names.is_empty(), "no scenario was found in {}", folder.display());
    let mut failed = Vec::new();
    while let Some(ended) = running.join_next_with_id().await {
        if let Err(error) = ended {
            let name = &names[&error.id()];
            let panic = error.into_panic();
            let why = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            failed.push(format!("=== {name}\n{}", why.unwrap_or_default()));
        }
    }
    failed.sort();
    let (bad, all) = (failed.len(), names.len());
    assert!(
        failed.is_empty(),
        "{bad} of {all} scenarios failed:\n{}",
        failed.join("\n")
    );
}

/// Plays one file and compares all that is said with its golden text.
async fn play(file: &Path) {
    let mut text = fs::read_to_string(file).unwrap();
    let elsewhere = Sandbox::start(World::default()).await.unwrap();
    text = text.replace("{elsewhere}", &elsewhere.pagerduty_url());
    let scenario: Scenario = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut stage = Stage::new(&scenario).await;
    if scenario.grants {
        stage.site.run(&["apply"]).await.expect(0);
    }
    let (mut golden, mut wrong) = (String::new(), String::new());
    for step in &scenario.step {
        let (said, seen) = stage.step(step).await;
        let _infallible = writeln!(golden, "# {}\n$ dutybound {}\n{said}", step.what, step.run);
        if !seen.is_empty() {
            let _infallible = writeln!(wrong, "step {:?}, {:?}:\n{seen}it said:\n{said}", step.what, step.run);
        }
    }
    assert!(wrong.is_empty(), "{}\n{wrong}", scenario.story);
    let strays = elsewhere.journal();
    assert!(strays.is_empty(), "another host was called: {strays:?}");
    let path = file.with_extension("out");
    if std::env::var_os("DUTYBOUND_BLESS").is_some() {
        fs::write(&path, &golden).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == golden,
        "what is said is not what {} says; if the new text is the better one, DUTYBOUND_BLESS=1 cargo test scenarios\n{}",
        path.display(),
        difference(&kept, &golden)
    );
}

/// An installation in the course of a scenario.
struct Stage {
    site: Site,
    provider: Service,
    policy: String,
    config: Table,
    digest: String,
    hand_off: Timestamp,
}

impl Stage {
    async fn new(scenario: &Scenario) -> Self {
        let mut world = World::small_organisation(Timestamp::now(), scenario.turn);
        let mut policy = if scenario.provider == Service::Opsgenie {
            DATA.to_owned()
        } else {
            format!("{PAYMENTS}{ADMIN_ON_CALL}")
        };
        for number in 1..=scenario.engineers {
            let (name, email) = (
                format!("engineer-{number:02}"),
                format!("engineer-{number:02}@example.com"),
            );
            let user = pagerduty::User::new(&pagerduty_user(&name), &name, &email);
            world.pagerduty.users.push(user);
            world.opsgenie.users.push(opsgenie::User::new(&name, &name, &email));
            world.aws.add_user(&name, &email);
            let _infallible = write!(
                policy,
                "\n[[member]]\nemail    = \"{email}\"\nadded_by = \"mira@example.com\"\n"
            );
        }
        let site = Site::new(world, &policy).await;
        site.configure(|settings| settings.more.clear());
        let config = fs::read_to_string(site.path("config.toml")).unwrap();
        let mut stage = Self {
            site,
            provider: scenario.provider,
            policy,
            config: toml::from_str(&config).unwrap(),
            digest: String::new(),
            hand_off: Timestamp::MIN,
        };
        stage.edit_files(&scenario.config, &scenario.policy);
        stage
    }

    fn edit_files(&mut self, config: &Table, policy: &[Replacement]) {
        merge(&mut self.config, config);
        fs::write(self.site.path("config.toml"), toml::to_string(&self.config).unwrap()).unwrap();
        for Replacement { replace, with } in policy {
            assert!(self.policy.contains(replace), "the policy does not have {replace:?}");
            self.policy = self.policy.replace(replace, with);
        }
        self.site.policy("project.toml", &self.policy);
    }

    fn change_world(&mut self, step: &Step) {
        if step.faults_end {
            self.faults_end();
        }
        for fault in &step.faults {
            self.site.sandbox.fault(fault.clone());
        }
        let turns = |turns: &[Turn]| -> Vec<(String, Timestamp, Timestamp)> {
            let each = turns.iter().flat_map(|t| t.who.iter().map(move |who| (who, t)));
            each.map(|(who, t)| (who.clone(), from_now(t.from), from_now(t.to)))
                .collect()
        };
        let shifts = step.shifts.as_deref().map(turns);
        if let Some(first) = shifts.iter().flatten().map(|shift| shift.2).min() {
            self.hand_off = first;
        }
        let overrides = turns(&step.overrides);
        let opsgenie = self.provider == Service::Opsgenie;
        self.site.sandbox.edit(|world| {
            if opsgenie {
                change_opsgenie(&mut world.opsgenie, shifts, overrides);
                if step.schedule_deleted {
                    world.opsgenie.schedules.clear();
                }
            } else {
                change_pagerduty(&mut world.pagerduty, shifts, overrides);
                if step.schedule_deleted {
                    world.pagerduty.schedules.clear();
                }
            }
            let mut aws = serde_json::to_value(&world.aws).unwrap();
            for (key, value) in &step.aws {
                aws[key] = serde_json::to_value(value).unwrap();
            }
            world.aws = serde_json::from_value(aws).unwrap();
        });
        self.edit_files(&step.config, &step.policy);
    }

    /// Ends all faults, each of which must have met a call.
    fn faults_end(&self) {
        for fault in self.site.sandbox.faults() {
            assert!(fault.seen > fault.after, "{fault:?} met nothing");
        }
        self.site.sandbox.clear_faults();
    }

    /// What the command said, normalised, and what was not as it must be.
    async fn step(&mut self, step: &Step) -> (String, String) {
        self.change_world(step);
        if step.hand_off_passes {
            // Until an instant, not for something: the sandbox and the binary run on the host's clock.
            let left = Timestamp::now().duration_until(self.hand_off) + SignedDuration::from_millis(1);
            tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
        }
        let names = self.names();
        self.site.sandbox.clear_journal();
        let run = step.run.replace("{digest}", &self.digest);
        let output = self.site.run(&run.split(' ').collect::<Vec<_>>()).await;
        let all = output.all();
        let digest = Regex::new(r"Plan ([0-9a-f]{16})\b").unwrap();
        if let Some(found) = digest.captures(&all) {
            self.digest = found[1].to_owned();
        }
        let mut wrong = String::new();
        let see = &step.see;
        for word in see.says.iter().filter(|word| !all.contains(word.as_str())) {
            let _infallible = writeln!(wrong, "  {word:?} was not said");
        }
        let mut writes: Vec<String> = self.site.writes().iter().map(|call| write_of(call, &names)).collect();
        writes.sort();
        let comparisons = [
            (
                "exit",
                vec![see.exit.to_string()],
                vec![format!("{}", output.code.unwrap_or(-1))],
            ),
            ("writes", see.writes.clone(), writes),
            ("holds", see.holds.clone(), self.holds()),
            ("ledger", see.ledger.clone(), self.ledger().await),
        ];
        for (what, expected, seen) in comparisons {
            if expected != seen {
                let _infallible = writeln!(wrong, "  {what} must be {expected:?} and is {seen:?}");
            }
        }
        for fault in self.site.sandbox.faults() {
            if fault.seen <= fault.after {
                let _infallible = writeln!(wrong, "  {fault:?} met nothing");
            }
        }
        (self.normalised(&all), wrong)
    }

    /// Names of what AWS knows by ids, those of memberships as `who group`.
    fn names(&self) -> BTreeMap<String, String> {
        self.site.sandbox.edit(|world| {
            let aws = &world.aws;
            let mut names = BTreeMap::new();
            names.extend(aws.users.iter().map(|u| (u.id.clone(), short(&u.user_name))));
            names.extend(aws.groups.iter().map(|g| (g.id.clone(), g.display_name.clone())));
            names.extend(aws.permission_sets.iter().map(|s| (s.arn.clone(), s.name.clone())));
            for row in &aws.memberships {
                let name = format!("{} {}", names[&row.user], names[&row.group]);
                names.insert(row.id.clone(), name);
            }
            names
        })
    }

    fn holds(&self) -> Vec<String> {
        let names = self.names();
        let mut holds = self.site.sandbox.edit(|world| {
            let aws = &world.aws;
            let assigned = aws.assignments.iter().filter(|row| row.removed.is_none());
            let assigned =
                assigned.map(|row| format!("{} {}", names[&row.key.principal], names[&row.key.permission_set]));
            let members = aws.memberships.iter().filter(|row| row.removed.is_none());
            assigned
                .chain(members.map(|row| names[&row.id].clone()))
                .collect::<Vec<_>>()
        });
        holds.sort();
        holds
    }

    async fn ledger(&self) -> Vec<String> {
        if !self.site.path("ledger.db").exists() {
            return Vec::new();
        }
        let intervals = self.site.intervals().await;
        let mut rows: Vec<String> = intervals
            .iter()
            .map(|row| {
                let end = if row.revoked_at.is_some() { ", ended" } else { "" };
                format!("{} {}{end}", short(row.person.as_str()), row.entitlement)
            })
            .collect();
        rows.sort();
        rows
    }

    /// Without what differs from run to run.
    fn normalised(&self, text: &str) -> String {
        let folder = self.site.path("").display().to_string();
        let mut text = text.replace(folder.trim_end_matches('/'), "<folder>");
        for (pattern, instead) in [
            (r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z", "<time>"),
            (r"127\.0\.0\.1:\d+", "<host>"),
            (r"\b(read|in|since|about) \d+[dhms]( \d+[hms])?\b", "$1 <span>"),
            // Where half of an answer ends depends on the length of its times.
            (
                r"EOF while parsing an? \w+ at line \d+ column \d+",
                "EOF at line <n> column <n>",
            ),
            (r"line \d+ column \d+", "line <n> column <n>"),
            // Which of the two ends the read depends on the jitter of the waits.
            (
                r"rate limited (for another \d+ s|again and again)",
                "rate limited <how long>",
            ),
            (r"(reference|request id) [0-9a-f-]{36}", "$1 <id>"),
            (r"tried \d+ times", "tried <n> times"),
            (r"\(\d+[dhms]( \d+[hms])?\)", "(<span>)"),
            (r"(Plan |--approve )[0-9a-f]{16}\b", "$1<digest>"),
        ] {
            text = Regex::new(pattern).unwrap().replace_all(&text, instead).into_owned();
        }
        text
    }
}

fn short(email: &str) -> String {
    email.trim_end_matches("@example.com").to_owned()
}

fn write_of(call: &Call, names: &BTreeMap<String, String>) -> String {
    let body = &call.body;
    let fields = [
        &body["PrincipalId"],
        &body["PermissionSetArn"],
        &body["MemberId"]["UserId"],
        &body["GroupId"],
        &body["MembershipId"],
    ];
    let known = fields.iter().filter_map(|field| field.as_str());
    let known: Vec<&str> = known.map(|id| names.get(id).map_or(id, String::as_str)).collect();
    format!("{} {}", call.operation, known.join(" "))
}

/// Alice is `PALICE1`, the engineers are `ENGINEER-01` and so on.
fn pagerduty_user(name: &str) -> String {
    match name {
        "alice" => "PALICE1".to_owned(),
        "bob" => "PBOB002".to_owned(),
        "carol" => "PCAROL3".to_owned(),
        other => other.to_uppercase(),
    }
}

type Turns = Vec<(String, Timestamp, Timestamp)>;

fn change_pagerduty(world: &mut pagerduty::PagerDuty, shifts: Option<Turns>, overrides: Turns) {
    let Some(schedule) = world.schedule_mut("PABC123") else {
        return;
    };
    if let Some(shifts) = shifts {
        *schedule = pagerduty::Schedule::new("PABC123", "payments primary");
        for (who, from, to) in shifts {
            *schedule = schedule.clone().with_entry(&pagerduty_user(&who), from, to);
        }
    }
    for (who, from, to) in overrides {
        schedule.override_with(&pagerduty_user(&who), from, to);
    }
}

fn change_opsgenie(world: &mut opsgenie::Opsgenie, shifts: Option<Turns>, overrides: Turns) {
    let users = world.users.clone();
    let recipient = |who: &str| {
        let user = users.iter().find(|user| short(&user.username) == who).unwrap();
        opsgenie::Recipient::user(&user.id)
    };
    let Some(schedule) = world.schedules.first_mut() else {
        return;
    };
    if let Some(shifts) = shifts {
        schedule.rotations.truncate(1);
        schedule.rotations[0].rotation = None;
        schedule.rotations[0].periods = shifts
            .iter()
            .map(|(who, start, end)| opsgenie::Period {
                start: *start,
                end: *end,
                recipient: recipient(who),
                kind: "default".to_owned(),
                from_user: None,
            })
            .collect();
    }
    for (who, from, to) in overrides {
        schedule.override_with(recipient(&who), from, to);
    }
}

fn merge(into: &mut Table, from: &Table) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}
