//! Trainings with dates: access ends when the training does, and a list that another system writes counts at once.

use std::fs;

use std::path::Path;

use dutybound::desired::Timeline;
use dutybound::model::{Interval, ScheduleKey, ScheduleKind, Shift, Snapshot, SourceName, SourceUser, SourceUserState};
use dutybound::policy::{self, PolicyContext};
use dutybound::problem::ProblemKind;
use jiff::Timestamp;

use crate::harness::*;

const HEAD: &str = r#"[project]
name   = "payments"
owners = ["mira@example.com"]

[[entitlement]]
name  = "admin"
group = "admins"

[[rule]]
entitlement = "admin"
on_call     = "pagerduty/PABC123"
requires    = ["pci"]

[[member]]
email     = "bob@example.com"
"#;

fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Bob is on call on the first two days of July 2026.
fn timeline(completed: &str, list: &str) -> (Timeline, Interval) {
    let mut files = vec![("payments.toml".to_owned(), format!("{HEAD}{completed}").into_bytes())];
    if !list.is_empty() {
        files.push(("trainings.csv".to_owned(), list.as_bytes().to_vec()));
    }
    let loaded = policy::parse(Path::new("access.d"), files, &PolicyContext::default());
    let policy = loaded.unwrap_or_else(|report| panic!("{}", report.to_text(false))).0;
    let schedule = ScheduleKey {
        source: SourceName("pagerduty".into()),
        kind: ScheduleKind::Schedule,
        id: "PABC123".into(),
    };
    let span = Interval::new(instant("2026-07-01T00:00:00Z"), instant("2026-07-03T00:00:00Z")).unwrap();
    let shift = Shift {
        interval: span,
        start_known: true,
        end_known: false,
        user: SourceUser {
            id: "PBOB002".into(),
            name: None,
            email: Some(BOB.into()),
            state: SourceUserState::Active,
        }
        .into(),
        level: None,
        permanent: false,
        via_override: None,
    };
    let snapshot = Snapshot {
        schedule: schedule.clone(),
        read_at: span.start(),
        window: span,
        shifts: vec![shift],
        notices: vec![],
        clock_offset_ms: None,
    };
    (
        Timeline::build(&policy, &[(schedule, snapshot.into())].into(), &[], span),
        span,
    )
}

fn held(timeline: &Timeline) -> Vec<String> {
    timeline.causes.iter().map(|cause| cause.held.to_string()).collect()
}

fn problems(timeline: &Timeline) -> Vec<&str> {
    assert!(timeline.problems.iter().all(|p| p.kind == ProblemKind::MissingTraining));
    timeline.problems.iter().map(|p| p.message.as_str()).collect()
}

#[test]
fn a_training_that_ends_mid_shift_ends_the_grant_at_that_instant() {
    let (ends, span) = timeline("completed = [{ training = \"pci\", until = 2026-07-01 }]\n", "");
    assert_eq!(held(&ends), ["[2026-07-01T00:00:00Z, 2026-07-02T00:00:00Z)"]);
    assert!(ends.causes[0].end_known, "although the end of the shift is not");
    assert_eq!(ends.next_boundary(span.start()), Some(instant("2026-07-02T00:00:00Z")));
    assert_eq!(
        problems(&ends),
        [
            "bob@example.com is on duty for payments/admin but \"pci\" counts only until 2026-07-02T00:00:00Z \
          (access.d/payments.toml:16)"
        ]
    );

    let (renewed, _) = timeline(
        "completed = [{ training = \"pci\", until = 2026-07-01 }]\n",
        "email,training,since\nbob@example.com,pci,2026-07-02\n",
    );
    assert_eq!(
        held(&renewed),
        ["[2026-07-01T00:00:00Z, 2026-07-03T00:00:00Z)"],
        "one grant throughout"
    );
    assert_eq!(problems(&renewed), [""; 0]);

    let (gap, _) = timeline(
        "completed = [{ training = \"pci\", until = 2026-07-01T06:00:00Z }]\n",
        "email,training,since\nbob@example.com,pci,2026-07-02\n",
    );
    assert_eq!(
        held(&gap),
        [
            "[2026-07-01T00:00:00Z, 2026-07-01T06:00:00Z)",
            "[2026-07-02T00:00:00Z, 2026-07-03T00:00:00Z)",
        ]
    );
    let (late, _) = timeline("", "email,training,since\nbob@example.com,pci,2026-07-02\n");
    assert_eq!(held(&late), ["[2026-07-02T00:00:00Z, 2026-07-03T00:00:00Z)"]);
    assert_eq!(
        problems(&late),
        [
            "bob@example.com is on duty for payments/admin but \"pci\" counts only from 2026-07-02T00:00:00Z \
          (access.d/payments.toml:14)"
        ]
    );
    let (never, _) = timeline("", "");
    assert_eq!(held(&never), [""; 0]);
    assert_eq!(
        problems(&never),
        ["bob@example.com is on duty for payments/admin but has not completed \"pci\" (access.d/payments.toml:14)"]
    );
}

#[tokio::test]
async fn a_list_gives_and_takes_like_any_edit_of_the_policy() {
    let rule = format!("{ADMIN_ON_CALL}requires = [\"incident-training\"]\n");
    let site = Site::new(organisation(), &format!("{PAYMENTS}{rule}")).await;
    site.run(&["apply"]).await.expect(0);
    assert!(!site.admin(ALICE));
    site.policy(
        "trainings.csv",
        "email,training,until\nalice@example.com,incident-training,2099-01-01\n",
    );
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE));
    site.run(&["explain", ALICE, "payments/prod-admin"])
        .await
        .expect(0)
        .says(&["[x] completed \"incident-training\" (access.d/trainings.csv:2, until 2099-01-02T00:00:00Z)"]);

    // So does one in JSON, and a slip in either is named with its line.
    fs::remove_file(site.path("access.d/trainings.csv")).unwrap();
    site.policy(
        "trainings.json",
        "[\n  { \"email\": \"alice@example.com\", \"training\": \"incident-training\" },\n  \
         { \"email\": \"alicia@example.com\", \"training\": \"incident-training\", \"until\": \"2099-01-01\" }\n]\n",
    );
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE));
    site.run(&["check"]).await.expect(0).says(&[
        "alicia@example.com is a member of no project",
        "access.d/trainings.json:3:3",
        "did you mean `alice@example.com`?",
    ]);
    fs::remove_file(site.path("access.d/trainings.json")).unwrap();

    // Half a list changes nothing.
    site.policy("trainings.csv", "email,training,until\nali");
    site.run(&["check"]).await.expect(1).says(&[
        "the list ends in the middle of a line",
        "have it write a new file and rename that into place",
    ]);
    site.run(&["apply"]).await.expect(1).says(&["cannot be used"]);
    assert!(site.admin(ALICE));
    site.policy(
        "trainings.csv",
        "email,training,until\nalice@example.com,incident-training,2020-01-01\n",
    );
    site.run(&["apply"]).await.expect(0);
    assert!(!site.admin(ALICE));
}
