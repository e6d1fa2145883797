//! Layer-based schedules.

use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::model::SourceUserState;
use crate::schedule::testing::{Provider, TestClock, pagerduty, schedule, span, t};
use crate::schedule::{
    ReadErrorKind,
    pagerduty::{users, v2},
};

const NOW: &str = "2026-01-07T12:00:00Z";

fn week() -> crate::model::Interval {
    span("2026-01-07T00:00:00Z", "2026-01-21T00:00:00Z")
}

async fn provider(entries: Value) -> Provider {
    Provider::start(move |seen, _| match seen.path.as_str() {
        "/v3/schedules/PA" => not_v3(),
        "/schedules/PA" => ok(layered("PA", entries.clone())),
        _ => any_user(seen).unwrap_or_else(|| reply(404, "")),
    })
    .await
}

#[tokio::test]
async fn case_17_a_steady_poll_of_a_layered_schedule_costs_one_request() {
    let provider = provider(json!([entry(
        "2026-01-05T09:00:00-05:00",
        "2026-01-12T09:00:00-05:00",
        "PU"
    )]))
    .await;
    let clock = TestClock::at(NOW);
    let source = pagerduty(&provider, &clock);
    let first = source.read(&schedule("PA"), week()).await.unwrap();
    let second = source.read(&schedule("PA"), week()).await.unwrap();
    assert_eq!(first.shifts, second.shifts);
    assert_eq!(
        provider.lines(),
        [
            "GET /v3/schedules/PA",
            "GET /schedules/PA",
            "GET /users/PU",
            "GET /schedules/PA"
        ]
    );
    assert_eq!(first.shifts[0].user.email.as_deref(), Some("PU@Example.com"));
    assert_eq!(first.read_at, t(NOW));
}

#[tokio::test]
async fn requests_carry_what_the_api_asks_for_and_a_window_of_whole_seconds() {
    let provider = provider(json!([])).await;
    let source = pagerduty(&provider, &TestClock::at(NOW));
    let window = span("2026-01-07T00:00:00.5Z", "2026-01-07T00:00:00.6Z");
    source.read(&schedule("PA"), window).await.unwrap();
    let seen = provider.seen().pop().unwrap();
    assert_eq!(seen.headers["authorization"], "Token token=k3y");
    assert_eq!(seen.headers["accept"], "application/vnd.pagerduty+json;version=2");
    assert_eq!(seen.headers["content-type"], "application/json");
    assert!(seen.headers["user-agent"].starts_with("dutybound/"));
    let query: Vec<_> = seen.query.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        query,
        [
            "overflow=true",
            "since=2025-12-03T00:00:00Z",
            "time_zone=UTC",
            "until=2026-01-07T00:00:01Z"
        ]
    );
}

#[tokio::test]
async fn case_03_a_running_shift_keeps_its_true_start() {
    let provider = provider(json!([
        entry("2025-12-29T14:00:00Z", "2026-01-05T14:00:00Z", "POLD"),
        entry("2026-01-05T09:00:00-05:00", "2026-01-12T09:00:00-05:00", "PU"),
    ]))
    .await;
    let snapshot = pagerduty(&provider, &TestClock::at(NOW))
        .read(&schedule("PA"), week())
        .await
        .unwrap();
    assert_eq!(snapshot.window, span("2026-01-05T14:00:00Z", "2026-01-21T00:00:00Z"));
    assert_eq!(shown(&snapshot), ["2026-01-05T14:00:00Z..2026-01-12T14:00:00Z PU"]);
}

#[tokio::test]
async fn case_04_edges_of_the_window_are_not_boundaries() {
    // As if `overflow` had been ignored: cut exactly where we asked.
    let provider = provider(json!([entry("2025-12-03T00:00:00Z", "2026-01-21T00:00:00Z", "PU")])).await;
    let snapshot = pagerduty(&provider, &TestClock::at(NOW))
        .read(&schedule("PA"), week())
        .await
        .unwrap();
    assert_eq!(shown(&snapshot), ["?2026-01-07T00:00:00Z..2026-01-21T00:00:00Z? PU"]);
}

#[tokio::test]
async fn case_02_a_shift_without_end_is_not_known_to_end() {
    let body = json!([{"start": "2026-01-05T00:00:00Z", "end": null, "user": {"id": "PU", "type": "user_reference"}}]);
    let provider = provider(body).await;
    let snapshot = pagerduty(&provider, &TestClock::at(NOW))
        .read(&schedule("PA"), week())
        .await
        .unwrap();
    assert_eq!(shown(&snapshot), ["2026-01-05T00:00:00Z..2026-01-21T00:00:00Z? PU"]);
}

#[tokio::test]
async fn case_13_a_gap_is_an_answer_and_not_an_error() {
    let provider = provider(json!([])).await;
    let snapshot = pagerduty(&provider, &TestClock::at(NOW))
        .read(&schedule("PA"), week())
        .await
        .unwrap();
    assert!(snapshot.shifts.is_empty());
    assert_eq!(snapshot.window, week());
}

