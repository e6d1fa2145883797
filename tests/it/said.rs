//! What the daemon says of very much at once.

use serde_json::Value;

use crate::harness::*;

/// How many of one sort are told one by one.
const TOLD: usize = 100;

/// More members than that of whom AWS knows, besides those of the policy.
const KNOWN: usize = 130;

/// And of whom it does not.
const UNKNOWN: usize = 103;

/// The policy with so many more members.
fn policy(members: usize) -> String {
    let member = |n| format!("\n[[member]]\nemail    = \"p{n}@example.com\"\nadded_by = \"mira@example.com\"\n");
    let rule = "\n[[rule]]\nentitlement = \"prod-readers\"\nmembers     = true\n";
    let members: String = (0..members).map(member).collect();
    format!("{PAYMENTS}{members}{rule}")
}

/// The lines of the log with that message and that word in a field.
fn lines(log: &str, message: &str, field: &str, word: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["message"] == message && line[field] == word)
        .collect()
}

#[tokio::test]
async fn of_hundreds_the_first_are_told_and_how_many_more() {
    let mut world = organisation();
    for n in 0..KNOWN {
        world.aws.add_user(&format!("p{n}"), &format!("p{n}@example.com"));
    }
    let site = Site::new(world, &policy(KNOWN + UNKNOWN)).await;
    site.configure(|settings| {
        settings.mode = "observe";
        settings.identity_center += "\nrequests_per_second = 19";
    });
    let daemon = site.ready_daemon().await;
    let all = "more are held by this guard; `dutybound status` tells all";
    daemon.until_says(all).await;
    let log = daemon.log();
    assert_eq!(lines(&log, "held", "guard", "mode").len(), TOLD);
    let more = lines(&log, all, "guard", "mode");
    // Alice and bob are members, too.
    assert_eq!(
        more.iter().map(|line| &line["more"]).collect::<Vec<_>>(),
        [KNOWN + 2 - TOLD]
    );

    let unknown = "person_unknown";
    assert_eq!(lines(&log, "problem", "problem", unknown).len(), TOLD);
    let more = "more problems of this sort; `dutybound status` tells all";
    assert_eq!(lines(&log, more, "problem", unknown)[0]["more"], UNKNOWN - TOLD);

    site.policy("project.toml", policy(KNOWN));
    let gone = "more problems of this sort are gone";
    daemon.until_says(gone).await;
    let log = daemon.log();
    assert_eq!(lines(&log, "problem is gone", "problem", unknown).len(), TOLD);
    assert_eq!(lines(&log, gone, "problem", unknown)[0]["more"], UNKNOWN - TOLD);
    // What was told is not told again.
    assert_eq!(lines(&log, "held", "guard", "mode").len(), TOLD);
    let status = site.run(&["status"]).await.expect(0).all();
    for n in 0..KNOWN {
        assert!(status.contains(&format!("p{n}@example.com")), "{status}");
    }
}
