//! Simulated AWS: `sso-admin` and `identitystore` in awsJson1.1, with credentials, throttle, paging and errors.

mod assignments;
mod instance;
mod members;
mod people;

use std::time::Instant;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::request::{Answer, Content, Incoming, credential_scope};
use crate::state::State;
use crate::world::aws::Aws;

/// An AWS error.
pub(crate) struct Refusal {
    code: &'static str,
    message: String,
    /// Further members, such as `Reason`.
    members: Vec<(&'static str, Value)>,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            members: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self::new("ResourceNotFoundException", message)
    }

    fn conflict(message: impl Into<String>) -> Self {
        Self::new("ConflictException", message)
    }

    fn throttled(message: impl Into<String>) -> Self {
        Self::new("ThrottlingException", message)
    }
}

/// What an operation gives.
pub(crate) type Outcome = Result<Value, Refusal>;

/// The input of an operation.
pub(crate) struct Input<'a> {
    operation: &'a str,
    fields: &'a Value,
    now: Timestamp,
    /// The region in the signature.
    region: String,
}

impl Input<'_> {
    /// A required text member.
    fn text(&self, name: &str) -> Result<&str, Refusal> {
        self.optional(name).ok_or_else(|| {
            Refusal::validation(format!(
                "1 validation error detected: Value at '{name}' failed to satisfy constraint: Member must not be null"
            ))
        })
    }

    fn optional(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str)
    }

    /// A page of rows under `name`, with `NextToken` when there are more.
    fn page(&self, aws: &Aws, name: &str, rows: Vec<Value>) -> Outcome {
        let largest = aws.page_size.max(1);
        let size = match self.fields.get("MaxResults").and_then(Value::as_u64) {
            Some(asked) if (1..=100).contains(&asked) => usize::try_from(asked).unwrap_or(largest).min(largest),
            Some(_) => return Err(Refusal::validation("MaxResults must be between 1 and 100")),
            None => largest,
        };
        // A token names offset, page and operation, so that one from another list is refused as AWS does.
        let (offset, page) = match self.optional("NextToken") {
            None if aws.empty_first_page => {
                let token = format!("0_2_{}", self.operation);
                return Ok(json!({name: [], "NextToken": token}));
            }
            None => (0, 1),
            Some(token) => {
                let mut parts = token.split('_');
                let (offset, page, operation) = (parts.next(), parts.next(), parts.next());
                let number = |text: Option<&str>| text.and_then(|text| text.parse::<usize>().ok());
                match (number(offset), number(page)) {
                    (Some(offset), Some(page)) if operation == Some(self.operation) => (offset, page),
                    _ => return Err(Refusal::validation("Invalid NextToken")),
                }
            }
        };
        let total = rows.len();
        let shown: Vec<Value> = rows.into_iter().skip(offset).take(size).collect();
        let mut body = json!({name: shown});
        if offset + size < total {
            body["NextToken"] = json!(format!("{}_{}_{}", offset + size, page + 1, self.operation));
        }
        Ok(body)
    }
}

pub(crate) fn answer(state: &mut State, request: &Incoming) -> Answer {
    let now = state.now();
    state.world.aws.settle(now);
    let request_id = state.uuid();
    let target = request.header("x-amz-target").unwrap_or_default().to_owned();
    let identity_store = target.starts_with("AWSIdentityStore.");
    let outcome = authenticate(&state.world.aws, request)
        .and_then(|region| check_rate(state).map(|()| region))
        .and_then(|region| {
            let fields = request.json();
            if !fields.is_object() {
                return Err(Refusal::new("SerializationException", "the body is not a JSON object"));
            }
            let (_, operation) = target.split_once('.').unwrap_or_default();
            let input = Input {
                operation,
                fields: &fields,
                now,
                region,
            };
            if identity_store {
                identity_store_call(state, &input)
            } else if target.starts_with("SWBExternalService.") {
                sso_admin_call(state, &input)
            } else {
                Err(Refusal::new("UnknownOperationException", ""))
            }
        });
    let answer = match outcome {
        Ok(body) => Answer::json(200, body),
        Err(refusal) => error(refusal, identity_store, &request_id),
    };
    Answer {
        content_type: "application/x-amz-json-1.1".to_owned(),
        ..answer
    }
    .header("x-amzn-requestid", request_id)
}

