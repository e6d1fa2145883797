//! The daemon: hand-offs at their instant, edits, signals, crashes and outages.

use std::fs;
use std::time::Duration;

use dutybound::ledger::Ledger;
use dutybound::model::Person;
use dutybound_sandbox::world::aws::Status;
use dutybound_sandbox::{Call, Fault, Service};
use jiff::{SignedDuration, Timestamp};

use crate::harness::*;

const READ: &str = "GET /schedules/PABC123";

fn admin_policy() -> String {
    format!("{PAYMENTS}{ADMIN_ON_CALL}")
}

/// The installation with the account assignment only and alice on call for hours.
async fn admin_site() -> Site {
    Site::new(organisation(), &admin_policy()).await
}

/// The one write of this kind for this person.
fn write<'a>(writes: &'a [Call], operation: &str, user: &str) -> &'a Call {
    let mut found = writes
        .iter()
        .filter(|call| call.operation == operation && call.body.to_string().contains(user));
    let first = found
        .next()
        .unwrap_or_else(|| panic!("no {operation} for {user} in {writes:#?}"));
    assert!(found.next().is_none(), "more than one {operation} for {user}");
    first
}

#[tokio::test]
async fn a_hand_off_grants_at_its_instant_and_revokes_only_after_the_confirmation() {
    let site = Site::payments().await;
    site.sandbox
        .edit(|world| world.aws.operation_takes = SignedDuration::from_secs(1));
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    site.until("alice reads", |view| view.world.aws.is_member(READERS, ALICE))
        .await;
    let membership = site.sandbox.edit(|world| world.aws.memberships[0].id.clone());
    let (alice, bob) = (site.user_id(ALICE), site.user_id(BOB));

    let boundary = from_now(6);
    site.shifts(&[
        ("PALICE1", from_now(-60), boundary),
        ("PBOB002", boundary, from_now(3600)),
    ]);
    site.until_admin(ALICE, false).await;
    site.until("alice no longer reads", |view| {
        !view.world.aws.is_member(READERS, ALICE)
    })
    .await;
    assert!(site.admin(BOB) && site.member(READERS, BOB));

    let writes = site.writes();
    let granted = write(&writes, "CreateAccountAssignment", &bob);
    let revoked = write(&writes, "DeleteAccountAssignment", &alice);
    assert!(boundary <= granted.at && boundary <= revoked.at, "{}", site.story());
    let confirmed = site.sandbox.edit(|world| {
        let operations = &world.aws.operations;
        let grant = operations.iter().find(|o| o.key.principal == bob).unwrap();
        (grant.status == Status::Succeeded).then_some(grant.due).unwrap()
    });
    assert!(
        confirmed <= revoked.at,
        "revoked before the grant was in force: {}",
        site.story()
    );
    let joined = write(&writes, "CreateGroupMembership", &bob);
    let left = write(&writes, "DeleteGroupMembership", &membership);
    assert!(joined.seq < left.seq && boundary <= joined.at);
    daemon.term().await;
    let intervals = site.intervals().await;
    assert_eq!(intervals.len(), 4, "{intervals:?}");
}

#[tokio::test]
async fn a_hand_off_known_before_happens_while_the_provider_is_down() {
    let site = admin_site().await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    let boundary = from_now(8);
    site.shifts(&[
        ("PALICE1", from_now(-60), boundary),
        ("PBOB002", boundary, from_now(3600)),
    ]);
    site.until_polled(READ).await;
    site.sandbox.fault(Fault::on(Service::PagerDuty, "*").status(503));
    site.until_admin(ALICE, false).await;
    assert!(site.admin(BOB));
    daemon.until_says("the stored snapshot stands in").await;
    assert!(
        site.writes().iter().skip(1).all(|call| boundary <= call.at),
        "{}",
        site.story()
    );
    site.sandbox.clear_faults();
    daemon.until_says("can be read again").await;
    assert_eq!(
        site.written(),
        [
            "CreateAccountAssignment",
            "CreateAccountAssignment",
            "DeleteAccountAssignment"
        ]
    );
}

