use super::*;
use crate::accounting::fixtures::{cause, id, on_call, on_call_rule, person, policy, row, snapshots, span, t};
use crate::accounting::{Sessions, Unheld};
use crate::model::ResolvedTarget;
use crate::text::hours;

fn rows() -> Vec<AccessRow> {
    let shift = cause(on_call(), span(0, 3600), span(600, 3000), 0, Some(4200));
    let alice = row(0, Some(4200), vec![shift.clone()]);
    let mut carol = row(0, Some(1800), vec![shift]);
    carol.person = person("carol@example.com");
    carol.entitlement = id("search/readers");
    vec![assigned(alice), carol]
}

const ADMIN: &str = "arn:aws:sso:::permissionSet/ssoins-1/ps-admin";

/// As of an account assignment, of which the session duration is known.
fn assigned(mut row: AccessRow) -> AccessRow {
    row.target = ResolvedTarget::Assignment {
        account: "111122223333".into(),
        permission_set_arn: ADMIN.into(),
    };
    row
}

fn written(rows: &[AccessRow], with_policy: bool, period: Interval, group_by: GroupBy, format: Format) -> String {
    written_of(rows, with_policy, period, group_by, format, |_| {})
}

fn written_of(
    rows: &[AccessRow],
    with_policy: bool,
    period: Interval,
    group_by: GroupBy,
    format: Format,
    change: impl FnOnce(&mut OnRecord),
) -> String {
    let policy = policy(vec![on_call_rule(true, None, 9)]);
    let snapshots = snapshots();
    let baseline = with_policy.then_some(Baseline {
        policy: &policy,
        snapshots: &snapshots,
        identities: &[],
    });
    let request = Request {
        period,
        now: t(7200),
        group_by,
        format,
        zone: TimeZone::UTC,
    };
    let mut sessions = Sessions::default();
    sessions.add(ADMIN, t(0), SignedDuration::from_hours(1));
    let unheld = [Unheld {
        id: 1,
        entitlement: id("search/readers"),
        person: person("carol@example.com"),
        duty: span(1800, 3000),
        why: "held_by_pause".into(),
        ended_at: None,
        held: Vec::new(),
    }];
    let mut on_record = OnRecord {
        rows: rows.to_vec(),
        unheld: if rows.is_empty() { Vec::new() } else { unheld.into() },
        sessions,
        restorations: Vec::new(),
        begins: Timestamp::MIN,
        policies: Vec::new(),
    };
    change(&mut on_record);
    let mut out = Vec::new();
    report(&on_record, baseline, &request, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_table_shows_hours_and_a_total_within_100_columns() {
    let text = written(&rows(), true, span(0, 36_000), GroupBy::Entitlement, Format::Text);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let line = |name: &str| words.iter().find(|w| w.first() == Some(&name)).unwrap()[1..].to_vec();
    // Alice's session may live for 3000 s more, up to now; of Carol's group nothing is known.
    // Alice and Bob (until 50 s) could hold payments/admin for the two hours up to now.
    assert_eq!(
        line("payments/admin"),
        ["1.17", "0.67", "0.50", "0.00", "0.83", "2.01", "57.9", "%"]
    );
    assert_eq!(
        line("search/readers"),
        ["0.50", "0.33", "0.17", "0.33", "0.00", "0.00", "-"]
    );
    assert_eq!(
        line("total"),
        ["1.67", "1.00", "0.67", "0.33", "0.83", "2.01", "82.8", "%"]
    );
    assert!(
        words[0].ends_with(&["from", "2027-01-15T08:00:00Z", "to", "2027-01-15T10:00:00Z"]),
        "{text}"
    );
}

#[test]
fn json_and_csv_carry_whole_seconds() {
    let json = written(&rows(), true, span(0, 36_000), GroupBy::Person, Format::Json);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["group_by"], "person");
    assert_eq!(json["counted_to"], "2027-01-15T10:00:00Z");
    let names: Vec<_> = json["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].clone())
        .collect();
    assert_eq!(names, ["alice@example.com", "bob@example.com", "carol@example.com"]);
    let alice = &json["rows"][0];
    assert_eq!(alice["held_seconds"], 4200);
    assert_eq!(alice["on_call_seconds"], 2400);
    assert_eq!(alice["overhang_seconds"], 1800);
    assert_eq!(alice["lead_seconds"], 600);
    assert_eq!(alice["linger_seconds"], 600);
    assert_eq!(alice["late_seconds"], 600);
    assert_eq!(alice["standing_seconds"], 7200);
    assert_eq!(json["total"]["held_seconds"], 6000);
    assert_eq!(json["total"]["standing_seconds"], 7250);

    let csv = written(&rows(), true, span(0, 36_000), GroupBy::Project, Format::Csv);
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(
        lines,
        [
            "project,held_seconds,on_call_seconds,window_seconds,membership_seconds,overhang_seconds,lead_seconds,linger_seconds,late_seconds,duty_seconds,uncovered_seconds,revokes,tail_seconds,revokes_without_tail,standing_seconds",
            "payments,4200,2400,0,0,1800,600,600,600,2400,0,1,3000,0,7250",
            "search,1800,1200,0,0,600,600,0,0,2400,1200,1,0,1,0",
        ]
    );
}

#[test]
fn what_is_revoked_and_until_when_it_is_effective_are_apart() {
    let json = written(&rows(), true, span(0, 36_000), GroupBy::Cause, Format::Json);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let ends = json["endings"].as_array().unwrap();
    assert_eq!(ends[0]["person"], "carol@example.com");
    assert!(ends[0]["effective_until"].is_null(), "of a group it is not known");
    assert_eq!(ends[1]["revoked_at"], "2027-01-15T09:10:00Z");
    assert_eq!(ends[1]["effective_until"], "2027-01-15T10:10:00Z");
    let on_call = &json["rows"][0];
    assert_eq!(
        (&on_call["name"], &on_call["held_seconds"]),
        (&"on_call".into(), &6000.into())
    );
    assert!(on_call["tail_seconds"].is_null() && on_call["standing_seconds"].is_null());
    assert_eq!(json["total"]["uncovered_why_seconds"]["held_by_pause"], 1200);
    assert_eq!(json["total"]["duty_seconds"], 4800);
}

#[test]
fn a_session_longer_than_the_time_between_two_shifts_is_a_warning() {
    let mut again = rows().remove(0);
    (again.granted_at, again.revoked_at, again.id) = (t(5000), None, 9);
    let both = [rows().remove(0), again];
    let text = written(&both, true, span(0, 36_000), GroupBy::Project, Format::Text);
    assert!(
        text.contains("WARNING  payments/admin: a role session may outlast"),
        "{text}"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let page = written(&both, true, span(0, 36_000), GroupBy::Project, Format::Html);
    assert!(page.contains("A session may outlast the gap between shifts."), "{page}");
}

#[test]
fn the_page_needs_nothing_else_and_takes_names_for_text() {
    let mut rows = rows();
    rows[1].entitlement.project.0 = "<script>alert(1)</script>\"'&\u{202e}".into();
    let page = written(&rows, true, span(0, 36_000), GroupBy::Project, Format::Html);
    assert!(page.contains("<p class=\"share\">82.8 %</p>"), "{page}");
    assert!(!page.contains("<script") && !page.contains('\u{202e}'), "{page}");
    for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside} in {page}");
    }
    assert!(page.contains("default-src 'none'"));
    let empty = written(&[], false, span(0, 10), GroupBy::Project, Format::Html);
    assert!(empty.contains("<p class=\"share\">-</p>"), "{empty}");
}

#[test]
fn without_a_policy_there_is_no_share() {
    let json = written(&rows(), false, span(0, 36_000), GroupBy::Entitlement, Format::Json);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["total"]["standing_seconds"].is_null() && json["total"]["share"].is_null());
    let csv = written(&rows(), false, span(0, 36_000), GroupBy::Entitlement, Format::Csv);
    assert!(csv.lines().skip(1).all(|line| line.ends_with(',')), "{csv}");
}

