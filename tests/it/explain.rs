//! What `explain` answers an auditor: for a person, an entitlement, an account, at any moment.

use std::process::Command;

use dutybound_sandbox::{Fault, Service};
use jiff::{SignedDuration, Timestamp};

use crate::harness::*;

#[tokio::test]
async fn everybody_on_an_entitlement_and_in_an_account_is_answered_for() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    site.run(&["explain", "payments/prod-admin"]).await.expect(0).says(&[
        &format!("{ALICE} holds payments/prod-admin"),
        "POLICY  ",
        "in force since",
        "on call in pagerduty/PABC123",
        "consent   mira@example.com",
    ]);
    let account = site
        .run(&["explain", ACCOUNT, "--format", "json"])
        .await
        .expect(0)
        .json();
    let answers = account["answers"].as_array().unwrap();
    assert!(
        answers.iter().all(|a| a["entitlement"] == "payments/prod-admin"),
        "{account}"
    );
    assert!(answers.iter().any(|a| a["person"] == ALICE && a["holds"] == true));
    assert_eq!(account["policy"]["is_present"], true);
    site.run(&["explain", "999999999999"])
        .await
        .expect(2)
        .says(&["Neither the policy nor the record", "999999999999"]);
    site.run(&["explain", "payments"])
        .await
        .expect(1)
        .says(&["neither an e-mail address, nor an entitlement", "twelve digits"]);
    site.run(&["explain", "payments/prod-admn"]).await.expect(1).says(&[
        "neither the policy nor the record of that time has an entitlement payments/prod-admn",
        "did you mean `payments/prod-admin`?",
    ]);
    site.run(&["explain", ACCOUNT, "payments/prod-admin"])
        .await
        .expect(1)
        .says(&["is no e-mail address"]);
}

#[tokio::test]
async fn a_past_moment_is_answered_from_the_record() {
    let site = Site::payments().await;
    let before = Timestamp::now();
    site.run(&["apply"]).await.expect(0);
    let held = Timestamp::now();
    site.policy(
        "project.toml",
        format!("{PAYMENTS}{ON_CALL}").replace(ALICE, "nobody@example.com"),
    );
    let applied = site.run(&["apply"]).await;
    assert!(!site.admin(ALICE), "{} {}", applied.stdout, applied.stderr);
    let ask = async |at: Timestamp| {
        site.run(&["explain", ALICE, "payments/prod-admin", "--at", &at.to_string()])
            .await
    };
    ask(before).await.expect(1).says(&[
        "NOTE  the record begins at ",
        &format!("{ALICE} is not known to hold payments/prod-admin"),
        "after     held from",
    ]);
    ask(held).await.expect(0).says(&[
        &format!("{ALICE} holds payments/prod-admin"),
        "ended     ",
        "AWS reference",
        "the policy has changed since",
    ]);
    site.run(&["explain", ALICE, "payments/prod-admin"])
        .await
        .expect(2)
        .says(&["before    held from", "not a member of payments"]);
    let long_ago = held - SignedDuration::from_hours(24 * 300);
    site.run(&["explain", BOB, "payments/prod-admin", "--at", &long_ago.to_string()])
        .await
        .expect(1)
        .says(&["is not known to hold", "on duty at that time is not known"]);
    let of_all = ["explain", "payments/prod-readers", "--at", &long_ago.to_string()];
    site.run(&of_all).await.expect(1).says(&[
        "NOTE  the record begins at ",
        "Nobody is known to hold payments/prod-readers",
    ]);
}

#[tokio::test]
async fn a_hold_of_the_past_is_on_record() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    site.configure(|s| s.more = "[limits]\nsurprising_grants = 0\n".to_owned());
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(3);
    let then = Timestamp::now();
    site.configure(|s| s.more = String::new());
    site.run(&["apply"]).await;
    assert!(site.admin(BOB));
    site.run(&["explain", BOB, "payments/prod-admin", "--at", &then.to_string()])
        .await
        .expect(2)
        .says(&["held by guard limit", "after     held from"]);
}

