//! PagerDuty: windows, final view, paging, nulls, credentials, limits.

use dutybound_sandbox::World;
use dutybound_sandbox::world::Rotation;
use dutybound_sandbox::world::pagerduty::{
    AuditRecord, CustomShift, EscalationPolicy, OauthClient, Schedule, ShiftOnV2, ShiftRotation, ShiftSchedule, Target,
};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{at, organisation, pagerduty, read, texts};

fn entries(body: &Value) -> Vec<(String, String, String)> {
    body["schedule"]["final_schedule"]["rendered_schedule_entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let text = |value: &Value| value.as_str().unwrap_or("null").to_owned();
            (text(&entry["user"]["id"]), text(&entry["start"]), text(&entry["end"]))
        })
        .collect()
}

fn rows(expected: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    let own = |text: &str| text.to_owned();
    expected
        .iter()
        .map(|(user, start, end)| (own(user), own(start), own(end)))
        .collect()
}

#[tokio::test]
async fn without_a_window_nothing_is_rendered() {
    let sandbox = organisation().await;
    let reply = pagerduty(&sandbox, "/schedules/PABC123").await;
    assert_eq!(reply.status, 200);
    assert_eq!(entries(&reply.body), []);
    assert_eq!(
        reply.body["schedule"]["final_schedule"]["rendered_coverage_percentage"],
        Value::Null
    );
    assert_eq!(texts(&reply.body["schedule"]["users"], "/id"), ["PALICE1", "PBOB002"]);
}

#[tokio::test]
async fn a_window_cuts_shifts_unless_overflow_is_asked_for() {
    let sandbox = organisation().await;
    let window = "since=2026-06-01T18:00:00Z&until=2026-06-02T06:00:00Z";
    let reply = pagerduty(&sandbox, &format!("/schedules/PABC123?{window}")).await;
    let cut = [
        ("PALICE1", "2026-06-01T18:00:00Z", "2026-06-02T00:00:00Z"),
        ("PBOB002", "2026-06-02T00:00:00Z", "2026-06-02T06:00:00Z"),
    ];
    assert_eq!(entries(&reply.body), rows(&cut));
    assert_eq!(
        reply.body["schedule"]["final_schedule"]["rendered_coverage_percentage"],
        100.0
    );

    let reply = pagerduty(&sandbox, &format!("/schedules/PABC123?{window}&overflow=true")).await;
    let whole = [
        ("PALICE1", "2026-06-01T12:00:00Z", "2026-06-02T00:00:00Z"),
        ("PBOB002", "2026-06-02T00:00:00Z", "2026-06-02T12:00:00Z"),
    ];
    assert_eq!(entries(&reply.body), rows(&whole));
}

#[tokio::test]
async fn overrides_split_the_final_view_and_timestamps_follow_the_zone() {
    let sandbox = organisation().await;
    sandbox.edit(|world| {
        let schedule = &mut world.pagerduty.schedules[0];
        schedule.override_with("PCAROL3", at("2026-06-01T14:00:00Z"), at("2026-06-01T15:00:00Z"));
    });
    let path = "/schedules/PABC123?since=2026-06-01T12:00:00Z&until=2026-06-02T00:00:00Z&time_zone=America/New_York";
    let reply = pagerduty(&sandbox, path).await;
    let expected = [
        ("PALICE1", "2026-06-01T08:00:00-04:00", "2026-06-01T10:00:00-04:00"),
        ("PCAROL3", "2026-06-01T10:00:00-04:00", "2026-06-01T11:00:00-04:00"),
        ("PALICE1", "2026-06-01T11:00:00-04:00", "2026-06-01T20:00:00-04:00"),
    ];
    assert_eq!(entries(&reply.body), rows(&expected));
    let path = "/schedules/PABC123/overrides?since=2026-06-01T14:30:00Z&until=2026-06-03T00:00:00Z";
    let reply = pagerduty(&sandbox, path).await;
    assert_eq!(texts(&reply.body["overrides"], "/start"), ["2026-06-01T14:30:00Z"]);
    assert_eq!(pagerduty(&sandbox, "/schedules/PABC123/overrides").await.status, 400);
}