#[test]
fn a_period_ahead_and_an_empty_ledger_are_all_zero() {
    let ahead = written(&rows(), true, span(40_000, 50_000), GroupBy::Project, Format::Json);
    let ahead: serde_json::Value = serde_json::from_str(&ahead).unwrap();
    assert_eq!(
        (&ahead["rows"], &ahead["total"]["held_seconds"]),
        (&serde_json::json!([]), &0.into())
    );
    let empty = written(&[], false, span(0, 10), GroupBy::Project, Format::Text);
    assert!(empty.contains("total") && empty.contains("0.00"), "{empty}");
}

#[test]
fn names_can_neither_act_on_a_terminal_nor_become_formulas() {
    let named = |name: &str| {
        let mut row = rows().remove(0);
        row.entitlement.project.0 = name.into();
        [row]
    };
    let text = written(
        &named("a\u{1b}[2Jb\u{202e}c\u{7}"),
        false,
        span(0, 10),
        GroupBy::Project,
        Format::Text,
    );
    assert!(text.chars().all(|c| !c.is_control() || c == '\n'), "{text:?}");
    assert!(!text.contains('\u{202e}') && text.contains("u{1b}"), "{text:?}");
    for evil in ["=1+1", "+1", "-1", "@SUM(A1)"] {
        let csv = written(&named(evil), false, span(0, 10), GroupBy::Project, Format::Csv);
        assert!(csv.lines().nth(1).unwrap().starts_with(&format!("'{evil}")), "{csv}");
    }
    let csv = written(&named("\t=1,\"2\""), false, span(0, 10), GroupBy::Project, Format::Csv);
    assert!(csv.lines().nth(1).unwrap().starts_with("\"\\t=1,\"\"2\"\"\","), "{csv}");
    let long = "x".repeat(240);
    let text = written(&named(&long), false, span(0, 10), GroupBy::Project, Format::Text);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn hours_are_rounded_half_up_to_hundredths() {
    for (seconds, shown) in [
        (0, "0.00"),
        (17, "0.00"),
        (18, "0.01"),
        (3599, "1.00"),
        (604_800, "168.00"),
    ] {
        assert_eq!(hours(SignedDuration::from_secs(seconds)), shown);
    }
}

#[test]
fn standing_access_begins_where_the_record_does_and_the_report_says_so() {
    let young = |on_record: &mut OnRecord| on_record.begins = t(3600);
    let json = written_of(&rows(), true, span(0, 36_000), GroupBy::Person, Format::Json, young);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["counted_from"], "2027-01-15T09:00:00Z");
    assert_eq!(
        json["rows"][0]["standing_seconds"], 3600,
        "alice, from the beginning to now"
    );
    let note = json["notes"][0].as_str().unwrap();
    assert!(note.starts_with("the record begins at 2027-01-15T09:00:00Z"), "{note}");
    for format in [Format::Text, Format::Html] {
        let text = written_of(&rows(), true, span(0, 36_000), GroupBy::Person, format, young);
        assert!(text.contains("the record begins at 2027-01-15T09:00:00Z"), "{text}");
    }
}

