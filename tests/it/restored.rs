//! A ledger that is an older copy of itself, or gone: what we granted is ours again, and nobody on duty notices.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use dutybound::ledger::{AccessRow, Ledger, Restoration};
use dutybound_sandbox::world::opsgenie::Recipient;
use dutybound_sandbox::{Fault, Service};
use jiff::{SignedDuration, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use crate::harness::*;

const DAVE_ID: &str = "0a1b2c3d-aaaa-4000-8000-000000000001";
const ERIN_ID: &str = "0a1b2c3d-aaaa-4000-8000-000000000002";
const DATA_SCHEDULE: &str = "6fce1fd0-bbbb-4000-8000-000000000001";

/// Both providers, with alice and dave on call.
async fn both() -> Site {
    let site = Site::payments().await;
    site.policy("data.toml", DATA);
    site
}

/// A copy as people are told to make it.
async fn back_up(site: &Site) {
    drop(fs::remove_file(site.path("copy.db")));
    let to = site.path("copy.db").to_string_lossy().into_owned();
    site.run(&["backup", &to]).await.expect(0);
}

/// Puts the copy in the ledger's place as people are told to.
fn restore(site: &Site) {
    remove(site, &["ledger.db", "ledger.db-wal", "ledger.db-shm"]);
    fs::copy(site.path("copy.db"), site.path("ledger.db")).unwrap();
}

/// The same on another host, to which nothing but the copy was brought.
fn restore_without_the_log(site: &Site) {
    remove(site, &["ledger.db.redo", "ledger.db.lock"]);
    restore(site);
}

fn remove(site: &Site, files: &[&str]) {
    for file in files {
        drop(fs::remove_file(site.path(file)));
    }
}

/// Puts somebody else on call in Opsgenie from then on.
fn data_on_call(site: &Site, user: &str, from: Timestamp, to: Timestamp) {
    site.sandbox.edit(|world| {
        let schedule = world.opsgenie.schedule_mut(DATA_SCHEDULE).unwrap();
        schedule.override_with(Recipient::user(user), from, to);
    });
}

/// Somebody gives the administrator's assignment by hand.
fn by_hand(site: &Site, who: &str) {
    let user = site.user_id(who);
    site.sandbox.edit(|world| {
        let set = world.aws.permission_set_arn(ADMIN).unwrap().to_owned();
        world.aws.assign(ACCOUNT, &set, &user);
    });
}

async fn restorations(site: &Site) -> Vec<Restoration> {
    let ledger = Ledger::open_read_only(&site.path("ledger.db"), "test").await.unwrap();
    ledger.restorations().await.unwrap()
}

/// A second pass finds nothing to do and changes nothing.
async fn is_settled(site: &Site) {
    site.sandbox.clear_journal();
    let rows = site.intervals().await;
    site.run(&["apply"]).await.expect(0).says(&["0 to grant, 0 to revoke"]);
    assert_eq!(site.written(), [""; 0]);
    assert_eq!(site.intervals().await, rows);
}

/// Nothing that is on record now was other than it was, by the record that the copy replaced, which the simulated AWS
/// confirmed call by call: access begins and ends when it did, within the seconds between a boundary and AWS's
/// confirmation on a loaded machine (shifts differ by a minute and more), and what is open is what stands.
fn agrees(site: &Site, rows: &[AccessRow], truth: &[AccessRow]) {
    let slack = SignedDuration::from_secs(30);
    let restored_at = truth.iter().map(|row| row.revoked_at.unwrap_or(row.granted_at)).max();
    let same = |a: &AccessRow, b: &AccessRow| (&a.target, &a.principal) == (&b.target, &b.principal);
    for row in rows.iter().filter(|row| Some(row.granted_at) <= restored_at) {
        let was = truth.iter().any(|was| {
            same(row, was)
                && (row.granted_at.duration_until(was.granted_at)).abs() <= slack
                && was
                    .revoked_at
                    .is_none_or(|end| row.revoked_at.is_some_and(|e| e <= end + slack))
        });
        assert!(was, "{row:#?}\nwas never so: {truth:#?}\n{}", site.story());
    }
    let stands: BTreeSet<(String, String)> = site.sandbox.edit(|world| {
        let made = |since: Option<Timestamp>, removed: Option<Timestamp>| since.is_some() && removed.is_none();
        let assignments = world.aws.assignments.iter().filter(|row| made(row.since, row.removed));
        let members = world.aws.memberships.iter().filter(|row| made(row.since, row.removed));
        let assignments = assignments.map(|row| {
            let target = format!("{} in account {}", row.key.permission_set, row.key.account);
            (target, row.key.principal.clone())
        });
        let members = members.map(|row| (format!("group {}", row.group), row.user.clone()));
        assignments.chain(members).collect()
    });
    let open = rows.iter().filter(|row| row.revoked_at.is_none());
    let open: BTreeSet<_> = open
        .map(|row| (row.target.to_string(), row.principal.to_string()))
        .collect();
    assert_eq!(open, stands, "{}", site.story());
}

#[tokio::test]
async fn a_copy_is_brought_up_to_date_from_the_redo_log() {
    let site = both().await;
    site.run(&["apply"]).await.expect(0);
    back_up(&site).await;
    // Both rotations go on; edits of the past leave no trace of that at the providers.
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    data_on_call(&site, ERIN_ID, from_now(-60), from_now(3600));
    by_hand(&site, CAROL);
    site.run(&["apply"]).await.expect(0);
    site.shifts(&[("PALICE1", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    let rows = site.intervals().await;
    assert!(site.admin(BOB) && site.member(READERS, BOB) && site.member(DATA_GROUP, ERIN));

    restore(&site);
    site.run(&["status"])
        .await
        .says(&["ledger_restored", "older copy", "redo log"]);
    site.run(&["diff"]).await.says(&["older copy"]);
    is_settled_with(&site, &rows).await;
    let status = site.run(&["status"]).await.expect(0);
    status.says(&["ledger_restored", "came from its redo log", "Not ours (1)", CAROL_HOLDS]);
    assert_eq!(restorations(&site).await.len(), 1);

    // What was granted since the copy ends like everything else, and the stranger's stays.
    site.shifts(&[("PALICE1", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE) && !site.admin(BOB) && !site.member(READERS, BOB) && site.admin(CAROL));
    is_settled(&site).await;
    assert_eq!(restorations(&site).await.len(), 1, "it was noticed once");
}

const CAROL_HOLDS: &str = "holds payments/prod-admin";

/// Whoever restores in a hurry leaves the log of SQLite lying there, which is the killed daemon's.
#[tokio::test]
async fn a_copy_is_not_mixed_with_what_is_left_of_the_ledger_before_it() {
    let site = Site::payments().await;
    // The log then holds only what changes after this.
    site.run(&["apply"]).await.expect(0);
    let daemon = site.ready_daemon().await;
    back_up(&site).await;
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.until_admin(ALICE, false).await;
    eventually("the hand-off is on record", async || {
        site.intervals()
            .await
            .iter()
            .filter(|row| row.revoked_at.is_some())
            .count()
            == 2
    })
    .await;
    let rows = site.intervals().await;
    daemon.kill();
    assert!(0 < fs::metadata(site.path("ledger.db-wal")).unwrap().len());
    fs::copy(site.path("copy.db"), site.path("ledger.db")).unwrap();
    is_settled_with(&site, &rows).await;
    assert_eq!(restorations(&site).await.len(), 1, "the copy counts, not a mixture");
}

/// The same with a copy that was made with `cp` while nothing ran, which nobody can tell from the ledger itself. Where
/// SQLite would mix it with the log into something damaged, nothing is done, and what is said to do helps.
#[tokio::test]
async fn a_plain_copy_is_not_mixed_with_what_is_left_of_the_ledger_before_it() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    assert!(
        !site.path("ledger.db-wal").exists(),
        "the file is whole without its log"
    );
    fs::copy(site.path("ledger.db"), site.path("copy.db")).unwrap();
    // What changes now is in the file itself by the time when the daemon is killed, and not in its log.
    for who in ["PBOB002", "PALICE1"] {
        site.shifts(&[(who, from_now(-60), from_now(3600))]);
        site.run(&["apply"]).await.expect(0);
    }
    let daemon = site.ready_daemon().await;
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.until_admin(ALICE, false).await;
    site.until("alice no longer reads", |view| {
        !view.world.aws.is_member(READERS, ALICE)
    })
    .await;
    eventually("all of it is on record", async || {
        let rows = site.intervals().await;
        rows.iter().filter(|row| row.revoked_at.is_some()).count() == 6
    })
    .await;
    let rows = site.intervals().await;
    daemon.kill();
    assert!(0 < fs::metadata(site.path("ledger.db-wal")).unwrap().len());
    fs::copy(site.path("copy.db"), site.path("ledger.db")).unwrap();
    site.sandbox.clear_journal();
    let said = site.run(&["apply"]).await;
    assert_eq!(site.written(), [""; 0]);
    if said.code != Some(0) {
        said.expect(1).says(&["damaged", "-wal and -shm", "backup"]);
        restore(&site);
    }
    is_settled_with(&site, &rows).await;
    site.run(&["audit", "verify"]).await.expect(0);
}

/// A pass after the restoration leaves the record and AWS as they were.
async fn is_settled_with(site: &Site, rows: &[AccessRow]) {
    site.sandbox.clear_journal();
    site.run(&["apply"]).await.expect(0).says(&["0 to grant, 0 to revoke"]);
    assert_eq!(site.written(), [""; 0]);
    assert_eq!(site.intervals().await, rows);
}

#[tokio::test]
async fn the_daemon_goes_on_from_a_copy_by_default() {
    let site = both().await;
    // Limits, timing and everything else as they are when nobody has said anything.
    site.configure(|settings| settings.more.clear());
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    site.until("dave is on data call", |view| {
        view.world.aws.is_member(DATA_GROUP, DAVE)
    })
    .await;
    eventually("all three are on record", async || site.intervals().await.len() == 3).await;
    back_up(&site).await;
    daemon.term().await;

    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    data_on_call(&site, ERIN_ID, from_now(-60), from_now(3600));
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, false).await;
    site.until("dave is no longer", |view| !view.world.aws.is_member(DATA_GROUP, DAVE))
        .await;
    site.until("alice no longer reads", |view| {
        !view.world.aws.is_member(READERS, ALICE)
    })
    .await;
    eventually("all of it is on record", async || {
        let rows = site.intervals().await;
        rows.len() == 6 && rows.iter().filter(|row| row.revoked_at.is_none()).count() == 3
    })
    .await;
    daemon.kill();
    let truth = site.intervals().await;

    restore(&site);
    site.sandbox.clear_journal();
    let daemon = site.ready_daemon().await;
    daemon.until_says("brings it up to date").await;
    eventually("it is said in the metrics", async || {
        daemon.metric("dutybound_problems{kind=\"ledger_restored\"}").await == Some(1.0)
    })
    .await;
    assert_eq!(site.written(), [""; 0], "{}", site.story());
    assert!(site.admin(BOB) && site.member(READERS, BOB) && site.member(DATA_GROUP, ERIN));
    daemon.term().await;
    assert_eq!(site.intervals().await, truth);

    site.configure(|_| {});
    site.shifts(&[("PALICE1", from_now(-60), from_now(3600))]);
    data_on_call(&site, DAVE_ID, from_now(-60), from_now(3600));
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE) && !site.admin(BOB) && site.member(DATA_GROUP, DAVE));
    assert!(!site.member(READERS, BOB) && !site.member(DATA_GROUP, ERIN));
}

#[tokio::test]
async fn an_order_that_the_copy_does_not_know_is_still_in_force() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    site.run(&["revoke", "--person", BOB, "--reason", "left"])
        .await
        .expect(0);
    back_up(&site).await;
    site.run(&["revoke", "--lift", "--person", BOB]).await.expect(0);
    site.run(&["revoke", "--person", ALICE, "--reason", "her laptop was stolen"])
        .await
        .expect(0);
    assert!(!site.admin(ALICE));

    restore(&site);
    site.run(&["apply"]).await;
    assert!(!site.admin(ALICE) && !site.member(READERS, ALICE));
    site.run(&["status"])
        .await
        .says(&["her laptop was stolen", "Holding nothing by order (1)"]);
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(BOB));
}

