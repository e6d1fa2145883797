//! Opsgenie: snapped windows, recipients, on-calls, credentials, limits.

use dutybound_sandbox::world::opsgenie::{
    Group, Limit, Period, Recipient, RecipientKind, Schedule, ScheduleRotation, TeamKey,
};
use serde_json::{Value, json};

use super::{at, opsgenie, organisation, read, texts};

const DATA: &str = "6fce1fd0-bbbb-4000-8000-000000000001";

#[tokio::test]
async fn the_window_begins_with_the_unit_in_the_schedules_zone_and_cuts() {
    let sandbox = organisation().await;
    sandbox.edit(|world| world.opsgenie.schedules[0].time_zone = "America/Los_Angeles".into());
    // Thursday; its week begins on Monday 00:00 Pacific, in the middle of the turn from 00:00Z to 12:00Z.
    let reply = opsgenie(
        &sandbox,
        &format!("/v2/schedules/{DATA}/timeline?date=2026-06-11T10:00:00Z"),
    )
    .await;
    let data = &reply.body["data"];
    assert_eq!(
        (&data["startDate"], &data["endDate"]),
        (&json!("2026-06-08T07:00:00Z"), &json!("2026-06-15T07:00:00Z"))
    );
    let periods = &data["finalTimeline"]["rotations"][0]["periods"];
    assert_eq!(periods[0]["startDate"], "2026-06-08T07:00:00Z", "cut at the window");
    assert_eq!(periods[0]["endDate"], "2026-06-08T12:00:00Z");
    assert_eq!(reply.body["expandable"], json!(["base", "forwarding", "override"]));

    let path = format!("/v2/schedules/{DATA}/timeline?date=2026-06-11T10:00:00Z&interval=2&intervalUnit=months");
    let data = opsgenie(&sandbox, &path).await.body["data"].clone();
    assert_eq!(
        (&data["startDate"], &data["endDate"]),
        (&json!("2026-06-01T07:00:00Z"), &json!("2026-08-01T07:00:00Z"))
    );
    let path = format!("/v2/schedules/{DATA}/timeline?date=2026-03-08T12:00:00-07:00&intervalUnit=days");
    let data = opsgenie(&sandbox, &path).await.body["data"].clone();
    let day = (&data["startDate"], &data["endDate"]);
    assert_eq!(
        day,
        (&json!("2026-03-08T08:00:00Z"), &json!("2026-03-09T07:00:00Z")),
        "23 hours of a spring day"
    );
    let bad = opsgenie(&sandbox, &format!("/v2/schedules/{DATA}/timeline?intervalUnit=years")).await;
    assert_eq!(bad.status, 422);
}

