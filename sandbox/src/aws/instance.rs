//! The instance, its permission sets, and where they are provisioned.

use serde_json::{Value, json};

use super::{Input, Outcome, Refusal};
use crate::world::aws::Aws;

/// A date long past, for what existed before the sandbox started.
const CREATED: f64 = 1_700_000_000.0;

/// In any region but the instance's own the list is empty, which is how AWS shows a wrong region, unless the caller
/// asks for all regions.
pub(crate) fn list_instances(aws: &Aws, input: &Input<'_>) -> Outcome {
    let mut rows = Vec::new();
    let all_regions = input.optional("RegionScope") == Some("ALL_REGIONS");
    if input.region == aws.region || all_regions {
        rows.push(json!({
            "InstanceArn": aws.instance_arn,
            "IdentityStoreId": aws.identity_store_id,
            "OwnerAccountId": aws.owner_account_id,
            "Name": "sandbox",
            "CreatedDate": CREATED,
            "Status": "ACTIVE",
            "PrimaryRegion": aws.region,
        }));
    }
    input.page(aws, "Instances", rows)
}

pub(crate) fn list_permission_sets(aws: &Aws, input: &Input<'_>) -> Outcome {
    let rows = aws.permission_sets.iter().map(|set| json!(set.arn)).collect();
    input.page(aws, "PermissionSets", rows)
}

pub(crate) fn describe_permission_set(aws: &Aws, input: &Input<'_>) -> Outcome {
    let arn = known_permission_set(aws, input)?;
    aws.permission_sets
        .iter()
        .find(|set| set.arn == arn)
        .map(|set| {
            json!({"PermissionSet": {
                "Name": set.name,
                "PermissionSetArn": set.arn,
                "SessionDuration": set.session_duration,
                "CreatedDate": CREATED,
            }})
        })
        .ok_or_else(|| Refusal::not_found("Could not find PermissionSet"))
}

/// A set counts as provisioned to an account while it is assigned there.
pub(crate) fn accounts_of_permission_set(aws: &Aws, input: &Input<'_>) -> Outcome {
    let arn = known_permission_set(aws, input)?;
    let rows = distinct(
        listed(aws, input)
            .filter(|key| key.permission_set == arn)
            .map(|key| key.account.as_str()),
    );
    input.page(aws, "AccountIds", rows)
}

pub(crate) fn permission_sets_of_account(aws: &Aws, input: &Input<'_>) -> Outcome {
    let account = known_account(aws, input, "AccountId")?;
    let rows = distinct(
        listed(aws, input)
            .filter(|key| key.account == account)
            .map(|key| key.permission_set.as_str()),
    );
    input.page(aws, "PermissionSets", rows)
}

/// The assignments that lists show now.
pub(crate) fn listed<'a>(
    aws: &'a Aws,
    input: &Input<'_>,
) -> impl Iterator<Item = &'a crate::world::aws::AssignmentKey> {
    let now = input.now;
    aws.assignments
        .iter()
        .filter(move |row| aws.listed(row.since, row.removed, now))
        .map(|row| &row.key)
}

fn distinct<'a>(values: impl Iterator<Item = &'a str>) -> Vec<Value> {
    let mut values: Vec<&str> = values.collect();
    values.sort_unstable();
    values.dedup();
    values.into_iter().map(Value::from).collect()
}

pub(crate) fn known_permission_set(aws: &Aws, input: &Input<'_>) -> Result<String, Refusal> {
    let arn = input.text("PermissionSetArn")?;
    if !arn.starts_with("arn:aws:sso:::permissionSet/") {
        return Err(Refusal::validation(format!(
            "Value '{arn}' at 'permissionSetArn' failed to satisfy constraint: Member must satisfy regular expression pattern"
        )));
    }
    match aws.permission_sets.iter().find(|set| set.arn == arn) {
        Some(set) => Ok(set.arn.clone()),
        None => Err(Refusal::not_found(format!(
            "Could not find PermissionSet with id {arn}"
        ))),
    }
}

pub(crate) fn known_account(aws: &Aws, input: &Input<'_>, member: &str) -> Result<String, Refusal> {
    let id = input.text(member)?;
    if id.len() != 12 || !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::validation(format!(
            "Value '{id}' at '{member}' failed to satisfy constraint: Member must satisfy regular expression pattern: \\d{{12}}"
        )));
    }
    match aws.accounts.iter().find(|account| account.id == id) {
        Some(account) => Ok(account.id.clone()),
        None => Err(Refusal::not_found(format!(
            "Could not find account {id} in the organization"
        ))),
    }
}