#[tokio::test]
async fn an_edit_of_the_schedule_is_taken_up_by_the_next_poll() {
    let site = admin_site().await;
    let _daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    let (from, to) = (from_now(-1), from_now(3600));
    site.sandbox.edit(|world| {
        world
            .pagerduty
            .schedule_mut("PABC123")
            .unwrap()
            .override_with("PBOB002", from, to)
    });
    site.until_admin(BOB, true).await;
    site.until_admin(ALICE, false).await;
}

#[tokio::test]
async fn a_good_edit_of_the_policy_is_taken_up_and_bad_ones_change_nothing() {
    let site = admin_site().await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    assert_eq!(daemon.metric("dutybound_policy_reload_success ").await, Some(1.0));
    let whole = format!("{PAYMENTS}{ON_CALL}");
    site.policy("project.toml", &whole);
    site.until("alice reads", |view| view.world.aws.is_member(READERS, ALICE))
        .await;
    site.sandbox.clear_journal();

    let refused = async |what: &str| {
        eventually(&format!("{what} is refused"), async || {
            daemon.metric("dutybound_policy_reload_success ").await == Some(0.0)
        })
        .await;
        site.until_polled(READ).await;
        assert_eq!(site.written(), [""; 0], "{what}");
        assert!(site.admin(ALICE) && site.member(READERS, ALICE), "{what}");
    };
    let restored = async || {
        eventually("the policy is the one in force", async || {
            daemon.metric("dutybound_policy_reload_success ").await == Some(1.0)
        })
        .await;
    };
    site.policy("project.toml", "[project\nname = 1\n");
    refused("a syntax error").await;
    site.policy("project.toml", &whole);
    restored().await;
    fs::rename(site.path("access.d"), site.path("away")).unwrap();
    refused("a missing directory").await;
    fs::rename(site.path("away"), site.path("access.d")).unwrap();
    restored().await;
    site.policy("project.toml", &whole[..whole.len() - 15]);
    refused("a half-written file").await;
    site.policy("project.toml", "");
    refused("an empty file").await;
    site.policy("project.toml", &whole);
    restored().await;
    fs::remove_file(site.path("access.d/project.toml")).unwrap();
    refused("a directory without files").await;
    daemon.until_says("policy refused; the one in force stays").await;
    assert!(daemon.log().contains("project.toml:1:"), "{}", daemon.log());
}

#[tokio::test]
async fn a_file_system_that_hangs_stops_no_hand_off() {
    let site = admin_site().await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    // Opening a pipe that nobody writes to hangs like a file on a server that is gone.
    let (config, away) = (site.path("config.toml"), site.path("away.toml"));
    fs::rename(&config, &away).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&config)
            .status()
            .unwrap()
            .success()
    );
    let opened = tokio::task::spawn_blocking({
        let config = config.clone();
        move || fs::OpenOptions::new().write(true).open(config).unwrap()
    })
    .await
    .unwrap();
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.until_admin(BOB, true).await;
    site.until_admin(ALICE, false).await;
    fs::remove_file(&config).unwrap();
    fs::rename(&away, &config).unwrap();
    drop(opened);
    site.policy("project.toml", format!("{PAYMENTS}{ON_CALL}"));
    site.until("bob reads", |view| view.world.aws.is_member(READERS, BOB))
        .await;
    daemon.term().await;
}

#[tokio::test]
async fn sighup_reloads_mode_and_limits() {
    let site = admin_site().await;
    site.configure(|s| s.mode = "grant-only");
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.until_admin(BOB, true).await;
    daemon.until_says("\"guard\":\"mode\"").await;
    assert!(site.admin(ALICE));
    fs::write(site.path("config.toml"), "mode = \"sync\"\nthis is no configuration\n").unwrap();
    daemon.signal("-HUP");
    daemon.until_says("configuration refused; the one in force stays").await;
    assert!(site.admin(ALICE));
    site.configure(|_| {});
    daemon.signal("-HUP");
    site.until_admin(ALICE, false).await;
}