#[tokio::test]
async fn a_ledger_that_was_deleted_is_made_anew_from_the_redo_log() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    let rows = site.intervals().await;
    remove(&site, &["ledger.db", "ledger.db-wal", "ledger.db-shm"]);
    is_settled_with(&site, &rows).await;
    site.run(&["status"]).await.says(&["ledger_restored", "gone or empty"]);
    site.shifts(&[("PALICE1", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE) && !site.admin(BOB));
}

#[tokio::test]
async fn a_ledger_that_is_gone_and_cannot_be_made_anew_is_missed() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    // A log that begins in the middle.
    remove(&site, &["ledger.db.redo"]);
    site.run(&["apply"]).await.expect(0);
    back_up(&site).await;
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.sandbox.clear_journal();
    let told = &[
        "gone or empty",
        "ledger.db.redo",
        "dutybound backup",
        "Nothing is changed in AWS",
    ];
    for empty in [false, true] {
        remove(&site, &["ledger.db", "ledger.db-wal", "ledger.db-shm"]);
        if empty {
            fs::write(site.path("ledger.db"), "").unwrap();
        }
        for command in ["apply", "run", "diff"] {
            site.run(&[command]).await.expect(1).says(told);
        }
        site.run(&["revoke", "--person", ALICE, "--reason", "x"])
            .await
            .expect(1)
            .says(told);
    }
    assert_eq!(site.written(), [""; 0]);
    restore(&site);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(BOB) && !site.admin(ALICE));

    // Somebody decides to begin anew: what stands is then not ours.
    remove(
        &site,
        &["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.redo"],
    );
    site.run(&["apply"]).await.expect(0);
    site.run(&["status"]).await.says(&["Not ours (2)"]);
}