#[tokio::test]
async fn the_git_commit_of_the_policy_is_named_while_the_files_are_those_of_the_commit() {
    let site = Site::payments().await;
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(site.path("access.d"))
            .args(["-c", "user.name=mira", "-c", "user.email=mira@example.com"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "policy"]);
    let commit = git(&["rev-parse", "HEAD"]);
    site.run(&["apply"]).await.expect(0);
    let named = format!("(Git commit {})", &commit[..12]);
    site.run(&["explain", ALICE]).await.expect(0).says(&[&named]);
    site.policy("project.toml", format!("{PAYMENTS}{ON_CALL}\n# not committed\n"));
    site.run(&["apply"]).await;
    let explained = site.run(&["explain", ALICE]).await;
    assert!(!explained.stdout.contains("Git commit"), "{}", explained.stdout);
}

#[tokio::test]
async fn why_access_outlives_duty_is_told_now_and_later() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ADMIN_ON_CALL}")).await;
    site.run(&["apply"]).await.expect(0);
    site.configure(|s| s.more = "[limits]\nsurprising_revokes = 0\n".to_owned());
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(3);
    let held = [
        "outlived  what earned it: nothing calls for it since ",
        "stands    the revoke is held by guard limit since ",
    ];
    let ask = async |at: Option<Timestamp>| {
        let at = at.map(|at| at.to_string());
        let mut arguments = vec!["explain", ALICE, "payments/prod-admin"];
        if let Some(at) = &at {
            arguments.extend(["--at", at]);
        }
        site.run(&arguments).await.expect(0)
    };
    ask(None).await.says(&held);
    let by_guard = Timestamp::now();

    site.configure(|_| {});
    site.sandbox
        .fault(Fault::on(Service::Aws, "DeleteAccountAssignment").aws_error("AccessDeniedException", "not allowed"));
    site.run(&["apply"]).await.expect(1);
    ask(None).await.says(&[
        "outlived  ",
        "stands    the revoke of payments/prod-admin for alice",
        "not allowed",
    ]);
    let refused = Timestamp::now();
    site.sandbox.clear_faults();
    site.run(&["apply"]).await.expect(0);
    assert!(!site.admin(ALICE));

    let later = ask(Some(by_guard)).await;
    later.says(&held);
    let text = ask(Some(refused)).await;
    text.says(&[
        "outlived  ",
        "stands    AWS was asked for the revoke at ",
        " in vain, by ",
        "not allowed",
    ]);
    let refused = refused.to_string();
    let json = site
        .run(&[
            "explain",
            ALICE,
            "payments/prod-admin",
            "--at",
            &refused,
            "--format",
            "json",
        ])
        .await
        .expect(0)
        .json();
    assert!(json["answers"][0]["outlived"].is_string(), "{json}");
    assert!(
        json["answers"][0]["obstacles"].to_string().contains("in vain"),
        "{json}"
    );
}

#[tokio::test]
async fn a_revoke_that_waits_for_the_incoming_grant_says_so() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ADMIN_ON_CALL}")).await;
    // The pass after the hand-over's would find the grant under way, and a guard would hold the revoke.
    site.configure(|settings| settings.more = "[timing]\npoll = \"1h\"\nnotice = \"0s\"\n".to_owned());
    let hand_off = from_now(40);
    site.shifts(&[
        ("PALICE1", from_now(-60), hand_off),
        ("PBOB002", hand_off, from_now(3600)),
    ]);
    site.sandbox
        .edit(|world| world.aws.operation_takes = SignedDuration::ZERO);
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    site.sandbox
        .fault(Fault::on(Service::Aws, "CreateAccountAssignment").hold());
    site.until("bob's grant is asked for", |view| {
        let mut calls = view.journal.iter();
        calls.any(|call| call.operation == "CreateAccountAssignment" && call.status.is_none())
    })
    .await;
    site.run(&["explain", ALICE, "payments/prod-admin"])
        .await
        .expect(0)
        .says(&[
            "outlived  what earned it: nothing calls for it since ",
            "stands    the revoke waits until bob@example.com holds it, but no longer than until ",
        ]);
    daemon.kill();
}

