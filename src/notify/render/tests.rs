//! Times and words, as people of different zones read them.

use super::*;
use crate::model::{Interval, Person, ProjectName};
use crate::notify::message::Found;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn access(entitlement: &str, person: &str, until: Option<&str>) -> Access {
    Access {
        granted: until.is_some(),
        entitlement: entitlement.into(),
        person: Person::parse(person).unwrap(),
        at: at("2026-10-23T07:00:00Z"),
        until: until.map(at),
        because: "being on call in pagerduty/PABC123 (access.d/payments.toml:25)".into(),
        context: Some("PCI scope".into()),
        sessions: true,
    }
}

fn message(kind: Kind, content: Content) -> Message {
    Message {
        kind,
        key: "k".into(),
        at: at("2026-10-23T07:00:00Z"),
        person: None,
        project: Some(ProjectName("payments".into())),
        channel: None,
        zone: None,
        content,
    }
}

#[test]
fn a_time_is_as_the_readers_clock_shows_it_also_across_a_change_of_clocks() {
    // Friday; clocks in Berlin go back on Sunday 25 October, those in New York a week later.
    let now = at("2026-10-23T07:00:00Z");
    for (t, name, shown) in [
        ("2026-10-23T07:00:00Z", "Europe/Berlin", "Friday 09:00 (Europe/Berlin)"),
        ("2026-10-26T08:00:00Z", "Europe/Berlin", "Monday 09:00 (Europe/Berlin)"),
        (
            "2026-10-26T08:00:00Z",
            "America/New_York",
            "Monday 04:00 (America/New_York)",
        ),
        ("2026-10-26T08:00:00Z", "UTC", "Monday 08:00 (UTC)"),
        // The clock shows half past two twice in this night.
        (
            "2026-10-25T00:30:00Z",
            "Europe/Berlin",
            "Sunday 02:30+02:00 (Europe/Berlin)",
        ),
        (
            "2026-10-25T01:30:00Z",
            "Europe/Berlin",
            "Sunday 02:30+01:00 (Europe/Berlin)",
        ),
        (
            "2026-10-25T01:30:00Z",
            "Australia/Lord_Howe",
            "Sunday 12:30 (Australia/Lord_Howe)",
        ),
        // The same day of the week again is another day.
        (
            "2026-10-30T08:00:00Z",
            "Europe/Berlin",
            "Friday 30 October 2026 09:00 (Europe/Berlin)",
        ),
        (
            "2026-10-21T08:00:00Z",
            "Europe/Berlin",
            "Wednesday 21 October 2026 10:00 (Europe/Berlin)",
        ),
    ] {
        assert_eq!(clock(at(t), &zone(name), now), shown);
    }
}

#[test]
fn one_entitlement_is_a_sentence_and_several_are_a_list() {
    let berlin = zone("Europe/Berlin");
    let one = access("payments/prod-admin", "alice@example.com", Some("2026-10-26T08:00:00Z"));
    let mine = words(&message(Kind::Grant, Content::Access(vec![one.clone()])), &berlin, true);
    assert_eq!(
        mine.text(),
        "You have payments/prod-admin until Monday 09:00 (Europe/Berlin)\n\
         because being on call in pagerduty/PABC123 (access.d/payments.toml:25)\n\
         context: PCI scope"
    );
    let other = words(
        &message(Kind::Grant, Content::Access(vec![one.clone()])),
        &berlin,
        false,
    );
    assert!(
        other
            .title
            .starts_with("alice@example.com has payments/prod-admin until"),
        "{}",
        other.title
    );
    let two = vec![
        one.clone(),
        access(
            "payments/prod-readers",
            "alice@example.com",
            Some("2026-10-26T08:00:00Z"),
        ),
    ];
    let both = words(&message(Kind::Grant, Content::Access(two)), &berlin, true);
    assert_eq!(both.title, "You now have 2 entitlements");
    assert!(
        both.lines[1].starts_with("+ payments/prod-readers until Monday 09:00"),
        "{:?}",
        both.lines
    );
    let gone = words(
        &message(
            Kind::Revoke,
            Content::Access(vec![access("payments/prod-admin", "a@b", None)]),
        ),
        &berlin,
        true,
    );
    assert_eq!(gone.title, "You no longer have payments/prod-admin");
    assert!(gone.lines[2].contains("session"), "{:?}", gone.lines);
    let open = Access { until: None, ..one };
    let open = words(&message(Kind::Grant, Content::Access(vec![open])), &berlin, true);
    assert_eq!(open.title, "You have payments/prod-admin until further notice");
}