#[tokio::test]
async fn case_24_one_user_who_is_gone_does_not_hide_the_others() {
    let provider = Provider::start(|seen, _| match seen.path.as_str() {
        "/v3/schedules/PA" => not_v3(),
        "/schedules/PA" => ok(layered(
            "PA",
            json!([
                entry("2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z", "PGONE"),
                entry("2026-01-12T00:00:00Z", "2026-01-13T00:00:00Z", "PBARE"),
                entry("2026-01-13T00:00:00Z", "2026-01-14T00:00:00Z", "PU"),
                {"start": "2026-01-14T00:00:00Z", "end": "2026-01-15T00:00:00Z",
                 "user": {"id": "PDEL", "type": "user_reference", "deleted_at": "2025-12-01T10:00:00-05:00"}},
            ]),
        )),
        "/users/PGONE" => reply(404, ""),
        "/users/PBARE" => ok(r#"{"user":{"id":"PBARE","type":"user_reference","summary":"Gone Person"}}"#),
        _ => any_user(seen).unwrap_or_else(|| reply(404, "")),
    })
    .await;
    let snapshot = pagerduty(&provider, &TestClock::at(NOW))
        .read(&schedule("PA"), week())
        .await
        .unwrap();
    let states: Vec<_> = snapshot
        .shifts
        .iter()
        .map(|shift| (shift.user.id.as_str(), shift.user.state))
        .collect();
    assert_eq!(
        states,
        [
            ("PGONE", SourceUserState::Deleted),
            ("PBARE", SourceUserState::Deleted),
            ("PU", SourceUserState::Active),
            ("PDEL", SourceUserState::Deleted)
        ]
    );
    assert!(!provider.lines().contains(&"GET /users/PDEL".to_owned()));
}

#[tokio::test]
async fn case_45_a_user_who_cannot_be_read_fails_the_read() {
    let provider = Provider::start(|seen, _| match seen.path.as_str() {
        "/v3/schedules/PA" => not_v3(),
        "/schedules/PA" => ok(layered(
            "PA",
            json!([entry("2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z", "PU")]),
        )),
        _ => reply(
            500,
            r#"{"error":{"message":"An internal error has occurred.","code":2000}}"#,
        ),
    })
    .await;
    let error = pagerduty(&provider, &TestClock::at(NOW))
        .read(&schedule("PA"), week())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Server);
    assert!(
        error
            .to_string()
            .starts_with("cannot read src/PA: GET /users/PU was answered with 500"),
        "{error}"
    );
}

#[tokio::test]
async fn a_user_is_asked_for_again_after_an_hour_and_a_missing_one_sooner() {
    let provider = provider(json!([
        entry("2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z", "PU"),
        entry("2026-01-12T00:00:00Z", "2026-01-13T00:00:00Z", "PV"),
    ]))
    .await;
    let clock = TestClock::at(NOW);
    let source = pagerduty(&provider, &clock);
    let lookups = || {
        provider
            .lines()
            .iter()
            .filter(|line| line.starts_with("GET /users/"))
            .count()
    };
    source.read(&schedule("PA"), week()).await.unwrap();
    clock.advance(SignedDuration::from_mins(59));
    source.read(&schedule("PA"), week()).await.unwrap();
    assert_eq!(lookups(), 2);
    clock.advance(SignedDuration::from_mins(2));
    source.read(&schedule("PA"), week()).await.unwrap();
    assert_eq!(lookups(), 4);
}

#[tokio::test]
async fn case_49_a_schedule_known_in_neither_place_is_not_found() {
    let provider = Provider::start(|seen, _| match seen.path.as_str() {
        "/v3/schedules/PA" => not_v3(),
        _ => reply(404, r#"{"error":{"message":"Not Found","code":2100}}"#),
    })
    .await;
    let error = pagerduty(&provider, &TestClock::at(NOW))
        .read(&schedule("PA"), week())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::NotFound);
    assert!(error.message.contains("Not Found"), "{error}");
}

#[test]
fn case_10_overrides_are_labelled_and_not_added() {
    let body = json!({"schedule": {"id": "PA", "type": "schedule",
        "overrides_subschedule": {"rendered_schedule_entries": [
            entry("2026-01-06T20:00:00-05:00", "2026-01-06T23:00:00-05:00", "PB")]},
        "final_schedule": {"rendered_schedule_entries": [
            entry("2026-01-05T09:00:00-05:00", "2026-01-06T20:00:00-05:00", "PU"),
            entry("2026-01-06T20:00:00-05:00", "2026-01-06T23:00:00-05:00", "PB"),
            entry("2026-01-06T23:00:00-05:00", "2026-01-12T09:00:00-05:00", "PU")]}}});
    let crate::schedule::pagerduty::Reply::Final(found) = v2::decode(body.to_string().as_bytes(), "PA").unwrap() else {
        panic!("it is layer-based")
    };
    let via: Vec<_> = found.turns.iter().map(|turn| turn.via_override.as_deref()).collect();
    assert_eq!(via, [None, Some("override"), None]);
}

