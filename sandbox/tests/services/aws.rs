//! AWS: asynchronous assignments, conflicts, throttles, eventual consistency, directory, paging.

use dutybound_sandbox::world::aws::{Failure, Matching, MissingAssignment, OperationKind, SlowOperation};
use dutybound_sandbox::{Sandbox, World};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{PATIENCE, Reply, aws_request, organisation, read, sso, store, texts};

const PAYMENTS: &str = "111122223333";
const DATA: &str = "444455556666";

fn input(sandbox: &Sandbox, account: &str, user: &str) -> Value {
    sandbox.edit(|world| {
        json!({
            "TargetId": account,
            "TargetType": "AWS_ACCOUNT",
            "PermissionSetArn": world.aws.permission_set_arn("AdministratorAccess"),
            "PrincipalType": "USER",
            "PrincipalId": world.aws.user_id(user),
        })
    })
}

async fn create(sandbox: &Sandbox, account: &str, user: &str) -> Reply {
    sso(sandbox, "CreateAccountAssignment", input(sandbox, account, user)).await
}

async fn delete(sandbox: &Sandbox, account: &str, user: &str) -> Reply {
    sso(sandbox, "DeleteAccountAssignment", input(sandbox, account, user)).await
}

async fn listed(sandbox: &Sandbox, account: &str) -> usize {
    let set = sandbox.edit(|world| world.aws.permission_set_arn("AdministratorAccess").unwrap().to_owned());
    let body = json!({"AccountId": account, "PermissionSetArn": set});
    let reply = sso(sandbox, "ListAccountAssignments", body).await;
    reply.body["AccountAssignments"].as_array().unwrap().len()
}

async fn creation_status(sandbox: &Sandbox, reply: &Reply) -> Value {
    let id = &reply.body["AccountAssignmentCreationStatus"]["RequestId"];
    let body = json!({"AccountAssignmentCreationRequestId": id});
    let reply = sso(sandbox, "DescribeAccountAssignmentCreationStatus", body).await;
    reply.body["AccountAssignmentCreationStatus"].clone()
}

fn forward(sandbox: &Sandbox, seconds: i64) {
    sandbox.set_now(Some(sandbox.now() + SignedDuration::from_secs(seconds)));
}

fn code(reply: &Reply) -> &str {
    assert_eq!(reply.status, 400, "{}", reply.body);
    reply.body["__type"].as_str().unwrap()
}

#[tokio::test]
async fn an_assignment_is_there_only_when_its_operation_has_succeeded() {
    let sandbox = organisation().await;
    sandbox.edit(|world| world.aws.operation_takes = SignedDuration::from_secs(5));
    let reply = create(&sandbox, PAYMENTS, "alice@example.com").await;
    assert_eq!(reply.body["AccountAssignmentCreationStatus"]["Status"], "IN_PROGRESS");
    assert_eq!(creation_status(&sandbox, &reply).await["Status"], "IN_PROGRESS");
    assert_eq!(listed(&sandbox, PAYMENTS).await, 0);
    forward(&sandbox, 5);
    assert_eq!(creation_status(&sandbox, &reply).await["Status"], "SUCCEEDED");
    assert_eq!(listed(&sandbox, PAYMENTS).await, 1);
    assert!(sandbox.edit(|world| world.aws.holds(PAYMENTS, "AdministratorAccess", "alice@example.com")));

    let reply = delete(&sandbox, PAYMENTS, "alice@example.com").await;
    let id = reply.body["AccountAssignmentDeletionStatus"]["RequestId"].clone();
    assert_eq!(listed(&sandbox, PAYMENTS).await, 1);
    forward(&sandbox, 5);
    let body = json!({"AccountAssignmentDeletionRequestId": id});
    let reply = sso(&sandbox, "DescribeAccountAssignmentDeletionStatus", body).await;
    assert_eq!(reply.body["AccountAssignmentDeletionStatus"]["Status"], "SUCCEEDED");
    assert_eq!(listed(&sandbox, PAYMENTS).await, 0);
    assert_eq!(sandbox.journal().iter().filter(|call| call.is_write()).count(), 2);
}

