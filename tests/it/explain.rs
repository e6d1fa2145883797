//! What `explain` answers an auditor: for a person, an entitlement, an account, at any moment.

use std::process::Command;

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
