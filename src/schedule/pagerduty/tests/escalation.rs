//! Escalation policies.

use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::schedule::ReadErrorKind;
use crate::schedule::testing::{Provider, TestClock, pagerduty, policy, span, t};

const NOW: &str = "2026-01-07T12:00:00Z";

fn week() -> crate::model::Interval {
    span("2026-01-07T00:00:00Z", "2026-01-21T00:00:00Z")
}

fn row(level: u32, start: Option<&str>, end: Option<&str>, user: &str) -> Value {
    let schedule = start.map(|_| json!({"id": "PA", "type": "schedule_v3_reference"}));
    json!({"escalation_policy": {"id": "PEP", "type": "escalation_policy_reference"}, "escalation_level": level,
        "schedule": schedule, "start": start, "end": end,
        "user": {"id": user, "type": "user", "name": user, "email": format!("{user}@example.com")}})
}

/// The `n`th row of a long list: an hour each.
fn hour(n: usize) -> Value {
    let at = |n: usize| t("2026-01-07T00:00:00Z") + SignedDuration::from_hours(i64::try_from(n).unwrap());
    row(
        1,
        Some(&at(n).to_string()),
        Some(&at(n + 1).to_string()),
        &format!("PU{}", n % 7),
    )
}

fn page(rows: &[Value], offset: usize, more: bool, total: Option<usize>) -> String {
    json!({"oncalls": rows, "limit": 100, "offset": offset, "more": more, "total": total}).to_string()
}

/// Serves a list page by page, as the parameters say.
fn serve(rows: &[Value], seen: &Seen) -> Reply {
    serve_made(rows.len(), |n| rows[n].clone(), seen)
}

