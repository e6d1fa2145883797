//! `forecast` against the services: what is read, what is told, and the exit code that CI can look at.

use crate::harness::{ALICE, PAYMENTS, Site, from_now, organisation};
use dutybound_sandbox::{Fault, Service};
use serde_json::json;

const ON_CALL: &str = "\n[[rule]]\nentitlement = \"prod-admin\"\non_call = \"pagerduty/PABC123\"\n";

async fn site() -> Site {
    Site::new(organisation(), &format!("{PAYMENTS}{ON_CALL}")).await
}

#[tokio::test]
async fn a_covered_week_has_no_gaps_and_nothing_is_written() {
    let site = site().await;
    site.shifts(&[("PALICE1", from_now(-60), from_now(10 * 86_400))]);
    let said = site.run(&["forecast", "--days", "7"]).await.expect(0);
    said.says(&["payments/prod-admin", ALICE, "and beyond", "Gaps (0)"]);
    assert!(site.writes().is_empty());
    assert!(!site.path("ledger.db").exists());
}

#[tokio::test]
async fn gaps_are_told_in_every_format_and_by_the_exit_code() {
    let site = site().await;
    let (hole, end) = (from_now(3600), from_now(7200));
    site.shifts(&[
        ("PALICE1", from_now(-60), hole),
        ("PBOB002", end, from_now(10 * 86_400)),
    ]);
    // Bob is a member and has no user in Identity Center.
    site.sandbox
        .edit(|world| world.aws.users.retain(|user| user.user_name != "bob@example.com"));
    let said = site
        .run(&["forecast", "--days", "2", "--format", "json"])
        .await
        .expect(2);
    let gaps: Vec<_> = said.json()["forecast"]["gaps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|gap| (gap["kind"].clone(), gap["during"]["start"].clone()))
        .collect();
    assert_eq!(
        gaps,
        [
            (json!("nobody_on_call"), json!(hole.to_string())),
            (json!("person_unknown"), json!(end.to_string())),
        ]
    );
    let said = site
        .run(&["forecast", "payments/prod-admin", "--days", "2"])
        .await
        .expect(2);
    said.says(&[
        "nobody is on call in pagerduty/PABC123",
        "no user of Identity Center",
        "Gaps (2)",
        "BUT person unknown",
    ]);
    let page = site
        .run(&["forecast", "--days", "2", "--format", "html"])
        .await
        .expect(2)
        .stdout;
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.contains("Nobody on call"),
        "{page}"
    );
    site.run(&["forecast", "payments/prod-admn"])
        .await
        .expect(1)
        .says(&["no project, no entitlement"]);
    site.run(&["forecast", "--days", "0"]).await.expect(64);
}

#[tokio::test]
async fn what_cannot_be_read_is_said_and_is_no_empty_schedule() {
    let site = site().await;
    site.shifts(&[("PALICE1", from_now(-60), from_now(10 * 86_400))]);
    site.run(&["apply"]).await.expect(0);
    site.sandbox.fault(Fault::on(Service::PagerDuty, "*").status(503));
    site.sandbox.fault(Fault::on(Service::Aws, "*").status(403));
    let said = site.run(&["forecast", "--days", "2"]).await.expect(0);
    said.says(&[
        ALICE,
        "  ! cannot read pagerduty/PABC123",
        "  ! nobody was looked up in Identity Center",
        "Gaps (0)",
    ]);
}
