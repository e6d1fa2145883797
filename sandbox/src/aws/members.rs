//! Group memberships: synchronous, one at a time.

use serde_json::{Value, json};

use super::people::{known_group, known_user, unknown_membership};
use super::{Input, Outcome, Refusal, epoch};
use crate::world::aws::{Aws, Membership};

/// The user id of a `MemberId` union.
fn member_id(value: Option<&Value>) -> Result<String, Refusal> {
    value
        .and_then(|member| member.get("UserId"))
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| Refusal::validation("MemberId is invalid"))
}

fn row(aws: &Aws, member: &Membership) -> Value {
    let mut row = json!({
        "IdentityStoreId": aws.identity_store_id,
        "MembershipId": member.id,
        "GroupId": member.group,
        "MemberId": {"UserId": member.user},
    });
    if let Some(since) = member.since {
        row["CreatedAt"] = json!(epoch(since));
        row["UpdatedAt"] = json!(epoch(since));
    }
    row
}

fn listed<'a>(aws: &'a Aws, input: &Input<'_>) -> impl Iterator<Item = &'a Membership> {
    let now = input.now;
    aws.memberships
        .iter()
        .filter(move |member| aws.listed(member.since, member.removed, now))
}

pub(crate) fn list(aws: &Aws, input: &Input<'_>) -> Outcome {
    let group = input.text("GroupId")?;
    known_group(aws, group)?;
    let rows = listed(aws, input)
        .filter(|member| member.group == group)
        .map(|member| row(aws, member))
        .collect();
    input.page(aws, "GroupMemberships", rows)
}

pub(crate) fn list_for_member(aws: &Aws, input: &Input<'_>) -> Outcome {
    let user = member_id(input.fields.get("MemberId"))?;
    known_user(aws, &user)?;
    let rows = listed(aws, input)
        .filter(|member| member.user == user)
        .map(|member| row(aws, member))
        .collect();
    input.page(aws, "GroupMemberships", rows)
}

pub(crate) fn is_member(aws: &Aws, input: &Input<'_>) -> Outcome {
    let user = member_id(input.fields.get("MemberId"))?;
    known_user(aws, &user)?;
    let groups = input
        .fields
        .get("GroupIds")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if groups.is_empty() || groups.len() > 100 {
        return Err(Refusal::validation("GroupIds must have 1 to 100 members"));
    }
    let results: Vec<Value> = groups
        .iter()
        .map(|group| {
            let exists = group.as_str().is_some_and(|group| find(aws, group, &user).is_some());
            json!({"GroupId": group, "MemberId": {"UserId": user}, "MembershipExists": exists})
        })
        .collect();
    Ok(json!({"Results": results}))
}

/// The membership as it truly is, whatever lists still show.
fn find<'a>(aws: &'a Aws, group: &str, user: &str) -> Option<&'a Membership> {
    aws.memberships
        .iter()
        .find(|member| member.removed.is_none() && member.group == group && member.user == user)
}

pub(crate) fn get_id(aws: &Aws, input: &Input<'_>) -> Outcome {
    let group = input.text("GroupId")?;
    let user = member_id(input.fields.get("MemberId"))?;
    known_group(aws, group)?;
    known_user(aws, &user)?;
    find(aws, group, &user)
        .map(|member| json!({"MembershipId": member.id, "IdentityStoreId": aws.identity_store_id}))
        .ok_or_else(|| unknown_membership(&user))
}

/// `id` is a fresh id for the new membership.
pub(crate) fn create(aws: &mut Aws, input: &Input<'_>, id: &str) -> Outcome {
    let group = input.text("GroupId")?;
    let user = member_id(input.fields.get("MemberId"))?;
    known_group(aws, group)?;
    known_user(aws, &user)?;
    if find(aws, group, &user).is_some() {
        return Err(Refusal::conflict("Member and Group relationship already exists.")
            .with("Reason", "UNIQUENESS_CONSTRAINT_VIOLATION"));
    }
    aws.memberships.push(Membership {
        id: id.to_owned(),
        group: group.to_owned(),
        user,
        since: Some(input.now),
        removed: None,
    });
    Ok(json!({"MembershipId": id, "IdentityStoreId": aws.identity_store_id}))
}

pub(crate) fn delete(aws: &mut Aws, input: &Input<'_>) -> Outcome {
    let id = input.text("MembershipId")?;
    let now = input.now;
    let found = aws
        .memberships
        .iter_mut()
        .find(|member| member.id == id && member.removed.is_none());
    let Some(member) = found else {
        return Err(unknown_membership(id));
    };
    member.removed = Some(now);
    aws.settle(now);
    Ok(json!({}))
}
