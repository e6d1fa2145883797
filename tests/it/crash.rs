//! Killed at every point: before and after every call, and after every write to the ledger, in turn.
//!
//! A scenario is a row of passes. Each pass is run once undisturbed; then once for every point at which it can be
//! killed, always from the same state of world and ledger. Whatever the point, the passes after it must come to the
//! same access and the same record as if nothing had happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use dutybound::ledger::{AccessRow, Ledger};
use dutybound::model::Interval;
use dutybound_sandbox::world::aws::{Matching, OperationKind};
use dutybound_sandbox::{Call, Fault, Service, World};
use jiff::{SignedDuration, Timestamp};

use crate::harness::*;

/// Points tried beside each other: they mostly wait.
const AT_ONCE: u32 = 16;
/// Passes after a kill within which everything must have settled.
const PASSES: usize = 4;
/// Ids that a sandbox gives out at most.
const IDS: usize = 300;

/// What a kill leaves behind, and what every pass begins with.
#[derive(Clone)]
struct State {
    at: Timestamp,
    /// How many sandboxes the world has been through.
    age: usize,
    world: World,
    ledger: Vec<u8>,
    /// Committed but not yet moved into the file.
    wal: Vec<u8>,
    /// The redo log.
    redo: Vec<u8>,
}

/// One pass and what happens before it.
struct Step {
    name: &'static str,
    policy: String,
    edit: fn(&mut World),
    /// Ends what keeps the pass from its goal.
    mend: fn(&mut World),
}

type Held = BTreeSet<(String, String)>;

/// Who truly holds what: target and user.
fn held(world: &World) -> Held {
    let assignments = world
        .aws
        .assignments
        .iter()
        .filter(|row| row.removed.is_none())
        .map(|row| {
            let target = format!("{} in account {}", row.key.permission_set, row.key.account);
            (target, row.key.principal.clone())
        });
    let members = world.aws.memberships.iter().filter(|row| row.removed.is_none());
    assignments
        .chain(members.map(|row| (format!("group {}", row.group), row.user.clone())))
        .collect()
}

fn subject(row: &AccessRow) -> (String, String) {
    (row.target.to_string(), row.principal.to_string())
}

/// How many intervals of each access are on record, and whether each has ended.
fn record(rows: &[AccessRow]) -> BTreeMap<(String, String, bool), usize> {
    let mut record = BTreeMap::new();
    for row in rows {
        let (target, user) = subject(row);
        *record.entry((target, user, row.revoked_at.is_some())).or_default() += 1;
    }
    record
}

impl State {
    /// An empty ledger beside a world.
    async fn fresh(world: World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        Ledger::open(&path, "test", Timestamp::now())
            .await
            .unwrap()
            .close()
            .await;
        Self {
            at: Timestamp::now(),
            age: 0,
            world,
            redo: fs::read(folder.path().join("ledger.db.redo")).unwrap(),
            ledger: fs::read(path).unwrap(),
            wal: Vec::new(),
        }
    }

    /// An installation that finds this state.
    async fn site(&self, policy: &str) -> Site {
        let site = Site::new(self.world.clone(), policy).await;
        // Ids of this sandbox must differ from those that the world has from sandboxes before it; faults use them up too.
        for _ in 0..self.age * IDS {
            site.sandbox.fault(Fault::on(Service::Aws, "").times(0));
        }
        site.sandbox.clear_faults();
        fs::write(site.path("ledger.db"), &self.ledger).unwrap();
        fs::write(site.path("ledger.db-wal"), &self.wal).unwrap();
        fs::write(site.path("ledger.db.redo"), &self.redo).unwrap();
        site
    }

    /// What is there now, when no process uses it.
    fn of(&self, site: &Site) -> Self {
        Self {
            at: Timestamp::now(),
            age: self.age + 1,
            world: site.sandbox.edit(|world| world.clone()),
            ledger: fs::read(site.path("ledger.db")).unwrap(),
            wal: content(&site.path("ledger.db-wal")).unwrap_or_default(),
            redo: fs::read(site.path("ledger.db.redo")).unwrap(),
        }
    }
}

