//! `GET /v2/schedules/on-calls` and `/v2/schedules/{id}/on-calls`: who is on call at an instant.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::timeline::{group, meta};
use super::{Outcome, Refusal, data};
use crate::request::{Incoming, instant};
use crate::world::opsgenie::{Duty, Opsgenie, Recipient, RecipientKind, Schedule};

pub(crate) fn one(genie: &Opsgenie, schedule: &Schedule, request: &Incoming, now: Timestamp) -> Outcome {
    Ok(data(on_call(genie, schedule, request, now)?))
}

pub(crate) fn all(genie: &Opsgenie, request: &Incoming, seen: Option<&[String]>, now: Timestamp) -> Outcome {
    let rows = genie
        .schedules
        .iter()
        .filter(|schedule| seen.is_none_or(|ids| ids.contains(&schedule.id)))
        .map(|schedule| on_call(genie, schedule, request, now))
        .collect::<Result<Vec<Value>, Refusal>>()?;
    Ok(data(json!(rows)))
}

fn on_call(genie: &Opsgenie, schedule: &Schedule, request: &Incoming, now: Timestamp) -> Result<Value, Refusal> {
    let date = match request.parameter("date") {
        None => now,
        Some(text) => {
            instant(text, &TimeZone::UTC).ok_or_else(|| Refusal::semantic(format!("date [{text}] is not valid")))?
        }
    };
    let duties: Vec<Duty> = if schedule.enabled {
        schedule
            .rotations
            .iter()
            .flat_map(|rotation| schedule.final_spans(rotation, date, date))
            .map(|span| span.what)
            .filter(|duty| duty.recipient.kind != RecipientKind::None)
            .collect()
    } else {
        Vec::new()
    };
    let mut value = json!({"_parent": meta(schedule)});
    if request.parameter("flat") == Some("true") {
        let mut names: Vec<String> = Vec::new();
        for id in duties.iter().flat_map(|duty| users_of(genie, &duty.recipient)) {
            let name = genie
                .users
                .iter()
                .find(|user| user.id == id)
                .map_or(id, |user| user.username.clone());
            if !names.contains(&name) {
                names.push(name);
            }
        }
        value["onCallRecipients"] = json!(names);
    } else {
        value["onCallParticipants"] = duties
            .iter()
            .map(|duty| {
                let mut value = participant(genie, &duty.recipient, 8);
                if let Some(from) = &duty.from_user {
                    value["forwardedFrom"] = participant(genie, &Recipient::user(from), 0);
                }
                value
            })
            .collect();
    }
    Ok(value)
}

/// A participant with those below it; `depth` ends circles.
fn participant(genie: &Opsgenie, recipient: &Recipient, depth: u8) -> Value {
    let mut value = json!({"id": recipient.id, "type": recipient.kind.as_str()});
    if recipient.kind == RecipientKind::User {
        let user = genie.users.iter().find(|user| user.id == recipient.id);
        value["name"] = json!(user.map_or(&recipient.id, |user| &user.username));
    }
    if let Some(group) = group(genie, recipient) {
        value["name"] = json!(group.name);
        if depth > 0 {
            let below = group.members.iter().map(|member| {
                let mut below = participant(genie, member, depth - 1);
                if group.kind == RecipientKind::Escalation {
                    below["escalationTime"] = json!(0);
                    below["notifyType"] = json!("default");
                }
                below
            });
            value["onCallParticipants"] = below.collect();
        }
    }
    value
}

/// The people whom a recipient reaches, by user id.
pub(crate) fn users_of(genie: &Opsgenie, recipient: &Recipient) -> Vec<String> {
    flatten(genie, recipient, 8)
}

fn flatten(genie: &Opsgenie, recipient: &Recipient, depth: u8) -> Vec<String> {
    if recipient.kind == RecipientKind::User {
        return vec![recipient.id.clone()];
    }
    match group(genie, recipient) {
        Some(group) if depth > 0 => group
            .members
            .iter()
            .flat_map(|member| flatten(genie, member, depth - 1))
            .collect(),
        _ => Vec::new(),
    }
}
