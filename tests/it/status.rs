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
