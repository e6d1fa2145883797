//! Granting, revoking, and following operations to their end.

use serde_json::json;

use super::server::{Reply, Server, status};
use super::*;
use crate::identity_center::{AwsErrorKind, ChangeKind, Operation, Progress, Started};

const CREATION: &str = "AccountAssignmentCreationStatus";
const DELETION: &str = "AccountAssignmentDeletionStatus";

fn done(reference: Option<&str>) -> Started {
    Started::Done {
        reference: reference.map(str::to_owned),
    }
}

fn pending(kind: ChangeKind) -> Operation {
    Operation {
        kind,
        request_id: "r-1".to_owned(),
    }
}

#[tokio::test]
async fn an_assignment_is_pending_until_aws_says_succeeded() {
    let server = Server::start(|op, _, nth| match (op, nth) {
        ("CreateAccountAssignment", _) => Some(status(CREATION, "IN_PROGRESS", None)),
        ("DescribeAccountAssignmentCreationStatus", 0) => Some(status(CREATION, "IN_PROGRESS", None)),
        ("DescribeAccountAssignmentCreationStatus", 1) => Some(status(CREATION, "SUCCEEDED", None)),
        ("DescribeAccountAssignmentCreationStatus", 2) => Some(status(
            CREATION,
            "FAILED",
            Some("Received a 403 status error: Access denied by IAM"),
        )),
        ("DescribeAccountAssignmentCreationStatus", _) => Some(Reply::Error("ResourceNotFoundException", "unknown")),
        _ => None,
    });
    let rig = Rig::new(&server);
    let started = rig
        .client
        .writer()
        .start(ChangeKind::Grant, &admin(), &user("u-1"))
        .await
        .unwrap();
    let operation = pending(ChangeKind::Grant);
    assert_eq!(started, Started::Pending(operation.clone()));
    assert_eq!(
        server.bodies("CreateAccountAssignment"),
        [
            json!({"InstanceArn": INSTANCE, "TargetId": ACCOUNT, "TargetType": "AWS_ACCOUNT",
            "PermissionSetArn": ADMIN, "PrincipalType": "USER", "PrincipalId": "u-1"})
        ]
    );
    let reader = rig.client.reader();
    assert_eq!(reader.operation(&operation).await.unwrap(), Progress::InProgress);
    assert_eq!(reader.operation(&operation).await.unwrap(), Progress::Succeeded);
    let Progress::Failed(reason) = reader.operation(&operation).await.unwrap() else {
        panic!("not failed");
    };
    assert!(
        reason.contains("403") && reason.contains("delegated administrator"),
        "{reason}"
    );
    assert_eq!(reader.operation(&operation).await.unwrap(), Progress::Forgotten);
    assert_eq!(
        server.bodies("DescribeAccountAssignmentCreationStatus")[0],
        json!({"InstanceArn": INSTANCE, "AccountAssignmentCreationRequestId": "r-1"})
    );
}

#[tokio::test]
async fn an_answer_may_be_final_at_once() {
    let server = Server::start(|op, _, nth| match (op, nth) {
        ("CreateAccountAssignment", 0) => Some(status(CREATION, "SUCCEEDED", None)),
        ("CreateAccountAssignment", _) => Some(status(CREATION, "FAILED", Some("no such principal\u{1b}[2J"))),
        ("DeleteAccountAssignment", _) => Some(status(DELETION, "SUCCEEDED", None)),
        _ => None,
    });
    let rig = Rig::new(&server);
    let writer = rig.client.writer();
    assert_eq!(
        writer.start(ChangeKind::Grant, &admin(), &user("u-1")).await.unwrap(),
        done(Some("r-1"))
    );
    let error = writer
        .start(ChangeKind::Grant, &admin(), &user("u-1"))
        .await
        .unwrap_err();
    assert_eq!((error.kind, error.outcome_unknown), (AwsErrorKind::Rejected, false));
    assert!(
        error.message.contains("no such principal") && !error.message.contains('\u{1b}'),
        "{error:?}"
    );
    assert_eq!(
        writer.start(ChangeKind::Revoke, &admin(), &user("u-1")).await.unwrap(),
        done(Some("r-1"))
    );
}