#[tokio::test]
async fn an_edit_that_waits_for_a_restart_is_told_until_it_is_taken_back_and_the_mode_in_force_is_shown() {
    let site = admin_site().await;
    let daemon = site.ready_daemon().await;
    assert_eq!(daemon.metric("dutybound_mode{mode=\"sync\"}").await, Some(1.0));
    site.configure(|s| {
        s.mode = "grant-only";
        s.more += "[notify]\nzone = \"Europe/Berlin\"\n";
    });
    daemon.signal("-HUP");
    daemon
        .until_says("an edit of the configuration is not in force before the daemon is restarted")
        .await;
    assert!(daemon.log().contains("[notify]"), "{}", daemon.log());
    let waits = "dutybound_problems{kind=\"restart_needed\"}";
    eventually("the metrics tell it", async || daemon.metric(waits).await == Some(1.0)).await;
    assert_eq!(daemon.metric("dutybound_mode{mode=\"sync\"}").await, Some(0.0));
    assert_eq!(daemon.metric("dutybound_mode{mode=\"grant-only\"}").await, Some(1.0));
    let status = site.run(&["status"]).await.expect(0);
    status.says(&[
        "restart_needed",
        "the edit of [notify] is not in force before the daemon is restarted",
    ]);

    site.configure(|_| {});
    daemon.signal("-HUP");
    eventually("nothing waits any more", async || {
        daemon.metric(waits).await == Some(0.0)
    })
    .await;
    daemon.term().await;
}

#[tokio::test]
async fn a_kill_between_the_call_and_its_answer_is_settled_by_the_next_start() {
    let site = admin_site().await;
    site.sandbox
        .fault(Fault::on(Service::Aws, "CreateAccountAssignment").hold_reply());
    let daemon = site.daemon();
    site.until("the creation was performed", |view| {
        view.journal
            .iter()
            .any(|call| call.is_write() && call.performed && call.status.is_none())
    })
    .await;
    daemon.kill();
    site.sandbox.clear_faults();
    let daemon = site.ready_daemon().await;
    daemon.until_says("settled a change whose outcome was open").await;
    site.until_polled(READ).await;
    daemon.term().await;
    assert!(site.admin(ALICE));
    assert_eq!(site.written(), ["CreateAccountAssignment"]);
    let intervals = site.intervals().await;
    assert!(
        intervals.len() == 1 && intervals[0].revoked_at.is_none(),
        "{intervals:?}"
    );
    // And it is ours: it ends when its cause does.
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    let _daemon = site.ready_daemon().await;
    site.until_admin(ALICE, false).await;
}

#[tokio::test]
async fn sigterm_in_mid_operation_ends_cleanly_and_the_restart_converges() {
    let site = admin_site().await;
    site.sandbox
        .edit(|world| world.aws.operation_takes = SignedDuration::from_secs(5));
    let daemon = site.daemon();
    site.until("the creation was asked for", |view| {
        view.journal.iter().any(|call| call.is_write() && call.status.is_some())
    })
    .await;
    let log = daemon.term().await;
    assert!(log.contains("\"stopped\""), "{log}");
    let _daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    eventually("the grant is on record", async || site.intervals().await.len() == 1).await;
    site.until_polled(READ).await;
    assert_eq!(site.written(), ["CreateAccountAssignment"]);
    assert_eq!(site.intervals().await.len(), 1);
}