#[tokio::test]
async fn why_duty_had_no_access_is_on_record() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ADMIN_ON_CALL}")).await;
    site.sandbox
        .fault(Fault::on(Service::Aws, "CreateAccountAssignment").aws_error("AccessDeniedException", "not allowed"));
    site.run(&["apply"]).await.expect(1);
    site.run(&["apply"]).await.expect(1);
    let then = Timestamp::now().to_string();
    site.sandbox.clear_faults();
    site.run(&["apply"]).await.expect(0);
    let why = [
        "alice@example.com does not hold payments/prod-admin",
        "obstacle  on duty without access since ",
        "by the record: AWS refused the grant",
        "obstacle  AWS was asked for the grant at ",
        "not allowed",
    ];
    site.run(&["explain", ALICE, "payments/prod-admin", "--at", &then])
        .await
        .expect(2)
        .says(&why);
    // Whoever asks about the entitlement learns of them too.
    site.run(&["explain", "payments/prod-admin", "--at", &then])
        .await
        .expect(2)
        .says(&why);
}

#[tokio::test]
async fn an_override_is_named_with_who_knows_its_author() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ADMIN_ON_CALL}")).await;
    site.sandbox.edit(|world| {
        let schedule = world.pagerduty.schedule_mut("PABC123").unwrap();
        schedule.override_with("PBOB002", from_now(-30), from_now(1800));
    });
    site.run(&["apply"]).await.expect(0);
    let made = "of pagerduty/PABC123, which the provider shows without an id; who made it is not on record, because the \
                first read of the schedule showed it already, or nobody has looked yet; PagerDuty's audit records of \
                that schedule name them";
    site.run(&["explain", BOB, "payments/prod-admin"])
        .await
        .expect(0)
        .says(&["through an override until ", &format!("  override  {made}")]);
    let json = site
        .run(&["explain", BOB, "payments/prod-admin", "--format", "json"])
        .await
        .expect(0)
        .json();
    assert_eq!(json["answers"][0]["overrides"][0], made, "{json}");
}

#[tokio::test]
async fn what_earned_it_is_told_of_a_past_moment_that_the_schedule_still_shows() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ADMIN_ON_CALL}")).await;
    site.sandbox
        .edit(|world| world.aws.operation_takes = SignedDuration::ZERO);
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    let held = "the record says that alice holds it";
    eventually(held, async || site.run(&["explain", ALICE]).await.code == Some(0)).await;
    let then = Timestamp::now().to_string();
    let hand_off = from_now(1);
    site.shifts(&[
        ("PALICE1", from_now(-60), hand_off),
        ("PBOB002", hand_off, from_now(3600)),
    ]);
    let ended = "the record says that alice holds it no more";
    eventually(ended, async || site.run(&["explain", ALICE]).await.code == Some(2)).await;
    daemon.term().await;
    site.run(&["explain", ALICE, "payments/prod-admin", "--at", &then])
        .await
        .expect(0)
        .says(&["  ended     ", "  because   on call in pagerduty/PABC123 until "]);
}

/// Found on the walk from standing access: it said that nobody had granted it, of somebody who held it.
#[tokio::test]
async fn whoever_holds_it_without_dutybound_is_said_to() {
    let site = Site::payments().await;
    let alice = site.user_id(ALICE);
    site.sandbox.edit(|world| {
        let set = world.aws.permission_set_arn(ADMIN).unwrap().to_owned();
        world.aws.assign(ACCOUNT, &set, &alice);
    });
    site.run(&["apply"]).await.expect(0);
    let said = site.run(&["explain", ALICE, "payments/prod-admin"]).await;
    said.says(&["holds it in AWS all the same, not through dutybound"]);
    assert!(!said.stdout.contains("next pass makes it"), "{}", said.stdout);
}
