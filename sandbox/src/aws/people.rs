//! Users and groups of the identity store.

use serde_json::{Value, json};

use super::{Input, Outcome, Refusal};
use crate::world::aws::{Aws, Group, User};

fn unknown(kind: &'static str, id: &str) -> Refusal {
    Refusal::not_found(format!("{kind} not found."))
        .with("ResourceType", kind)
        .with("ResourceId", id)
}

fn same(aws: &Aws, one: &str, other: &str) -> bool {
    one == other || aws.lookups_ignore_case && one.to_lowercase() == other.to_lowercase()
}

/// The path and value of `AlternateIdentifier.UniqueAttribute`.
fn unique_attribute<'a>(input: &'a Input<'_>) -> Result<(&'a str, &'a str), Refusal> {
    let attribute = |name: &str| {
        input
            .fields
            .pointer(&format!("/AlternateIdentifier/UniqueAttribute/{name}"))
            .and_then(Value::as_str)
    };
    match (attribute("AttributePath"), attribute("AttributeValue")) {
        (Some(path), Some(value)) => Ok((path, value)),
        _ if input.fields.pointer("/AlternateIdentifier/ExternalId").is_some() => Err(unknown("USER", "external id")),
        _ => Err(Refusal::validation("AlternateIdentifier is invalid")),
    }
}

pub(crate) fn get_user_id(aws: &Aws, input: &Input<'_>) -> Outcome {
    let (path, value) = unique_attribute(input)?;
    let matches = |user: &&User| match path {
        "userName" | "UserName" => same(aws, &user.user_name, value),
        _ => user.emails.iter().any(|email| same(aws, email, value)),
    };
    if !["userName", "UserName", "emails.value"].contains(&path) {
        return Err(Refusal::validation(format!("AttributePath {path} is not supported")));
    }
    aws.users
        .iter()
        .find(matches)
        .map(|user| json!({"UserId": user.id, "IdentityStoreId": aws.identity_store_id}))
        .ok_or_else(|| unknown("USER", value))
}

pub(crate) fn describe_user(aws: &Aws, input: &Input<'_>) -> Outcome {
    let id = input.text("UserId")?;
    aws.users
        .iter()
        .find(|user| user.id == id)
        .map(|found| user(aws, found))
        .ok_or_else(|| unknown("USER", id))
}

pub(crate) fn list_users(aws: &Aws, input: &Input<'_>) -> Outcome {
    let filter = filter(input, "UserName")?;
    let rows = aws
        .users
        .iter()
        .filter(|user| filter.is_none_or(|name| same(aws, &user.user_name, name)))
        .map(|found| user(aws, found))
        .collect();
    input.page(aws, "Users", rows)
}

pub(crate) fn get_group_id(aws: &Aws, input: &Input<'_>) -> Outcome {
    let (path, value) = unique_attribute(input)?;
    if !["displayName", "DisplayName"].contains(&path) {
        return Err(Refusal::validation(format!("AttributePath {path} is not supported")));
    }
    aws.groups
        .iter()
        .find(|group| same(aws, &group.display_name, value))
        .map(|group| json!({"GroupId": group.id, "IdentityStoreId": aws.identity_store_id}))
        .ok_or_else(|| unknown("GROUP", value))
}

pub(crate) fn describe_group(aws: &Aws, input: &Input<'_>) -> Outcome {
    let id = input.text("GroupId")?;
    aws.groups
        .iter()
        .find(|group| group.id == id)
        .map(|found| group(aws, found))
        .ok_or_else(|| unknown("GROUP", id))
}

pub(crate) fn list_groups(aws: &Aws, input: &Input<'_>) -> Outcome {
    let filter = filter(input, "DisplayName")?;
    let rows = aws
        .groups
        .iter()
        .filter(|group| filter.is_none_or(|name| same(aws, &group.display_name, name)))
        .map(|found| group(aws, found))
        .collect();
    input.page(aws, "Groups", rows)
}

/// The value of the only filter there may be, on this attribute.
fn filter<'a>(input: &'a Input<'_>, attribute: &str) -> Result<Option<&'a str>, Refusal> {
    let Some(filters) = input.fields.get("Filters").and_then(Value::as_array) else {
        return Ok(None);
    };
    match filters.as_slice() {
        [] => Ok(None),
        [only] if only.get("AttributePath").and_then(Value::as_str) == Some(attribute) => {
            Ok(only.get("AttributeValue").and_then(Value::as_str))
        }
        _ => Err(Refusal::validation("Filters are invalid")),
    }
}

/// Refuses a user id that does not exist.
pub(crate) fn known_user(aws: &Aws, id: &str) -> Result<(), Refusal> {
    aws.users
        .iter()
        .any(|user| user.id == id)
        .then_some(())
        .ok_or_else(|| unknown("USER", id))
}

/// Refuses a group id that does not exist.
pub(crate) fn known_group(aws: &Aws, id: &str) -> Result<(), Refusal> {
    aws.groups
        .iter()
        .any(|group| group.id == id)
        .then_some(())
        .ok_or_else(|| unknown("GROUP", id))
}

/// Refuses a membership that does not exist.
pub(crate) fn unknown_membership(id: &str) -> Refusal {
    unknown("GROUP_MEMBERSHIP", id)
}

fn user(aws: &Aws, user: &User) -> Value {
    let emails: Vec<Value> = user
        .emails
        .iter()
        .enumerate()
        .map(|(number, email)| json!({"Value": email, "Type": "work", "Primary": number == 0}))
        .collect();
    let mut value = json!({
        "UserId": user.id,
        "UserName": user.user_name,
        "DisplayName": user.display_name,
        "Name": {"Formatted": user.display_name, "GivenName": user.display_name, "FamilyName": user.display_name},
        "IdentityStoreId": aws.identity_store_id,
        "UserStatus": if user.enabled { "ENABLED" } else { "DISABLED" },
    });
    if !emails.is_empty() {
        value["Emails"] = json!(emails);
    }
    value
}

fn group(aws: &Aws, group: &Group) -> Value {
    json!({
        "GroupId": group.id,
        "DisplayName": group.display_name,
        "IdentityStoreId": aws.identity_store_id,
    })
}
