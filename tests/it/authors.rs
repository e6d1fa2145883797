//! Who put somebody on duty out of turn: found out from the provider's record, kept by the ledger, told by `explain`.

use dutybound_sandbox::world::Rotation;
use dutybound_sandbox::world::opsgenie::Recipient;
use dutybound_sandbox::world::pagerduty::{AuditRecord, Override};
use dutybound_sandbox::{Fault, Service};
use jiff::{SignedDuration, Timestamp};

use crate::harness::*;
use crate::one_shot::sign_in_as_an_app;

const RECORDS: &str = "GET /schedules/PABC123/audit/records";

async fn site() -> Site {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ADMIN_ON_CALL}")).await;
    site.sandbox
        .edit(|world| world.aws.operation_takes = SignedDuration::ZERO);
    site
}

/// Bob puts himself on call for half an hour, as PagerDuty's audit trail has it.
fn bob_takes_over(site: &Site) -> Timestamp {
    let at = Timestamp::now();
    site.sandbox.edit(|world| {
        let schedule = world.pagerduty.schedule_mut("PABC123").unwrap();
        schedule.override_with("PBOB002", from_now(-30), from_now(1800));
        world
            .pagerduty
            .audit_records
            .push(AuditRecord::new("R1", "PABC123", "PBOB002", at));
    });
    at
}

fn looks(site: &Site) -> usize {
    let journal = site.sandbox.journal();
    journal.iter().filter(|call| call.operation == RECORDS).count()
}

#[tokio::test]
async fn an_override_names_who_made_it_for_as_long_as_the_record_is_kept() {
    let site = site().await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    let at = bob_takes_over(&site);
    site.until_admin(BOB, true).await;
    daemon.until_says("PBOB002 newly on duty").await;
    site.until_polled("GET /schedules/PABC123").await;
    assert_eq!(looks(&site), 1, "one look, however often the schedule is read");

    let held = "the record says that bob holds it";
    eventually(held, async || {
        site.run(&["explain", BOB, "payments/prod-admin"]).await.code == Some(0)
    })
    .await;
    let made = [
        "  override  of pagerduty/PABC123, which the provider shows without an id; the schedule was changed by ",
        "(PBOB002, for themselves) at ",
        "the only change between the reads of ",
        "(PagerDuty audit record R1)",
    ];
    site.run(&["explain", BOB, "payments/prod-admin"])
        .await
        .expect(0)
        .says(&made);
    daemon.term().await;
    // From the record alone, without the provider: the override is gone there by now.
    site.sandbox.edit(|world| {
        world.pagerduty.audit_records.clear();
        world.pagerduty.schedule_mut("PABC123").unwrap().overrides.clear();
    });
    site.run(&["apply"]).await;
    assert!(!site.admin(BOB));
    let then = (at + SignedDuration::from_secs(3)).to_string();
    let past = ["explain", BOB, "payments/prod-admin", "--at", &then];
    site.run(&past).await.says(&made);
    let json = site.run(&[&past[..], &["--format", "json"]].concat()).await.json();
    assert!(
        json["answers"][0]["overrides"].to_string().contains("for themselves"),
        "{json}"
    );
    site.run(&["audit", "verify"]).await.expect(0);
    site.run(&["audit", "export", "--from", "2020-01-01T00:00:00Z", "--format", "jsonl"])
        .await
        .expect(0)
        .says(&["\"schedule_change_attributed\"", "PBOB002"]);
}

/// The flag outlives the pass that grants, and a restart; an override that was known for a while is no surprise.
#[tokio::test]
async fn who_puts_themselves_on_duty_stays_flagged_while_they_hold_it() {
    let site = site().await;
    site.configure(|s| s.more = "[timing]\npoll = \"1s\"\n".to_owned());
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    bob_takes_over(&site);
    site.until_admin(BOB, true).await;
    let flag = "bob@example.com comes on duty for payments/prod-admin out of the blue";
    let flagged = async || {
        let said = site.run(&["status", "--format", "json"]).await.json()["last_pass"]["problems"].to_string();
        said.contains(flag) && said.contains("(PBOB002, for themselves) at ")
    };
    eventually("bob is flagged", flagged).await;
    daemon.term().await;
    let daemon = site.ready_daemon().await;
    site.until_polled("GET /schedules/PABC123").await;
    assert!(flagged().await, "{}", daemon.log());
    site.sandbox
        .edit(|world| world.pagerduty.schedule_mut("PABC123").unwrap().overrides.clear());
    site.until_admin(BOB, false).await;
    eventually("nothing is flagged", async || {
        !site.run(&["status"]).await.all().contains("out of the blue")
    })
    .await;
}

#[tokio::test]
async fn an_edit_that_is_no_override_is_told_too() {
    let site = site().await;
    site.run(&["apply"]).await.expect(0);
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    let carol = AuditRecord {
        actor: None,
        method: "api_token".to_owned(),
        truncated_token: Some("x9yz".to_owned()),
        ..AuditRecord::new("R7", "PABC123", "", Timestamp::now())
    };
    site.sandbox.edit(|world| world.pagerduty.audit_records.push(carol));
    site.run(&["apply"]).await.expect(0);
    site.run(&["explain", BOB, "payments/prod-admin"])
        .await
        .expect(0)
        .says(&[
            "  edited    pagerduty/PABC123; the schedule was changed by an API key that ends in x9yz at ",
            "(PagerDuty audit record R7)",
        ]);
}

