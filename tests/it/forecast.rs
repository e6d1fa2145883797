//! `forecast` against the services: what is read, what is told, and the exit code that CI can look at.

use crate::harness::{ALICE, BOB, PAYMENTS, Site, from_now, organisation};
use dutybound_sandbox::{Fault, Service};
use serde_json::json;

const ON_CALL: &str = "\n[[rule]]\nentitlement = \"prod-admin\"\non_call = \"pagerduty/PABC123\"\n";
/// Something that every member holds at all times.
const READERS_FOR_ALL: &str = "\n[[rule]]\nentitlement = \"prod-readers\"\nmembers = true\n";

async fn site() -> Site {
    Site::new(organisation(), &format!("{PAYMENTS}{ON_CALL}")).await
}

#[tokio::test]
async fn a_covered_week_has_no_gaps_and_nothing_is_written() {
    let site = site().await;
    site.shifts(&[("PALICE1", from_now(-60), from_now(10 * 86_400))]);
    let said = site.run(&["forecast", "payments", "--days", "7"]).await.expect(0);
    said.says(&["payments/prod-admin", ALICE, "and beyond", "Gaps (0)"]);
    let said = site.run(&["forecast", "--days", "7"]).await.expect(0);
    said.says(&[
        "Gaps (0)\n\nDue to be held",
        "  payments  1 entitlement, 1 person, 1 turn\n",
    ]);
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
    site.run(&["forecast", "--days", "0"]).await.expect(64);
}

#[tokio::test]
async fn what_cannot_be_read_is_said_and_is_no_empty_schedule() {
    let site = site().await;
    site.shifts(&[("PALICE1", from_now(-60), from_now(10 * 86_400))]);
    site.run(&["apply"]).await.expect(0);
    site.sandbox.fault(Fault::on(Service::PagerDuty, "*").status(503));
    site.sandbox.fault(Fault::on(Service::Aws, "*").status(403));
    let said = site.run(&["forecast", "payments", "--days", "2"]).await.expect(0);
    said.says(&[
        ALICE,
        "  ! cannot read pagerduty/PABC123",
        "  ! nobody was looked up in Identity Center",
        "Gaps (0)",
    ]);
}

#[tokio::test]
async fn what_the_policy_does_not_have_is_said_before_anybody_is_asked() {
    let site = site().await;
    site.run(&["forecast", "payments/prod-admn"])
        .await
        .expect(1)
        .says(&["no project, no entitlement", "did you mean `payments/prod-admin`?"]);
    assert!(site.sandbox.journal().is_empty(), "{}", site.story());
}

#[tokio::test]
async fn only_those_asked_about_are_looked_up() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ON_CALL}{READERS_FOR_ALL}")).await;
    site.shifts(&[("PALICE1", from_now(-60), from_now(10 * 86_400))]);
    let looked_up = |who: &str| {
        let journal = site.sandbox.journal();
        let asked = journal.iter().filter(|call| call.operation == "GetUserId");
        asked.filter(|call| call.body.to_string().contains(who)).count()
    };
    site.run(&["forecast", BOB, "--days", "2"])
        .await
        .expect(0)
        .says(&["payments/prod-readers", BOB]);
    site.run(&["forecast", "payments/prod-admin", "--days", "2"])
        .await
        .expect(0);
    assert!(0 < looked_up(ALICE) && 0 < looked_up(BOB), "{}", site.story());
    site.sandbox.clear_journal();
    site.run(&["forecast", "payments/prod-admin", "--days", "2"])
        .await
        .expect(0)
        .says(&["payments/prod-admin", ALICE]);
    assert!(0 < looked_up(ALICE) && looked_up(BOB) == 0, "{}", site.story());
}

#[tokio::test]
async fn whom_another_rule_gives_the_same_lacks_nothing() {
    let trained = ON_CALL.replace("\n[[rule]]", "\n[[rule]]\nrequires = [\"member\", \"drill\"]");
    let site = Site::new(organisation(), &format!("{PAYMENTS}{trained}")).await;
    site.shifts(&[("PALICE1", from_now(-60), from_now(10 * 86_400))]);
    site.run(&["forecast", "--days", "2"])
        .await
        .expect(2)
        .says(&["Gaps (1)", "has not completed \"drill\""]);
    let all = trained.clone() + &READERS_FOR_ALL.replace("prod-readers", "prod-admin");
    site.policy("project.toml", format!("{PAYMENTS}{all}"));
    site.run(&["forecast", "payments", "--days", "2"])
        .await
        .expect(0)
        .says(&[ALICE, "Gaps (0)"]);
}

#[tokio::test]
async fn whom_the_last_pass_knew_is_not_looked_up_again() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ON_CALL}{READERS_FOR_ALL}")).await;
    site.shifts(&[("PALICE1", from_now(-60), from_now(10 * 86_400))]);
    site.run(&["apply"]).await.expect(0);
    site.sandbox.clear_journal();
    let looked_up = || {
        let calls = site.sandbox.journal().into_iter();
        let asked = calls.filter(|call| call.operation == "GetUserId");
        asked.map(|call| call.body.to_string()).collect::<String>()
    };
    let tomorrow = from_now(86_400).to_string();
    site.run(&["forecast", "--days", "2"]).await.expect(0);
    site.run(&["diff", "--at", &tomorrow]).await.expect(0);
    assert_eq!(looked_up(), "");
    site.run(&["review"]).await.expect(0);
    let asked = looked_up();
    assert!(
        asked.contains("mira@") && !asked.contains(ALICE) && !asked.contains(BOB),
        "{asked}"
    );
    // A pass that has a doubt about somebody does not know them.
    site.sandbox.edit(|world| {
        let mut users = world.aws.users.iter_mut();
        users.find(|user| user.user_name == BOB).unwrap().enabled = false;
    });
    site.run(&["apply"]).await;
    site.run(&["forecast", "--days", "2"]).await.expect(2).says(&[
        "Gaps (1)",
        "bob@example.com should hold payments/prod-readers but",
        "is disabled",
    ]);
}

#[tokio::test]
async fn who_could_not_be_looked_up_is_a_note_and_no_gap() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{READERS_FOR_ALL}")).await;
    site.sandbox.fault(Fault::on(Service::Aws, "GetUserId").status(403));
    let note = "  ! 2 people could not be looked up in Identity Center, alice@example.com among them: ";
    site.run(&["forecast", "--days", "2"])
        .await
        .expect(0)
        .says(&[note, "is not shown as a gap", "Gaps (0)"]);
    site.run(&["review"])
        .await
        .expect(0)
        .says(&["  ! 3 people could not be looked up in Identity Center, alice@example.com among them: "]);
}