#[test]
fn case_46_what_was_not_rendered_is_not_nobody() {
    let with = |schedule: Value| v2::decode(json!({ "schedule": schedule }).to_string().as_bytes(), "PA");
    let unrendered = json!({"rendered_schedule_entries": [], "rendered_coverage_percentage": null});
    for bad in [
        json!({"id": "PA", "type": "schedule"}),
        json!({"id": "PA", "type": "schedule", "final_schedule": null}),
        json!({"id": "PA", "type": "schedule", "final_schedule": {}}),
        json!({"id": "PA", "type": "schedule", "final_schedule": unrendered}),
        json!({"id": "PB", "type": "schedule", "final_schedule": {"rendered_schedule_entries": []}}),
        json!({"id": "PA", "type": "mystery", "final_schedule": {"rendered_schedule_entries": []}}),
        json!({"id": "PA", "final_schedule": {"rendered_schedule_entries": [{"start": null, "end": null}]}}),
        json!({"id": "PA", "final_schedule": {"rendered_schedule_entries": [entry("yesterday", "today", "PU")]}}),
    ] {
        assert!(with(bad.clone()).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn case_19_a_schedule_that_no_policy_uses_is_read_with_a_notice() {
    let provider = Provider::start(|seen, _| match seen.path.as_str() {
        "/v3/schedules/PA" => not_v3(),
        "/schedules/PA" => {
            let turn = entry("2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z", "PU");
            let mut body: Value = serde_json::from_str(&layered("PA", json!([turn]))).unwrap();
            body["schedule"]["escalation_policies"] = json!([]);
            ok(body.to_string())
        }
        _ => any_user(seen).unwrap_or_else(|| reply(404, "")),
    })
    .await;
    let snapshot = pagerduty(&provider, &TestClock::at(NOW))
        .read(&schedule("PA"), week())
        .await
        .unwrap();
    assert_eq!(snapshot.shifts.len(), 1);
    assert_eq!(snapshot.notices, ["no escalation policy uses this schedule"]);
}

#[test]
fn case_26_28_only_the_login_email_counts_and_may_be_missing() {
    let decode = |user: Value| users::decode(json!({ "user": user }).to_string().as_bytes(), "PU");
    let contact = json!([{"type": "email_contact_method", "address": "mallory@example.com"}]);
    let user = decode(json!({"id": "PU", "type": "user", "name": "U\u{202e}", "email": null,
        "summary": "s", "contact_methods": contact}))
    .unwrap();
    assert_eq!((user.email, user.state), (None, SourceUserState::Active));
    assert_eq!(user.name.as_deref(), Some("U\\u{202e}"));
    let odd = decode(json!({"id": "PU", "name": "U", "email": " Alice@Example.com "})).unwrap();
    assert_eq!(
        odd.email.as_deref(),
        Some(" Alice@Example.com "),
        "as given; what it is worth is decided elsewhere"
    );
    let deleted = decode(json!({"id": "PU", "type": "user", "name": "U", "email": "u@example.com", "deleted_at": "x"}));
    assert_eq!(deleted.unwrap().state, SourceUserState::Deleted);
    assert!(decode(json!({"id": "PX", "type": "user", "name": "U", "email": "u@example.com"})).is_err());
    assert!(decode(json!({"id": "PU", "type": "service_reference"})).is_err());
}

#[tokio::test]
async fn case_22_a_mark_of_deletion_on_one_entry_counts_for_all_of_the_person() {
    let plain = entry("2026-01-08T00:00:00Z", "2026-01-09T00:00:00Z", "PU");
    let mut marked = entry("2026-01-10T00:00:00Z", "2026-01-11T00:00:00Z", "PU");
    marked["user"]["deleted_at"] = json!("2025-12-01T10:00:00-05:00");
    for entries in [json!([plain, marked]), json!([marked, plain])] {
        let provider = provider(entries).await;
        let source = pagerduty(&provider, &TestClock::at(NOW));
        let snapshot = source.read(&schedule("PA"), week()).await.unwrap();
        let states: Vec<_> = snapshot.shifts.iter().map(|shift| shift.user.state).collect();
        assert_eq!(states, [SourceUserState::Deleted; 2]);
    }
}

#[tokio::test]
async fn of_two_refusals_the_one_that_says_more_is_told() {
    for (shifts, layers, kind) in [
        (403, 404, ReadErrorKind::Forbidden),
        (404, 403, ReadErrorKind::Forbidden),
        (404, 400, ReadErrorKind::NotFound),
        (400, 404, ReadErrorKind::NotFound),
        (400, 400, ReadErrorKind::Rejected),
        (404, 500, ReadErrorKind::Server),
    ] {
        let provider = Provider::start(move |seen, _| match seen.path.as_str() {
            "/v3/schedules/PA" => reply(shifts, ""),
            _ => reply(layers, ""),
        })
        .await;
        let source = pagerduty(&provider, &TestClock::at(NOW));
        let error = source.read(&schedule("PA"), week()).await.unwrap_err();
        assert_eq!(error.kind, kind, "{shifts} {layers}");
    }
}