#[tokio::test]
async fn a_ledger_and_a_log_of_two_installations_are_refused() {
    let (site, other) = (Site::payments().await, Site::payments().await);
    site.run(&["apply"]).await.expect(0);
    other.run(&["apply"]).await.expect(0);
    fs::copy(other.path("ledger.db.redo"), site.path("ledger.db.redo")).unwrap();
    site.sandbox.clear_journal();
    site.run(&["apply"])
        .await
        .expect(1)
        .says(&["two different ledgers", "ledger.db.redo"]);
    site.run(&["status"]).await.says(&["two different ledgers"]);
    assert_eq!(site.written(), [""; 0]);
}

#[tokio::test]
async fn a_ledger_of_an_older_version_gets_its_log_without_a_word() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    let options = SqliteConnectOptions::new().filename(site.path("ledger.db"));
    let raw = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .unwrap();
    sqlx::query("UPDATE installation SET ledger_id = NULL")
        .execute(&raw)
        .await
        .unwrap();
    raw.close().await;
    remove(&site, &["ledger.db.redo"]);
    is_settled(&site).await;
    assert!(site.path("ledger.db.redo").exists());
    assert_eq!(restorations(&site).await, []);
    let status = site.run(&["status"]).await.expect(0);
    assert!(!status.all().contains("ledger_restored"), "{}", status.all());
}

