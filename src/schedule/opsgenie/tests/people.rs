//! Users, and the recorded ones.

use super::*;
use crate::schedule::opsgenie::{decode_enabled, flatten, timeline, users};

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
    assert!(decode_enabled(&schedule).unwrap());
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
