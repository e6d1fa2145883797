//! The control port, as another process uses it, and the life of the ports.

use dutybound_sandbox::{Call, World};
use serde_json::json;

use super::{at, organisation, pagerduty, read};

#[tokio::test]
async fn journal_faults_world_and_clock_by_json() {
    let sandbox = organisation().await;
    let client = super::client();
    let url = |path: &str| format!("{}{path}", sandbox.control_url());

    let fault =
        json!({"service": "pagerduty", "operation": "GET /users", "times": 1, "effect": {"status": {"status": 500}}});
    assert_eq!(read(client.post(url("/faults")).json(&fault)).await.status, 204);
    assert_eq!(pagerduty(&sandbox, "/users").await.status, 500);
    assert_eq!(pagerduty(&sandbox, "/users").await.status, 200);
    assert_eq!(read(client.get(url("/faults"))).await.body[0]["seen"], 2);
    let cut = json!([{"service": "pagerduty", "operation": "*", "effect": "cut"}]);
    assert_eq!(read(client.post(url("/faults")).json(&cut)).await.status, 204);
    assert_eq!(read(client.delete(url("/faults"))).await.status, 204);
    assert_eq!(pagerduty(&sandbox, "/users").await.status, 200);

    let journal: Vec<Call> = serde_json::from_value(read(client.get(url("/journal"))).await.body).unwrap();
    assert_eq!(journal, sandbox.journal());
    assert_eq!(journal.iter().map(|call| call.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(read(client.delete(url("/journal"))).await.status, 204);
    assert_eq!(sandbox.journal(), []);

    let mut world: World = serde_json::from_value(read(client.get(url("/world"))).await.body).unwrap();
    world.pagerduty.users.truncate(1);
    assert_eq!(read(client.put(url("/world")).json(&world)).await.status, 204);
    assert_eq!(
        pagerduty(&sandbox, "/users").await.body["users"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    let misspelt = json!({"pagerduty": {"shedules": []}});
    let refused = read(client.put(url("/world")).json(&misspelt)).await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.as_str().unwrap().contains("shedules"), "{}", refused.body);

    assert_eq!(
        read(client.post(url("/now")).json(&json!({"now": "2027-01-01T00:00:00Z"})))
            .await
            .status,
        204
    );
    assert_eq!(sandbox.now(), at("2027-01-01T00:00:00Z"));
    assert_eq!(read(client.get(url("/now"))).await.body["now"], "2027-01-01T00:00:00Z");
}

#[tokio::test]
async fn dropping_the_sandbox_closes_its_ports() {
    let sandbox = organisation().await;
    let address = sandbox.pagerduty_url().trim_start_matches("http://").to_owned();
    assert!(tokio::net::TcpStream::connect(&address).await.is_ok());
    drop(sandbox);
    let closed = async { while tokio::net::TcpStream::connect(&address).await.is_ok() {} };
    tokio::time::timeout(super::PATIENCE, closed)
        .await
        .expect("the port stays open");
}