#[tokio::test]
async fn by_default_an_operation_is_done_at_the_next_look() {
    let sandbox = organisation().await;
    let reply = create(&sandbox, PAYMENTS, "alice@example.com").await;
    assert_eq!(reply.body["AccountAssignmentCreationStatus"]["Status"], "IN_PROGRESS");
    assert_eq!(creation_status(&sandbox, &reply).await["Status"], "SUCCEEDED");
}

#[tokio::test]
async fn creating_what_exists_succeeds_and_leaves_one_row() {
    let sandbox = organisation().await;
    for _ in 0..2 {
        let reply = create(&sandbox, PAYMENTS, "alice@example.com").await;
        assert_eq!(creation_status(&sandbox, &reply).await["Status"], "SUCCEEDED");
    }
    assert_eq!(listed(&sandbox, PAYMENTS).await, 1);
}

#[tokio::test]
async fn deleting_what_is_not_there_is_refused_or_fails_later() {
    let sandbox = organisation().await;
    assert_eq!(
        code(&delete(&sandbox, PAYMENTS, "alice@example.com").await),
        "ResourceNotFoundException"
    );
    sandbox.edit(|world| world.aws.missing_assignment = MissingAssignment::Failed);
    assert_eq!(delete(&sandbox, PAYMENTS, "alice@example.com").await.status, 200);
    let reply = sso(
        &sandbox,
        "ListAccountAssignmentDeletionStatus",
        json!({"Filter": {"Status": "FAILED"}}),
    )
    .await;
    assert_eq!(
        texts(&reply.body["AccountAssignmentsDeletionStatus"], "/Status"),
        ["FAILED"]
    );
}

#[tokio::test]
async fn a_failure_shows_its_reason_when_it_has_failed() {
    let sandbox = organisation().await;
    sandbox.edit(|world| {
        world.aws.failures.push(Failure {
            matching: Matching {
                account: Some(PAYMENTS.into()),
                kind: Some(OperationKind::Create),
                ..Matching::default()
            },
            reason: "Received a 403 status error: Access denied by IAM".into(),
        });
        world.aws.slow_operations.push(SlowOperation {
            matching: Matching {
                account: Some(PAYMENTS.into()),
                ..Matching::default()
            },
            takes: SignedDuration::from_secs(1),
        });
    });
    let reply = create(&sandbox, PAYMENTS, "alice@example.com").await;
    assert_eq!(creation_status(&sandbox, &reply).await.get("FailureReason"), None);
    forward(&sandbox, 1);
    let status = creation_status(&sandbox, &reply).await;
    assert_eq!(status["Status"], "FAILED");
    assert_eq!(
        status["FailureReason"],
        "Received a 403 status error: Access denied by IAM"
    );
    assert_eq!(listed(&sandbox, PAYMENTS).await, 0);
    let reply = create(&sandbox, DATA, "alice@example.com").await;
    assert_eq!(creation_status(&sandbox, &reply).await["Status"], "SUCCEEDED");
}

#[tokio::test]
async fn one_operation_per_account_and_ten_in_all() {
    let sandbox = organisation().await;
    let accounts: Vec<String> = (0..11)
        .map(|number| format!("{:012}", 700_000_000_000_u64 + number))
        .collect();
    sandbox.edit(|world| {
        world.aws.requests_per_second = 0;
        world.aws.operation_takes = SignedDuration::from_secs(60);
        for account in &accounts {
            world.aws.add_account(account, "many");
        }
    });
    for account in &accounts[..10] {
        assert_eq!(create(&sandbox, account, "alice@example.com").await.status, 200);
    }
    assert_eq!(
        code(&create(&sandbox, &accounts[0], "bob@example.com").await),
        "ConflictException"
    );
    let refused = create(&sandbox, &accounts[10], "alice@example.com").await;
    assert_eq!(code(&refused), "ThrottlingException");
    assert_eq!(
        refused.body["message"],
        "There are too many requests processing. Please try again later."
    );
    forward(&sandbox, 60);
    assert_eq!(create(&sandbox, &accounts[10], "alice@example.com").await.status, 200);
    assert_eq!(create(&sandbox, &accounts[0], "bob@example.com").await.status, 200);
}

