//! Throttles, conflicts, broken answers, broken connections and refused credentials.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use serde_json::json;

use super::server::{Reply, Server, status};
use super::*;
use crate::identity_center::{AwsError, AwsErrorKind, ChangeKind, Started};

const CREATION: &str = "AccountAssignmentCreationStatus";

async fn grant(rig: &Rig) -> Result<Started, AwsError> {
    rig.client
        .writer()
        .start(ChangeKind::Grant, &admin(), &user("u-1"))
        .await
}

fn html() -> Reply {
    Reply::Raw(
        500,
        "text/html; charset=utf-8",
        "<!doctype html><title>500 Internal Server Error</title>".to_owned(),
    )
}

#[tokio::test]
async fn throttles_and_conflicts_are_waited_out() {
    let server = Server::start(|op, _, nth| match (op, nth) {
        ("CreateAccountAssignment", 0) => Some(Reply::Error(
            "ThrottlingException",
            "There are too many requests processing. Please try again later.",
        )),
        ("CreateAccountAssignment", 1) => Some(Reply::Error(
            "ConflictException",
            "There is a conflicting operation in process.",
        )),
        ("CreateAccountAssignment", 2) => Some(html()),
        ("CreateAccountAssignment", _) => Some(status(CREATION, "IN_PROGRESS", None)),
        _ => None,
    });
    let rig = Rig::new(&server);
    assert!(matches!(grant(&rig).await, Ok(Started::Pending(_))));
    let pauses = rig.pauses();
    assert_eq!(pauses.len(), 3);
    assert!(pauses[0] < pauses[2], "{pauses:?} does not grow");
    for outcome in ["throttled", "conflict", "error", "ok"] {
        assert_eq!(
            rig.counted("ssoadmin", "CreateAccountAssignment", outcome),
            1,
            "{outcome}"
        );
    }
}

#[tokio::test]
async fn patience_ends() {
    for (code, kind) in [
        ("ConflictException", AwsErrorKind::Conflict),
        ("ThrottlingException", AwsErrorKind::Throttled),
        ("TooManyRequestsException", AwsErrorKind::Throttled),
        ("InternalServerException", AwsErrorKind::Rejected),
    ] {
        let server =
            Server::start(move |op, _, _| op.contains("AccountAssignment").then_some(Reply::Error(code, "no")));
        let rig = Rig::new(&server);
        let error = grant(&rig).await.unwrap_err();
        assert_eq!((error.kind, error.outcome_unknown), (kind, false), "{error}");
        assert_eq!(error.operation, "ssoadmin CreateAccountAssignment");
        let waited: Duration = rig.pauses().iter().sum();
        assert!(waited <= Duration::from_secs(60), "{waited:?}");
        if kind != AwsErrorKind::Rejected {
            assert!(waited > Duration::from_secs(40), "{waited:?}");
            assert!(error.message.contains("tried"), "{error}");
        }

        let rig = Rig::new(&server);
        assert_eq!(rig.client.reader().holders(&admin()).await.unwrap_err().kind, kind);
        let waited: Duration = rig.pauses().iter().sum();
        assert!(waited <= Duration::from_secs(30), "{waited:?}");
    }
}

#[tokio::test]
async fn the_identity_stores_wish_to_wait_is_granted() {
    let server = Server::start(|op, _, nth| {
        (op == "ListGroupMemberships" && nth == 0).then(|| {
            let body = json!({"__type": "ThrottlingException", "Message": "Rate exceeded", "RetryAfterSeconds": 7});
            Reply::Raw(400, "application/x-amz-json-1.1", body.to_string())
        })
    });
    let rig = Rig::new(&server);
    rig.client.reader().holders(&group()).await.unwrap();
    assert_eq!(rig.pauses(), [Duration::from_secs(7)]);
}

