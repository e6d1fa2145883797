//! Account assignments: lists, and the asynchronous creation and deletion.

use serde_json::{Value, json};

use super::instance::{known_account, known_permission_set, listed};
use super::{Input, Outcome, Refusal, epoch};
use crate::state::State;
use crate::world::aws::{
    AssignmentKey, Aws, MissingAssignment, Operation, OperationKind, PrincipalType, Status, later,
};

pub(crate) fn list(aws: &Aws, input: &Input<'_>) -> Outcome {
    let account = known_account(aws, input, "AccountId")?;
    let set = known_permission_set(aws, input)?;
    let rows = listed(aws, input)
        .filter(|key| key.account == account && key.permission_set == set)
        .map(row)
        .collect();
    input.page(aws, "AccountAssignments", rows)
}

pub(crate) fn list_for_principal(aws: &Aws, input: &Input<'_>) -> Outcome {
    let (kind, principal) = principal(aws, input)?;
    let account = input.fields.pointer("/Filter/AccountId").and_then(Value::as_str);
    let groups: Vec<&str> = aws
        .memberships
        .iter()
        .filter(|_| kind == PrincipalType::User && aws.principal_lists_group_rows)
        .filter(|member| member.user == principal && aws.listed(member.since, member.removed, input.now))
        .map(|member| member.group.as_str())
        .collect();
    let rows = listed(aws, input)
        .filter(|key| {
            let direct = key.principal_type == kind && key.principal == principal;
            direct || key.principal_type == PrincipalType::Group && groups.contains(&key.principal.as_str())
        })
        .filter(|key| account.is_none_or(|account| key.account == account))
        .map(row)
        .collect();
    input.page(aws, "AccountAssignments", rows)
}

fn row(key: &AssignmentKey) -> Value {
    json!({
        "AccountId": key.account,
        "PermissionSetArn": key.permission_set,
        "PrincipalType": key.principal_type.as_str(),
        "PrincipalId": key.principal,
    })
}

/// The kind and id of a known principal.
fn principal(aws: &Aws, input: &Input<'_>) -> Result<(PrincipalType, String), Refusal> {
    let id = input.text("PrincipalId")?;
    let (kind, known) = match input.text("PrincipalType")? {
        "USER" => (PrincipalType::User, aws.users.iter().any(|user| user.id == id)),
        "GROUP" => (PrincipalType::Group, aws.groups.iter().any(|group| group.id == id)),
        other => {
            return Err(Refusal::validation(format!(
                "PrincipalType {other} is not USER or GROUP"
            )));
        }
    };
    if known {
        return Ok((kind, id.to_owned()));
    }
    let looks_like_uuid =
        id.len() >= 36 && id.len() <= 47 && id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    Err(if looks_like_uuid {
        Refusal::not_found(format!("Could not find {} with id {id}", kind.as_str()))
    } else {
        Refusal::validation(format!("Value '{id}' at 'principalId' failed to satisfy constraint"))
    })
}

