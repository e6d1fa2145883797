//! Edits between polls, and edits of the configuration, are taken up by the running daemon.

use crate::harness::{ALICE, BOB, PAYMENTS, Site, eventually, from_now, organisation};

const ON_CALL: &str = "\n[[rule]]\nentitlement = \"prod-admin\"\non_call = \"pagerduty/PABC123\"\n";

async fn site(more: &str) -> Site {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ON_CALL}")).await;
    site.configure(|settings| settings.more = more.to_owned());
    site
}

#[tokio::test]
async fn an_override_made_just_before_a_hand_off_counts_although_the_next_poll_is_an_hour_away() {
    let site = site("[timing]\npoll = \"1h\"\nnotice = \"0s\"\n").await;
    let hand_off = from_now(40);
    site.shifts(&[
        ("PALICE1", from_now(-60), hand_off),
        ("PCAROL3", hand_off, from_now(3600)),
    ]);
    let _daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    site.sandbox.edit(|world| {
        let schedule = world.pagerduty.schedule_mut("PABC123").unwrap();
        schedule.override_with("PBOB002", hand_off, from_now(3600));
    });
    site.until_admin(BOB, true).await;
    site.until_admin(ALICE, false).await;
    let granted = site
        .sandbox
        .journal()
        .into_iter()
        .rfind(|call| call.operation == "CreateAccountAssignment");
    assert!(granted.is_some_and(|call| hand_off <= call.at), "{}", site.story());
}

#[tokio::test]
async fn an_edit_of_the_configuration_is_taken_up_without_a_signal() {
    let site = site("[timing]\npoll = \"1s\"\nnotice = \"0s\"\n").await;
    site.configure(|settings| settings.mode = "grant-only");
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    site.shifts(&[("PALICE1", from_now(-60), from_now(1))]);
    daemon.until_says("\"guard\":\"mode\"").await;
    assert!(site.admin(ALICE), "{}", site.story());
    site.configure(|settings| settings.mode = "revoke-only");
    site.until_admin(ALICE, false).await;
}

/// Without a word somebody would rely on drift being noticed within `audit`.
#[tokio::test]
async fn an_audit_that_takes_longer_than_it_says_is_said_once_an_edit_or_the_configuration_makes_it_so() {
    const SAID: &str = "a look at all of AWS takes longer than `audit` says";
    let site = site("[timing]\npoll = \"1s\"\naudit = \"1s\"\n").await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    assert!(!daemon.log().contains(SAID), "{}", daemon.log());
    let groups = |n| -> String {
        let group = |n| format!("\n[[entitlement]]\nname = \"group-{n}\"\ngroup = \"group-{n}\"\n");
        (0..n).map(group).collect()
    };
    for n in [39, 40] {
        let before = daemon.log().matches("a new policy is in force").count();
        site.policy("project.toml", format!("{PAYMENTS}{ON_CALL}{}", groups(n)));
        eventually("the policy is in force", async || {
            before < daemon.log().matches("a new policy is in force").count()
        })
        .await;
    }
    daemon.until_says(SAID).await;
    assert!(
        daemon.log().contains("\"at_least\":\"2s\",\"audit\":\"1s\""),
        "{}",
        daemon.log()
    );
    site.configure(|settings| settings.more = "[timing]\npoll = \"1s\"\naudit = \"2s\"\n".to_owned());
    daemon.until_says("audit and mode are reloaded").await;
    assert_eq!(daemon.log().matches(SAID).count(), 1, "{}", daemon.log());
    daemon.kill();

    site.configure(|settings| settings.more = "[timing]\npoll = \"2s\"\naudit = \"1s\"\n".to_owned());
    let daemon = site.ready_daemon().await;
    daemon.until_says(SAID).await;
}
