//! Who is on call when.

use super::*;
use crate::schedule::opsgenie::timeline;

#[tokio::test]
async fn case_05_the_window_is_asked_for_early_and_its_edge_is_no_boundary() {
    let provider = provider(timeline_of(json!([
        rotation(json!([
            period("2025-12-01T08:00:00Z", "2026-01-09T08:00:00Z", person("always")),
            period("2026-01-09T08:00:00Z", "2026-02-02T08:00:00Z", person("until")),
        ])),
        rotation(json!([period(
            "2026-01-04T10:00:00Z",
            "2026-01-08T10:00:00Z",
            person("running")
        )])),
    ])))
    .await;
    let snapshot = read(&provider).await.unwrap();
    assert_eq!(snapshot.window.start(), "2026-01-04T10:00:00Z".parse().unwrap());
    assert_eq!(
        shown(&snapshot),
        [
            "2026-01-04T10:00:00Z..2026-01-08T10:00:00Z running",
            "?2026-01-04T10:00:00Z..2026-01-09T08:00:00Z always",
            "2026-01-09T08:00:00Z..2026-01-21T00:00:00Z? until",
        ]
    );
    let seen = &provider.seen()[0];
    assert_eq!(seen.headers["authorization"], "GenieKey k3y");
    let query: Vec<_> = seen.query.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        query,
        [
            "date=2025-12-03T00:00:00Z",
            "expand=base,forwarding,override",
            "identifierType=id",
            "interval=10",
            "intervalUnit=weeks"
        ]
    );
}

#[tokio::test]
async fn case_55_56_forwarding_overrides_and_missing_periods() {
    let provider = provider(timeline_of(json!([
        rotation(json!([
            period("2026-01-07T00:00:00Z", "2026-01-09T09:00:00Z", person("john")),
            {"startDate": "2026-01-09T09:00:00Z", "endDate": "2026-01-10T09:00:00Z", "type": "forwarding",
             "fromUser": "john@example.com", "recipient": person("jane")},
            {"startDate": "2026-01-10T09:00:00Z", "endDate": "2026-01-10T10:00:00Z", "type": "override",
             "recipient": person("kim")},
            {"startDate": "2026-01-10T10:00:00Z", "endDate": "2026-01-10T11:00:00Z", "type": "some new word",
             "recipient": person("lou")},
        ])),
        {"id": "R2", "name": "No periods", "order": null},
        {"id": "R3", "deleted": true, "periods": [
            period("2026-01-07T00:00:00Z", "2026-01-09T09:00:00Z", person("ghost"))]},
    ])))
    .await;
    let snapshot = read(&provider).await.unwrap();
    let shifts: Vec<_> = snapshot
        .shifts
        .iter()
        .map(|shift| (shift.user.id.as_str(), shift.via_override.as_deref()))
        .collect();
    assert_eq!(
        shifts,
        [
            ("john", None),
            ("jane", Some("forwarding from john@example.com")),
            ("kim", Some("override")),
            ("lou", None)
        ]
    );
}

#[tokio::test]
async fn case_07_14_rotations_add_up_and_none_is_nobody() {
    let provider = provider(timeline_of(json!([
        rotation(json!([
            period("2026-01-08T00:00:00Z", "2026-01-09T00:00:00Z", person("john")),
            period("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z", json!({"type": "none"})),
            period("2026-01-10T00:00:00Z", "2026-01-11T00:00:00Z", json!({"type": "noone", "id": ""})),
            {"startDate": "2026-01-11T00:00:00Z", "endDate": "2026-01-12T00:00:00Z", "type": "default"},
        ])),
        rotation(json!([
            period("2026-01-08T12:00:00Z", "2026-01-10T00:00:00Z", person("john")),
            period("2026-01-08T00:00:00Z", "2026-01-09T00:00:00Z", person("jane")),
        ])),
    ])))
    .await;
    let snapshot = read(&provider).await.unwrap();
    assert_eq!(
        shown(&snapshot),
        [
            "2026-01-08T00:00:00Z..2026-01-09T00:00:00Z jane",
            "2026-01-08T00:00:00Z..2026-01-10T00:00:00Z john"
        ]
    );
    assert_eq!(snapshot.notices, ["1 periods name nobody"]);
    assert_eq!(provider.lines().len(), 3, "nobody is looked up without an id");
}

