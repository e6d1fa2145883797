//! What is not in force is seen by whoever looks, from the record.

use dutybound_sandbox::world::aws::{Matching, OperationKind, Status};
use dutybound_sandbox::{Call, Fault, Service};
use jiff::SignedDuration;

use crate::harness::*;

/// The record, not the memory of the daemon that began it, tells that AWS does not end an operation.
#[tokio::test]
async fn an_operation_that_aws_does_not_end_is_seen_after_a_restart() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ADMIN_ON_CALL}")).await;
    site.sandbox
        .edit(|world| world.aws.operation_takes = SignedDuration::from_hours(1));
    let daemon = site.daemon();
    site.until("AWS was asked", |view| {
        view.journal
            .iter()
            .any(|call| call.operation == "CreateAccountAssignment" && call.status.is_some())
    })
    .await;
    // The request id is on record once AWS was asked how the operation stands.
    site.until("AWS was asked how it stands", |view| {
        let asked = |call: &Call| call.operation == "DescribeAccountAssignmentCreationStatus";
        view.journal.iter().any(asked)
    })
    .await;
    daemon.kill();

    let daemon = site.ready_daemon().await;
    eventually("the metrics tell of it", async || {
        let open = daemon.metric("dutybound_problems{kind=\"change_unsettled\"}").await;
        open == Some(1.0) && daemon.metric("dutybound_open_intents").await == Some(1.0)
    })
    .await;
    let status = site.run(&["status"]).await.expect(0);
    status.says(&[
        "Not in force (1)",
        "AWS has been working on the grant of payments/prod-admin for alice@example.com since",
        "no access through dutybound yet",
    ]);
    assert_eq!(site.written(), ["CreateAccountAssignment"], "it is not asked for twice");
    daemon.term().await;
}

/// What AWS refused is known from the record, and so is that AWS is out of sight.
#[tokio::test]
async fn a_failure_and_a_blind_daemon_are_seen_in_the_status() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ADMIN_ON_CALL}")).await;
    let creation = Matching::kind(OperationKind::Create);
    site.sandbox
        .edit(|world| world.aws.fail(creation, "the account is suspended"));
    site.sandbox.fault(Fault::on(Service::Aws, "*").status(500));
    let daemon = site.daemon();
    eventually("the status tells that AWS is out of sight", async || {
        site.run(&["status"]).await.all().contains("no pass has seen AWS since")
    })
    .await;
    site.sandbox.clear_faults();
    daemon.until_says("the account is suspended").await;
    let status = site.run(&["status"]).await.expect(0);
    status.says(&["Not in force (1)", "the account is suspended"]);
    assert!(!status.all().contains("no pass has seen AWS"), "{}", status.all());

    // The next try goes well but does not end: until it does, what is known is why the one before it failed.
    site.sandbox.edit(|world| {
        world.aws.operation_takes = SignedDuration::from_hours(1);
        world.aws.failures.clear();
    });
    site.until("a try that does not fail is under way", |view| {
        let mut operations = view.world.aws.operations.iter();
        operations.any(|operation| operation.status == Status::InProgress && operation.failure_reason.is_none())
    })
    .await;
    eventually("its request id is on record", async || {
        site.run(&["status"]).await.all().contains("AWS has been working on")
    })
    .await;
    let status = site.run(&["status"]).await.expect(0);
    status.says(&["Not in force (1)", "the try before it, at", "the account is suspended"]);
    let why = site.run(&["explain", "alice@example.com", "payments/prod-admin"]).await;
    why.says(&["the try before it, at", "the account is suspended"]);
    daemon.term().await;
}

/// On a terminal no line overruns; in a pipe a sentence stays one line, so that it is found by its words.
#[tokio::test]
async fn lines_are_as_long_as_columns_says() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    site.sandbox
        .fault(Fault::on(Service::PagerDuty, "*").respond(401, &[], serde_json::json!({ "error": "no" })));
    let piped = site.run(&["diff"]).await;
    piped.says(&[
        "schedule_failing",
        "the credential is wrong, expired or was rotated; give the source a valid one",
    ]);
    assert!(
        piped.stdout.lines().any(|line| 100 < line.chars().count()),
        "{}",
        piped.stdout
    );
    for command in ["diff", "status"] {
        let mut command = site.command(&[command]);
        command.env("COLUMNS", "72");
        let shown = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        let text = String::from_utf8(shown.stdout).unwrap();
        assert!(text.contains("\n    ") && text.contains("PABC123"), "{text}");
        let long = text.lines().find(|line| 72 < line.chars().count());
        assert_eq!(long, None, "{text}");
    }
}

/// A daemon that has seen AWS before goes on with what it knows, and says since when it cannot see what it needs.
#[tokio::test]
async fn an_outage_of_aws_in_the_middle_says_since_when() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ADMIN_ON_CALL}")).await;
    let daemon = site.ready_daemon().await;
    // On record, not only in AWS: an operation that is still followed is left alone.
    eventually("alice's access is on record", async || {
        site.run(&["status"]).await.all().contains("Held now (1)")
    })
    .await;
    site.sandbox.fault(Fault::on(Service::Aws, "*").status(503));
    site.shifts(&[("PBOB002", from_now(-5), from_now(3600))]);
    let unread = "target_unresolved: who holds payments/prod-admin";
    eventually("the status tells of it", async || {
        site.run(&["status"]).await.all().contains(unread)
    })
    .await;
    let status = site.run(&["status"]).await.expect(0).stdout;
    let line = status.lines().find(|line| line.contains(unread)).unwrap();
    let since = line.rsplit("since ").next().unwrap().trim_end_matches(')').to_owned();
    assert!(since.parse::<jiff::Timestamp>().is_ok(), "{line}");
    // It is the first pass of the outage that counts, not the last one.
    site.until("the live state was asked for again", |view| {
        let failed = view.journal.iter().filter(|call| call.status == Some(503));
        12 < failed.count()
    })
    .await;
    let later = site.run(&["status"]).await.expect(0);
    later.says(&[&since]);
    assert!(site.admin(ALICE), "not knowing revokes nobody");
    site.sandbox.clear_faults();
    site.until_admin(BOB, true).await;
    eventually("the status no longer does", async || {
        !site.run(&["status"]).await.all().contains(unread)
    })
    .await;
    daemon.term().await;
}