#[tokio::test]
async fn overrides_split_periods_and_the_past_is_historical() {
    let sandbox = organisation().await;
    let erin = sandbox.edit(|world| {
        let erin = world.opsgenie.users[1].id.clone();
        let schedule = &mut world.opsgenie.schedules[0];
        schedule.override_with(
            Recipient::user(&erin),
            at("2026-06-01T14:00:00Z"),
            at("2026-06-01T15:00:00Z"),
        );
        schedule.override_with(
            Recipient::none(),
            at("2026-06-01T20:00:00Z"),
            at("2026-06-01T21:00:00Z"),
        );
        erin
    });
    sandbox.set_now(Some(at("2026-06-01T14:30:00Z")));
    let path = format!("/v2/schedules/{DATA}/timeline?intervalUnit=days&expand=base,override");
    let data = opsgenie(&sandbox, &path).await.body["data"].clone();
    let periods = &data["finalTimeline"]["rotations"][0]["periods"];
    assert_eq!(
        texts(periods, "/type"),
        ["historical", "override", "default", "override", "default"]
    );
    let names = [
        "dave@example.com",
        "erin@example.com",
        "dave@example.com",
        "-",
        "dave@example.com",
    ];
    assert_eq!(texts(periods, "/recipient/name"), names);
    assert_eq!(periods[3]["recipient"], json!({"type": "none"}));
    assert_eq!(periods[0]["flattenedRecipients"][0]["name"], "dave@example.com");
    assert_eq!(
        data["baseTimeline"]["rotations"][0]["periods"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        data["overrideTimeline"]["rotations"][0]["periods"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let overrides = opsgenie(&sandbox, &format!("/v2/schedules/{DATA}/overrides"))
        .await
        .body["data"]
        .clone();
    assert_eq!(overrides[0]["user"], json!({"type": "user", "id": erin}));
}

#[tokio::test]
async fn teams_are_flattened_by_on_calls_only_and_forwarding_names_both() {
    let sandbox = organisation().await;
    sandbox.edit(|world| {
        let genie = &mut world.opsgenie;
        let (dave, erin) = (genie.users[0].id.clone(), genie.users[1].id.clone());
        genie.groups = vec![
            Group {
                kind: RecipientKind::Team,
                id: "team-1".into(),
                name: "data".into(),
                members: vec![Recipient::user(&dave), Recipient::user(&erin)],
            },
            Group {
                kind: RecipientKind::Escalation,
                id: "esc-1".into(),
                name: "data escalation".into(),
                members: vec![Recipient::team("team-1")],
            },
        ];
        let period = |recipient: Recipient, kind: &str, from_user: Option<String>| Period {
            start: at("2026-06-01T00:00:00Z"),
            end: at("2026-06-03T00:00:00Z"),
            recipient,
            kind: kind.into(),
            from_user,
        };
        let rotation = |id: &str, periods: Vec<Period>| ScheduleRotation {
            id: id.into(),
            name: id.into(),
            periods,
            ..ScheduleRotation::default()
        };
        let mut schedule = Schedule::new("s-2", "groups");
        schedule.rotations = vec![
            rotation("r1", vec![period(Recipient::escalation("esc-1"), "default", None)]),
            rotation("r2", vec![period(Recipient::user(&erin), "forwarding", Some(dave))]),
            ScheduleRotation {
                without_periods: true,
                ..rotation("r3", Vec::new())
            },
        ];
        genie.schedules.push(schedule);
    });
    let data = opsgenie(&sandbox, "/v2/schedules/groups/timeline?identifierType=name")
        .await
        .body["data"]
        .clone();
    let rotations = &data["finalTimeline"]["rotations"];
    assert_eq!(
        rotations[0]["periods"][0]["recipient"],
        json!({"id": "esc-1", "type": "escalation", "name": "data escalation"})
    );
    assert_eq!(rotations[0]["periods"][0].get("flattenedRecipients"), None);
    assert_eq!(rotations[1]["periods"][0]["fromUser"], "dave@example.com");
    assert_eq!(rotations[2].get("periods"), None);
    assert_eq!(rotations[2]["order"], Value::Null);

    let flat = opsgenie(
        &sandbox,
        "/v2/schedules/groups/on-calls?scheduleIdentifierType=name&flat=true",
    )
    .await;
    assert_eq!(
        flat.body["data"]["onCallRecipients"],
        json!(["dave@example.com", "erin@example.com"])
    );
    let tree = opsgenie(&sandbox, "/v2/schedules/s-2/on-calls?date=2026-06-02T00:00:00%2B02:00").await;
    let participants = &tree.body["data"]["onCallParticipants"];
    assert_eq!(
        participants[0]["onCallParticipants"][0]["onCallParticipants"][1]["name"],
        "erin@example.com"
    );
    assert_eq!(participants[1]["forwardedFrom"]["name"], "dave@example.com");
    // The parameter has another name here, so this one is not understood and the name is no id.
    assert_eq!(
        opsgenie(&sandbox, "/v2/schedules/groups/on-calls?identifierType=name")
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn a_disabled_schedule_has_nobody_on_call() {
    let sandbox = organisation().await;
    let on_call = format!("/v2/schedules/{DATA}/on-calls?flat=true");
    assert_eq!(
        opsgenie(&sandbox, &on_call).await.body["data"]["onCallRecipients"],
        json!(["dave@example.com"])
    );
    sandbox.edit(|world| world.opsgenie.schedules[0].enabled = false);
    let reply = opsgenie(&sandbox, &on_call).await;
    assert_eq!(reply.body["data"]["onCallRecipients"], json!([]));
    assert_eq!(reply.body["data"]["_parent"]["enabled"], false);
}

#[tokio::test]
async fn keys_see_what_they_may_see() {
    let sandbox = organisation().await;
    sandbox.edit(|world| {
        world.opsgenie.team_keys.push(TeamKey {
            key: "team".into(),
            schedules: vec!["other".into()],
        });
    });
    let get = |header: &'static str, path: &str| {
        let url = format!("{}{path}", sandbox.opsgenie_url());
        read(super::client().get(url).header("authorization", header))
    };
    let path = format!("/v2/schedules/{DATA}");
    assert_eq!(get("GenieKey wrong", &path).await.status, 401);
    assert_eq!(get("Bearer test-key", &path).await.status, 401);
    let reply = get("GenieKey team", &path).await;
    assert_eq!((reply.status, &reply.body["code"]), (403, &json!(40_301)));
    assert_eq!(get("GenieKey team", "/v2/schedules").await.body["data"], json!([]));
    assert_eq!(get("GenieKey team", "/v2/request-limits").await.status, 403);
    assert_eq!(opsgenie(&sandbox, "/v2/schedules/none").await.status, 404);
    sandbox.edit(|world| world.opsgenie.missing_schedule_is_forbidden = true);
    let reply = opsgenie(&sandbox, "/v2/schedules/none").await;
    assert_eq!((reply.status, &reply.body["code"]), (403, &json!(40_301)));
}

#[tokio::test]
async fn users_page_with_plain_links_and_are_found_by_username() {
    let sandbox = organisation().await;
    let first = opsgenie(&sandbox, "/v2/users?limit=1").await.body;
    assert_eq!(texts(&first["data"], "/username"), ["dave@example.com"]);
    assert_eq!(first["totalCount"], 2);
    assert!(first["paging"]["next"].as_str().unwrap().starts_with("http://"));
    let second = opsgenie(&sandbox, "/v2/users?limit=1&offset=1").await.body;
    assert_eq!(texts(&second["data"], "/username"), ["erin@example.com"]);
    assert_eq!(second["paging"].get("next"), None);
    let erin = opsgenie(&sandbox, "/v2/users/erin%40example.com").await.body;
    assert_eq!(erin["data"]["fullName"], "Erin Evans");
    assert_eq!(opsgenie(&sandbox, "/v2/users/nobody@example.com").await.status, 404);
}

#[tokio::test]
async fn each_domain_has_its_own_limit() {
    let sandbox = organisation().await;
    sandbox.edit(|world| {
        world.opsgenie.limits = vec![Limit {
            domain: "Search".into(),
            limit: 1,
            period_seconds: 3600,
        }];
    });
    assert_eq!(opsgenie(&sandbox, "/v2/users").await.status, 200);
    let reply = opsgenie(&sandbox, "/v2/users").await;
    assert_eq!((reply.status, reply.header("x-ratelimit-period-in-sec")), (429, "3600"));
    assert_eq!(reply.body["message"], "You are making too many requests!");
    assert_eq!(opsgenie(&sandbox, "/v2/schedules").await.status, 200);
    let limits = opsgenie(&sandbox, "/v2/request-limits").await.body;
    assert_eq!(
        limits["data"]["rateLimits"][0]["limits"][0],
        json!({"limit": 1, "periodInSeconds": 3600})
    );
}
