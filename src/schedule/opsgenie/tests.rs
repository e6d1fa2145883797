//! Opsgenie reads against scripted answers; names carry the case ids of the facts' table.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{flatten, timeline, users};
use crate::model::{Interval, Snapshot, SourceUserState};
use crate::schedule::testing::{Provider, Reply, Seen, TestClock, ok, opsgenie, policy, reply, schedule, shared, span};
use crate::schedule::{ReadError, ReadErrorKind};

const NOW: &str = "2026-01-07T12:00:00Z";

fn window() -> Interval {
    span("2026-01-07T00:00:00Z", "2026-01-21T00:00:00Z")
}

/// A timeline from Monday 00:00 in Los Angeles, six weeks before the window, to past its end.
fn timeline_of(rotations: Value) -> Value {
    json!({"data": {"_parent": {"id": "S1", "name": "first_line", "enabled": true},
        "startDate": "2025-12-01T08:00:00Z", "endDate": "2026-02-02T08:00:00Z",
        "finalTimeline": {"rotations": rotations}}, "took": 0.1, "requestId": "r"})
}

fn rotation(periods: Value) -> Value {
    json!({"id": "R", "name": "Primary", "order": 1.0, "periods": periods})
}

fn period(start: &str, end: &str, recipient: Value) -> Value {
    json!({"startDate": start, "endDate": end, "type": "default", "recipient": recipient})
}

fn person(id: &str) -> Value {
    json!({"id": id, "type": "user", "name": format!("{id}@example.com")})
}

fn team() -> Value {
    json!({"id": "T1", "type": "team", "name": "Ops"})
}

fn user(key: &str, blocked: bool) -> Reply {
    let id = key.trim_end_matches("@example.com");
    let user = json!({"id": id, "username": format!("{id}@example.com"), "fullName": id, "blocked": blocked});
    ok(json!({"data": user, "took": 0.1}).to_string())
}

/// Serves the timeline and ordinary users.
async fn provider(body: Value) -> Provider {
    Provider::start(move |seen, _| serve(&body, seen)).await
}

fn serve(body: &Value, seen: &Seen) -> Reply {
    if let Some(key) = seen.path.strip_prefix("/v2/users/") {
        return user(key, key.starts_with("blocked"));
    }
    match seen.path.as_str() {
        "/v2/schedules/S1/timeline" => ok(body.to_string()),
        _ => reply(404, r#"{"message":"No such thing","took":0.1}"#),
    }
}

async fn read(provider: &Provider) -> Result<Snapshot, ReadError> {
    let source = opsgenie(provider, &TestClock::at(NOW));
    source.read(&schedule("S1"), window()).await
}

fn shown(snapshot: &Snapshot) -> Vec<String> {
    let known = |known| if known { "" } else { "?" };
    let line = |shift: &crate::model::Shift| {
        let (start, end) = (known(shift.start_known), known(shift.end_known));
        format!(
            "{start}{}..{}{end} {}",
            shift.interval.start(),
            shift.interval.end(),
            shift.user.id
        )
    };
    snapshot.shifts.iter().map(line).collect()
}

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

#[tokio::test]
async fn case_54_groups_are_flattened_where_they_begin_and_where_others_change() {
    let body = timeline_of(json!([
        rotation(json!([
            period("2026-01-05T00:00:00Z", "2026-01-08T00:00:00Z", team()),
            period("2026-01-08T00:00:00Z", "2026-01-12T00:00:00Z", person("john")),
            period("2026-01-12T00:00:00Z", "2026-01-14T00:00:00Z", team()),
        ])),
        rotation(json!([period(
            "2026-01-11T00:00:00Z",
            "2026-01-13T00:00:00Z",
            person("solo")
        )])),
    ]));
    let provider = Provider::start(move |seen, _| {
        let names = |names: &[&str]| ok(json!({"data": {"onCallRecipients": names}}).to_string());
        match (seen.path.as_str(), seen.query.get("date").map(String::as_str)) {
            // It runs now, so it is asked about now.
            ("/v2/schedules/S1/on-calls", Some("2026-01-07T12:00:00Z")) => names(&["ann@example.com"]),
            ("/v2/schedules/S1/on-calls", Some("2026-01-12T00:00:00Z")) => {
                names(&["bob@example.com", "solo@example.com"])
            }
            ("/v2/schedules/S1/on-calls", Some("2026-01-13T00:00:00Z")) => {
                names(&["bob@example.com", "cid@example.com"])
            }
            _ => serve(&body, seen),
        }
    })
    .await;
    let snapshot = read(&provider).await.unwrap();
    assert_eq!(snapshot.window, window());
    let mut shifts = shown(&snapshot);
    shifts.dedup();
    assert_eq!(
        shifts,
        [
            "?2026-01-07T00:00:00Z..2026-01-08T00:00:00Z ann",
            "2026-01-08T00:00:00Z..2026-01-12T00:00:00Z john",
            "2026-01-11T00:00:00Z..2026-01-13T00:00:00Z solo",
            "2026-01-12T00:00:00Z..2026-01-13T00:00:00Z solo",
            "2026-01-12T00:00:00Z..2026-01-14T00:00:00Z bob",
            "2026-01-13T00:00:00Z..2026-01-14T00:00:00Z cid",
        ]
    );
    let asked: Vec<_> = provider
        .seen()
        .into_iter()
        .filter(|seen| seen.path.ends_with("/on-calls"))
        .collect();
    assert_eq!(asked.len(), 3);
    assert_eq!(
        (
            asked[0].query["flat"].as_str(),
            asked[0].query["scheduleIdentifierType"].as_str()
        ),
        ("true", "id")
    );
}

#[tokio::test]
async fn case_54_groups_whose_people_cannot_be_read_fail_the_read() {
    let body = timeline_of(json!([rotation(json!([period(
        "2026-01-05T00:00:00Z",
        "2026-01-08T00:00:00Z",
        team()
    )]))]));
    let error = read(&provider(body).await).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::NotFound);
    assert!(error.message.contains("team Ops"), "{error}");

    let hourly: Vec<_> = (0..60)
        .map(|n| {
            let at = |n: i64| {
                let hour = jiff::SignedDuration::from_hours(n);
                ("2026-01-08T00:00:00Z".parse::<jiff::Timestamp>().unwrap() + hour).to_string()
            };
            period(&at(n), &at(n + 1), team())
        })
        .collect();
    let provider = provider(timeline_of(json!([rotation(json!(hourly))]))).await;
    let error = read(&provider).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Incomplete);
    assert_eq!(provider.lines().len(), 1);
}