#[tokio::test]
async fn an_override_with_an_id_is_tied_to_the_record_that_names_it() {
    let site = site().await;
    site.sandbox.edit(|world| {
        let schedule = world.pagerduty.schedule_mut("PABC123").unwrap();
        let daily = SignedDuration::from_hours(24);
        schedule.rotation = Some(Rotation::new(&["PALICE1"], from_now(-3600), daily));
        schedule.entries.clear();
        assert!(world.pagerduty.upgrade("PABC123"));
    });
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE));
    site.sandbox.edit(|world| {
        let schedule = &mut world.pagerduty.shift_schedules[0];
        schedule.rotations[0].overrides.push(Override {
            id: "O77".to_owned(),
            user: "PBOB002".to_owned(),
            start: from_now(-30),
            end: from_now(1800),
        });
        let now = Timestamp::now();
        let named = AuditRecord {
            mentions: vec!["O77".to_owned()],
            ..AuditRecord::new("R2", "PABC123", "PALICE1", now)
        };
        let other = AuditRecord::new("R3", "PABC123", "PBOB002", now);
        world.pagerduty.audit_records.extend([named, other]);
    });
    site.run(&["apply"]).await.expect(0);
    let told = site.run(&["explain", BOB, "payments/prod-admin"]).await.expect(0);
    told.says(&[
        "  override  O77 of pagerduty/PABC123; made by ",
        "(PALICE1) at ",
        "(PagerDuty audit record R2)",
    ]);
    assert!(!told.stdout.contains("R3"), "{}", told.stdout);
}

#[tokio::test]
async fn a_key_that_may_not_read_audit_records_is_asked_once_and_access_goes_on() {
    let site = site().await;
    site.sandbox.fault(Fault::on(Service::PagerDuty, RECORDS).respond(
        403,
        &[],
        serde_json::json!({"error": {"message": "Access Denied", "code": 2010}}),
    ));
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    bob_takes_over(&site);
    site.until_admin(BOB, true).await;
    daemon.until_says("who changes schedules cannot be told").await;
    site.sandbox.edit(|world| {
        let schedule = world.pagerduty.schedule_mut("PABC123").unwrap();
        schedule.override_with("PALICE1", from_now(-20), from_now(1800));
    });
    site.until_admin(ALICE, true).await;
    daemon.until_says("PALICE1 newly on duty").await;
    assert_eq!(looks(&site), 1, "{}", site.story());
    let why = "by whom is not known: it came between the reads of ";
    for person in [ALICE, BOB] {
        let told = site.run(&["explain", person, "payments/prod-admin"]).await;
        if person == ALICE {
            told.says(&[why, "the credential may not read PagerDuty's audit records", "403"]);
        }
    }
    let said = daemon.term().await;
    assert_eq!(
        said.matches("who changes schedules cannot be told").count(),
        1,
        "{said}"
    );
}

#[tokio::test]
async fn audit_records_that_do_not_answer_keep_nobody_waiting() {
    let site = site().await;
    site.sandbox.fault(Fault::on(Service::PagerDuty, RECORDS).hold());
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    bob_takes_over(&site);
    site.until("the audit records hang", |view| {
        let mut calls = view.journal.iter();
        calls.any(|call| call.operation == RECORDS && call.status.is_none())
    })
    .await;
    site.until_admin(BOB, true).await;
    site.until_admin(ALICE, false).await;
    site.until_polled("GET /schedules/PABC123").await;
    site.run(&["explain", BOB, "payments/prod-admin"])
        .await
        .says(&["who made it is not on record", "nobody has looked yet"]);
    daemon.kill();
}

#[tokio::test]
async fn an_app_needs_the_scope_for_this_alone() {
    let site = site().await;
    sign_in_as_an_app(&site);
    site.run(&["apply"]).await.expect(0);
    bob_takes_over(&site);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(BOB));
    assert_eq!(looks(&site), 0, "without the scope nothing is asked for");
    site.run(&["explain", BOB, "payments/prod-admin"])
        .await
        .expect(0)
        .says(&["by whom is not known", "without the scope audit_records.read"]);

    site.sandbox.edit(|world| {
        let client = &mut world.pagerduty.oauth_clients[0];
        client.scopes.push("audit_records.read".to_owned());
        let schedule = world.pagerduty.schedule_mut("PABC123").unwrap();
        schedule.override_with("PALICE1", from_now(-20), from_now(1800));
        let record = AuditRecord::new("R9", "PABC123", "PBOB002", Timestamp::now());
        world.pagerduty.audit_records = vec![record];
    });
    site.run(&["apply"]).await.expect(0);
    assert_eq!(looks(&site), 1);
    site.run(&["explain", ALICE, "payments/prod-admin"])
        .await
        .expect(0)
        .says(&["the schedule was changed by ", "(PBOB002) at ", "record R9"]);
}

#[tokio::test]
async fn opsgenie_tells_nobody_and_that_is_said() {
    let site = Site::new(organisation(), DATA).await;
    site.run(&["apply"]).await.expect(0);
    site.sandbox.edit(|world| {
        let erin = world.opsgenie.users[1].id.clone();
        world.opsgenie.schedules[0].override_with(Recipient::user(&erin), from_now(-30), from_now(3600));
    });
    site.run(&["apply"]).await.expect(0);
    assert!(site.member(DATA_GROUP, ERIN));
    site.run(&["explain", ERIN, "data/on-call"])
        .await
        .expect(0)
        .says(&["who made it is not known, because Opsgenie does not tell"]);
    let exported = ["audit", "export", "--from", "2020-01-01T00:00:00Z", "--format", "jsonl"];
    let exported = site.run(&exported).await.expect(0);
    assert!(
        !exported.stdout.contains("schedule_change_attributed"),
        "{}",
        exported.stdout
    );
}
