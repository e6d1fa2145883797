use std::path::Path;

use jiff::SignedDuration;

use super::*;
use crate::desired::Snapshots;
use crate::model::{ScheduleKey, ScheduleKind, Shift, Snapshot, SourceName, SourceUser, SourceUserState};
use crate::policy::{self, PolicyContext};

const POLICY: &str = r#"[project]
name = "payments"
owners = ["mira@example.com", "olga@example.com"]

[[entitlement]]
name = "admin"
group = "admins"

[[entitlement]]
name = "attic"
group = "attic"

[[member]]
email = "alice@example.com"
added_by = "mira@example.com"
until = 2027-01-01

[[member]]
email = "bob@example.com"
added_by = "olga@example.com"
until = 2027-01-01

[[member]]
email = "cleo@example.com"
added_by = "mira@example.com"

[[member]]
email = "dora@example.com"
until = 2026-02-01

[[rule]]
entitlement = "admin"
on_call = "pagerduty/PABC123"

[[rule]]
entitlement = "attic"
on_call = "pagerduty/PNOBODY"
until = 2026-02-01
"#;

fn day(n: i64) -> Timestamp {
    let now: Timestamp = "2026-03-02T00:00:00Z".parse().unwrap();
    now + SignedDuration::from_hours(24 * n)
}

fn span(from: i64, to: i64) -> Interval {
    Interval::new(day(from), day(to)).unwrap()
}

fn snapshots() -> Snapshots {
    let of = |id: &str, turns: &[(&str, i64, i64)]| {
        let schedule = ScheduleKey {
            source: SourceName("pagerduty".into()),
            kind: ScheduleKind::Schedule,
            id: id.into(),
        };
        let shift = |(name, from, to): &(&str, i64, i64)| Shift {
            interval: span(*from, *to),
            start_known: true,
            end_known: true,
            user: SourceUser {
                id: format!("P{name}").into(),
                name: None,
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
            read_at: day(0),
            window: span(-61, 31),
            shifts: turns.iter().map(shift).collect(),
            notices: Vec::new(),
            clock_offset_ms: None,
        };
        (schedule, snapshot.into())
    };
    Snapshots::from([
        of("PABC123", &[("bob", -30, -20), ("alice", -20, 20)]),
        of("PNOBODY", &[]),
    ])
}

fn look() -> Review {
    let files = vec![("payments.toml".to_owned(), POLICY.as_bytes().to_vec())];
    let (policy, _) = policy::parse(Path::new("access.d"), files, &PolicyContext::default()).unwrap();
    let timeline = |range| Timeline::build(&policy, &snapshots(), &[], range);
    let olga = Person::parse("olga@example.com").unwrap();
    review(&Inputs {
        policy: &policy,
        period: span(-60, 0),
        past: &timeline(span(-60, 0)),
        ahead: &timeline(span(0, 30)),
        rows: &[],
        drift: &[DriftSummary {
            entitlement: EntitlementId::try_from("payments/admin".to_owned()).unwrap(),
            holder: "eve@example.com".to_owned(),
            desired: false,
        }],
        gone: &BTreeMap::from([(olga, "is disabled in Identity Center".to_owned())]),
    })
}

#[test]
fn everything_that_could_be_taken_away_is_found_once() {
    use FindingKind::{
        AddedByLeaver, Drift, EndlessMembership, Gone, IdleMember, IdleRule, LeftRotation, UnheldEntitlement,
    };
    let review = look();
    let found: Vec<_> = review.projects[0]
        .findings
        .iter()
        .map(|f| (f.kind, f.subject.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (Gone, "olga@example.com"),
            (AddedByLeaver, "bob@example.com"),
            (LeftRotation, "bob@example.com"),
            (IdleMember, "cleo@example.com"),
            (IdleMember, "dora@example.com"),
            (EndlessMembership, "cleo@example.com"),
            (IdleRule, "payments/attic"),
            (UnheldEntitlement, "payments/attic"),
            (Drift, "payments/admin"),
        ]
    );
}

#[test]
fn an_owner_gets_a_message_that_can_be_mailed() {
    let mira = Person::parse("mira@example.com").unwrap();
    let message = look().message(&mira);
    assert!(
        message.starts_with("To: mira@example.com\nSubject: Access review of payments: 9 things to look at\n\n"),
        "{message}"
    );
    for words in [
        "### Left the rotation (1)\n\n- **bob&#64;example.com**: was last on call until 2026-02-10T00:00:00Z",
        "*What you can do:* remove the [[member]] entry if they left the rotation.",
        "bob&#64;example.com**: was added by olga&#64;example.com, who is disabled in Identity Center (access.d/payments.toml:18)",
    ] {
        assert!(message.contains(words), "{words} is missing in\n{message}");
    }
    let nobody = Person::parse("nobody@example.com").unwrap();
    assert_eq!(look().of_owner(&nobody).count(), 0);
}

#[test]
fn a_rotation_that_earns_several_assignments_is_advised_to_use_a_group() {
    let mut text = "[project]\nname = \"shop\"\nowners = [\"mira@example.com\"]\n".to_owned();
    for n in 0..4 {
        text += &format!(
            "[[entitlement]]\nname = \"admin-{n}\"\naccount = \"11112222333{n}\"\npermission_set = \"Admin\"\n\
             [[rule]]\nentitlement = \"admin-{n}\"\non_call = \"pagerduty/PABC123\"\n"
        );
    }
    let parse = |text: &str| {
        let files = vec![("shop.toml".to_owned(), text.as_bytes().to_vec())];
        policy::parse(Path::new("access.d"), files, &PolicyContext::default()).unwrap()
    };
    let (policy, warnings) = parse(&text);
    let codes: Vec<_> = warnings.iter().map(|w| (w.code, w.place())).collect();
    assert_eq!(codes, [("group-would-do", "access.d/shop.toml:8:1".to_owned())]);
    assert!(
        warnings[0].message.contains("earns 4 account assignments together"),
        "{}",
        warnings[0].message
    );
    let review = review(&Inputs {
        policy: &policy,
        period: span(-60, 0),
        past: &Timeline::default(),
        ahead: &Timeline::default(),
        rows: &[],
        drift: &[],
        gone: &BTreeMap::new(),
    });
    let findings = review.projects[0].findings.iter();
    let advised: Vec<_> = findings.filter(|f| f.kind == FindingKind::GroupWouldDo).collect();
    assert_eq!(advised.len(), 1);
    assert_eq!(advised[0].subject, "pagerduty/PABC123");
    assert!(
        advised[0]
            .suggestion
            .contains("in place of admin-0, admin-1, admin-2, admin-3")
    );

    // With another lead the last one goes its own way, and three are still many; two are not.
    let (_, warnings) = parse(&(text.clone() + "lead = \"5m\"\n"));
    assert!(
        warnings[0].message.contains("earns 3 account assignments"),
        "{}",
        warnings[0].message
    );
    let (_, warnings) = parse(
        &text
            .replace(
                "admin-0\"\non_call = \"pagerduty/PABC123\"",
                "admin-0\"\nlead = \"1m\"\non_call = \"pagerduty/PABC123\"",
            )
            .replace("admin-1\"\non_call", "admin-1\"\nlinger = \"1m\"\non_call"),
    );
    assert!(warnings.is_empty(), "{warnings:?}");
}
