//! Scripted faults: which calls they meet and what the caller sees.

use std::sync::Arc;
use std::time::Duration;

use dutybound_sandbox::{Effect, Fault, Service};
use serde_json::json;

use super::{PATIENCE, aws_request, opsgenie, organisation, pagerduty, sso, store};

const SCHEDULE: &str = "GET /schedules/PABC123";

#[tokio::test]
async fn a_fault_meets_the_calls_it_was_scripted_for() {
    let sandbox = organisation().await;
    sandbox.fault(Fault::on(Service::PagerDuty, SCHEDULE).after(1).times(2).status(503));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(pagerduty(&sandbox, "/schedules/PABC123").await.status);
        assert_eq!(pagerduty(&sandbox, "/schedules/PABC456").await.status, 200);
    }
    assert_eq!(statuses, [200, 503, 503, 200]);
    assert_eq!(sandbox.faults()[0].seen, 4);
    let faulted: Vec<_> = sandbox
        .journal()
        .into_iter()
        .filter(|call| call.fault.is_some())
        .collect();
    assert_eq!(faulted.len(), 2);
    assert!(faulted.iter().all(|call| !call.performed && call.status == Some(503)));
}

#[tokio::test]
async fn a_star_meets_all_and_one_page_meets_one() {
    let sandbox = organisation().await;
    sandbox.fault(Fault::on(Service::PagerDuty, "GET /users*").page(2).respond(
        429,
        &[("ratelimit-reset", "7")],
        json!({"error": {"message": "Rate Limit Exceeded", "code": 2020}}),
    ));
    assert_eq!(pagerduty(&sandbox, "/users?limit=1").await.status, 200);
    let second = pagerduty(&sandbox, "/users?limit=1&offset=1").await;
    assert_eq!((second.status, second.header("ratelimit-reset")), (429, "7"));
    assert_eq!(second.body["error"]["code"], 2020);
    assert_eq!(pagerduty(&sandbox, "/users?limit=1&offset=2").await.status, 200);

    sandbox.edit(|world| world.aws.page_size = 2);
    sandbox.fault(
        Fault::on(Service::Aws, "ListUsers")
            .page(2)
            .aws_error("InternalServerException", "try later"),
    );
    let first = store(&sandbox, "ListUsers", json!({})).await;
    let token = json!({"NextToken": first.body["NextToken"]});
    let second = store(&sandbox, "ListUsers", token).await;
    assert_eq!(
        (second.status, &second.body["__type"]),
        (500, &json!("InternalServerException"))
    );
}

#[tokio::test]
async fn a_cut_connection_gives_no_answer() {
    let sandbox = organisation().await;
    sandbox.fault(Fault::on(Service::PagerDuty, "*").times(1).cut());
    let request = super::client().get(format!("{}/users", sandbox.pagerduty_url()));
    let error = request.send().await.expect_err("the connection was cut");
    assert_eq!(error.status(), None);
    let call = &sandbox.journal()[0];
    assert_eq!((call.status, call.performed), (None, false));
    assert_eq!(pagerduty(&sandbox, "/users").await.status, 200);
}

#[tokio::test]
async fn a_connection_cut_in_the_body_gives_half_an_answer() {
    let sandbox = organisation().await;
    sandbox.fault(Fault::on(Service::Opsgenie, "GET /v2/users").effect(Effect::CutInBody));
    let url = format!("{}/v2/users", sandbox.opsgenie_url());
    let response = super::client()
        .get(url)
        .header("authorization", "GenieKey test-key")
        .send()
        .await
        .expect("the head arrives");
    assert_eq!(response.status(), 200);
    let promised = response.content_length().unwrap();
    assert!(promised > 100);
    response.bytes().await.expect_err("the body does not");
}

#[tokio::test]
async fn a_lost_reply_hides_an_operation_that_was_performed() {
    let sandbox = organisation().await;
    let (group, alice) = sandbox.edit(|world| {
        let aws = &world.aws;
        (
            aws.group_id("data-oncall").unwrap().to_owned(),
            aws.user_id("alice@example.com").unwrap().to_owned(),
        )
    });
    sandbox.fault(Fault::on(Service::Aws, "CreateGroupMembership").times(1).lost_reply());
    let body = json!({
        "IdentityStoreId": sandbox.edit(|world| world.aws.identity_store_id.clone()),
        "GroupId": group,
        "MemberId": {"UserId": alice},
    });
    let request = aws_request(
        &sandbox,
        "eu-central-1",
        "AWSIdentityStore.CreateGroupMembership",
        &body,
    );
    request.send().await.expect_err("the reply was lost");
    assert!(sandbox.edit(|world| world.aws.is_member("data-oncall", "alice@example.com")));
    let call = &sandbox.journal()[0];
    assert_eq!(
        (call.status, call.performed, call.fault.as_deref()),
        (None, true, Some("lost reply"))
    );
    let again = store(&sandbox, "CreateGroupMembership", body).await;
    assert_eq!(again.body["__type"], "ConflictException");
}

#[tokio::test]
async fn answers_that_are_no_json() {
    let sandbox = organisation().await;
    for effect in [Effect::Garbage, Effect::Html, Effect::EmptyBody, Effect::TruncatedJson] {
        sandbox.fault(Fault::on(Service::PagerDuty, SCHEDULE).effect(effect.clone()));
        let request = super::client()
            .get(format!("{}/schedules/PABC123", sandbox.pagerduty_url()))
            .header("authorization", "Token token=test-key");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let bytes = response.bytes().await.expect("a whole answer");
        assert!(
            serde_json::from_slice::<serde_json::Value>(&bytes).is_err(),
            "{effect:?}"
        );
        assert_eq!(bytes.is_empty(), effect == Effect::EmptyBody);
        sandbox.clear_faults();
    }
}