#[tokio::test]
async fn a_rotation_of_one_has_a_start_and_no_end() {
    let sandbox = organisation().await;
    let path = "/schedules/PABC456?since=2026-06-03T00:00:00Z&until=2026-06-04T00:00:00Z";
    let reply = pagerduty(&sandbox, &format!("{path}&overflow=true")).await;
    assert_eq!(
        entries(&reply.body),
        rows(&[("PCAROL3", "2026-06-01T12:00:00Z", "null")])
    );
    let reply = pagerduty(&sandbox, path).await;
    assert_eq!(
        entries(&reply.body),
        rows(&[("PCAROL3", "2026-06-03T00:00:00Z", "2026-06-04T00:00:00Z")])
    );
}

#[tokio::test]
async fn a_deleted_person_is_a_bare_reference_and_has_no_page() {
    let sandbox = organisation().await;
    sandbox.edit(|world| world.pagerduty.users[0].deleted_at = Some(at("2026-05-01T00:00:00Z")));
    let path = "/schedules/PABC123?since=2026-06-01T12:00:00Z&until=2026-06-01T13:00:00Z";
    let reply = pagerduty(&sandbox, path).await;
    let user = &reply.body["schedule"]["final_schedule"]["rendered_schedule_entries"][0]["user"];
    assert_eq!(user["deleted_at"], "2026-05-01T00:00:00Z");
    assert_eq!(user["type"], "user_reference");
    let reply = pagerduty(&sandbox, "/users/PALICE1").await;
    assert_eq!((reply.status, &reply.body["error"]["code"]), (404, &json!(2100)));
    let reply = pagerduty(&sandbox, "/schedules/PABC123/users").await;
    assert_eq!(texts(&reply.body["users"], "/id"), ["PALICE1", "PBOB002"]);
    assert_eq!(reply.body["users"][0].get("name"), None);
    assert_eq!(reply.body["users"][1]["email"], "bob@example.com");
}

#[tokio::test]
async fn oncalls_default_to_now_and_show_whole_shifts_of_every_level() {
    let sandbox = organisation().await;
    sandbox.edit(|world| {
        world.pagerduty.escalation_policies[0]
            .levels
            .push(vec![Target::User("PBOB002".into())])
    });
    let reply = pagerduty(&sandbox, "/oncalls").await;
    let oncalls = &reply.body["oncalls"];
    assert_eq!(texts(oncalls, "/user/id"), ["PALICE1", "PCAROL3", "PBOB002"]);
    assert_eq!(
        texts(oncalls, "/start"),
        ["2026-06-01T12:00:00Z", "2026-06-01T12:00:00Z", "-"]
    );
    assert_eq!(texts(oncalls, "/end"), ["2026-06-02T00:00:00Z", "-", "-"]);
    assert_eq!(oncalls[2]["schedule"], Value::Null);
    assert_eq!(oncalls[2]["escalation_level"], 3);
    assert_eq!(oncalls[0]["user"].get("email"), None);
    assert_eq!(reply.body["total"], Value::Null);

    let reply = pagerduty(
        &sandbox,
        "/oncalls?schedule_ids[]=null&schedule_ids[]=PABC456&include[]=users",
    )
    .await;
    assert_eq!(
        texts(&reply.body["oncalls"], "/user/email"),
        ["carol@example.com", "bob@example.com"]
    );
    let reply = pagerduty(&sandbox, "/oncalls?schedule_ids%5B%5D=PABC456&user_ids%5B%5D=PBOB002").await;
    assert_eq!(reply.body["oncalls"], json!([]));
}

#[tokio::test]
async fn oncalls_repeat_a_shift_per_policy_and_miss_schedules_without_one() {
    let sandbox = organisation().await;
    sandbox.edit(|world| {
        world.pagerduty.escalation_policies.push(EscalationPolicy {
            id: "PESC790".into(),
            name: "second".into(),
            levels: vec![vec![Target::Schedule("PABC123".into())]],
        });
        let lonely = Schedule::new("PLONELY", "in no policy").with_entry("PBOB002", at("2026-06-01T00:00:00Z"), None);
        world.pagerduty.schedules.push(lonely);
    });
    let reply = pagerduty(&sandbox, "/oncalls").await;
    assert_eq!(
        texts(&reply.body["oncalls"], "/schedule/id"),
        ["PABC123", "PABC456", "PABC123"]
    );
}