#[tokio::test]
async fn a_second_writer_on_the_same_ledger_does_not_start() {
    let site = admin_site().await;
    let _daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    // What AWS shows a moment before the record would still be under way for `diff`.
    eventually("the grant is on record", async || site.intervals().await.len() == 1).await;
    site.sandbox.clear_journal();
    for command in ["run", "apply"] {
        let second = site.run(&[command]).await.expect(1);
        second.says(&["another dutybound already uses the ledger", "ledger.db"]);
    }
    site.run(&["status"]).await.expect(0);
    site.run(&["diff"]).await.expect(0);
    assert_eq!(site.written(), [""; 0]);
}

#[tokio::test]
async fn an_approval_beside_the_daemon_releases_what_is_held() {
    let site = admin_site().await;
    site.configure(|s| s.more = "[timing]\npoll = \"1s\"\n[limits]\nsurprising_grants = 0\n".to_owned());
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    // What AWS shows a moment before the record would still be in flight for `diff`, and change the plan's digest.
    eventually("alice's access is on record", async || {
        !site.intervals().await.is_empty()
    })
    .await;
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    daemon.until_says("the limit is 0").await;
    let diff = site.run(&["diff", "--format", "json"]).await.expect(3).json();
    let digest = diff["digest"].as_str().unwrap();
    site.run(&["status"])
        .await
        .expect(0)
        .says(&["Held back by guards", BOB, digest]);
    let wrong = site.run(&["apply", "--approve", "0000000000000000"]).await;
    wrong.says(&["holds no plan of that name", "dutybound status"]);
    site.until_polled(READ).await;
    assert!(!site.admin(BOB), "an approval names one plan");
    site.run(&["apply", "--approve", digest])
        .await
        .expect(0)
        .says(&["its next pass releases exactly that plan"]);
    site.until_admin(BOB, true).await;
    site.until_admin(ALICE, false).await;
}

/// Found by reading: what of a released plan had not begun when the next pass came was held once more.
#[tokio::test]
async fn an_approval_holds_until_everything_that_it_released_is_done() {
    // Two changes in one account, of which AWS takes one at a time.
    let both = format!(
        "{PAYMENTS}[[entitlement]]\nname = \"prod-read\"\naccount = \"111122223333\"\npermission_set = \"ReadOnlyAccess\"\n\
         {ADMIN_ON_CALL}{}",
        ADMIN_ON_CALL.replace("prod-admin", "prod-read")
    );
    let site = Site::new(organisation(), &both).await;
    site.configure(|s| s.more = "[timing]\npoll = \"1s\"\n[limits]\nsurprising_grants = 0\n".to_owned());
    let daemon = site.ready_daemon().await;
    eventually("alice's access is on record", async || {
        site.intervals().await.len() == 2
    })
    .await;
    site.sandbox
        .edit(|world| world.aws.operation_takes = SignedDuration::from_secs(4));
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    daemon.until_says("the limit is 0").await;
    let diff = site.run(&["diff", "--format", "json"]).await.expect(3).json();
    site.run(&["apply", "--approve", diff["digest"].as_str().unwrap()])
        .await
        .expect(0)
        .says(&["its next pass releases exactly that plan"]);
    let bob = site.user_id(BOB);
    site.until("bob holds both", |view| {
        let granted = view.world.aws.assignments.iter();
        granted.filter(|a| a.key.principal == bob).count() == 2
    })
    .await;
}

#[tokio::test]
async fn the_daemon_outlives_an_outage_of_aws() {
    let site = admin_site().await;
    let down = || site.sandbox.fault(Fault::on(Service::Aws, "*").cut());
    down();
    let daemon = site.daemon();
    eventually("the listener answers", async || daemon.get("/healthz").await.is_some()).await;
    let (status, why) = daemon.get("/readyz").await.unwrap();
    assert_eq!(status, 503, "{why}");
    daemon.until_says("the pass failed; it is tried again").await;
    site.sandbox.clear_faults();
    site.until_admin(ALICE, true).await;
    daemon.ready().await;
    daemon.until_says("passes succeed again").await;

    down();
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.until("AWS is asked in vain", |view| {
        view.journal.iter().filter(|c| c.fault.is_some()).count() > 2
    })
    .await;
    assert!(site.admin(ALICE) && !site.admin(BOB));
    site.sandbox.clear_faults();
    site.until_admin(BOB, true).await;
    site.until_admin(ALICE, false).await;
    assert_eq!(daemon.get("/healthz").await.map(|(status, _)| status), Some(200));
}

