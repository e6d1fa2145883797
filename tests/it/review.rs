//! `review`: what owners are asked to look at, gathered from the services and the record.

use crate::harness::{ACCOUNT, ADMIN, CAROL, PAYMENTS, Site, from_now, organisation};
use dutybound_sandbox::{Fault, Service};

const ON_CALL: &str = "\n[[rule]]\nentitlement = \"prod-admin\"\non_call = \"pagerduty/PABC123\"\n";
const DAY: i64 = 86_400;

#[tokio::test]
async fn owners_see_who_is_idle_who_has_left_and_what_is_not_ours() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ON_CALL}")).await;
    site.shifts(&[("PALICE1", from_now(-20 * DAY), from_now(30 * DAY))]);
    site.sandbox.edit(|world| {
        let bob = world
            .aws
            .users
            .iter_mut()
            .find(|user| user.user_name == "bob@example.com")
            .unwrap();
        bob.enabled = false;
        let set = world.aws.permission_set_arn(ADMIN).unwrap().to_owned();
        let carol = world.aws.user_id(CAROL).unwrap().to_owned();
        world.aws.assign(ACCOUNT, &set, &carol);
        world.aws.users.retain(|user| user.user_name != "mira@example.com");
    });
    site.run(&["apply"]).await.expect(0);
    let before = site.writes().len();
    let said = site
        .run(&["review", "--days", "30", "--format", "json"])
        .await
        .expect(0);
    let json = said.json();
    let findings = json["review"]["projects"][0]["findings"].as_array().unwrap().clone();
    let found: Vec<_> = findings
        .iter()
        .map(|f| format!("{} {}", f["kind"].as_str().unwrap(), f["subject"].as_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            "gone bob@example.com",
            "gone mira@example.com",
            "added_by_leaver alice@example.com",
            "added_by_leaver bob@example.com",
            "idle_member bob@example.com",
            "endless_membership alice@example.com",
            "endless_membership bob@example.com",
            "unheld_entitlement payments/prod-readers",
            "drift payments/prod-admin",
        ]
    );
    assert!(
        json["notes"][0]
            .as_str()
            .unwrap()
            .starts_with("the record of access held begins at ")
    );
    site.run(&["review", "--days", "30"]).await.expect(0).says(&[
        "payments  (owned by mira@example.com)",
        "Members without use (1)\n    bob@example.com: was not on call and held nothing  (access.d/project.toml:",
        "Nothing is removed by looking.",
    ]);
    let said = site
        .run(&["review", "--owner", "mira@example.com", "--format", "markdown"])
        .await
        .expect(0);
    said.says(&["To: mira@example.com\nSubject: Access review of payments: "]);
    assert_eq!(site.writes().len(), before);
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_said() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ON_CALL}")).await;
    site.sandbox.fault(Fault::on(Service::PagerDuty, "*").status(403));
    site.sandbox.fault(Fault::on(Service::Aws, "*").status(403));
    site.run(&["review"]).await.expect(0).says(&[
        "  ! Identity Center could not be asked",
        "  ! cannot read pagerduty/PABC123",
        "  ! there is no ledger",
    ]);
}

#[tokio::test]
async fn the_last_of_many_turns_is_named_also_where_they_earned_nothing() {
    let rule = ON_CALL.replace("\n[[rule]]", "\n[[rule]]\nrequires = [\"member\", \"drill\"]");
    let site = Site::new(organisation(), &format!("{PAYMENTS}{rule}")).await;
    let last = from_now(-9 * DAY);
    site.shifts(&[
        ("PBOB002", from_now(-20 * DAY), from_now(-19 * DAY)),
        ("PBOB002", from_now(-15 * DAY), from_now(-14 * DAY)),
        ("PBOB002", from_now(-10 * DAY), last),
        ("PALICE1", last, from_now(30 * DAY)),
    ]);
    site.run(&["review", "--days", "30"])
        .await
        .expect(0)
        .says(&[&format!("bob@example.com: was last on call until {last} and")]);
}