#[tokio::test]
async fn oncalls_page_and_refuse_what_pagerduty_refuses() {
    let sandbox = organisation().await;
    let window = "since=2026-06-01T12:00:00Z&until=2026-06-03T12:00:00Z";
    let first = pagerduty(&sandbox, &format!("/oncalls?{window}&limit=3&total=true"))
        .await
        .body;
    assert_eq!(texts(&first["oncalls"], "/user/id"), ["PALICE1", "PBOB002", "PALICE1"]);
    assert_eq!((&first["more"], &first["total"]), (&json!(true), &json!(5)));
    let second = pagerduty(&sandbox, &format!("/oncalls?{window}&limit=3&offset=3"))
        .await
        .body;
    assert_eq!(texts(&second["oncalls"], "/user/id"), ["PBOB002", "PCAROL3"]);
    assert_eq!((&second["more"], &second["total"]), (&json!(false), &Value::Null));
    for path in [
        "/oncalls?limit=100&offset=9901",
        "/oncalls?since=2026-06-02T00:00:00Z&until=2026-06-01T00:00:00Z",
    ] {
        assert_eq!(pagerduty(&sandbox, path).await.status, 400, "{path}");
    }
    let far = pagerduty(
        &sandbox,
        "/oncalls?since=2026-06-01T12:00:00Z&until=2027-06-01T12:00:00Z&schedule_ids[]=PABC123&limit=100&offset=100",
    )
    .await;
    let last = far.body["oncalls"].as_array().unwrap().last().unwrap()["start"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        last, "2026-08-30T00:00:00Z",
        "no shift starts later than 90 days from now"
    );
}

#[tokio::test]
async fn shift_based_schedules_have_several_people_empty_slots_and_their_own_path() {
    let sandbox = organisation().await;
    sandbox.edit(|world| {
        world.pagerduty.shift_schedules.push(ShiftSchedule {
            id: "PSHIFT1".into(),
            name: "shift-based".into(),
            rotations: vec![ShiftRotation {
                id: "PROT1".into(),
                rotation: Rotation::new(
                    &["PALICE1", ""],
                    at("2026-06-01T12:00:00Z"),
                    SignedDuration::from_hours(1),
                ),
                every_member: false,
                overrides: Vec::new(),
            }],
            custom_shifts: vec![CustomShift {
                id: "PCUSTOM".into(),
                members: vec!["PBOB002".into(), "PCAROL3".into()],
                start: at("2026-06-01T13:00:00Z"),
                end: at("2026-06-01T15:00:00Z"),
            }],
            ..ShiftSchedule::default()
        });
    });
    let window = "since=2026-06-01T12:30:00Z&until=2026-06-01T14:00:00Z";
    let reply = pagerduty(&sandbox, &format!("/v3/schedules/PSHIFT1?{window}")).await;
    assert_eq!(reply.body["schedule"].get("final_schedule"), None);
    let reply = pagerduty(
        &sandbox,
        &format!("/v3/schedules/PSHIFT1?{window}&include[]=final_schedule"),
    )
    .await;
    let shifts = &reply.body["schedule"]["final_schedule"]["computed_shift_assignments"];
    assert_eq!(texts(shifts, "/member/user_id"), ["PALICE1", "-", "PBOB002", "PCAROL3"]);
    assert_eq!(shifts[1]["member"], json!({"type": "empty_member"}));
    assert_eq!(shifts[0]["start_time"], "2026-06-01T12:30:00Z");
    assert_eq!(
        shifts[3]["source"],
        json!({"type": "custom_shift", "shift_id": "PCUSTOM"})
    );

    assert_eq!(pagerduty(&sandbox, "/v3/schedules/PABC123").await.status, 400);
    assert_eq!(pagerduty(&sandbox, "/v3/schedules/PNONE").await.status, 404);
    assert_eq!(pagerduty(&sandbox, "/schedules/PSHIFT1").await.status, 400);
    sandbox.edit(|world| world.pagerduty.shift_schedule_on_v2_path = ShiftOnV2::OtherShape);
    let reply = pagerduty(&sandbox, "/schedules/PSHIFT1").await;
    assert_eq!(reply.body["schedule"]["type"], "schedule_v3");
    assert_eq!(
        texts(&pagerduty(&sandbox, "/schedules").await.body["schedules"], "/id"),
        ["PABC123", "PABC456"]
    );
    assert_eq!(
        texts(&pagerduty(&sandbox, "/v3/schedules").await.body["schedules"], "/id"),
        ["PSHIFT1"]
    );
}

