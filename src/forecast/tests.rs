use std::path::Path;

use super::*;
use crate::commands::forecast::{About, text};
use crate::model::{PrincipalId, ScheduleKind, Shift, Snapshot, SourceName, SourceUser, SourceUserState};
use crate::policy::{self, PolicyContext};

const POLICY: &str = r#"[project]
name = "payments"
owners = ["mira@example.com"]

[[entitlement]]
name = "prod-admin"
account = "111122223333"
permission_set = "AdministratorAccess"
min_holders = 1

[[member]]
email = "alice@example.com"

[[member]]
email = "bob@example.com"
until = 2026-03-05

[[rule]]
entitlement = "prod-admin"
on_call = "pagerduty/PABC123"
"#;

fn policy() -> Policy {
    let files = vec![("payments.toml".to_owned(), POLICY.as_bytes().to_vec())];
    policy::parse(Path::new("access.d"), files, &PolicyContext::default())
        .unwrap()
        .0
}

fn hour(n: i64) -> Timestamp {
    let monday: Timestamp = "2026-03-02T00:00:00Z".parse().unwrap();
    monday + SignedDuration::from_hours(n)
}

fn period() -> Interval {
    days_from(hour(0), 7).unwrap()
}

fn snapshots(shifts: &[(&str, i64, i64)]) -> Snapshots {
    let schedule = ScheduleKey {
        source: SourceName("pagerduty".into()),
        kind: ScheduleKind::Schedule,
        id: "PABC123".into(),
    };
    let shift = |(name, from, to): &(&str, i64, i64)| Shift {
        interval: Interval::new(hour(*from), hour(*to)).unwrap(),
        start_known: true,
        end_known: true,
        user: SourceUser {
            id: format!("P{name}").into(),
            name: Some((*name).to_owned()),
            email: Some(format!("{name}@example.com")),
            state: SourceUserState::Active,
        }
        .into(),
        level: None,
        permanent: false,
        via_override: None,
    };
    let snapshot = Snapshot {
        schedule: schedule.clone(),
        read_at: hour(0),
        window: Interval::new(hour(-24), hour(8 * 24)).unwrap(),
        shifts: shifts.iter().map(shift).collect(),
        notices: Vec::new(),
        clock_offset_ms: None,
    };
    Snapshots::from([(schedule, snapshot.into())])
}

fn kinds(forecast: &Forecast) -> Vec<(GapKind, Timestamp, usize)> {
    forecast
        .gaps
        .iter()
        .map(|g| (g.kind, g.during.start(), g.more))
        .collect()
}

fn full() -> Forecast {
    let shifts = snapshots(&[
        ("alice", -12, 24),
        ("alice", 24, 30),
        ("mallory", 30, 48),
        ("bob", 48, 120),
        ("alice", 130, 160),
        ("zoe\u{202e}", 161, 162),
    ]);
    forecast(&policy(), &shifts, &[], &None, period())
}

#[test]
fn every_gap_is_told_with_its_time() {
    use GapKind::{MembershipEnds, MinHolders, NobodyOnCall, NotQualified};
    assert_eq!(
        kinds(&full()),
        [
            (NotQualified, hour(30), 0),
            (MinHolders, hour(30), 2),
            (MembershipEnds, hour(96), 0),
            (NobodyOnCall, hour(120), 2),
            (NotQualified, hour(161), 0),
        ]
    );
}

#[test]
fn touching_turns_are_one_holding_and_a_membership_ends_it() {
    let holdings: Vec<_> = full()
        .holdings
        .into_iter()
        .map(|h| (h.person.to_string(), h.held.start(), h.held.end(), h.causes.len()))
        .collect();
    let alice = || "alice@example.com".to_owned();
    assert_eq!(
        holdings,
        [
            (alice(), hour(0), hour(30), 2),
            ("bob@example.com".to_owned(), hour(48), hour(96), 1),
            (alice(), hour(130), hour(160), 1),
        ]
    );
}

#[test]
fn whom_the_identity_store_does_not_know_is_a_gap_and_counts_for_no_floor() {
    let found = |name: &str, found| (Person::parse(&format!("{name}@example.com")).unwrap(), found);
    let people = Some(BTreeMap::from([
        found("alice", Ok(Resolution::Found(PrincipalId("u-1".into())))),
        found("bob", Ok(Resolution::Unknown)),
    ]));
    let shifts = snapshots(&[("alice", 0, 48), ("bob", 48, 200)]);
    let forecast = forecast(&policy(), &shifts, &[], &people, period());
    assert_eq!(
        kinds(&forecast),
        [
            (GapKind::PersonUnknown, hour(48), 0),
            (GapKind::MinHolders, hour(48), 0),
            (GapKind::MembershipEnds, hour(96), 0),
        ]
    );
    assert_eq!(forecast.holdings[1].kept_from, Some(ProblemKind::PersonUnknown));
}