#[tokio::test]
async fn more_than_the_rate_is_throttled_and_passes_again_later() {
    let sandbox = organisation().await;
    let sandbox = std::sync::Arc::new(sandbox);
    let batch = || async {
        let mut calls = JoinSet::new();
        for _ in 0..64 {
            let sandbox = std::sync::Arc::clone(&sandbox);
            calls.spawn(async move { store(&sandbox, "ListUsers", json!({})).await });
        }
        calls.join_all().await
    };
    let mut throttled = None;
    for _ in 0..50 {
        throttled = batch().await.into_iter().find(|reply| reply.status != 200);
        if throttled.is_some() {
            break;
        }
    }
    let throttled = throttled.expect("no call of 3200 was throttled");
    assert_eq!(code(&throttled), "ThrottlingException");
    assert_eq!(throttled.body["Message"], "Rate exceeded");
    let passes = async { while store(&sandbox, "ListUsers", json!({})).await.status != 200 {} };
    tokio::time::timeout(PATIENCE, passes)
        .await
        .expect("the bucket never filled again");
}

#[tokio::test]
async fn lists_lag_behind_changes_while_lookups_do_not() {
    let sandbox = organisation().await;
    sandbox.edit(|world| world.aws.list_delay = SignedDuration::from_secs(10));
    let reply = create(&sandbox, PAYMENTS, "alice@example.com").await;
    assert_eq!(creation_status(&sandbox, &reply).await["Status"], "SUCCEEDED");
    assert_eq!(listed(&sandbox, PAYMENTS).await, 0);
    forward(&sandbox, 10);
    assert_eq!(listed(&sandbox, PAYMENTS).await, 1);
    assert_eq!(delete(&sandbox, PAYMENTS, "alice@example.com").await.status, 200);
    assert_eq!(listed(&sandbox, PAYMENTS).await, 1);
    assert!(!sandbox.edit(|world| world.aws.holds(PAYMENTS, "AdministratorAccess", "alice@example.com")));
    forward(&sandbox, 10);
    assert_eq!(listed(&sandbox, PAYMENTS).await, 0);
}

#[tokio::test]
async fn what_does_not_exist_is_refused() {
    let sandbox = organisation().await;
    let good = input(&sandbox, PAYMENTS, "alice@example.com");
    for (member, value, expected) in [
        ("TargetId", "000000000000", "ResourceNotFoundException"),
        ("TargetId", "12", "ValidationException"),
        (
            "PrincipalId",
            "b3c4d5e6-1111-4000-8000-00000000ffff",
            "ResourceNotFoundException",
        ),
        ("PrincipalId", "alice@example.com", "ValidationException"),
        ("PrincipalType", "ROLE", "ValidationException"),
        (
            "PermissionSetArn",
            "arn:aws:sso:::permissionSet/ssoins-7223b02f1ab4c5d6/ps-ffff",
            "ResourceNotFoundException",
        ),
    ] {
        let mut body = good.clone();
        body[member] = value.into();
        let reply = sso(&sandbox, "CreateAccountAssignment", body).await;
        assert_eq!(code(&reply), expected, "{member} {value}");
    }
}

#[tokio::test]
async fn a_wrong_region_or_credential_finds_no_instance() {
    let sandbox = organisation().await;
    let ask = |region: &str| {
        read(aws_request(
            &sandbox,
            region,
            "SWBExternalService.ListInstances",
            &json!({}),
        ))
    };
    assert_eq!(ask("us-east-1").await.body["Instances"], json!([]));
    let everywhere = json!({"RegionScope": "ALL_REGIONS"});
    let found = read(aws_request(
        &sandbox,
        "us-east-1",
        "SWBExternalService.ListInstances",
        &everywhere,
    ))
    .await;
    assert_eq!(found.body["Instances"][0]["PrimaryRegion"], "eu-central-1");
    let instances = ask("eu-central-1").await.body["Instances"].clone();
    assert_eq!(instances[0]["OwnerAccountId"], "999999999999");
    sandbox.edit(|world| world.aws.access_key_ids = Some(vec!["AKIDOTHER".into()]));
    assert_eq!(code(&ask("eu-central-1").await), "UnrecognizedClientException");
    let bare = super::client()
        .post(sandbox.aws_url())
        .header("x-amz-target", "SWBExternalService.ListInstances")
        .body("{}");
    assert_eq!(code(&read(bare).await), "UnrecognizedClientException");
}

