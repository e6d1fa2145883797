//! The sandbox over real HTTP: each promise that a client relies on.

mod aws;
mod control;
mod faults;
mod opsgenie;
mod pagerduty;

use std::time::Duration;

use dutybound_sandbox::{Sandbox, World};
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// Long enough that only a defect reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

thread_local! {
    // Each test has its thread and its runtime, and building a client is the slowest part of a test.
    static CLIENT: reqwest::Client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
}

/// The client of this test; it follows no redirect.
fn client() -> reqwest::Client {
    CLIENT.with(Clone::clone)
}

/// An answer, read whole.
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Reply {
    /// The value of a header that must be there.
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

async fn read(request: reqwest::RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Reply { status, headers, body }
}

async fn pagerduty(sandbox: &Sandbox, path: &str) -> Reply {
    let url = format!("{}{path}", sandbox.pagerduty_url());
    read(client().get(url).header("authorization", "Token token=test-key")).await
}

async fn opsgenie(sandbox: &Sandbox, path: &str) -> Reply {
    let url = format!("{}{path}", sandbox.opsgenie_url());
    read(client().get(url).header("authorization", "GenieKey test-key")).await
}

fn aws_request(sandbox: &Sandbox, region: &str, target: &str, body: &Value) -> reqwest::RequestBuilder {
    let credential = format!("AKIDEXAMPLE/20260101/{region}/sso/aws4_request");
    client()
        .post(sandbox.aws_url())
        .header("x-amz-target", target)
        .header("content-type", "application/x-amz-json-1.1")
        .header(
            "authorization",
            format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"),
        )
        .body(body.to_string())
}

async fn sso(sandbox: &Sandbox, operation: &str, mut body: Value) -> Reply {
    body["InstanceArn"] = sandbox.edit(|world| world.aws.instance_arn.clone()).into();
    let target = format!("SWBExternalService.{operation}");
    read(aws_request(sandbox, "eu-central-1", &target, &body)).await
}

async fn store(sandbox: &Sandbox, operation: &str, mut body: Value) -> Reply {
    body["IdentityStoreId"] = sandbox.edit(|world| world.aws.identity_store_id.clone()).into();
    let target = format!("AWSIdentityStore.{operation}");
    read(aws_request(sandbox, "eu-central-1", &target, &body)).await
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The small organisation with shifts of twelve hours, at noon of the first of June 2026, where the clock stands still.
async fn organisation() -> Sandbox {
    let now = at("2026-06-01T12:00:00Z");
    let world = World::small_organisation(now, jiff::SignedDuration::from_hours(12));
    let sandbox = Sandbox::start(world).await.unwrap();
    sandbox.set_now(Some(now));
    sandbox
}

/// The texts at `pointer` in each element of an array.
fn texts(rows: &Value, pointer: &str) -> Vec<String> {
    let rows = rows.as_array().unwrap_or_else(|| panic!("{rows} is not a list"));
    rows.iter()
        .map(|row| row.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned())
        .collect()
}