/// The same for a list whose rows are made as they are needed.
fn serve_made(total: usize, row: impl Fn(usize) -> Value, seen: &Seen) -> Reply {
    let number = |key: &str| seen.query[key].parse::<usize>().unwrap();
    let (offset, limit) = (number("offset"), number("limit"));
    if offset + limit > 10_000 {
        return reply(400, r#"{"error":{"message":"Invalid Input Provided","code":2001}}"#);
    }
    let end = total.min(offset + limit);
    let on_page: Vec<_> = (offset.min(end)..end).map(row).collect();
    ok(page(&on_page, offset, end < total, Some(total)))
}

#[tokio::test]
async fn case_01_02_standing_targets_and_ends_without_date_are_told_apart() {
    let rows = [
        row(3, None, None, "PBOSS"),
        row(1, Some("2025-01-06T18:08:09Z"), None, "PSOLO"),
        row(2, Some("2026-01-05T09:00:00Z"), Some("2026-01-12T09:00:00Z"), "PU"),
    ];
    let provider = Provider::start(move |seen, _| serve(&rows, seen)).await;
    let source = pagerduty(&provider, &TestClock::at(NOW));
    let snapshot = source.read(&policy("PEP"), week()).await.unwrap();
    assert_eq!(
        shown(&snapshot),
        [
            "2026-01-05T09:00:00Z..2026-01-12T09:00:00Z PU",
            "?2026-01-05T09:00:00Z..2026-01-21T00:00:00Z? PBOSS",
            "?2026-01-05T09:00:00Z..2026-01-21T00:00:00Z? PSOLO"
        ]
    );
    let kinds: Vec<_> = snapshot
        .shifts
        .iter()
        .map(|shift| (shift.level, shift.permanent))
        .collect();
    assert_eq!(kinds, [(Some(2), false), (Some(3), true), (Some(1), false)]);
    assert_eq!(provider.lines(), ["GET /oncalls"], "included users cost no call");
    let query = &provider.seen()[0].query;
    assert_eq!(query["escalation_policy_ids[]"], "PEP");
    assert_eq!(query["include[]"], "users");
    assert_eq!(query["time_zone"], "UTC");
}

#[tokio::test]
async fn case_06_08_rows_of_one_person_merge_per_level() {
    let rows = [
        row(1, Some("2026-01-08T00:00:00Z"), Some("2026-01-09T00:00:00Z"), "PU"),
        row(1, Some("2026-01-09T00:00:00Z"), Some("2026-01-10T00:00:00Z"), "PU"),
        row(2, Some("2026-01-08T00:00:00Z"), Some("2026-01-09T00:00:00Z"), "PU"),
    ];
    let provider = Provider::start(move |seen, _| serve(&rows, seen)).await;
    let snapshot = pagerduty(&provider, &TestClock::at(NOW))
        .read(&policy("PEP"), week())
        .await
        .unwrap();
    assert_eq!(
        shown(&snapshot),
        [
            "2026-01-08T00:00:00Z..2026-01-09T00:00:00Z PU",
            "2026-01-08T00:00:00Z..2026-01-10T00:00:00Z PU"
        ]
    );
}

#[tokio::test]
async fn case_52_all_pages_are_read() {
    let rows: Vec<_> = (0..250).map(hour).collect();
    let provider = Provider::start(move |seen, _| serve(&rows, seen)).await;
    let snapshot = pagerduty(&provider, &TestClock::at(NOW))
        .read(&policy("PEP"), week())
        .await
        .unwrap();
    assert_eq!(snapshot.shifts.len(), 250);
    assert_eq!(provider.lines().len(), 3);
}

#[tokio::test]
async fn case_52_more_than_ten_thousand_rows_are_read_in_narrower_windows() {
    const SLOT: i64 = 7 * 60;
    let provider = Provider::start(|seen, _| {
        let (since, until) = (t(&seen.query["since"]), t(&seen.query["until"]));
        // A row every seven minutes: 10 080 of them in the 49 days that are asked about.
        let (first, end) = (since.as_second().div_euclid(SLOT), until.as_second().div_euclid(SLOT));
        let seven_minutes = |n: usize| {
            let slot = first + i64::try_from(n).unwrap();
            let text = |slot: i64| jiff::Timestamp::from_second(slot * SLOT).unwrap().to_string();
            row(1, Some(&text(slot)), Some(&text(slot + 1)), &format!("PU{}", slot % 2))
        };
        serve_made(usize::try_from(end - first).unwrap(), seven_minutes, seen)
    })
    .await;
    let snapshot = pagerduty(&provider, &TestClock::at(NOW))
        .read(&policy("PEP"), week())
        .await
        .unwrap();
    let slots = snapshot.window.end().as_second().div_euclid(SLOT) - snapshot.window.start().as_second() / SLOT;
    assert_eq!(i64::try_from(snapshot.shifts.len()).unwrap(), slots);
    assert!(provider.lines().len() > 100);
}

#[tokio::test]
async fn case_12_a_list_that_moved_between_two_pages_is_read_again() {
    let rows: Vec<_> = (0..150).map(hour).collect();
    let provider = Provider::start(move |seen, before| {
        // An override was added after the first page: one row more.
        let now: Vec<_> = (0..151).map(hour).collect();
        serve(if before == 0 { &rows } else { &now }, seen)
    })
    .await;
    let snapshot = pagerduty(&provider, &TestClock::at(NOW))
        .read(&policy("PEP"), week())
        .await
        .unwrap();
    assert_eq!(snapshot.shifts.len(), 151);
    assert_eq!(provider.lines().len(), 4);
}

#[tokio::test]
async fn case_12_pages_that_keep_contradicting_each_other_fail_the_read() {
    let hours = |range: std::ops::Range<usize>| range.map(hour).collect::<Vec<_>>();
    let endless = Provider::start(move |seen, _| {
        let offset = seen.query["offset"].parse().unwrap();
        ok(page(&hours(0..100), offset, true, None))
    })
    .await;
    let short = Provider::start(move |seen, _| {
        let offset = seen.query["offset"].parse().unwrap();
        ok(page(&hours(offset..offset + 3), offset, offset == 0, None))
    })
    .await;
    let miscounted = Provider::start(move |_, _| ok(page(&hours(0..3), 0, false, Some(9)))).await;
    let elsewhere = Provider::start(move |_, _| ok(page(&hours(0..3), 500, false, None))).await;
    for provider in [endless, short, miscounted, elsewhere] {
        let clock = TestClock::at(NOW);
        let error = pagerduty(&provider, &clock)
            .read(&policy("PEP"), week())
            .await
            .unwrap_err();
        assert_eq!(error.kind, ReadErrorKind::Incomplete, "{error}");
    }
}

#[tokio::test]
async fn case_12_rows_that_come_twice_count_once_when_a_second_reading_agrees() {
    // Hour 99 stands on both pages, as it does when a row was added before it; nothing is counted.
    let twice = |seen: &Seen| match seen.query["offset"].as_str() {
        "0" => ok(page(&(0..100).map(hour).collect::<Vec<_>>(), 0, true, None)),
        _ => ok(page(&(99..120).map(hour).collect::<Vec<_>>(), 100, false, None)),
    };
    let stable = Provider::start(move |seen, _| twice(seen)).await;
    let snapshot = pagerduty(&stable, &TestClock::at(NOW))
        .read(&policy("PEP"), week())
        .await;
    assert_eq!((snapshot.unwrap().shifts.len(), stable.lines().len()), (120, 4));

    let rows: Vec<_> = (0..121).map(hour).collect();
    let settled = Provider::start(move |seen, before| if before < 2 { twice(seen) } else { serve(&rows, seen) }).await;
    let snapshot = pagerduty(&settled, &TestClock::at(NOW))
        .read(&policy("PEP"), week())
        .await;
    assert_eq!((snapshot.unwrap().shifts.len(), settled.lines().len()), (121, 4));

    let moving = Provider::start(move |seen, before| match before {
        0 | 1 => twice(seen),
        2 => ok(page(&(0..100).map(hour).collect::<Vec<_>>(), 0, true, None)),
        _ => ok(page(&(99..122).map(hour).collect::<Vec<_>>(), 100, false, None)),
    })
    .await;
    let error = pagerduty(&moving, &TestClock::at(NOW))
        .read(&policy("PEP"), week())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Incomplete);
}