/// The length of the write-ahead log after each of its commits, by SQLite's file format: a header of 32 bytes, then
/// frames of 24 bytes and a page, of which the last one of a commit says how large the database is.
fn commits(wal: &[u8]) -> Vec<usize> {
    let word = |at: usize| {
        wal.get(at..at + 4)
            .map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()))
    };
    let Some(page) = word(8) else { return Vec::new() };
    let frame = 24 + usize::try_from(page).unwrap();
    let mut ends = Vec::new();
    let mut start = 32;
    while start + frame <= wal.len() && (word(start + 8), word(start + 12)) == (word(16), word(20)) {
        if word(start + 4) != Some(0) {
            ends.push(start + frame);
        }
        start += frame;
    }
    ends
}

/// Runs the pass until it waits at the `n`-th call to the service, kills it there and gives what is left. `None` when
/// it ended without such a call.
async fn killed(base: &State, step: &Step, service: Service, n: u32, performed: bool) -> Option<State> {
    let site = base.site(&step.policy).await;
    site.sandbox.edit(step.edit);
    let fault = Fault::on(service, "*").after(n);
    site.sandbox
        .fault(if performed { fault.hold_reply() } else { fault.hold() });
    let mut child = site
        .command(&["apply"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let waits = |call: &Call| call.fault.is_some() && call.performed == performed && call.status.is_none();
    loop {
        if site.sandbox.journal().iter().any(waits) {
            child.kill().unwrap();
            child.wait().unwrap();
            return Some(base.of(&site));
        }
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Passes until nothing is left to do, which must be soon. Gives the state at the end and every interval on record.
async fn settle(state: &State, step: &Step, what: &str) -> (State, Vec<AccessRow>) {
    let site = state.site(&step.policy).await;
    site.sandbox.edit(step.mend);
    let mut said = String::new();
    for pass in 0..PASSES {
        site.sandbox.clear_journal();
        let apply = site.run(&["apply"]).await;
        said = format!("{said}--- pass {pass}: {:?}\n{}", apply.code, apply.all());
        let ledger = Ledger::open_read_only(&site.path("ledger.db"), "test").await.unwrap();
        let open = ledger.open_intents().await.unwrap().len();
        let rows = ledger.access_in(Interval::ALWAYS).await.unwrap();
        assert_eq!(ledger.restorations().await.unwrap(), [], "a kill is no restoration");
        ledger.close().await;
        if apply.code == Some(0) && site.written().is_empty() && open == 0 {
            apply.says(&["0 to grant, 0 to revoke, 0 held, 0 not ours"]);
            // The writer that ends last moves the log into the file, so that the next log starts from nothing.
            let writer = Ledger::open(&site.path("ledger.db"), "test", Timestamp::now()).await;
            writer.unwrap().close().await;
            let ledger = Ledger::open_read_only(&site.path("ledger.db"), "test").await.unwrap();
            let verdict = ledger.check_chain(std::iter::empty()).await.unwrap();
            assert!(verdict.intact, "{}, {what}: {verdict:?}", step.name);
            ledger.close().await;
            let end = state.of(&site);
            assert!(end.wal.is_empty());
            return (end, rows);
        }
    }
    panic!(
        "{}, {what}: not settled within {PASSES} passes:\n{said}\n{}",
        step.name,
        site.story()
    );
}

/// Whatever was left behind comes to the same end as the undisturbed pass.
async fn recovers(base: &State, left: &State, step: &Step, undisturbed: &(State, Vec<AccessRow>), what: &str) {
    let (end, rows) = settle(left, step, what).await;
    let context = format!("{}, {what}: {rows:#?}", step.name);
    assert_eq!(held(&end.world), held(&undisturbed.0.world), "{context}");
    assert_eq!(record(&rows), record(&undisturbed.1), "{context}");
    let open: Held = rows
        .iter()
        .filter(|row| row.revoked_at.is_none())
        .map(subject)
        .collect();
    assert_eq!(open, held(&end.world), "{context}");
    // The record covers what was truly held while nobody ran.
    let (before, during) = (held(&base.world), held(&left.world));
    for access in &during {
        let covers = |row: &AccessRow| {
            subject(row) == *access && row.granted_at <= left.at && row.revoked_at.is_none_or(|end| left.at <= end)
        };
        assert!(rows.iter().any(covers), "{access:?} at {}, {context}", left.at);
    }
    for access in before.difference(&during) {
        let ends = |row: &AccessRow| subject(row) == *access && row.revoked_at.is_some_and(|end| base.at <= end);
        assert!(rows.iter().any(ends), "{access:?}, {context}");
    }
}

/// Kills the pass at every call to every service. Gives the number of points.
async fn at_every_call(base: &State, step: &Step, undisturbed: &(State, Vec<AccessRow>)) -> usize {
    let mut points = 0;
    for (service, performed) in [
        (Service::Aws, false),
        (Service::Aws, true),
        (Service::PagerDuty, false),
        (Service::PagerDuty, true),
    ] {
        let mut first = 0;
        loop {
            let tries = (first..first + AT_ONCE).map(async |n| {
                let left = killed(base, step, service, n, performed).await?;
                let side = if performed { "after" } else { "before" };
                recovers(
                    base,
                    &left,
                    step,
                    undisturbed,
                    &format!("killed {side} call {n} to {service}"),
                )
                .await;
                Some(())
            });
            let met = beside_each_other(tries).await.into_iter().flatten().count();
            points += met;
            if met < usize::try_from(AT_ONCE).unwrap() {
                break;
            }
            first += AT_ONCE;
        }
    }
    points
}

/// Awaits all of them, in order.
async fn beside_each_other<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(|future| Some(Box::pin(future))).collect();
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if let Some(running) = future
                && let std::task::Poll::Ready(value) = running.as_mut().poll(context)
            {
                *result = Some(value);
                *future = None;
            }
        }
        if futures.iter().all(Option::is_none) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    results.into_iter().flatten().collect()
}

/// Runs the pass whole and notes how long the log of the ledger was at every moment of the world; then restarts from
/// every commit, with the world as it was. Gives the number of points.
async fn after_every_write(base: &State, step: &Step, undisturbed: &(State, Vec<AccessRow>)) -> usize {
    let site = base.site(&step.policy).await;
    site.sandbox.edit(step.edit);
    let path = site.path("ledger.db-wal");
    // A call is performed a while after its arrival, so that what was written before it is seen to be.
    let delay = Duration::from_millis(20);
    site.sandbox.fault(Fault::on(Service::Aws, "*").delay(delay));
    // As long as somebody has the ledger open, its log is not moved into the file.
    let reader = Ledger::open_read_only(&site.path("ledger.db"), "test").await.unwrap();
    reader.open_intents().await.unwrap();
    let mut moments: Vec<(usize, State)> = Vec::new();
    let mut child = site
        .command(&["apply"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    {
        let watched = site.sandbox.wait_for(
            |view| {
                let length = fs::metadata(&path).map_or(0, |file| usize::try_from(file.len()).unwrap());
                let state = State {
                    at: Timestamp::now(),
                    age: base.age + 1,
                    world: view.world.clone(),
                    ..base.clone()
                };
                moments.push((length, state));
                false
            },
            PATIENCE,
        );
        tokio::pin!(watched);
        while child.try_wait().unwrap().is_none() {
            tokio::select! {
                _ = &mut watched => panic!("{} does not end: {}", step.name, site.story()),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    }
    let wal = fs::read(&path).unwrap();
    let last = State {
        at: Timestamp::now(),
        age: base.age + 1,
        world: site.sandbox.edit(|world| world.clone()),
        ..base.clone()
    };
    moments.push((wal.len(), last));
    drop(reader);

    let lefts: Vec<State> = commits(&wal)
        .into_iter()
        .map(|end| {
            let (_, moment) = moments.iter().find(|(length, _)| end <= *length).unwrap();
            State {
                wal: wal[..end].to_vec(),
                ..moment.clone()
            }
        })
        .collect();
    assert!(!lefts.is_empty());
    for batch in lefts.chunks(usize::try_from(AT_ONCE).unwrap()) {
        let tries = batch.iter().map(async |left| {
            let what = format!("killed with {} bytes in the log", left.wal.len());
            recovers(base, left, step, undisturbed, &what).await;
        });
        beside_each_other(tries).await;
    }
    lefts.len()
}

fn nothing(_: &mut World) {}

fn to(world: &mut World, user: &str) {
    set_shifts(world, &[(user, from_now(-60), from_now(3600))]);
}

const CAROL_READS: &str = r#"
[[member]]
email    = "carol@example.com"
added_by = "mira@example.com"

[[rule]]
entitlement = "prod-readers"
members     = true
"#;

fn scenario() -> Vec<Step> {
    let both = format!("{PAYMENTS}{ON_CALL}");
    let refuse = |world: &mut World| {
        to(world, "PALICE1");
        world
            .aws
            .fail(Matching::kind(OperationKind::Create), "the account is suspended");
    };
    vec![
        Step {
            name: "grants",
            policy: both.clone(),
            edit: |world| {
                world.aws.operation_takes = SignedDuration::from_millis(300);
                to(world, "PALICE1");
            },
            mend: nothing,
        },
        Step {
            name: "hand-off",
            policy: both.clone(),
            edit: |world| to(world, "PBOB002"),
            mend: nothing,
        },
        Step {
            name: "AWS refuses",
            policy: both.clone(),
            edit: refuse,
            mend: |world| world.aws.failures.clear(),
        },
        Step {
            name: "policy change",
            policy: format!("{PAYMENTS}{ADMIN_ON_CALL}{CAROL_READS}"),
            edit: nothing,
            mend: nothing,
        },
        Step {
            name: "revokes",
            policy: format!("{PAYMENTS}{ADMIN_ON_CALL}"),
            edit: |world| set_shifts(world, &[]),
            mend: nothing,
        },
    ]
}

/// The state before the step, with the undisturbed end of it, for every step.
async fn undisturbed() -> Vec<(State, Step, (State, Vec<AccessRow>))> {
    let mut base = State::fresh(organisation()).await;
    let mut run = Vec::new();
    for step in scenario() {
        let site = base.site(&step.policy).await;
        site.sandbox.edit(step.edit);
        site.run(&["apply"]).await;
        assert!(!site.written().is_empty(), "{} does something", step.name);
        let end = settle(&base.of(&site), &step, "undisturbed").await;
        let next = end.0.clone();
        run.push((base, step, end));
        base = next;
    }
    run
}

#[tokio::test]
async fn a_kill_before_or_after_any_call_changes_nothing_in_the_end() {
    let mut points = 0;
    for (base, step, end) in undisturbed().await {
        let here = at_every_call(&base, &step, &end).await;
        println!("{}: {here} points", step.name);
        points += here;
    }
    println!("{points} points in all");
    assert!(100 < points, "{points}");
}

#[tokio::test]
async fn a_kill_after_any_write_to_the_ledger_changes_nothing_in_the_end() {
    let mut points = 0;
    for (base, step, end) in undisturbed().await {
        let here = after_every_write(&base, &step, &end).await;
        println!("{}: {here} points", step.name);
        points += here;
    }
    println!("{points} points in all");
    assert!(40 < points, "{points}");
}