#[tokio::test]
async fn answers_that_are_json_and_wrong() {
    let sandbox = organisation().await;
    sandbox.fault(Fault::on(Service::PagerDuty, "GET /oncalls").effect(Effect::EmptyList));
    let reply = pagerduty(&sandbox, "/oncalls?limit=1").await;
    assert_eq!(
        (reply.status, &reply.body["oncalls"], &reply.body["more"]),
        (200, &json!([]), &json!(false))
    );

    let elsewhere = "http://other.example/v2/users?offset=1";
    sandbox.fault(Fault::on(Service::Opsgenie, "GET /v2/users").effect(Effect::NextLink(elsewhere.into())));
    let reply = opsgenie(&sandbox, "/v2/users").await;
    assert_eq!(reply.body["paging"]["next"], elsewhere);
    assert_eq!(reply.body["data"].as_array().unwrap().len(), 2);

    sandbox.fault(Fault::on(Service::PagerDuty, "GET /users").effect(Effect::ContentType("text/html".into())));
    let reply = pagerduty(&sandbox, "/users").await;
    assert_eq!(
        (
            reply.header("content-type"),
            reply.body["users"].as_array().unwrap().len()
        ),
        ("text/html", 3)
    );
}

#[tokio::test]
async fn a_redirect_names_another_host() {
    let sandbox = organisation().await;
    let elsewhere = format!("{}/users", sandbox.control_url());
    sandbox.fault(Fault::on(Service::PagerDuty, "GET /users").effect(Effect::Redirect(elsewhere.clone())));
    let client = super::client();
    let response = client
        .get(format!("{}/users", sandbox.pagerduty_url()))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            response.headers()["location"].to_str().unwrap()
        ),
        (302, elsewhere.as_str())
    );
}

#[tokio::test]
async fn a_held_call_is_in_the_journal_and_goes_on_when_faults_are_cleared() {
    let sandbox = Arc::new(organisation().await);
    sandbox.fault(Fault::on(Service::Aws, "ListPermissionSets").hold());
    let caller = Arc::clone(&sandbox);
    let call = tokio::spawn(async move { sso(&caller, "ListPermissionSets", json!({})).await.status });
    let arrived = sandbox.wait_for(
        |view| {
            view.journal
                .iter()
                .any(|call| call.operation == "ListPermissionSets" && call.status.is_none())
        },
        PATIENCE,
    );
    assert_eq!(arrived.await, Ok(()));
    assert!(!call.is_finished());
    sandbox.clear_faults();
    assert_eq!(call.await.unwrap(), 200);
    assert!(sandbox.journal()[0].succeeded());
}

#[tokio::test]
async fn a_held_reply_belongs_to_an_operation_that_was_performed() {
    let sandbox = Arc::new(organisation().await);
    let body = sandbox.edit(|world| {
        let aws = &world.aws;
        json!({"GroupId": aws.group_id("data-oncall"), "MemberId": {"UserId": aws.user_id("alice@example.com")}})
    });
    sandbox.fault(Fault::on(Service::Aws, "CreateGroupMembership").hold_reply());
    let caller = Arc::clone(&sandbox);
    let call = tokio::spawn(async move { store(&caller, "CreateGroupMembership", body).await.status });
    let performed = sandbox.wait_for(
        |view| view.journal.iter().any(|call| call.performed && call.status.is_none()),
        PATIENCE,
    );
    assert_eq!(performed.await, Ok(()));
    assert!(sandbox.edit(|world| world.aws.is_member("data-oncall", "alice@example.com")));
    assert!(!call.is_finished());
    sandbox.clear_faults();
    assert_eq!(call.await.unwrap(), 200);
}

#[tokio::test]
async fn a_delayed_call_is_answered_later_and_unperformed_until_then() {
    let sandbox = organisation().await;
    sandbox.fault(
        Fault::on(Service::PagerDuty, "GET /users")
            .times(1)
            .delay(Duration::from_millis(5)),
    );
    assert_eq!(pagerduty(&sandbox, "/users").await.status, 200);
    assert_eq!(sandbox.journal()[0].fault.as_deref(), Some("delay 5 ms"));
    sandbox.clear_faults();

    sandbox.fault(Fault::on(Service::PagerDuty, "GET /users").delay(Duration::from_secs(3600)));
    let call = tokio::spawn(super::client().get(format!("{}/users", sandbox.pagerduty_url())).send());
    let arrived = sandbox.wait_for(|view| view.journal.len() == 2, PATIENCE);
    assert_eq!(arrived.await, Ok(()));
    call.abort();
    assert!(call.await.is_err_and(|error| error.is_cancelled()));
    let call = &sandbox.journal()[1];
    assert_eq!((call.status, call.performed), (None, false));
}

#[tokio::test]
async fn waiting_in_vain_says_so() {
    let sandbox = organisation().await;
    let waited = sandbox.wait_for(|view| !view.journal.is_empty(), Duration::from_millis(1));
    assert_eq!(waited.await.unwrap_err().after, Duration::from_millis(1));
}