#[tokio::test]
async fn lists_page_by_token_and_refuse_foreign_tokens() {
    let sandbox = organisation().await;
    sandbox.edit(|world| world.aws.page_size = 2);
    let mut names = Vec::new();
    let mut body = json!({});
    let mut pages = 0;
    loop {
        let reply = store(&sandbox, "ListUsers", body.clone()).await;
        names.extend(texts(&reply.body["Users"], "/UserName"));
        pages += 1;
        match reply.body.get("NextToken") {
            Some(token) => body["NextToken"] = token.clone(),
            None => break,
        }
    }
    assert_eq!((pages, names.len()), (3, 6));
    assert_eq!(code(&store(&sandbox, "ListGroups", body).await), "ValidationException");
    assert_eq!(
        code(&store(&sandbox, "ListUsers", json!({"MaxResults": 101})).await),
        "ValidationException"
    );
    let one = store(&sandbox, "ListUsers", json!({"MaxResults": 1})).await;
    assert_eq!(texts(&one.body["Users"], "/UserName"), ["alice@example.com"]);
}

#[tokio::test]
async fn an_empty_page_may_have_a_token() {
    let sandbox = organisation().await;
    sandbox.edit(|world| world.aws.empty_first_page = true);
    let first = store(&sandbox, "ListGroups", json!({})).await.body;
    assert_eq!(first["Groups"], json!([]));
    let second = store(&sandbox, "ListGroups", json!({"NextToken": first["NextToken"]}))
        .await
        .body;
    assert_eq!(
        texts(&second["Groups"], "/DisplayName"),
        ["payments-prod-readers", "data-oncall"]
    );
    assert_eq!(second.get("NextToken"), None);
}

#[tokio::test]
async fn provisioned_places_and_rows_of_a_principal_follow_assignments() {
    let sandbox = organisation().await;
    let (set, alice, group) = sandbox.edit(|world| {
        let aws = &mut world.aws;
        let set = aws.permission_set_arn("AdministratorAccess").unwrap().to_owned();
        let alice = aws.user_id("alice@example.com").unwrap().to_owned();
        let group = aws.group_id("data-oncall").unwrap().to_owned();
        aws.assign(PAYMENTS, &set, &alice);
        aws.add_member(&group, &alice);
        (set, alice, group)
    });
    let body = json!({
        "TargetId": DATA, "TargetType": "AWS_ACCOUNT", "PermissionSetArn": set,
        "PrincipalType": "GROUP", "PrincipalId": group,
    });
    assert_eq!(sso(&sandbox, "CreateAccountAssignment", body).await.status, 200);
    let reply = sso(
        &sandbox,
        "ListAccountsForProvisionedPermissionSet",
        json!({"PermissionSetArn": set}),
    )
    .await;
    assert_eq!(reply.body["AccountIds"], json!([PAYMENTS, DATA]));
    let reply = sso(
        &sandbox,
        "ListPermissionSetsProvisionedToAccount",
        json!({"AccountId": DATA}),
    )
    .await;
    assert_eq!(reply.body["PermissionSets"], json!([set]));
    let reply = sso(&sandbox, "DescribePermissionSet", json!({"PermissionSetArn": set})).await;
    assert_eq!(reply.body["PermissionSet"]["Name"], "AdministratorAccess");
    let of_alice = json!({"PrincipalId": alice, "PrincipalType": "USER"});
    let reply = sso(&sandbox, "ListAccountAssignmentsForPrincipal", of_alice.clone()).await;
    assert_eq!(
        texts(&reply.body["AccountAssignments"], "/PrincipalType"),
        ["USER", "GROUP"]
    );
    sandbox.edit(|world| world.aws.principal_lists_group_rows = false);
    let reply = sso(&sandbox, "ListAccountAssignmentsForPrincipal", of_alice).await;
    assert_eq!(texts(&reply.body["AccountAssignments"], "/AccountId"), [PAYMENTS]);
}