#[tokio::test]
async fn the_pages_answer_and_the_access_counter_survives_a_restart() {
    let site = admin_site().await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    assert_eq!(daemon.get("/healthz").await, Some((200, "ok\n".to_owned())));
    assert_eq!(daemon.get("/elsewhere").await.map(|(status, _)| status), Some(404));
    let counter = "dutybound_access_seconds_total{basis=\"on_call\",entitlement=\"prod-admin\",project=\"payments\"} ";
    eventually("access time is counted", async || {
        daemon.metric(counter).await.is_some_and(|v| 0.0 < v)
    })
    .await;
    let (_, page) = daemon.get("/metrics").await.unwrap();
    for sample in [
        "dutybound_active_grants{entitlement=\"prod-admin\",project=\"payments\"} 1",
        "dutybound_ledger_up 1",
        "dutybound_source_up{source=\"pagerduty\"} 1",
        "dutybound_mode{mode=\"sync\"} 1",
    ] {
        assert!(page.contains(sample), "{sample} is missing in\n{page}");
    }
    assert!(!page.contains(ALICE) && !page.contains("test-key"), "{page}");
    let before = daemon.metric(counter).await.unwrap();
    daemon.term().await;
    let daemon = site.ready_daemon().await;
    let after = daemon.metric(counter).await.unwrap();
    assert!(before <= after, "{before} {after}");
}

#[tokio::test]
async fn an_idle_daemon_reads_what_it_must_and_says_nothing() {
    let site = Site::payments().await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    site.until("alice reads", |view| view.world.aws.is_member(READERS, ALICE))
        .await;
    eventually("both grants are on record", async || site.intervals().await.len() == 2).await;
    site.until_polled(READ).await;
    let log = daemon.log();
    site.sandbox.clear_journal();
    site.until_polled(READ).await;
    site.until_polled(READ).await;
    let calls = site.sandbox.journal();
    assert!(calls.iter().all(|call| call.operation == READ), "{}", site.story());
    assert_eq!(daemon.log(), log);
}

#[tokio::test]
async fn a_kill_between_a_revoke_and_its_answer_is_settled_by_the_next_start() {
    let site = Site::payments().await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    site.until("alice reads", |view| view.world.aws.is_member(READERS, ALICE))
        .await;
    eventually("both grants are on record", async || site.intervals().await.len() == 2).await;
    site.sandbox
        .fault(Fault::on(Service::Aws, "DeleteAccountAssignment").hold_reply());
    site.sandbox
        .fault(Fault::on(Service::Aws, "DeleteGroupMembership").hold_reply());
    site.sandbox.clear_journal();
    site.shifts(&[]);
    site.until("both were taken back", |view| {
        view.journal
            .iter()
            .filter(|call| call.is_write() && call.performed)
            .count()
            == 2
    })
    .await;
    daemon.kill();
    site.sandbox.clear_faults();
    let daemon = site.ready_daemon().await;
    eventually("both ends are on record", async || {
        site.intervals().await.iter().all(|i| i.revoked_at.is_some())
    })
    .await;
    site.until_polled(READ).await;
    daemon.term().await;
    assert_eq!(site.writes().len(), 2, "{}", site.story());
    let intervals = site.intervals().await;
    assert_eq!(intervals.len(), 2, "{intervals:#?} {}", site.story());
}