/// CreateAccountAssignment and DeleteAccountAssignment: accepted at once, done later.
pub(crate) fn start(state: &mut State, input: &Input<'_>) -> Outcome {
    let request_id = state.uuid();
    let aws = &mut state.world.aws;
    let kind = if input.operation.starts_with("Create") {
        OperationKind::Create
    } else {
        OperationKind::Delete
    };
    if input.text("TargetType")? != "AWS_ACCOUNT" {
        return Err(Refusal::validation("TargetType must be AWS_ACCOUNT"));
    }
    let account = known_account(aws, input, "TargetId")?;
    let permission_set = known_permission_set(aws, input)?;
    let (principal_type, principal) = principal(aws, input)?;
    let key = AssignmentKey {
        account,
        permission_set,
        principal_type,
        principal,
    };

    let running = |operation: &&Operation| operation.status == Status::InProgress;
    if aws
        .operations
        .iter()
        .filter(running)
        .any(|operation| operation.key.account == key.account)
    {
        return Err(Refusal::conflict("There is a conflicting operation in process."));
    }
    if aws.operations.iter().filter(running).count() >= aws.outstanding_operations {
        return Err(Refusal::throttled(
            "There are too many requests processing. Please try again later.",
        ));
    }
    let mut failure_reason = aws
        .failures
        .iter()
        .find(|failure| failure.matching.matches(kind, &key))
        .map(|failure| failure.reason.clone());
    if kind == OperationKind::Delete && !aws.exists(&key) {
        let missing = "Could not find the account assignment.";
        match aws.missing_assignment {
            MissingAssignment::NotFound => return Err(Refusal::not_found(missing)),
            MissingAssignment::Failed => failure_reason = Some(missing.to_owned()),
        }
    }
    let usually = aws
        .operation_spread
        .as_ref()
        .map_or(aws.operation_takes, |spread| spread.takes(kind, &key));
    let takes = aws
        .slow_operations
        .iter()
        .find(|slow| slow.matching.matches(kind, &key))
        .map_or(usually, |slow| slow.takes);
    let operation = Operation {
        request_id,
        kind,
        key,
        created: input.now,
        due: later(input.now, takes),
        status: Status::InProgress,
        failure_reason,
    };
    let body = status(&operation);
    aws.operations.push(operation);
    if takes.is_zero() {
        aws.settle(input.now);
    }
    Ok(body)
}

/// The status as the caller may see it: the reason of a failure shows when it has failed.
fn status(operation: &Operation) -> Value {
    let mut fields = json!({
        "Status": operation.status.as_str(),
        "RequestId": operation.request_id,
        "TargetId": operation.key.account,
        "TargetType": "AWS_ACCOUNT",
        "PermissionSetArn": operation.key.permission_set,
        "PrincipalType": operation.key.principal_type.as_str(),
        "PrincipalId": operation.key.principal,
        "CreatedDate": epoch(operation.created),
    });
    if let (Status::Failed, Some(reason)) = (operation.status, &operation.failure_reason) {
        fields["FailureReason"] = json!(reason);
    }
    match operation.kind {
        OperationKind::Create => json!({"AccountAssignmentCreationStatus": fields}),
        OperationKind::Delete => json!({"AccountAssignmentDeletionStatus": fields}),
    }
}

fn kind_of(operation: &str) -> OperationKind {
    if operation.contains("Creation") {
        OperationKind::Create
    } else {
        OperationKind::Delete
    }
}

pub(crate) fn describe_status(aws: &Aws, input: &Input<'_>) -> Outcome {
    let kind = kind_of(input.operation);
    let id = input.text(match kind {
        OperationKind::Create => "AccountAssignmentCreationRequestId",
        OperationKind::Delete => "AccountAssignmentDeletionRequestId",
    })?;
    aws.operations
        .iter()
        .find(|operation| operation.kind == kind && operation.request_id == id)
        .map(status)
        .ok_or_else(|| Refusal::not_found(format!("Could not find request {id}")))
}

pub(crate) fn list_status(aws: &Aws, input: &Input<'_>) -> Outcome {
    let kind = kind_of(input.operation);
    let wanted = input.fields.pointer("/Filter/Status").and_then(Value::as_str);
    let rows = aws
        .operations
        .iter()
        .filter(|operation| operation.kind == kind)
        .filter(|operation| wanted.is_none_or(|wanted| wanted == operation.status.as_str()))
        .map(|operation| {
            json!({
                "Status": operation.status.as_str(),
                "RequestId": operation.request_id,
                "CreatedDate": epoch(operation.created),
            })
        })
        .collect();
    let name = match kind {
        OperationKind::Create => "AccountAssignmentsCreationStatus",
        OperationKind::Delete => "AccountAssignmentsDeletionStatus",
    };
    input.page(aws, name, rows)
}