#[tokio::test]
async fn an_upgrade_keeps_the_id_and_the_shifts_and_changes_the_path() {
    let sandbox = organisation().await;
    sandbox.edit(|world| {
        let schedule = world.pagerduty.schedule_mut("PABC123").unwrap();
        schedule.override_with("PCAROL3", at("2026-06-01T14:00:00Z"), at("2026-06-01T15:00:00Z"));
        assert!(world.pagerduty.upgrade("PABC123"));
    });
    assert_eq!(pagerduty(&sandbox, "/schedules/PABC123").await.status, 400);
    let window = "since=2026-06-01T12:00:00Z&until=2026-06-02T00:00:00Z";
    let reply = pagerduty(
        &sandbox,
        &format!("/v3/schedules/PABC123?{window}&include[]=final_schedule"),
    )
    .await;
    let shifts = &reply.body["schedule"]["final_schedule"]["computed_shift_assignments"];
    assert_eq!(texts(shifts, "/member/user_id"), ["PALICE1", "PCAROL3", "PALICE1"]);
    assert_eq!(shifts[1]["source"]["type"], "schedule_rotation_override");
    let oncalls = pagerduty(&sandbox, "/oncalls?schedule_ids[]=PABC123").await.body;
    assert_eq!(oncalls["oncalls"][0]["schedule"]["type"], "schedule_v3_reference");
}

#[tokio::test]
async fn only_exact_credentials_are_accepted() {
    let sandbox = organisation().await;
    let client = super::client();
    for header in [
        "Token token=wrong",
        "Token test-key",
        "Bearer test-key",
        "token token=test-key",
        "test-key",
    ] {
        let request = client
            .get(format!("{}/users", sandbox.pagerduty_url()))
            .header("authorization", header);
        let reply = read(request).await;
        assert_eq!(
            (reply.status, &reply.body["error"]["code"]),
            (401, &json!(2006)),
            "{header}"
        );
    }
}

#[tokio::test]
async fn an_app_token_has_the_scopes_it_may_have_and_expires() {
    let sandbox = organisation().await;
    sandbox.edit(|world| {
        world.pagerduty.oauth_clients.push(OauthClient {
            id: "client".into(),
            secret: "shh".into(),
            scopes: vec!["as_account-us.acme".into(), "oncalls.read".into()],
        });
    });
    let token_url = format!("{}/oauth/token", sandbox.pagerduty_url());
    let ask = |secret: &'static str| {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", "client"),
            ("client_secret", secret),
            ("scope", "as_account-us.acme oncalls.read users.read"),
        ];
        read(super::client().post(&token_url).form(&form))
    };
    assert_eq!(ask("wrong").await.status, 401);
    let reply = ask("shh").await;
    assert_eq!(reply.body["scope"], "as_account-us.acme oncalls.read");
    assert_eq!(reply.body["expires_in"], 86_400);
    assert!(
        !format!("{:?}", sandbox.journal()).contains("shh"),
        "secrets stay out of the journal"
    );

    let bearer = format!("Bearer {}", reply.body["access_token"].as_str().unwrap());
    let get = |path: &str| {
        let url = format!("{}{path}", sandbox.pagerduty_url());
        read(super::client().get(url).header("authorization", bearer.as_str()))
    };
    assert_eq!(get("/oncalls").await.status, 200);
    assert_eq!(get("/users").await.status, 403);
    sandbox.set_now(Some(at("2026-06-02T12:00:00Z")));
    assert_eq!(get("/oncalls").await.status, 401);
}

#[tokio::test]
async fn the_minute_has_so_many_requests() {
    let sandbox = organisation().await;
    sandbox.edit(|world| world.pagerduty.requests_per_minute = 2);
    let first = pagerduty(&sandbox, "/users").await;
    assert_eq!(
        (first.header("ratelimit-limit"), first.header("ratelimit-remaining")),
        ("2", "1")
    );
    let second = pagerduty(&sandbox, "/users").await;
    assert_eq!((second.status, second.header("ratelimit-remaining")), (200, "0"));
    let third = pagerduty(&sandbox, "/users").await;
    assert_eq!((third.status, &third.body["error"]["code"]), (429, &json!(2020)));
    assert!(third.header("ratelimit-reset").parse::<u64>().unwrap() <= 60);
}