#[test]
fn a_hand_off_is_one_line_for_each_entitlement_and_a_long_one_is_cut() {
    let monday = "2026-10-26T08:00:00Z";
    let handoff = vec![
        access("payments/admin", "bob@example.com", Some(monday)),
        access("payments/admin", "alice@example.com", None),
        access("payments/readers", "bob@example.com", Some(monday)),
    ];
    let said = words(
        &message(Kind::Handoff, Content::Access(handoff)),
        &zone("Asia/Tokyo"),
        false,
    );
    assert_eq!(
        said.text(),
        "payments: hand-off, 2 granted, 1 revoked\n\
         payments/admin: + bob@example.com until Monday 17:00 (Asia/Tokyo), - alice@example.com\n\
         payments/readers: + bob@example.com until Monday 17:00 (Asia/Tokyo)"
    );
    let many = (0..50)
        .map(|n| access(&format!("p/e{n:02}"), "a@b", Some(monday)))
        .collect();
    let said = words(&message(Kind::Handoff, Content::Access(many)), &TimeZone::UTC, false);
    assert_eq!(said.lines.len(), LINES + 1);
    assert!(
        said.lines[LINES].starts_with("... and 30 more"),
        "{:?}",
        said.lines[LINES]
    );
}

#[test]
fn what_begins_and_what_is_over_are_told_apart() {
    let matter = |message: &str, during: Option<Interval>, since: Option<Timestamp>| Matter {
        message: message.into(),
        during,
        since,
        release: Some("the schedule".into()),
    };
    let during = Interval::new(at("2026-10-25T23:00:00Z"), at("2026-10-26T05:00:00Z"));
    let gap = Content::Matters {
        begun: vec![matter("nobody is on call", during, None)],
        over: Vec::new(),
    };
    let said = words(&message(Kind::Gap, gap), &zone("Europe/Berlin"), false);
    assert_eq!(
        said.text(),
        "payments: 1 gap ahead\nfrom Monday 00:00 (Europe/Berlin) for 6h: nobody is on call; released by the schedule"
    );
    let over = Content::Matters {
        begun: Vec::new(),
        over: vec![matter("AWS cannot be asked", None, Some(at("2026-10-23T06:30:00Z")))],
    };
    let said = words(&message(Kind::Health, over.clone()), &TimeZone::UTC, false);
    assert_eq!(
        said.text(),
        "payments: 1 problem over\nover: AWS cannot be asked (for 30m)"
    );
    let said = words(&message(Kind::Held, over), &TimeZone::UTC, false);
    assert_eq!(said.title, "payments: 1 change no longer held");
}

#[test]
fn nothing_from_outside_ends_a_line_or_drives_a_terminal() {
    let evil = "x\n\u{1b}[2J\u{202e}y";
    let mut one = access(evil, "alice@example.com", Some("2026-10-26T08:00:00Z"));
    one.because = evil.into();
    one.context = Some(evil.into());
    let projects = vec![Found {
        project: ProjectName(evil.into()),
        findings: vec![(evil.into(), 1)],
    }];
    let period = Interval::new(at("2026-10-01T00:00:00Z"), at("2026-10-23T00:00:00Z")).unwrap();
    let matter = Matter {
        message: evil.into(),
        during: None,
        since: None,
        release: Some(evil.into()),
    };
    for (kind, content) in [
        (Kind::Grant, Content::Access(vec![one.clone()])),
        (Kind::Grant, Content::Access(vec![one.clone(), one.clone()])),
        (Kind::Handoff, Content::Access(vec![one])),
        (
            Kind::Held,
            Content::Matters {
                begun: vec![matter.clone()],
                over: vec![matter],
            },
        ),
        (
            Kind::Review,
            Content::Review {
                period,
                projects,
                markdown: evil.into(),
            },
        ),
        (
            Kind::Report,
            Content::Report {
                period,
                report: serde_json::json!({ "rows": [{ "name": evil, "held_seconds": 7200 }] }),
            },
        ),
    ] {
        let mut message = message(kind, content);
        message.project = Some(ProjectName(evil.into()));
        let said = words(&message, &TimeZone::UTC, true);
        for line in said.lines.iter().chain([&said.title]) {
            assert!(!line.contains(['\n', '\u{1b}', '\u{202e}']), "{kind:?}: {line:?}");
        }
    }
}
