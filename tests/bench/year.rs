//! What screens, commands and scrapes cost on a ledger with a year of it: CPU time, peak memory, bytes.
//!
//! `cargo bench --bench year`. Other sizes, in percent of the large organisation: `DUTYBOUND_PERCENT=1,10`. At 100 % the
//! year has 3.3 million intervals of access, and its ledger needs some tens of gigabytes below `TMPDIR`; a shorter past is
//! `DUTYBOUND_DAYS=4`.

mod meter;
mod past;
#[allow(dead_code, reason = "the other benches use the rest")]
mod rig;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dutybound::clock::Clock;
use dutybound::commands::explain::{self, About};
use dutybound::commands::forecast;
use dutybound::commands::report::{self, Format, GroupBy};
use dutybound::commands::status;
use dutybound::config::{Config, Mode};
use dutybound::http::{self, Health, InUse, Site};
use dutybound::ledger::{Ledger, StoredSnapshots};
use dutybound::metrics::Metrics;
use dutybound::model::Interval;
use dutybound::policy::Policy;
use dutybound::telemetry::ApiCalls;
use dutybound_sandbox::organisation::Organisation;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use mimalloc::MiMalloc;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() {
    let sizes = rig::sizes(&[1, 10]);
    println!("CPU time of all threads, time on the clock, the process's peak memory, and bytes of what was written.");
    println!("Sizes in percent of the large organisation (100,500 grants, 3.3 million intervals of access a year).\n");
    println!(
        "{:>5}  {:<62} {:>10} {:>10} {:>9} {:>12}",
        "size", "what", "CPU ms", "clock ms", "peak MB", "bytes"
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
    cpu: Duration,
    clock: Instant,
}

impl Meter {
    fn new(size: usize) -> Self {
        Self {
            size,
            cpu: meter::cpu(),
            clock: Instant::now(),
        }
    }

    fn start(&mut self) {
        meter::forget_peak();
        (self.cpu, self.clock) = (meter::cpu(), Instant::now());
    }

    fn row(&mut self, what: &str, bytes: usize) {
        let (cpu, clock) = (meter::cpu() - self.cpu, self.clock.elapsed());
        println!(
            "{:>4}%  {:<62} {:>10.1} {:>10.1} {:>9.0} {:>12}",
            self.size,
            what,
            cpu.as_secs_f64() * 1e3,
            clock.as_secs_f64() * 1e3,
            meter::peak_mb(),
            bytes
        );
        self.start();
    }
}

async fn organisation(size: usize) {
    let organisation = Organisation::new(size, 1);
    let (_dir, path) = rig::folder();
    let config = rig::config(&path);
    let mut meter = Meter::new(size);
    let policy = Arc::new(rig::parse(rig::files(&organisation)));
    meter.row("parse and check the policy", 0);

    let end = rig::monday();
    // The last turn ends in an hour.
    let now = end - SignedDuration::from_hours(1);
    let written = past::write(&config.ledger, &organisation, end).await;
    meter.row(
        &format!(
            "write {} ended intervals, {} that stand",
            written.ended, written.standing
        ),
        bytes_of(&config.ledger),
    );
    sizes_of(&config.ledger, written.ended).await;
    meter.start();
    let writer = Ledger::open(&config.ledger, "bench", now).await.unwrap();
    meter.row("open the ledger as its writer", bytes_of(&config.ledger));
    let mut stored = StoredSnapshots::default();
    for snapshot in past::snapshots(&organisation, end, now) {
        writer.store_snapshot(&mut stored, snapshot, now).await.unwrap();
    }
    drop(stored);
    meter.row("store a read of every schedule", 0);

    let ledger = Ledger::open_read_only(&config.ledger, "bench").await.unwrap();
    commands(&mut meter, &config, &policy, &ledger, &organisation, now).await;
    screens(&mut meter, &config, &policy, &organisation, now).await;
    reports(&mut meter, &policy, &ledger, now).await;
    let verdict = ledger.check_chain(std::iter::empty()).await.unwrap();
    assert!(verdict.intact, "{verdict:#?}");
    meter.row(
        &format!("audit verify: {} events, {} rows", verdict.events, verdict.rows),
        0,
    );
    ledger.close().await;

    let old = (past::length() / 24).max(SignedDuration::from_hours(48));
    let kept = past::beginning(end) + old;
    let removed = writer.remove_before(kept, now).await.unwrap().unwrap();
    meter.row(
        &format!(
            "a round of retention: {} intervals, {} events go",
            removed.intervals, removed.events
        ),
        0,
    );
    writer.close().await;
    println!();
}

async fn commands(
    meter: &mut Meter,
    config: &Config,
    policy: &Policy,
    ledger: &Ledger,
    organisation: &Organisation,
    now: Timestamp,
) {
    meter.start();
    let reads = ledger.load_last_reads().await.unwrap();
    meter.row("status: load the stored schedules", 0);
    let installation = status::Installation {
        ledger,
        ledger_path: &config.ledger,
        policy,
        identities: &config.identities,
        max_staleness: config.timing.max_staleness,
    };
    let project = &organisation.projects()[organisation.projects().len() / 2];
    let (_, email) = project.schedules[0].turn(1094);
    let (of_project, of_person) = (project.name.clone(), email.to_owned());
    for about in [None, Some(of_project), Some(of_person)] {
        let whose = about.clone().unwrap_or_else(|| "everything".to_owned());
        let about = about.map(|about| forecast::About::parse(&about, policy).unwrap());
        let access = status::access(ledger, about.as_ref(), now).await.unwrap();
        let status = status::read(&installation, &reads, about.as_ref(), access, now)
            .await
            .unwrap();
        meter.row(&format!("status of {whose}: read the record"), 0);
        let text = status.text(Some(100));
        meter.row(
            &format!("status of {whose}: write {} grants", status.access.len()),
            text.len(),
        );
    }
    drop(reads);

    let half_a_year = now - SignedDuration::from_hours(182 * 24);
    for (subject, only) in [
        (email.to_owned(), None),
        (email.to_owned(), Some(format!("{}/on-call-0", project.name))),
        (format!("{}/on-call-0", project.name), None),
        (project.account.clone(), None),
    ] {
        for (at, when) in [(None, "now"), (Some(half_a_year), "half a year ago")] {
            let about = About::parse(&subject, only.as_deref()).unwrap();
            meter.start();
            let reads = ledger.load_last_reads().await.unwrap();
            let here = explain::Installation {
                record: Some((ledger, &reads)),
                config,
                policy,
            };
            let explanation = explain::read(&here, about, at, now).await.unwrap();
            let text = explanation.text(Some(100));
            let only = only.as_deref().unwrap_or_default();
            meter.row(&format!("explain {subject} {only} {when}"), text.len());
        }
    }
}

async fn screens(
    meter: &mut Meter,
    config: &Config,
    policy: &Arc<Policy>,
    organisation: &Organisation,
    now: Timestamp,
) {
    let clock = rig::Hands::at(now);
    let metrics = Arc::new(Metrics::new(&ApiCalls::new().unwrap(), "0.1.0", Mode::Sync).unwrap());
    let health = Health::new([], config.timing.poll, Duration::from_secs(180), now);
    let (_shown, in_use) = tokio::sync::watch::channel(Arc::new(InUse::new(policy, config, false)));
    let ledger = Ledger::open_read_only(&config.ledger, "bench").await.unwrap();
    // A daemon has them in memory.
    let stored = ledger.load_snapshots().await.unwrap();
    let site = Site {
        metrics,
        health: Arc::new(health),
        ledger,
        ledger_path: config.ledger.clone(),
        snapshots: Arc::new(tokio::sync::Mutex::new(stored)),
        in_use,
        clock: Arc::new(clock.clone()) as Arc<dyn Clock>,
        token: None,
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(http::serve(listener, site, async move { drop(stopped.await) }));
    let client = reqwest::Client::new();
    let get = async |path: &str| {
        let response = client.get(format!("http://{address}{path}")).send().await.unwrap();
        let ok = response.status().is_success();
        (response.bytes().await.unwrap().len(), ok)
    };
    let project = &organisation.projects()[organisation.projects().len() / 2];
    meter.start();
    for what in ["the first scrape", "a scrape, nothing changed", "another"] {
        let (bytes, ok) = get("/metrics").await;
        assert!(ok);
        meter.row(what, bytes);
        clock.set(clock.now() + SignedDuration::from_secs(15));
    }
    for what in [
        "the first time",
        "again at once",
        "again after a minute",
        "again after another",
    ] {
        // A page that cannot be drawn in time says so, and is asked for once more.
        let mut times = 1;
        let bytes = loop {
            let (bytes, ok) = get("/").await;
            if ok {
                break bytes;
            }
            times += 1;
        };
        let times = if times == 1 {
            String::new()
        } else {
            format!(" (asked {times} times)")
        };
        meter.row(&format!("the status page, {what}{times}"), bytes);
        if what != "the first time" {
            clock.set(clock.now() + SignedDuration::from_secs(61));
        }
    }
    for path in [
        format!("/project/{}", project.name),
        format!("/person/{}", project.members[0]),
    ] {
        let (bytes, ok) = get(&path).await;
        meter.row(&format!("{path}{}", if ok { "" } else { " (not drawn)" }), bytes);
    }
    // Without HTTP, and without the bench's own client, which takes part in the rows above.
    let ledger = Ledger::open_read_only(&config.ledger, "bench").await.unwrap();
    let metrics = Metrics::new(&ApiCalls::new().unwrap(), "0.1.0", Mode::Sync).unwrap();
    for what in ["the first scrape alone", "a scrape alone", "another"] {
        meter.start();
        let text = metrics.encode(&ledger, policy, clock.now()).await.unwrap();
        meter.row(what, text.len());
        clock.set(clock.now() + SignedDuration::from_secs(15));
    }
    ledger.close().await;
    drop(stop);
    server.await.unwrap().unwrap();
}

async fn reports(meter: &mut Meter, policy: &Policy, ledger: &Ledger, now: Timestamp) {
    for (days, format, what) in [
        (30, Format::Text, "report of the last 30 days as a table"),
        (30, Format::Json, "the same as JSON, with every revoke"),
        (7, Format::Text, "report of the last 7 days as a table"),
    ] {
        let request = report::Request {
            period: Interval::new(now - SignedDuration::from_hours(24 * days), now).unwrap(),
            now,
            group_by: GroupBy::Project,
            format,
            zone: TimeZone::UTC,
        };
        meter.start();
        let out = report::read(ledger, policy, &[], &request).await.unwrap();
        meter.row(what, out.len());
    }
}

fn bytes_of(path: &Path) -> usize {
    std::fs::metadata(path).map_or(0, |file| usize::try_from(file.len()).unwrap())
}

/// How many bytes of the file each table and index takes for an interval of access.
async fn sizes_of(path: &Path, intervals: i64) {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = options.connect().await.unwrap();
    let query = "SELECT name, SUM(pgsize) AS bytes FROM dbstat WHERE aggregate = TRUE GROUP BY name ORDER BY bytes DESC LIMIT 16";
    let rows = sqlx::query(query).fetch_all(&mut connection).await.unwrap();
    let parts = rows.iter().map(|row| {
        let (name, bytes): (String, i64) = (row.get(0), row.get(1));
        format!("{name} {}", bytes / intervals.max(1))
    });
    println!("       bytes an interval: {}", parts.collect::<Vec<_>>().join(", "));
}