/// Alice and dave at the time of the copy; then bob and erin, whom the copy does not know; then carol and dave.
/// Gives the record as it was before the second hand-off.
async fn two_hand_offs_after_the_copy(site: &Site) -> Vec<AccessRow> {
    site.policy("project.toml", format!("{PAYMENTS}{CAROL_TOO}{ON_CALL}"));
    site.run(&["apply"]).await.expect(0);
    back_up(site).await;
    let (began, first) = (from_now(-60), from_now(1));
    eventually("the first hand-off", async || first <= Timestamp::now()).await;
    site.shifts(&[("PALICE1", began, first), ("PBOB002", first, from_now(3600))]);
    data_on_call(site, ERIN_ID, first, from_now(3600));
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(BOB) && !site.admin(ALICE) && site.member(DATA_GROUP, ERIN));
    let second = from_now(1);
    eventually("the second hand-off", async || second <= Timestamp::now()).await;
    site.shifts(&[
        ("PALICE1", began, first),
        ("PBOB002", first, second),
        ("PCAROL3", second, from_now(3600)),
    ]);
    site.sandbox.edit(|world| {
        let schedule = world.opsgenie.schedule_mut(DATA_SCHEDULE).unwrap();
        schedule.overrides.clear();
        schedule.override_with(Recipient::user(ERIN_ID), first, second);
    });
    site.intervals().await
}

const CAROL_TOO: &str = r#"
[[member]]
email    = "carol@example.com"
added_by = "mira@example.com"
"#;