#[tokio::test]
async fn a_policy_swapped_by_a_link_as_kubernetes_does_is_taken_up() {
    let site = admin_site().await;
    fs::rename(site.path("access.d"), site.path("version-1")).unwrap();
    fs::create_dir(site.path("version-2")).unwrap();
    fs::write(site.path("version-2/project.toml"), format!("{PAYMENTS}{ON_CALL}")).unwrap();
    std::os::unix::fs::symlink("version-1", site.path("access.d")).unwrap();
    let _daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    std::os::unix::fs::symlink("version-2", site.path("new")).unwrap();
    fs::rename(site.path("new"), site.path("access.d")).unwrap();
    site.until("alice reads", |view| view.world.aws.is_member(READERS, ALICE))
        .await;
    assert!(site.admin(ALICE));
    assert_eq!(site.written(), ["CreateAccountAssignment", "CreateGroupMembership"]);
}

#[tokio::test]
async fn sigterm_ends_a_daemon_that_waits_for_an_answer() {
    for (service, operation) in [(Service::PagerDuty, "*"), (Service::Aws, "ListAccountAssignments")] {
        let site = admin_site().await;
        site.sandbox.fault(Fault::on(service, operation).hold());
        let daemon = site.daemon();
        site.until("the daemon waits", |view| {
            view.journal.iter().any(|call| call.fault.is_some())
        })
        .await;
        daemon.term().await;
        assert_eq!(site.written(), [""; 0]);
    }
}

#[tokio::test]
async fn a_daemon_that_cannot_work_does_not_start() {
    let site = admin_site().await;
    let daemon = site.ready_daemon().await;
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("\"address\"")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let address = line["address"].as_str().unwrap();
    let config = fs::read_to_string(site.path("config.toml")).unwrap();
    let taken = config
        .replace("127.0.0.1:0", address)
        .replace("ledger.db", "another.db");
    fs::write(site.path("config.toml"), taken).unwrap();
    site.run(&["run"])
        .await
        .expect(1)
        .says(&["cannot listen on", address, "[http]"]);
    site.policy("project.toml", "[project\n");
    site.run(&["run"])
        .await
        .expect(1)
        .says(&["project.toml:1:", "cannot be used"]);
    fs::write(site.path("config.toml"), "").unwrap();
    site.run(&["run"]).await.expect(1).says(&["config.toml", "mode"]);
}

#[tokio::test]
async fn a_member_stays_in_a_group_until_the_next_one_is_in_it() {
    let rule = ADMIN_ON_CALL.replace("prod-admin", "prod-readers");
    let site = Site::new(organisation(), &format!("{PAYMENTS}{rule}")).await;
    let _daemon = site.ready_daemon().await;
    site.until("alice reads", |view| view.world.aws.is_member(READERS, ALICE))
        .await;
    site.sandbox.clear_journal();
    site.sandbox
        .fault(Fault::on(Service::Aws, "CreateGroupMembership").hold());
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.until("bob is to be added", |view| {
        view.journal.iter().any(|call| call.fault.is_some())
    })
    .await;
    site.until_polled(READ).await;
    assert_eq!(site.written(), ["CreateGroupMembership"]);
    site.sandbox.clear_faults();
    site.until("alice no longer reads", |view| {
        !view.world.aws.is_member(READERS, ALICE)
    })
    .await;
    assert!(site.member(READERS, BOB));
}

#[tokio::test]
async fn a_restart_during_an_outage_of_the_provider_goes_on_from_the_record() {
    let site = admin_site().await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    let boundary = from_now(10);
    site.shifts(&[
        ("PALICE1", from_now(-60), boundary),
        ("PBOB002", boundary, from_now(3600)),
    ]);
    site.until_polled(READ).await;
    daemon.kill();
    site.sandbox.fault(Fault::on(Service::PagerDuty, "*").cut());
    let _daemon = site.ready_daemon().await;
    site.until_admin(ALICE, false).await;
    assert!(site.admin(BOB));
    assert!(
        site.writes().iter().skip(1).all(|call| boundary <= call.at),
        "{}",
        site.story()
    );
}