#[tokio::test]
async fn case_57_a_disabled_schedule_is_nobody_with_a_notice() {
    let mut body = timeline_of(json!([rotation(json!([period(
        "2026-01-07T00:00:00Z",
        "2026-01-09T00:00:00Z",
        person("john")
    )]))]));
    body["data"]["_parent"]["enabled"] = json!(false);
    let snapshot = read(&provider(body.clone()).await).await.unwrap();
    assert!(snapshot.shifts.is_empty());
    assert_eq!(snapshot.notices, ["the schedule is disabled, so nobody is on call"]);
    assert_eq!(snapshot.window, window());

    // A timeline that does not say is checked against the schedule itself.
    body["data"].as_object_mut().unwrap().remove("_parent");
    let provider = Provider::start(move |seen, _| match seen.path.as_str() {
        "/v2/schedules/S1" => ok(r#"{"data":{"id":"S1","enabled":false}}"#),
        _ => serve(&body, seen),
    })
    .await;
    assert!(read(&provider).await.unwrap().shifts.is_empty());
}

#[test]
fn case_46_what_is_not_a_timeline_is_not_nobody() {
    let good = timeline_of(json!([]));
    assert!(timeline::decode(good.to_string().as_bytes(), "S1").is_ok());
    for (pointer, value) in [
        ("/data", json!(null)),
        ("/data/finalTimeline", json!({})),
        ("/data/finalTimeline/rotations", json!(null)),
        ("/data/endDate", json!("2025-12-01T08:00:00Z")),
        ("/data/startDate", json!("2025-12-01")),
        ("/data/_parent/id", json!("S2")),
        (
            "/data/finalTimeline/rotations",
            json!([{"periods": [{"startDate": "2026-01-01T00:00:00Z"}]}]),
        ),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert!(timeline::decode(bad.to_string().as_bytes(), "S1").is_err(), "{bad}");
    }
    for recipient in [
        json!({"type": "robot", "id": "x"}),
        json!({"type": "user"}),
        json!({"id": "x"}),
    ] {
        let body = timeline_of(json!([rotation(json!([period(
            "2026-01-07T00:00:00Z",
            "2026-01-09T00:00:00Z",
            recipient
        )]))]));
        assert!(timeline::decode(body.to_string().as_bytes(), "S1").is_err(), "{body}");
    }
}

#[tokio::test]
async fn case_49_63_refusals_and_the_end_of_the_service_are_errors_with_a_hint() {
    let body = r#"{"message":"Api key is not authorized to access the schedule","code":40301,"took":0.1}"#;
    let error = read(&Provider::start(move |_, _| reply(403, body)).await)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Forbidden);
    assert!(
        error.message.contains("[code 40301]") && error.message.contains("deleted"),
        "{error}"
    );
    for (status, kind) in [(410, ReadErrorKind::Rejected), (404, ReadErrorKind::NotFound)] {
        let error = read(&Provider::start(move |_, _| reply(status, "")).await)
            .await
            .unwrap_err();
        assert_eq!(error.kind, kind);
    }
}

#[tokio::test]
async fn escalation_policies_are_refused_without_a_call() {
    let provider = provider(timeline_of(json!([]))).await;
    let source = opsgenie(&provider, &TestClock::at(NOW));
    let error = source.read(&policy("E1"), window()).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Rejected);
    assert!(provider.seen().is_empty());
}

#[tokio::test]
async fn a_timeline_that_covers_less_says_so_and_one_that_covers_nothing_is_an_error() {
    let mut body = timeline_of(json!([]));
    body["data"]["endDate"] = json!("2026-01-10T00:00:00Z");
    let snapshot = read(&provider(body.clone()).await).await.unwrap();
    assert_eq!(snapshot.window, span("2026-01-07T00:00:00Z", "2026-01-10T00:00:00Z"));
    body["data"]["endDate"] = json!("2026-01-06T00:00:00Z");
    assert_eq!(
        read(&provider(body).await).await.unwrap_err().kind,
        ReadErrorKind::Incomplete
    );
}

#[tokio::test]
async fn the_source_knows_its_name() {
    let provider = provider(json!({})).await;
    let source = opsgenie(&provider, &TestClock::at(NOW));
    assert_eq!(source.name().to_string(), "src");
}