fn error(refusal: Refusal, identity_store: bool, request_id: &str) -> Answer {
    let status = if refusal.code == "InternalServerException" {
        500
    } else {
        400
    };
    let mut body = Map::new();
    body.insert("__type".to_owned(), json!(refusal.code));
    let message = if identity_store { "Message" } else { "message" };
    body.insert(message.to_owned(), json!(refusal.message));
    if identity_store {
        body.insert("RequestId".to_owned(), json!(request_id));
    }
    body.extend(
        refusal
            .members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    );
    let mut answer = Answer::json(status, Value::Null).with_error(refusal.code);
    answer.body = Content::Json(Value::Object(body));
    answer
}

/// Any signature is accepted, but there must be one, with a known access key where the world names some.
fn authenticate(aws: &Aws, request: &Incoming) -> Result<String, Refusal> {
    let refused = || {
        Refusal::new(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        )
    };
    let scope = request
        .header("authorization")
        .and_then(credential_scope)
        .ok_or_else(refused)?;
    let known = aws
        .access_key_ids
        .as_ref()
        .is_none_or(|known| known.contains(&scope.access_key_id));
    if known { Ok(scope.region) } else { Err(refused()) }
}

fn check_rate(state: &mut State) -> Result<(), Refusal> {
    let rate = f64::from(state.world.aws.requests_per_second);
    if rate > 0.0 && !state.bucket("aws", rate).take(rate, rate, Instant::now()) {
        return Err(Refusal::throttled("Rate exceeded"));
    }
    Ok(())
}

fn sso_admin_call(state: &mut State, input: &Input<'_>) -> Outcome {
    let aws = &state.world.aws;
    if input.operation == "ListInstances" {
        return instance::list_instances(aws, input);
    }
    // Every other operation names the instance, which is known in its own region only.
    let arn = input.text("InstanceArn")?;
    if arn != aws.instance_arn || input.region != aws.region {
        return Err(Refusal::not_found(format!("Could not find Instance {arn}")));
    }
    match input.operation {
        "ListPermissionSets" => instance::list_permission_sets(aws, input),
        "DescribePermissionSet" => instance::describe_permission_set(aws, input),
        "ListAccountsForProvisionedPermissionSet" => instance::accounts_of_permission_set(aws, input),
        "ListPermissionSetsProvisionedToAccount" => instance::permission_sets_of_account(aws, input),
        "ListAccountAssignments" => assignments::list(aws, input),
        "ListAccountAssignmentsForPrincipal" => assignments::list_for_principal(aws, input),
        "CreateAccountAssignment" | "DeleteAccountAssignment" => assignments::start(state, input),
        "DescribeAccountAssignmentCreationStatus" | "DescribeAccountAssignmentDeletionStatus" => {
            assignments::describe_status(aws, input)
        }
        "ListAccountAssignmentCreationStatus" | "ListAccountAssignmentDeletionStatus" => {
            assignments::list_status(aws, input)
        }
        _ => Err(Refusal::new("UnknownOperationException", "")),
    }
}

fn identity_store_call(state: &mut State, input: &Input<'_>) -> Outcome {
    let fresh_id = state.uuid();
    let aws = &mut state.world.aws;
    let store = input.text("IdentityStoreId")?;
    if store != aws.identity_store_id || input.region != aws.region {
        return Err(Refusal::not_found("IDENTITY_STORE not found.")
            .with("ResourceType", "IDENTITY_STORE")
            .with("ResourceId", store));
    }
    match input.operation {
        "GetUserId" => people::get_user_id(aws, input),
        "DescribeUser" => people::describe_user(aws, input),
        "ListUsers" => people::list_users(aws, input),
        "GetGroupId" => people::get_group_id(aws, input),
        "DescribeGroup" => people::describe_group(aws, input),
        "ListGroups" => people::list_groups(aws, input),
        "ListGroupMemberships" => members::list(aws, input),
        "ListGroupMembershipsForMember" => members::list_for_member(aws, input),
        "IsMemberInGroups" => members::is_member(aws, input),
        "GetGroupMembershipId" => members::get_id(aws, input),
        "CreateGroupMembership" => members::create(aws, input, &fresh_id),
        "DeleteGroupMembership" => members::delete(aws, input),
        _ => Err(Refusal::new("UnknownOperationException", "")),
    }
}

/// An instant as awsJson1.1 writes it: seconds since 1970 as a number.
fn epoch(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}