#[tokio::test]
async fn a_provider_slower_than_the_poll_keeps_no_daemon_from_being_ready() {
    let site = admin_site().await;
    site.sandbox
        .fault(Fault::on(Service::PagerDuty, "*").delay(Duration::from_secs(2)));
    let _daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
}

#[tokio::test]
async fn a_start_without_a_record_and_without_the_provider_waits_for_it() {
    let site = admin_site().await;
    site.sandbox.fault(Fault::on(Service::PagerDuty, "*").status(503));
    let daemon = site.ready_daemon().await;
    daemon.until_says("has never been read completely").await;
    assert_eq!(site.written(), [""; 0]);
    site.sandbox.clear_faults();
    site.until_admin(ALICE, true).await;
}

#[tokio::test]
async fn a_surprise_over_the_limit_is_released_by_the_notice_period() {
    let site = admin_site().await;
    site.configure(|s| {
        s.more = "[timing]\npoll = \"1s\"\nnotice = \"5s\"\n[limits]\nsurprising_grants = 0\n".to_owned();
    });
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    let edited = Timestamp::now();
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.until_admin(BOB, true).await;
    site.until_admin(ALICE, false).await;
    let granted = site.writes()[1].at;
    assert!(edited + SignedDuration::from_secs(5) <= granted, "{}", site.story());
    assert!(daemon.log().contains("\"guard\":\"limit\""), "{}", daemon.log());
}

#[tokio::test]
async fn a_person_takes_everything_from_somebody_beside_the_daemon_and_gives_it_back() {
    let site = Site::payments().await;
    let _daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    site.until("alice reads", |view| view.world.aws.is_member(READERS, ALICE))
        .await;
    site.run(&["revoke"]).await.expect(64);
    assert!(
        site.admin(ALICE),
        "an order against nobody in particular is no order against everybody"
    );
    site.run(&["revoke", "--person", ALICE, "--reason", "lost laptop"])
        .await
        .expect(0)
        .says(&[ALICE]);
    assert!(!site.admin(ALICE) && !site.member(READERS, ALICE));
    site.until_polled(READ).await;
    assert!(!site.admin(ALICE), "she is still on call, and still holds nothing");
    site.run(&["explain", ALICE, "payments/prod-admin"])
        .await
        .expect(2)
        .says(&["lost laptop"]);
    site.run(&["revoke", "--person", ALICE, "--lift"]).await.expect(0);
    site.until_admin(ALICE, true).await;
    site.run(&["revoke", "--person", ALICE, "--lift"])
        .await
        .expect(1)
        .says(&["no order is in force", ALICE]);
}

#[tokio::test]
async fn nothing_is_written_while_the_pause_file_exists() {
    let site = admin_site().await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    fs::write(site.path("pause"), "").unwrap();
    site.sandbox.clear_journal();
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    daemon.until_says("\"guard\":\"pause\"").await;
    site.until_polled(READ).await;
    assert_eq!(site.written(), [""; 0]);
    fs::remove_file(site.path("pause")).unwrap();
    site.until_admin(BOB, true).await;
    site.until_admin(ALICE, false).await;
}

/// Found by the simulation: while something delayed a revoke after an edit, the time counted as duty to its planned end.
#[tokio::test]
async fn duty_ends_with_the_edit_that_ends_it_however_late_the_revoke() {
    let site = admin_site().await;
    site.configure(|s| s.more = "[timing]\npoll = \"1s\"\nnotice = \"10m\"\n".to_owned());
    let _daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    fs::write(site.path("pause"), "").unwrap();
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    let causes = async || -> Vec<bool> {
        let rows = site.intervals().await;
        assert!(rows.iter().all(|row| row.revoked_at.is_none()), "{rows:?}");
        rows.iter()
            .flat_map(|row| row.causes.iter().map(|cause| cause.ended_at.is_none()))
            .collect()
    };
    eventually("the record says that the cause has ended", async || {
        causes().await == [false]
    })
    .await;
    site.run(&["status"])
        .await
        .says(&["no cause any more; due to be revoked"]);
    site.shifts(&[("PALICE1", from_now(-60), from_now(3600))]);
    eventually("a new cause is on record", async || causes().await == [false, true]).await;
    fs::remove_file(site.path("pause")).unwrap();
    // Whether it is true that suddenly nobody is on call is not known, so it ends no duty.
    site.shifts(&[("PALICE1", from_now(3600), from_now(7200))]);
    eventually("the schedule is doubted", async || {
        let page = site.run(&["status"]).await.stdout;
        page.contains("empty_schedule")
    })
    .await;
    assert_eq!(causes().await, [false, true]);
}