#[test]
fn case_54_the_past_is_listed_person_by_person_after_forwarding() {
    let body = timeline_of(json!([rotation(json!([
        {"startDate": "2026-01-05T00:00:00Z", "endDate": "2026-01-06T08:11:21.263Z", "type": "historical",
         "recipient": team(), "flattenedRecipients": [person("jane"), person("john")]},
        {"startDate": "2026-01-06T08:11:21.263Z", "endDate": "2026-01-07T00:00:00Z", "type": "historical",
         "recipient": person("john"), "flattenedRecipients": [
            {"id": "jane", "type": "user", "name": "jane@example.com", "forwardedFrom": "john@example.com"}]},
    ]))]));
    let timeline = timeline::decode(body.to_string().as_bytes(), "S1").unwrap();
    let people = |n: usize| match &timeline.periods[n].who {
        timeline::Who::People(people) => people.iter().map(|person| person.key().unwrap()).collect::<Vec<_>>(),
        timeline::Who::Group(group) => panic!("{group:?}"),
    };
    assert_eq!(people(0), ["jane", "john"]);
    assert_eq!(people(1), ["jane"]);
    assert!(flatten::pieces(&timeline, window(), NOW.parse().unwrap()).is_empty());
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
async fn case_31_blocked_users_are_marked_and_missing_ones_are_deleted() {
    let body = timeline_of(json!([rotation(json!([
        period("2026-01-08T00:00:00Z", "2026-01-09T00:00:00Z", person("blocked")),
        period("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z", person("gone")),
        period("2026-01-10T00:00:00Z", "2026-01-11T00:00:00Z", person("john")),
    ]))]));
    let provider = Provider::start(move |seen, _| match seen.path.as_str() {
        "/v2/users/gone" => reply(404, r#"{"message":"User does not exist"}"#),
        _ => serve(&body, seen),
    })
    .await;
    let clock = TestClock::at(NOW);
    let source = opsgenie(&provider, &clock);
    let snapshot = source.read(&schedule("S1"), window()).await.unwrap();
    let states: Vec<_> = snapshot.shifts.iter().map(|shift| shift.user.state).collect();
    assert_eq!(
        states,
        [
            SourceUserState::Blocked,
            SourceUserState::Deleted,
            SourceUserState::Active
        ]
    );
    assert_eq!(snapshot.shifts[2].user.email.as_deref(), Some("john@example.com"));
    let asked = provider.lines().len();
    source.read(&schedule("S1"), window()).await.unwrap();
    assert_eq!(provider.lines().len(), asked + 1, "a steady poll costs one request");
}

#[tokio::test]
async fn a_key_that_may_not_read_users_still_reads_schedules_and_says_so() {
    let body = timeline_of(json!([rotation(json!([
        period("2026-01-08T00:00:00Z", "2026-01-09T00:00:00Z", person("jane")),
        period("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z", person("john")),
    ]))]));
    let provider = Provider::start(move |seen, _| {
        if seen.path.starts_with("/v2/users/") {
            reply(403, r#"{"message":"no"}"#)
        } else {
            serve(&body, seen)
        }
    })
    .await;
    let clock = TestClock::at(NOW);
    let source = opsgenie(&provider, &clock);
    for asked in [2, 3] {
        let snapshot = source.read(&schedule("S1"), window()).await.unwrap();
        assert_eq!(
            snapshot.notices,
            ["the key may not read users, so blocked users go unnoticed"]
        );
        assert_eq!(snapshot.shifts[0].user.email.as_deref(), Some("jane@example.com"));
        assert_eq!(provider.lines().len(), asked);
    }
    clock.advance(jiff::SignedDuration::from_mins(11));
    source.read(&schedule("S1"), window()).await.unwrap();
    assert_eq!(provider.lines().len(), 5);
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

#[test]
fn people_on_call_are_read_from_either_list() {
    let people = |body: &str| {
        let people = flatten::decode(body.as_bytes());
        people.map(|people| people.iter().map(|person| person.key().unwrap()).collect::<Vec<_>>())
    };
    assert_eq!(
        people(r#"{"data":{"onCallRecipients":["b@x","a@x"]}}"#).unwrap(),
        ["b@x", "a@x"]
    );
    assert_eq!(people(r#"{"data":{"onCallRecipients":[]}}"#).unwrap(), [""; 0]);
    let tree = r#"{"data":{"onCallParticipants":[{"type":"user","id":"a"},{"type":"team","id":"T","onCallParticipants":[
        {"type":"user","id":"b","forwardedFrom":{"type":"user","id":"c"}},{"type":"user","id":"a"},{"type":"none"}]}]}}"#;
    assert_eq!(people(tree).unwrap(), ["a", "b"]);
    for bad in [
        r#"{"data":{}}"#,
        r#"{"data":{"onCallRecipients":[""]}}"#,
        r#"{"data":{"onCallParticipants":[{}]}}"#,
    ] {
        assert!(people(bad).is_err(), "{bad}");
    }
}

#[test]
fn recorded_users_and_the_contracts_examples_decode() {
    let Some(recorded) = shared("fixtures/opsgenie-dxw-MIT/users.json") else {
        return;
    };
    let recorded: Value = serde_json::from_slice(&recorded).unwrap();
    for user in recorded["data"].as_array().unwrap() {
        let id = user["id"].as_str().unwrap();
        let decoded = users::decode(json!({ "data": user }).to_string().as_bytes(), id).unwrap();
        assert_eq!(decoded.email.as_deref(), user["username"].as_str());
        assert_eq!(decoded.state, SourceUserState::Active);
    }
    let Some(schedule) = shared("fixtures/opsgenie-dxw-MIT/schedule.json") else {
        return;
    };
    assert!(super::decode_enabled(&schedule).unwrap());
    assert!(timeline::decode(&schedule, "b8e97704-0e9d-41b5-b27c-9d9027c83943").is_err());

    let Some(contract) = shared("specs/opsgenie-oncall-mock.json") else {
        return;
    };
    let contract: Value = serde_json::from_slice(&contract).unwrap();
    let example = |path: &str| {
        contract["paths"][path]["get"]["responses"]["200"]["examples"]["application/json"]
            .to_string()
            .into_bytes()
    };
    let id = "e71d500f-896a-4b28-8b08-3bfe56e1ed76";
    let timeline = timeline::decode(&example("/v2/schedules/{identifier}/timeline"), id).unwrap();
    assert_eq!(
        (timeline.periods.len(), timeline.enabled, timeline.nameless),
        (5, Some(true), 0)
    );
    let people = flatten::decode(&example("/v2/schedules/{identifier}/on-calls")).unwrap();
    assert_eq!(people.len(), 2);
}

#[tokio::test]
async fn the_source_knows_its_name() {
    let provider = provider(json!({})).await;
    let source: Arc<_> = opsgenie(&provider, &TestClock::at(NOW));
    assert_eq!(source.name().to_string(), "src");
}