#[tokio::test]
async fn oncalls_have_a_limit_of_their_own_and_headers_show_the_closest() {
    let sandbox = organisation().await;
    sandbox.edit(|world| world.pagerduty.oncalls_per_minute = Some(1));
    let first = pagerduty(&sandbox, "/oncalls").await;
    assert_eq!((first.status, first.header("ratelimit-remaining")), (200, "0"));
    assert_eq!(pagerduty(&sandbox, "/oncalls").await.status, 429);
    let other = pagerduty(&sandbox, "/users").await;
    assert_eq!((other.status, other.header("ratelimit-limit")), (200, "960"));
}

#[tokio::test]
async fn booleans_are_lower_case_and_windows_of_microseconds_are_empty() {
    let sandbox = organisation().await;
    let path = "/schedules/PABC123?since=2026-06-01T13:00:00Z&until=2026-06-01T14:00:00Z&overflow=True";
    assert_eq!(pagerduty(&sandbox, path).await.status, 400);
    let narrow = "/schedules/PABC123?since=2026-06-01T13:00:00Z&until=2026-06-01T13:00:00.000005Z";
    assert_eq!(entries(&pagerduty(&sandbox, narrow).await.body), []);
    let instant = "/schedules/PABC123?since=2026-06-01T13:00:00Z&until=2026-06-01T13:00:00Z&overflow=true";
    let expected = [("PALICE1", "2026-06-01T12:00:00Z", "2026-06-02T00:00:00Z")];
    assert_eq!(entries(&pagerduty(&sandbox, instant).await.body), rows(&expected));
}

#[tokio::test]
async fn the_date_header_follows_the_simulators_clock() {
    let sandbox = organisation().await;
    let reply = pagerduty(&sandbox, "/users").await;
    assert_eq!(reply.header("date"), "Mon, 01 Jun 2026 12:00:00 GMT");
}

#[test]
fn a_world_survives_json() {
    let world = World::small_organisation(at("2026-06-01T12:00:00Z"), SignedDuration::from_secs(30));
    let text = serde_json::to_string(&world).unwrap();
    assert_eq!(serde_json::from_str::<World>(&text).unwrap(), world);
}

#[tokio::test]
async fn audit_records_come_newest_first_by_pages_and_only_where_the_plan_has_them() {
    let sandbox = organisation().await;
    sandbox.edit(|world| {
        let minute = |n: i64| at("2026-06-01T10:00:00Z") + SignedDuration::from_mins(n);
        world.pagerduty.audit_records = (0..150)
            .map(|n| AuditRecord::new(&format!("R{n}"), "PABC123", "PALICE1", minute(n)))
            .collect();
        let other = AuditRecord::new("X", "POTHER1", "PALICE1", minute(0));
        world.pagerduty.audit_records.push(other);
    });
    let path = "/schedules/PABC123/audit/records?since=2026-06-01T10:00:00Z&until=2026-06-01T12:00:00Z";
    let first = pagerduty(&sandbox, path).await.body;
    let ids = texts(&first["records"], "/id");
    assert_eq!((ids.len(), ids[0].as_str()), (100, "R120"));
    assert_eq!(first["records"][0]["actors"][0]["type"], "user_reference");
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = pagerduty(&sandbox, &format!("{path}&cursor={cursor}")).await.body;
    assert_eq!(texts(&second["records"], "/id").len(), 21);
    assert_eq!(second["next_cursor"], Value::Null);

    let too_long = "/schedules/PABC123/audit/records?since=2026-01-01T00:00:00Z";
    assert_eq!(pagerduty(&sandbox, too_long).await.status, 400);
    assert_eq!(pagerduty(&sandbox, "/schedules/PNONE/audit/records").await.status, 404);
    assert_eq!(
        pagerduty(&sandbox, "/v3/schedules/PABC123/audit/records").await.status,
        400
    );
    sandbox.edit(|world| world.pagerduty.audit_trail = false);
    assert_eq!(pagerduty(&sandbox, path).await.status, 402);
}