#[tokio::test]
async fn memberships_are_synchronous_unique_and_deleted_by_id() {
    let sandbox = organisation().await;
    let by_name = |name: &str| json!({"AlternateIdentifier": {"UniqueAttribute": {"AttributePath": "displayName", "AttributeValue": name}}});
    let group = store(&sandbox, "GetGroupId", by_name("data-oncall")).await.body["GroupId"].clone();
    let by_email = json!({"AlternateIdentifier": {"UniqueAttribute":
        {"AttributePath": "emails.value", "AttributeValue": "dave@example.com"}}});
    let dave = store(&sandbox, "GetUserId", by_email).await.body["UserId"].clone();
    let user = store(&sandbox, "DescribeUser", json!({"UserId": dave})).await.body;
    assert_eq!(
        (&user["UserName"], &user["UserStatus"]),
        (&json!("dave@example.com"), &json!("ENABLED"))
    );

    let member = json!({"GroupId": group, "MemberId": {"UserId": dave}});
    let created = store(&sandbox, "CreateGroupMembership", member.clone()).await;
    assert_eq!(created.status, 200);
    let again = store(&sandbox, "CreateGroupMembership", member.clone()).await;
    assert_eq!(code(&again), "ConflictException");
    assert_eq!(again.body["Reason"], "UNIQUENESS_CONSTRAINT_VIOLATION");
    let rows = store(&sandbox, "ListGroupMemberships", json!({"GroupId": group}))
        .await
        .body;
    assert_eq!(
        texts(&rows["GroupMemberships"], "/MemberId/UserId"),
        [dave.as_str().unwrap()]
    );
    assert!(rows["GroupMemberships"][0]["CreatedAt"].is_number());
    let found = store(&sandbox, "GetGroupMembershipId", member.clone()).await.body;
    assert_eq!(found["MembershipId"], created.body["MembershipId"]);
    let is_member = json!({"MemberId": {"UserId": dave}, "GroupIds": [group]});
    let results = store(&sandbox, "IsMemberInGroups", is_member).await.body;
    assert_eq!(results["Results"][0]["MembershipExists"], true);

    let id = json!({"MembershipId": created.body["MembershipId"]});
    assert_eq!(store(&sandbox, "DeleteGroupMembership", id.clone()).await.status, 200);
    let gone = store(&sandbox, "DeleteGroupMembership", id).await;
    assert_eq!(
        (code(&gone), &gone.body["ResourceType"]),
        ("ResourceNotFoundException", &json!("GROUP_MEMBERSHIP"))
    );
    assert_eq!(
        code(&store(&sandbox, "GetGroupMembershipId", member).await),
        "ResourceNotFoundException"
    );
    assert_eq!(
        code(&store(&sandbox, "GetGroupId", by_name("none")).await),
        "ResourceNotFoundException"
    );
}

#[tokio::test]
async fn waiting_wakes_when_an_operation_falls_due_by_itself() {
    let world = World::small_organisation(Timestamp::now(), SignedDuration::from_hours(1));
    let sandbox = Sandbox::start(world).await.unwrap();
    sandbox.edit(|world| world.aws.operation_takes = SignedDuration::from_millis(50));
    assert_eq!(create(&sandbox, PAYMENTS, "alice@example.com").await.status, 200);
    let holds = sandbox.wait_for(
        |view| {
            view.world
                .aws
                .holds(PAYMENTS, "AdministratorAccess", "alice@example.com")
        },
        PATIENCE,
    );
    assert_eq!(holds.await, Ok(()));
}