#[tokio::test]
async fn html_instead_of_json_is_a_server_error() {
    let server = Server::start(|op, _, _| (op != "ListInstances").then(html));
    let rig = Rig::new(&server);
    let error = rig.client.reader().holders(&admin()).await.unwrap_err();
    assert_eq!(error.kind, AwsErrorKind::Server);
    assert!(error.message.contains("500"), "{error}");
    let error = grant(&rig).await.unwrap_err();
    assert_eq!(
        (error.kind, error.outcome_unknown),
        (AwsErrorKind::Server, true),
        "{error}"
    );
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_unknown_and_not_repeated() {
    for reply in [
        || Reply::Cut,
        || Reply::CutBody,
        || Reply::Raw(200, "application/x-amz-json-1.1", "]".to_owned()),
        || Reply::Ok(json!({})),
        || status(CREATION, "IN_PROGRESS", None).without("RequestId"),
    ] {
        let server = Server::start(move |op, _, _| (op == "CreateAccountAssignment").then(reply));
        let rig = Rig::new(&server);
        let error = grant(&rig).await.unwrap_err();
        assert!(error.outcome_unknown, "{error:?}");
        assert!(
            matches!(error.kind, AwsErrorKind::Unreachable | AwsErrorKind::Server),
            "{error:?}"
        );
        assert_eq!(server.count("CreateAccountAssignment"), 1);
    }
}

#[tokio::test]
async fn a_change_without_an_answer_in_time_is_unknown() {
    let server = Server::start(|op, _, _| (op == "CreateAccountAssignment").then_some(Reply::Silence));
    let rig = Rig::with(&server, |config| config.call_timeout = Duration::from_millis(500));
    let error = grant(&rig).await.unwrap_err();
    assert_eq!(
        (error.kind, error.outcome_unknown),
        (AwsErrorKind::Unreachable, true),
        "{error:?}"
    );
    assert_eq!(rig.counted("ssoadmin", "CreateAccountAssignment", "timeout"), 1);
}

#[tokio::test]
async fn an_earlier_attempt_that_may_have_worked_is_not_forgotten() {
    let server = Server::start(|op, _, nth| match (op, nth) {
        ("CreateAccountAssignment", 0) => Some(html()),
        ("CreateAccountAssignment", _) => Some(Reply::Error("AccessDeniedException", "not any more")),
        _ => None,
    });
    let rig = Rig::new(&server);
    let error = grant(&rig).await.unwrap_err();
    assert_eq!(
        (error.kind, error.outcome_unknown),
        (AwsErrorKind::Denied, true),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_look_is_repeated_after_a_broken_connection() {
    let server = Server::start(|op, _, nth| match (op, nth) {
        ("ListAccountAssignments", 0) => Some(Reply::Cut),
        ("ListAccountAssignments", 1) => Some(Reply::CutBody),
        _ => None,
    });
    let rig = Rig::new(&server);
    rig.client.reader().holders(&admin()).await.unwrap();
    assert_eq!(rig.pauses().len(), 2);
}

#[tokio::test]
async fn a_change_that_was_never_sent_is_known_not_to_have_happened() {
    let server = Server::start(|_, _, _| None);
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let rig = Rig::with(&server, |config| {
        config.endpoint_url = Some(format!("http://{nobody}").parse().unwrap());
    });
    rig.client
        .shared
        .instance
        .set(crate::identity_center::Instance {
            arn: INSTANCE.to_owned(),
            identity_store_id: "d-1234567890".to_owned(),
            owner_account_id: OWNER.to_owned(),
        })
        .unwrap();
    let error = grant(&rig).await.unwrap_err();
    assert_eq!(
        (error.kind, error.outcome_unknown),
        (AwsErrorKind::Unreachable, false),
        "{error:?}"
    );
    assert!(error.message.contains(&nobody.port().to_string()), "{error}");
    let waited: Duration = rig.pauses().iter().sum();
    assert!(!waited.is_zero() && waited <= Duration::from_secs(10), "{waited:?}");
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    for (code, message, word) in [
        (
            "AccessDeniedException",
            "User is not authorized",
            "sso:ListAccountAssignments",
        ),
        (
            "UnrecognizedClientException",
            "The security token is invalid",
            "credentials",
        ),
        ("ExpiredTokenException", "The token has expired", "aws sso login"),
        ("InvalidSignatureException", "Signature expired", "clock"),
    ] {
        let server =
            Server::start(move |op, _, _| (op == "ListAccountAssignments").then_some(Reply::Error(code, message)));
        let rig = Rig::new(&server);
        let error = rig.client.reader().holders(&admin()).await.unwrap_err();
        assert_eq!(error.kind, AwsErrorKind::Denied);
        for word in [code, message, word] {
            assert!(error.to_string().contains(word), "{error} lacks {word}");
        }
        assert!(rig.pauses().is_empty());
        assert_eq!(rig.counted("ssoadmin", "ListAccountAssignments", "denied"), 1);
    }
}

#[tokio::test]
async fn missing_credentials_are_named() {
    let server = Server::start(|_, _, _| None);
    let sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .build();
    let rig = Rig::over(&sdk, &server, |_| {});
    let error = rig.client.reader().instance().await.unwrap_err();
    assert_eq!(error.kind, AwsErrorKind::Denied, "{error}");
    assert!(error.message.contains("check the AWS credentials"), "{error}");
    assert_eq!(server.operations(), [""; 0]);
}

#[test]
fn debug_shows_no_secret() {
    let server = Server::start(|_, _, _| None);
    let rig = Rig::with(&server, |config| {
        config.endpoint_url = Some("http://someone:hunter2@127.0.0.1:1/?key=hunter2".parse().unwrap());
    });
    let shown = format!("{:?}", rig.client);
    assert!(
        !shown.contains("very-secret-key") && !shown.contains("hunter2"),
        "{shown}"
    );
}
