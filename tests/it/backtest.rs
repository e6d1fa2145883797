//! `backtest`: what a policy would have granted over shifts that are over.

use std::fs;

use crate::harness::{PAYMENTS, Site, from_now, organisation};
use dutybound_sandbox::{Fault, Service};

const ON_CALL: &str = "\n[[rule]]\nentitlement = \"prod-admin\"\non_call = \"pagerduty/PABC123\"\n";
const HOUR: i64 = 3600;

/// In the week before now: alice for 100 hours, nobody for 20, bob for 48.
async fn site() -> Site {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ON_CALL}")).await;
    let at = |hours: i64| from_now((hours - 168) * HOUR);
    site.shifts(&[("PALICE1", at(-40), at(100)), ("PBOB002", at(120), at(400))]);
    site
}

#[tokio::test]
async fn past_shifts_give_hours_peaks_and_gaps() {
    let site = site().await;
    let said = site
        .run(&["backtest", "--days", "7", "--format", "json"])
        .await
        .expect(0);
    let line = said.json()["tested"]["lines"][0].clone();
    assert_eq!(line["entitlement"], "payments/prod-admin");
    let near = |key: &str, hours: i64| {
        let seconds = line[key].as_i64().unwrap();
        assert!((seconds - hours * HOUR).abs() <= 120, "{key}: {seconds} in {line}");
    };
    near("held_seconds", 148);
    near("nobody_seconds", 20);
    near("standing_seconds", 336);
    assert_eq!((line["people"].as_i64(), line["peak"].as_i64()), (Some(2), Some(1)));
    let said = site.run(&["backtest", "--days", "7"]).await.expect(0);
    said.says(&[
        "payments/prod-admin",
        "44.0 %",
        "nobody is on call in pagerduty/PABC123",
        "Gaps (1)",
    ]);
    assert!(site.writes().is_empty());
}

#[tokio::test]
async fn a_policy_under_consideration_is_tested_against_the_one_in_force() {
    let site = site().await;
    let dir = site.path("stricter");
    fs::create_dir(&dir).unwrap();
    let trained = "added_by = \"mira@example.com\"\ncompleted = [\"drill\"]\n\n[[member]]\nemail    = \"bob";
    let policy = format!("{PAYMENTS}{ON_CALL}requires = [\"member\", \"drill\"]\n").replace(
        "added_by = \"mira@example.com\"\n\n[[member]]\nemail    = \"bob",
        trained,
    );
    fs::write(dir.join("project.toml"), policy).unwrap();
    let said = site
        .run(&["backtest", "--policy", "stricter", "--days", "7", "--format", "json"])
        .await
        .expect(0);
    let json = said.json();
    let held = |which: &str| json[which]["total"]["held_seconds"].as_i64().unwrap() / HOUR;
    assert!(
        (99..=100).contains(&held("tested")) && (147..=148).contains(&held("in_force")),
        "{json}"
    );
    let said = site
        .run(&["backtest", "--policy", "stricter", "--days", "7"])
        .await
        .expect(0);
    said.says(&[
        "by the policy in force",
        "bob@example.com is on duty for payments/prod-admin but has not completed \"drill\"",
    ]);
}

#[tokio::test]
async fn a_period_to_come_or_a_provider_that_fails_is_said() {
    let site = site().await;
    let ahead = from_now(HOUR).to_string();
    site.run(&["backtest", "--to", &ahead])
        .await
        .expect(1)
        .says(&["has not come", "`dutybound forecast`"]);
    site.sandbox.fault(Fault::on(Service::PagerDuty, "*").status(403));
    let said = site.run(&["backtest"]).await.expect(0);
    said.says(&["  ! cannot read pagerduty/PABC123", "has never been read completely"]);
}