#[tokio::test]
async fn deleting_what_is_gone_is_a_success() {
    let gone = || Some(Reply::Error("ResourceNotFoundException", "not found"));
    let server = Server::start(move |op, _, nth| match (op, nth) {
        ("DeleteAccountAssignment", _) | ("GetGroupMembershipId", 0) | ("DeleteGroupMembership", _) => gone(),
        _ => None,
    });
    let rig = Rig::new(&server);
    let writer = rig.client.writer();
    for target in [admin(), group(), group()] {
        let revoked = writer.start(ChangeKind::Revoke, &target, &user("u-1")).await.unwrap();
        assert_eq!(revoked, done(None), "{target}");
    }
    assert_eq!(
        server.count("DeleteGroupMembership"),
        1,
        "the first membership was not there to delete"
    );
}

#[tokio::test]
async fn a_failed_deletion_counts_as_done_only_when_nobody_holds_the_assignment() {
    let failed = json!({ DELETION: {"Status": "FAILED", "RequestId": "r-1", "FailureReason": "it does not exist",
        "TargetId": ACCOUNT, "PermissionSetArn": ADMIN, "PrincipalId": "u-1", "PrincipalType": "USER"}});
    for (held, expected) in [(false, Some(Progress::Succeeded)), (true, None)] {
        let failed = failed.clone();
        let server = Server::start(move |op, _, _| match op {
            "DescribeAccountAssignmentDeletionStatus" | "DeleteAccountAssignment" => Some(Reply::Ok(failed.clone())),
            "ListAccountAssignments" if held => Some(Reply::Ok(json!({"AccountAssignments": [
                {"AccountId": ACCOUNT, "PermissionSetArn": ADMIN, "PrincipalType": "USER", "PrincipalId": "u-1"}]}))),
            _ => None,
        });
        let rig = Rig::new(&server);
        let progress = rig
            .client
            .reader()
            .operation(&pending(ChangeKind::Revoke))
            .await
            .unwrap();
        let started = rig
            .client
            .writer()
            .start(ChangeKind::Revoke, &admin(), &user("u-1"))
            .await;
        match expected {
            Some(expected) => {
                assert_eq!(progress, expected);
                assert_eq!(started.unwrap(), done(Some("r-1")));
            }
            None => {
                assert_eq!(progress, Progress::Failed("it does not exist".to_owned()));
                assert_eq!(started.unwrap_err().kind, AwsErrorKind::Rejected);
            }
        }
    }
}

#[tokio::test]
async fn a_member_joins_and_leaves() {
    let server = Server::start(|_, _, _| None);
    let rig = Rig::new(&server);
    let writer = rig.client.writer();
    assert_eq!(
        writer.start(ChangeKind::Grant, &group(), &user("u-1")).await.unwrap(),
        done(Some("m-1"))
    );
    assert_eq!(
        writer.start(ChangeKind::Revoke, &group(), &user("u-1")).await.unwrap(),
        done(Some("m-1"))
    );
    assert_eq!(
        server.operations(),
        [
            "ListInstances",
            "CreateGroupMembership",
            "GetGroupMembershipId",
            "DeleteGroupMembership"
        ]
    );
    assert_eq!(
        server.bodies("CreateGroupMembership"),
        [json!({"IdentityStoreId": "d-1234567890", "GroupId": "g-1", "MemberId": {"UserId": "u-1"}})]
    );
    assert_eq!(
        server.bodies("DeleteGroupMembership"),
        [json!({"IdentityStoreId": "d-1234567890", "MembershipId": "m-1"})]
    );
}

#[tokio::test]
async fn already_a_member_is_told_from_somebody_else_changing_the_group() {
    let conflict = || {
        Some(Reply::Error(
            "ConflictException",
            "Member and Group relationship already exists.",
        ))
    };
    let server = Server::start(move |op, _, _| (op == "CreateGroupMembership").then(conflict).flatten());
    let rig = Rig::new(&server);
    let granted = rig
        .client
        .writer()
        .start(ChangeKind::Grant, &group(), &user("u-1"))
        .await
        .unwrap();
    assert_eq!(granted, done(Some("m-1")));
    assert!(rig.pauses().is_empty());

    let server = Server::start(move |op, _, nth| match (op, nth) {
        ("CreateGroupMembership", 0) => conflict(),
        ("GetGroupMembershipId", 0) => Some(Reply::Error("ResourceNotFoundException", "not found")),
        _ => None,
    });
    let rig = Rig::new(&server);
    let granted = rig
        .client
        .writer()
        .start(ChangeKind::Grant, &group(), &user("u-1"))
        .await
        .unwrap();
    assert_eq!(granted, done(Some("m-1")));
    assert_eq!(server.count("CreateGroupMembership"), 2);
    assert_eq!(rig.pauses().len(), 1);
}
