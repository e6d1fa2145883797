//! Teams and other groups on call.

use super::*;
use crate::schedule::opsgenie::{flatten, timeline};

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
    assert_eq!(flatten::pieces(&timeline, window(), NOW.parse().unwrap()), Some(vec![]));
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