#[tokio::test]
async fn case_45_a_page_that_fails_fails_the_read() {
    let rows: Vec<_> = (0..150).map(hour).collect();
    let provider = Provider::start(move |seen, before| {
        if before == 0 {
            serve(&rows, seen)
        } else {
            ok("<html>busy</html>")
        }
    })
    .await;
    let error = pagerduty(&provider, &TestClock::at(NOW))
        .read(&policy("PEP"), week())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Malformed);
    assert!(error.message.contains("HTML"), "{error}");
}

#[tokio::test]
async fn case_53_the_window_ends_where_pagerduty_shows_no_further() {
    let rows = [row(1, Some("2026-01-05T00:00:00Z"), Some("2026-04-07T12:00:00Z"), "PU")];
    let provider = Provider::start(move |seen, _| serve(&rows, seen)).await;
    let source = pagerduty(&provider, &TestClock::at(NOW));
    let year = span("2026-01-07T00:00:00Z", "2027-01-07T00:00:00Z");
    let snapshot = source.read(&policy("PEP"), year).await.unwrap();
    assert_eq!(snapshot.window.end(), t("2026-04-07T11:00:00Z"));
    assert!(!snapshot.shifts[0].end_known);
    let past = span("2026-06-01T00:00:00Z", "2026-06-02T00:00:00Z");
    assert_eq!(
        source.read(&policy("PEP"), past).await.unwrap_err().kind,
        ReadErrorKind::Rejected
    );
}

#[tokio::test]
async fn an_empty_list_counts_only_when_the_policy_exists() {
    for (status, body, expected) in [
        (200, r#"{"escalation_policy":{"id":"PEP"}}"#, Ok(0)),
        (403, r#"{"error":{"message":"Access Denied","code":2010}}"#, Ok(1)),
        (
            404,
            r#"{"error":{"message":"Not Found","code":2100}}"#,
            Err(ReadErrorKind::NotFound),
        ),
    ] {
        let provider = Provider::start(move |seen, _| match seen.path.as_str() {
            "/oncalls" => ok(page(&[], 0, false, Some(0))),
            _ => reply(status, body),
        })
        .await;
        let source = pagerduty(&provider, &TestClock::at(NOW));
        for _ in 0..2 {
            let read = source.read(&policy("PEP"), week()).await;
            assert_eq!(
                read.map(|snapshot| snapshot.notices.len()).map_err(|error| error.kind),
                expected
            );
        }
        if expected.is_ok() {
            assert_eq!(provider.lines().len(), 3, "the check is remembered");
        }
    }
}

#[tokio::test]
async fn a_row_of_another_policy_means_that_the_filter_was_ignored() {
    let provider = Provider::start(|_, _| {
        let mut other = row(1, Some("2026-01-05T00:00:00Z"), Some("2026-01-12T00:00:00Z"), "PU");
        other["escalation_policy"]["id"] = json!("POTHER");
        ok(page(&[other], 0, false, None))
    })
    .await;
    let error = pagerduty(&provider, &TestClock::at(NOW))
        .read(&policy("PEP"), week())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Malformed);
}