#[tokio::test]
async fn without_the_log_the_schedules_tell_what_was_ours() {
    let site = both().await;
    let truth = two_hand_offs_after_the_copy(&site).await;
    // Nobody was there at the second hand-off, and mira was given access by hand.
    by_hand(&site, "mira@example.com");
    restore_without_the_log(&site);
    site.run(&["status"])
        .await
        .says(&["ledger_restored", "without its redo log"]);
    let apply = site.run(&["apply"]).await.expect(0).all();
    let hold = site.admin(CAROL) && site.member(READERS, CAROL) && site.member(DATA_GROUP, DAVE);
    assert!(hold, "{apply}\n{}", site.story());
    assert!(!site.admin(BOB) && !site.member(READERS, BOB), "{}", site.story());
    assert!(!site.member(DATA_GROUP, ERIN));
    assert!(site.admin("mira@example.com"), "somebody else's stays");
    is_settled(&site).await;

    let rows = site.intervals().await;
    agrees(&site, &rows, &truth);
    let of = |who: &str| rows.iter().filter(|row| row.person.as_str() == who).count();
    assert_eq!([ALICE, BOB, CAROL, DAVE, ERIN].map(of), [2, 2, 2, 2, 1], "{rows:#?}");
    let found = restorations(&site).await;
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].outstanding.clone(), found[0].found, found[0].gone),
        (None, 3, 3)
    );
    let status = site.run(&["status"]).await.expect(0);
    status.says(&[
        "ledger_restored",
        "is lost",
        "3 grants",
        "Not ours (1)",
        "dutybound revoke",
    ]);
    let at = found[0].lost_from.to_string();
    site.run(&["explain", BOB, "--at", &at])
        .await
        .says(&["NOTE", "is lost"]);
    site.run(&["report"]).await.expect(0).says(&["NOTE", "is lost"]);
    let before = (found[0].lost_from - SignedDuration::from_secs(1)).to_string();
    let known = site.run(&["explain", ALICE, "--at", &before]).await;
    assert!(!known.all().contains("NOTE"), "{}", known.all());
}