#[test]
fn a_schedule_never_read_or_not_far_enough_is_not_taken_for_an_empty_one() {
    let never = forecast(&policy(), &Snapshots::new(), &[], &None, period());
    assert_eq!(
        kinds(&never),
        [(GapKind::NotRead, hour(0), 0), (GapKind::MinHolders, hour(0), 0)]
    );
    let far = days_from(hour(0), 10).unwrap();
    let short = forecast(&policy(), &snapshots(&[("alice", 0, 192)]), &[], &None, far);
    assert_eq!(
        kinds(&short),
        [(GapKind::NotRead, hour(192), 0), (GapKind::MinHolders, hour(192), 0)]
    );
}

#[test]
fn a_terminal_shows_bars_times_and_gaps() {
    let text = text(&full(), &["pagerduty is \u{1b}[31mdown".to_owned()], true);
    insta::assert_snapshot!(text, @r"
    Forecast from 2026-03-02T00:00:00Z to 2026-03-09T00:00:00Z (7d), in UTC
      ! pagerduty is \u{1b}[31mdown

    Gaps (5)
      from 2026-03-03T06:00:00Z to 2026-03-04T00:00:00Z (18h)
          mallory@example.com is on duty for payments/prod-admin but is not a member of payments; an owner (mira@example.com) can add [[member]] to access.d/payments.toml
      from 2026-03-03T06:00:00Z to 2026-03-04T00:00:00Z (18h), and 2 more times
          payments/prod-admin is due to be held by 0 people and its min_holders is 1 (access.d/payments.toml:5); the last ones stay beyond their duty, because no revoke goes below it
      from 2026-03-06T00:00:00Z to 2026-03-07T00:00:00Z (1d)
          bob@example.com's membership of payments ends at 2026-03-06T00:00:00Z, before their duty for payments/prod-admin does (access.d/payments.toml:14)
      from 2026-03-07T00:00:00Z to 2026-03-07T10:00:00Z (10h), and 2 more times
          nobody is on call in pagerduty/PABC123; whoever keeps the schedule can fill it, or an override can
      from 2026-03-08T17:00:00Z to 2026-03-08T18:00:00Z (1h)
          zoe\u{202e}@example.com is on duty for payments/prod-admin but is not a member of payments; an owner (mira@example.com) can add [[member]] to access.d/payments.toml

    Due to be held; a column is 3h
                                           02      03      04      05      06      07      08
    payments/prod-admin
      alice@example.com                    ██████████·································▒█████████▒··
      bob@example.com                      ················████████████████························
        now                  to 2026-03-03T06:00:00Z  alice@example.com
        2026-03-04T00:00:00Z to 2026-03-06T00:00:00Z  bob@example.com
        2026-03-07T10:00:00Z to 2026-03-08T16:00:00Z  alice@example.com
    ");
    let drawn = text.lines().skip_while(|line| !line.starts_with("Due to be held"));
    assert!(drawn.into_iter().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn of_everything_each_project_has_one_line() {
    let text = text(&full(), &[], false);
    assert!(
        text.ends_with("also of an entitlement or a person)\n  payments  1 entitlement, 2 people, 3 turns\n"),
        "{text}"
    );
}

#[test]
fn one_person_or_entitlement_can_be_asked_about() {
    let only = |about: &str| About::parse(about, &policy()).map(|about| about.only(full()));
    let bob = only("Bob@example.com").unwrap();
    assert_eq!((bob.holdings.len(), bob.gaps.len()), (1, 1));
    assert_eq!(only("payments/prod-admin").unwrap(), full());
    assert_eq!(only("payments").unwrap(), full());
    insta::assert_snapshot!(only("payment").unwrap_err(), @r#""payment" is no project, no entitlement and no e-mail address; did you mean `payments`?"#);
}

#[test]
fn the_page_shows_everything_and_nothing_that_is_not_escaped() {
    let mut forecast = full();
    forecast.gaps[0].message = "<script>alert(1)</script>".to_owned();
    let page = page::page(&forecast, &["a & b".to_owned()]).unwrap();
    assert!(
        !page.contains("<script") && page.contains("&#60;script&#62;") && page.contains("a &#38; b"),
        "{page}"
    );
    for words in [
        "payments/prod-admin",
        "alice@example.com",
        "bob@example.com",
        "Nobody on call",
        "Membership ends",
    ] {
        assert!(page.contains(words), "{words} is missing in {page}");
    }
    assert!(!page.contains("://"), "it asks for nothing: {page}");
}
