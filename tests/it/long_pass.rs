//! A pass that takes long because AWS allows few questions a second.

use std::fmt::Write as _;

use dutybound_sandbox::Service;
use jiff::SignedDuration;

use crate::harness::*;

/// The first pass at a large organisation asks so much that it takes many minutes. It was told to have stalled after three
/// polls, which makes supervisors kill it, and the directory, which had answered at once, not to answer.
#[tokio::test]
async fn while_aws_answers_a_long_pass_counts_as_work_and_nothing_else_as_hanging() {
    let mut world = organisation();
    let mut policy = "[project]\nname = \"many\"\nowners = [\"mira@example.com\"]\n".to_owned();
    for number in 0..20 {
        world.aws.add_group(&format!("group-{number}"));
        let _infallible = writeln!(
            policy,
            "\n[[entitlement]]\nname = \"e-{number}\"\ngroup = \"group-{number}\""
        );
    }
    let site = Site::new(world, &policy).await;
    // With these it counts as stalled after thirteen seconds.
    site.configure(|s| {
        s.identity_center += "\nrequests_per_second = 1\noperation_timeout = \"10s\"";
        s.more = "[timing]\npoll = \"1s\"\n".to_owned();
    });
    let daemon = site.daemon();
    eventually("the first pass has ended", async || {
        let Some((status, said)) = daemon.get("/healthz").await else {
            return false;
        };
        assert_eq!(status, 200, "{said}");
        daemon.get("/readyz").await.is_some_and(|(status, _)| status == 200)
    })
    .await;
    let calls = site.sandbox.journal().into_iter();
    let times: Vec<_> = calls
        .filter(|call| call.service == Service::Aws)
        .map(|call| call.at)
        .collect();
    let took = times[0].duration_until(*times.last().unwrap());
    assert!(SignedDuration::from_secs(31) < took, "{took}");
    let log = daemon.term().await;
    assert!(!log.contains("does not answer"), "{log}");
}