#[tokio::test]
async fn a_backup_beside_the_daemon_is_a_whole_ledger() {
    let site = admin_site().await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    eventually("the grant is on record", async || site.intervals().await.len() == 1).await;
    let copy = site.path("copy.db").to_str().unwrap().to_owned();
    site.run(&["backup", &copy]).await.expect(0);
    site.run(&["backup", &copy]).await.expect(1).says(&["copy.db"]);
    daemon.term().await;
    fs::remove_file(site.path("ledger.db")).unwrap();
    for file in ["ledger.db-wal", "ledger.db-shm"] {
        // Gone already when the daemon closed the ledger cleanly.
        drop(fs::remove_file(site.path(file)));
    }
    fs::rename(&copy, site.path("ledger.db")).unwrap();
    site.sandbox.clear_journal();
    site.run(&["apply"]).await.expect(0).says(&["1 unchanged"]);
    assert_eq!(site.written(), [""; 0]);
}

#[tokio::test]
async fn what_retention_removes_disturbs_neither_hand_offs_nor_the_chain() {
    let site = admin_site().await;
    let old = Timestamp::now() - SignedDuration::from_hours(24 * 120);
    let ledger = Ledger::open(&site.path("ledger.db"), "test", old).await.unwrap();
    let alice = Person::parse(ALICE).unwrap();
    for day in 1..4 {
        let at = old + SignedDuration::from_hours(24 * day);
        ledger.bar(Some(&alice), "long ago", "mira", at).await.unwrap();
        ledger
            .lift(Some(&alice), "mira", at + SignedDuration::from_hours(1))
            .await
            .unwrap();
    }
    ledger.close().await;
    site.configure(|s| s.more.push_str("[audit]\nretention = \"90d\"\n"));
    let daemon = site.ready_daemon().await;
    daemon.until_says("removed what is older than the ledger keeps").await;
    site.until_admin(ALICE, true).await;
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.until_admin(ALICE, false).await;
    assert!(site.admin(BOB));
    daemon.term().await;
    site.run(&["audit", "verify"])
        .await
        .expect(0)
        .says(&["what is older was removed by retention"]);
    // A daemon that finds it so goes on from there.
    let daemon = site.ready_daemon().await;
    site.until_polled(READ).await;
    daemon.term().await;
    assert!(site.admin(BOB) && !site.admin(ALICE));
    site.run(&["audit", "verify"]).await.expect(0);
}

/// `TOKIO_WORKER_THREADS` stands for as many cores.
#[tokio::test]
async fn on_a_machine_of_many_cores_it_has_no_more_threads_than_the_unit_allows() {
    let unit = include_str!("../../systemd/dutybound.service");
    let allowed = unit.lines().find_map(|line| line.strip_prefix("TasksMax=")).unwrap();
    let site = admin_site().await;
    let mut command = site.command(&["run"]);
    command.env("TOKIO_WORKER_THREADS", "200");
    let daemon = site.daemon_by(command);
    daemon.ready().await;
    site.until_admin(ALICE, true).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
    let (threads, allowed): (u32, u32) = (threads.trim().parse().unwrap(), allowed.parse().unwrap());
    assert!(
        threads < allowed,
        "{threads} threads, of which the unit allows {allowed}"
    );
}