#[tokio::test]
async fn what_is_on_duty_still_is_taken_over_without_a_call() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    back_up(&site).await;
    let first = from_now(1);
    eventually("the hand-off", async || first <= Timestamp::now()).await;
    site.shifts(&[("PALICE1", from_now(-60), first), ("PBOB002", first, from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    let truth = site.intervals().await;
    restore_without_the_log(&site);
    site.sandbox.clear_journal();
    site.run(&["apply"])
        .await
        .expect(0)
        .says(&["0 to grant, 0 to revoke", "0 not ours"]);
    assert_eq!(site.written(), [""; 0]);
    agrees(&site, &site.intervals().await, &truth);
    // Its end is then as ordinary as any: no limit holds it.
    site.configure(|settings| settings.more.push_str("[limits]\nsurprising_revokes = 0\n"));
    site.shifts(&[("PALICE1", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE) && !site.admin(BOB));
}

/// That carol was given access by hand while she was on call cannot be told from a grant of ours. It is taken for ours,
/// and because it may not be, its end is a surprise that the limits hold.
#[tokio::test]
async fn what_may_be_ours_is_not_revoked_beyond_the_limits() {
    let site = both().await;
    two_hand_offs_after_the_copy(&site).await;
    restore_without_the_log(&site);
    site.configure(|settings| settings.more.push_str("[limits]\nsurprising_revokes = 0\n"));
    site.run(&["apply"])
        .await
        .expect(3)
        .says(&["limit", "only by the schedule"]);
    assert!(site.admin(CAROL) && site.admin(BOB), "{}", site.story());
    site.run(&["status"])
        .await
        .says(&["ledger_restored", "Held back by guards"]);
    let plan = site.run(&["diff", "--format", "json"]).await.json();
    let digest = plan["digest"].as_str().unwrap().to_owned();
    site.run(&["apply", "--approve", &digest]).await.expect(0);
    assert!(!site.admin(BOB) && !site.member(READERS, BOB) && !site.member(DATA_GROUP, ERIN));
}

#[tokio::test]
async fn what_was_not_ours_at_the_time_of_the_copy_stays() {
    let site = Site::payments().await;
    by_hand(&site, BOB);
    site.run(&["apply"]).await.expect(0);
    site.run(&["status"]).await.says(&["Not ours (1)"]);
    back_up(&site).await;
    let (first, second) = (from_now(1), from_now(2));
    eventually("both hand-offs", async || second <= Timestamp::now()).await;
    site.shifts(&[
        ("PALICE1", from_now(-60), first),
        ("PBOB002", first, second),
        ("PALICE1", second, from_now(3600)),
    ]);
    restore_without_the_log(&site);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(BOB));
    site.run(&["status"]).await.says(&["Not ours (1)", "ledger_restored"]);
}

#[tokio::test]
async fn a_provider_that_is_down_delays_what_is_found_out_and_takes_nothing_away() {
    let site = both().await;
    let truth = two_hand_offs_after_the_copy(&site).await;
    restore_without_the_log(&site);
    site.sandbox.fault(Fault::on(Service::Opsgenie, "*").status(503));
    let daemon = site.ready_daemon().await;
    site.until_admin(BOB, false).await;
    assert!(site.admin(CAROL));
    eventually("what is open is said", async || {
        site.run(&["status"])
            .await
            .all()
            .contains("still to be read for that time: opsgenie/")
    })
    .await;
    assert!(site.member(DATA_GROUP, ERIN) || site.member(DATA_GROUP, DAVE));
    site.sandbox.clear_faults();
    site.until("erin's grant is ours and over", |view| {
        !view.world.aws.is_member(DATA_GROUP, ERIN) && view.world.aws.is_member(DATA_GROUP, DAVE)
    })
    .await;
    eventually("all is found out", async || {
        restorations(&site).await.iter().all(|r| r.outstanding.is_none())
    })
    .await;
    daemon.term().await;
    agrees(&site, &site.intervals().await, &truth);
}

/// With the log and without it: the restoration is killed at every call that it makes to AWS.
#[tokio::test]
async fn a_restoration_that_is_killed_begins_again() {
    let mut points = 0;
    for with_log in [true, false] {
        let first = both().await;
        let truth = two_hand_offs_after_the_copy(&first).await;
        let state: Vec<_> = ["copy.db", "ledger.db.redo"]
            .map(|name| (name, fs::read(first.path(name)).unwrap()))
            .into();
        let world = first.sandbox.edit(|world| world.clone());
        // Every eighth call is enough to meet each kind of call in some of its places.
        for n in (0..).step_by(8) {
            let site = Site::new(world.clone(), &format!("{PAYMENTS}{CAROL_TOO}{ON_CALL}")).await;
            site.policy("data.toml", DATA);
            // Ids must differ from those that the world has from the sandbox before it.
            for _ in 0..300 {
                site.sandbox.fault(Fault::on(Service::Aws, "").times(0));
            }
            site.sandbox.clear_faults();
            for (name, bytes) in &state {
                fs::write(site.path(name), bytes).unwrap();
            }
            if with_log {
                restore(&site);
            } else {
                restore_without_the_log(&site);
            }
            site.sandbox.fault(Fault::on(Service::Aws, "*").after(n).hold());
            let mut daemon = site
                .command(&["apply"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let held = loop {
                if site
                    .sandbox
                    .journal()
                    .iter()
                    .any(|call| call.fault.is_some() && call.status.is_none())
                {
                    break true;
                }
                if daemon.try_wait().unwrap().is_some() {
                    break false;
                }
                tokio::task::yield_now().await;
            };
            drop(daemon.kill());
            daemon.wait().unwrap();
            site.sandbox.clear_faults();
            if !held {
                break;
            }
            points += 1;
            for _ in 0..2 {
                site.run(&["apply"]).await;
            }
            assert!(
                site.admin(CAROL) && !site.admin(BOB),
                "{with_log} {n}: {}",
                site.story()
            );
            assert!(
                site.member(DATA_GROUP, DAVE) && !site.member(DATA_GROUP, ERIN),
                "{with_log} {n}"
            );
            let rows = site.intervals().await;
            agrees(&site, &rows, &truth);
            assert_eq!(rows.len(), 9, "{with_log} {n}: {rows:#?}");
            assert_eq!(restorations(&site).await.len(), 1, "{with_log} {n}");
            is_settled(&site).await;
        }
    }
    assert!(5 < points, "{points}");
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_put_aside_and_said() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    let log = site.path("ledger.db.redo");
    let good = fs::read(&log).unwrap();
    for bad in [b"these are the minutes\n".to_vec(), [&good[..], b"garbage\n"].concat()] {
        fs::write(&log, bad).unwrap();
        is_settled(&site).await;
        site.run(&["status"])
            .await
            .says(&["ledger_restored", "redo log", "cannot be read"]);
    }
    assert!(site.admin(ALICE));
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(BOB) && !site.admin(ALICE));
}
