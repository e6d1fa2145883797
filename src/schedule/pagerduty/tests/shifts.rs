//! Shift-based schedules.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::*;
use crate::schedule::pagerduty::v3;
use crate::schedule::testing::{Provider, TestClock, pagerduty, schedule, span};

const NOW: &str = "2026-01-07T12:00:00Z";

fn week() -> crate::model::Interval {
    span("2026-01-05T00:00:00Z", "2026-01-21T00:00:00Z")
}

fn assignment(start: &str, end: &str, member: Value, source: Value) -> Value {
    json!({"type": "computed_shift_assignment", "start_time": start, "end_time": end, "member": member, "source": source})
}

fn person(id: &str) -> Value {
    json!({"type": "user_member", "user_id": id})
}

fn rotation() -> Value {
    json!({"type": "schedule_rotation", "rotation_id": "R"})
}

#[tokio::test]
async fn case_14_15_several_at_once_count_and_empty_slots_are_nobody() {
    let provider = Provider::start(|seen, _| match seen.path.as_str() {
        "/v3/schedules/PS" => ok(shift_based(
            "PS",
            json!([
                assignment("2026-01-06T09:00:00Z", "2026-01-12T09:00:00Z", person("PA"), rotation()),
                assignment(
                    "2026-01-06T09:00:00Z",
                    "2026-01-06T10:00:00Z",
                    person("PB"),
                    json!({"type": "custom_shift_override", "shift_id": "S", "override_id": "O"})
                ),
                assignment(
                    "2026-01-12T09:00:00Z",
                    "2026-01-13T09:00:00Z",
                    json!({"type": "empty_member"}),
                    rotation()
                ),
            ]),
        )),
        _ => any_user(seen).unwrap_or_else(|| reply(404, "")),
    })
    .await;
    let source = pagerduty(&provider, &TestClock::at(NOW));
    let snapshot = source.read(&schedule("PS"), week()).await.unwrap();
    assert_eq!(
        shown(&snapshot),
        [
            "2026-01-06T09:00:00Z..2026-01-06T10:00:00Z PB",
            "2026-01-06T09:00:00Z..2026-01-12T09:00:00Z PA"
        ]
    );
    assert_eq!(snapshot.shifts[0].via_override.as_deref(), Some("O"));
    assert_eq!(
        provider.lines(),
        ["GET /v3/schedules/PS", "GET /users/PA", "GET /users/PB"]
    );
    assert_eq!(provider.seen()[0].query["include[]"], "final_schedule");
}

#[tokio::test]
async fn case_16_an_upgraded_schedule_switches_without_an_error() {
    for old_path_answers in [404, 400, 200] {
        static UPGRADED: AtomicBool = AtomicBool::new(false);
        UPGRADED.store(false, Ordering::SeqCst);
        let provider = Provider::start(move |seen, _| {
            let upgraded = UPGRADED.load(Ordering::SeqCst);
            let turn = |from: &str| entry(from, "2026-01-12T09:00:00Z", "PU");
            match (seen.path.as_str(), upgraded) {
                ("/v3/schedules/PA", false) => not_v3(),
                ("/schedules/PA", false) => ok(layered("PA", json!([turn("2026-01-06T09:00:00Z")]))),
                ("/v3/schedules/PA", true) => ok(shift_based(
                    "PA",
                    json!([assignment(
                        "2026-01-06T09:00:00Z",
                        "2026-01-12T09:00:00Z",
                        person("PU"),
                        rotation()
                    )]),
                )),
                ("/schedules/PA", true) => reply(
                    old_path_answers,
                    r#"{"schedule":{"id":"PA","type":"schedule_v3","name":"n"}}"#,
                ),
                _ => any_user(seen).unwrap_or_else(|| reply(404, "")),
            }
        })
        .await;
        let source = pagerduty(&provider, &TestClock::at(NOW));
        let before = source.read(&schedule("PA"), week()).await.unwrap();
        UPGRADED.store(true, Ordering::SeqCst);
        let after = source.read(&schedule("PA"), week()).await.unwrap();
        assert_eq!(before.shifts, after.shifts, "{old_path_answers}");
        let asked = provider.seen().len();
        source.read(&schedule("PA"), week()).await.unwrap();
        assert_eq!(provider.seen().len(), asked + 1, "the new place is remembered");
    }
}

#[test]
fn case_18_a_row_of_an_unknown_type_makes_the_answer_unusable() {
    let decode = |member: Value, source: Value| {
        let row = assignment("2026-01-06T09:00:00Z", "2026-01-06T10:00:00Z", member, source);
        v3::decode(shift_based("PS", json!([row])).as_bytes(), "PS").map_err(|error| error.to_string())
    };
    assert!(decode(person("PU"), rotation()).is_ok());
    let shadow = decode(person("PU"), json!({"type": "shadow_rotation"})).unwrap_err();
    assert!(shadow.contains("unknown type \"shadow_rotation\""), "{shadow}");
    assert!(decode(json!({"type": "team_member", "team_id": "T"}), rotation()).is_err());
    assert!(decode(json!({"type": "user_member", "user_id": ""}), rotation()).is_err());
    assert!(decode(json!({"type": "user_member"}), rotation()).is_err());
}

#[test]
fn case_46_a_shift_based_schedule_without_its_final_schedule_is_not_nobody() {
    for bad in [
        r#"{"schedule":{"id":"PS","type":"schedule_v3"}}"#,
        r#"{"schedule":{"id":"PS","type":"schedule_v3","final_schedule":{}}}"#,
        r#"{"schedule":{"id":"PS","type":"schedule_v3","final_schedule":{"computed_shift_assignments":null}}}"#,
        r#"{"schedule":{"id":"PX","type":"schedule_v3","final_schedule":{"computed_shift_assignments":[]}}}"#,
        "{}",
        "",
        "<html>",
    ] {
        assert!(v3::decode(bad.as_bytes(), "PS").is_err(), "{bad}");
    }
    assert!(v3::decode(shift_based("PS", json!([])).as_bytes(), "PS").is_ok());
}