#[test]
fn another_policy_in_the_period_is_told_with_until_when() {
    let in_force = |since: i64, revision: &str| {
        let policy = PolicyInForce {
            revision: revision.to_owned(),
            mode: "sync".to_owned(),
            commit: None,
        };
        (t(since), policy)
    };
    let present = policy(vec![on_call_rule(true, None, 9)]).revision;
    let note = |policies: Vec<(Timestamp, PolicyInForce)>, period: Interval| {
        let text = written_of(&rows(), true, period, GroupBy::Person, Format::Json, |on_record| {
            on_record.policies = policies;
        });
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["notes"][0].as_str().map(str::to_owned)
    };
    assert_eq!(note(vec![in_force(-50, &present)], span(0, 36_000)), None);
    let changed = || vec![in_force(-50, "older"), in_force(600, &present)];
    let told = note(changed(), span(0, 36_000)).unwrap();
    assert!(
        told.contains("until 2027-01-15T08:10:00Z") && told.contains("today's policy would give"),
        "{told}"
    );
    assert_eq!(
        note(changed(), span(600, 36_000)),
        None,
        "what was before the period does not matter"
    );
    let newer = vec![in_force(-50, &present), in_force(600, "edited since")];
    assert!(
        note(newer, span(0, 36_000))
            .unwrap()
            .contains("in all of the period or at its end")
    );
}

#[test]
fn the_chart_of_the_page_has_a_table_that_adds_up_and_shows_nothing_as_whole_that_is_not() {
    let day = 86_400;
    let page = written(&rows(), true, span(-day, 10 * day), GroupBy::Project, Format::Html);
    let part = |from: &str| {
        let row = page.split_once(&format!("<th scope=\"row\">{from}</th>")).unwrap().1;
        row.split_once("</td>").unwrap().0.replace("<td>", "")
    };
    // Everything was held on the fifteenth; the day before and the days to come have nothing.
    assert_eq!(
        (part("Thu 14 Jan 2027"), part("Fri 15 Jan 2027")),
        ("0.00".into(), "1.67".into())
    );
    assert!(!page.contains("16 Jan 2027"), "{page}");
    let nearly = page::coverage(SignedDuration::from_secs(359_999), SignedDuration::from_secs(360_000));
    assert_eq!(nearly, "99.9 %");
    let whole = SignedDuration::from_secs(360_000);
    assert_eq!(page::coverage(whole, whole), "100.0 %");
}

#[test]
fn figures_for_a_glance_have_three_digits_and_commas() {
    use crate::text::{figure, grouped};
    for (seconds, glance, exact) in [
        (0, "0.00", "0.00"),
        (2160, "0.60", "0.60"),
        (45_720, "12.7", "12.70"),
        (3_599_999, "1,000", "1,000.00"),
        (360_000, "100", "100.00"),
        (44_447_724, "12,347", "12,346.59"),
    ] {
        let time = SignedDuration::from_secs(seconds);
        assert_eq!((figure(time), grouped(time)), (glance.to_owned(), exact.to_owned()));
    }
}
