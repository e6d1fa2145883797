//! `status` of many schedules: what is well takes one line, and what has not been read yet is counted.

use dutybound_sandbox::world::pagerduty::Schedule;
use dutybound_sandbox::{Fault, Service};

use crate::harness::*;

/// A project with so many entitlements, each earned on a schedule of its own.
fn many(count: usize) -> String {
    let mut policy = "[project]\nname = \"many\"\nowners = [\"mira@example.com\"]\n\n\
                      [[member]]\nemail = \"alice@example.com\"\nadded_by = \"mira@example.com\"\n"
        .to_owned();
    for n in 0..count {
        policy.push_str(&format!(
            "\n[[entitlement]]\nname = \"e{n}\"\ngroup = \"group-{n}\"\n\n[[rule]]\nentitlement = \"e{n}\"\non_call = \"pagerduty/P{n}\"\n"
        ));
    }
    policy
}

#[tokio::test]
async fn many_schedules_take_one_line_while_they_are_read_and_when_they_are_well() {
    let mut world = organisation();
    for n in 0..6 {
        world.aws.add_group(&format!("group-{n}"));
        world
            .pagerduty
            .schedules
            .push(Schedule::new(&format!("P{n}"), "one of many").with_entry(
                "PALICE1",
                from_now(-60),
                from_now(86_400),
            ));
    }
    let site = Site::new(world, &many(6)).await;
    site.sandbox.fault(Fault::on(Service::PagerDuty, "*").hold());
    let _daemon = site.daemon();
    let status = async || site.run(&["status"]).await.stdout;
    let waiting = "schedule_unread: 6 entitlements wait for schedules that have not been read completely yet";
    eventually("the first pass is made", async || status().await.contains(waiting)).await;
    let text = status().await;
    assert!(text.contains("\nSchedules (6)\n  6 not read yet\n"), "{text}");
    assert_eq!(text.matches("schedule_unread").count(), 1, "{text}");

    site.sandbox.clear_faults();
    eventually("all are read", async || status().await.contains("\n  6 ok, read ")).await;

    site.sandbox
        .fault(Fault::on(Service::PagerDuty, "GET /schedules/P3").status(404));
    eventually("one fails", async || {
        let text = status().await;
        text.contains("\n  5 ok, read ") && text.contains("\n  pagerduty/P3  FAILING since ")
    })
    .await;
}

/// Of a large organisation the whole status is a hundred thousand grants.
#[tokio::test]
async fn one_project_entitlement_or_person_can_be_asked_about() {
    let site = Site::payments().await;
    site.policy("data.toml", DATA);
    site.run(&["apply"]).await.expect(0);
    site.sandbox.fault(Fault::on(Service::Opsgenie, "*").status(503));
    site.run(&["apply"]).await.expect(0);
    let (admin, readers) = ("payments/prod-admin", "payments/prod-readers");
    for (subject, held, fails) in [
        ("payments", vec![admin, readers], false),
        (admin, vec![admin], false),
        (ALICE, vec![admin, readers], false),
        ("data", vec!["data/on-call"], true),
        (DAVE, vec!["data/on-call"], true),
        (CAROL, vec![], false),
    ] {
        let status = site
            .run(&["status", subject, "--format", "json"])
            .await
            .expect(0)
            .json();
        let access = status["access"].as_array().unwrap();
        let told: Vec<&str> = access.iter().map(|row| row["entitlement"].as_str().unwrap()).collect();
        assert_eq!(told, held, "{subject}");
        let schedules = status["schedules"].as_array().unwrap();
        assert_eq!(schedules.len(), usize::from(!held.is_empty()), "{subject}");
        assert_eq!(schedules.iter().any(|s| !s["failure"].is_null()), fails, "{subject}");
        let text = site.run(&["status", subject]).await.expect(0).stdout;
        assert_eq!(text.contains("FAILING"), fails, "{text}");
    }
    site.run(&["status", "payment"]).await.expect(1).says(&[
        "\"payment\" is no project, no entitlement and no e-mail address",
        "payments",
    ]);
}

/// Found in review: of a shared schedule every project's problems were told.
#[tokio::test]
async fn of_a_shared_schedule_only_ones_own_problems_are_told() {
    let site = Site::payments().await;
    site.policy(
        "spare.toml",
        "[project]\nname = \"spare\"\nowners = [\"mira@example.com\"]\n\n\
         [[entitlement]]\nname = \"e\"\ngroup = \"data-oncall\"\n\n\
         [[rule]]\nentitlement = \"e\"\non_call = \"pagerduty/PABC123\"\n",
    );
    site.sandbox.edit(|world| {
        for user in &mut world.pagerduty.users {
            user.email = None;
        }
    });
    site.run(&["apply"]).await.expect(0);
    for about in ["spare", "payments"] {
        let status = site.run(&["status", about, "--format", "json"]).await.expect(0).json();
        let problems = status["last_pass"]["problems"].as_array().unwrap();
        let without: Vec<_> = problems.iter().filter(|p| p["kind"] == "no_email").collect();
        assert!(!without.is_empty(), "{status:#}");
        let theirs = |p: &&serde_json::Value| p["entitlement"].as_str().unwrap().starts_with(about);
        assert!(without.iter().all(theirs), "{status:#}");
    }
}
