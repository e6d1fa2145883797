//! Measures a daemon's process between rows, and tells what the services that it asks were asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use dutybound_sandbox::{Call, Service, View};
use jiff::Timestamp;

use crate::harness::{Daemon, Site};

/// How long anything awaited may take; the limits make some of it long.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How the questions begin how an operation stands.
const QUESTION: &str = "DescribeAccountAssignment";

/// What the columns are.
pub(crate) fn header() {
    println!(
        "{:>5}  {:<52} {:>8} {:>7} {:>8} {:>9} {:>8} {:>6} {:>7} {:>9} {:>7} {:>7}",
        "size",
        "what",
        "clock s",
        "CPU ms",
        "peak MB",
        "PagerDuty",
        "Opsgenie",
        "reads",
        "changes",
        "questions",
        "refused",
        "kB"
    );
}

/// Measures the daemon's process between rows; each row has the sandbox's journal to itself.
pub(crate) struct Meter<'a> {
    site: &'a Site,
    daemon: Daemon,
    size: String,
    began: Timestamp,
    pub(crate) clock: Instant,
    cpu: Duration,
}

impl<'a> Meter<'a> {
    /// Starts a daemon.
    pub(crate) fn of(site: &'a Site, size: &str) -> Self {
        site.sandbox.clear_journal();
        Self {
            site,
            daemon: site.daemon(),
            size: size.to_owned(),
            began: Timestamp::now(),
            clock: Instant::now(),
            cpu: Duration::ZERO,
        }
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.daemon.id())).unwrap()
    }

    /// CPU time of the process so far, in ticks of which Linux tells a hundred a second.
    fn cpu(&self) -> Duration {
        let stat = self.file("stat");
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = fields.split(' ').skip(11).take(2).map(|t| t.parse::<u64>().unwrap());
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    fn peak_mb(&self) -> f64 {
        let status = self.file("status");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1e3
    }

    pub(crate) fn start(&mut self) {
        fs::write(format!("/proc/{}/clear_refs", self.daemon.id()), "5").unwrap();
        self.site.sandbox.clear_journal();
        (self.began, self.clock, self.cpu) = (Timestamp::now(), Instant::now(), self.cpu());
    }

    /// A row that ends now.
    pub(crate) fn row(&mut self, what: &str) {
        let clock = self.clock.elapsed();
        self.row_of(what, clock);
    }

    /// A row of which the clock was read before.
    pub(crate) fn row_of(&mut self, what: &str, clock: Duration) {
        let calls = self.site.sandbox.journal();
        let of = |service| calls.iter().filter(move |call| call.service == service);
        let is_question = |call: &&Call| call.operation.starts_with(QUESTION);
        let (aws, changes) = (
            of(Service::Aws).count(),
            of(Service::Aws).filter(|c| c.is_write()).count(),
        );
        let questions = of(Service::Aws).filter(is_question).count();
        let refusals = ["ThrottlingException", "ConflictException", "2020", "42900"];
        let refused = calls
            .iter()
            .filter(|call| call.error.as_deref().is_some_and(|error| refusals.contains(&error)));
        println!(
            "{:>5}  {:<52} {:>8.1} {:>7} {:>8.1} {:>9} {:>8} {:>6} {:>7} {:>9} {:>7} {:>7.0}",
            self.size,
            what,
            clock.as_secs_f64(),
            (self.cpu() - self.cpu).as_millis(),
            self.peak_mb(),
            of(Service::PagerDuty).count(),
            of(Service::Opsgenie).count(),
            aws - changes - questions,
            changes,
            questions,
            refused.count(),
            calls.iter().map(|call| call.bytes).sum::<u64>() as f64 / 1e3
        );
        self.start();
    }

    /// Waits for a state of the services.
    pub(crate) async fn until(&self, what: &str, predicate: impl FnMut(View<'_>) -> bool) {
        let came = self.site.sandbox.wait_for(predicate, PATIENCE).await;
        assert!(came.is_ok(), "waited in vain until {what}; {}", self.site.story());
    }

    /// Waits until the daemon has heard how each assignment operation ended that began with this row.
    pub(crate) async fn until_heard(&self) {
        let began = self.began;
        self.until("every end is heard of", |view| {
            let questions = view
                .journal
                .iter()
                .filter(|call| call.operation.starts_with(QUESTION) && call.status.is_some());
            let heard: BTreeSet<(&str, Timestamp)> = questions
                .flat_map(|call| {
                    ["Creation", "Deletion"].map(|kind| (call, format!("AccountAssignment{kind}RequestId")))
                })
                .filter_map(|(call, field)| Some((call.body.get(field)?.as_str()?, call.at)))
                .collect();
            let ours = view
                .world
                .aws
                .operations
                .iter()
                .filter(|operation| began <= operation.created);
            ours.into_iter().all(|operation| {
                heard
                    .iter()
                    .any(|(id, at)| *id == operation.request_id && operation.due <= *at)
            })
        })
        .await;
    }

    /// Waits until a figure of the daemon is this.
    pub(crate) async fn until_metric(&self, sample: &str, value: f64) {
        let began = Instant::now();
        while self.daemon.metric(sample).await != Some(value) {
            assert!(began.elapsed() < PATIENCE, "waited in vain for {sample} to be {value}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until so many targets have been looked at in this row.
    pub(crate) async fn until_looked_at(&self, targets: usize) {
        self.until("every target was looked at", |view| looked_at(&view).len() == targets)
            .await;
    }

    /// Waits until each of these has been read to the end so many times since the last call to AWS.
    pub(crate) async fn until_read(&self, reads: &BTreeSet<String>, times: usize) {
        let what = format!("each schedule was read {times} times");
        self.until(&what, |view| {
            let last = view.journal.iter().rev().find(|call| call.service == Service::Aws);
            let last = last.map(|call| call.seq).unwrap_or_default();
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            let ended = view.journal.iter().filter(|c| last < c.seq && c.succeeded());
            for call in ended.filter(|call| reads.contains(&call.operation)) {
                *counts.entry(&call.operation).or_default() += 1;
            }
            counts.len() == reads.len() && counts.values().all(|count| times <= *count)
        })
        .await;
    }
}

/// The targets whose holders were read in this row.
pub(crate) fn looked_at(view: &View<'_>) -> BTreeSet<String> {
    let looks = ["ListAccountAssignments", "ListGroupMemberships"];
    let calls = view
        .journal
        .iter()
        .filter(|call| looks.contains(&call.operation.as_str()));
    calls.map(|call| call.body.to_string()).collect()
}
