//! Decodes shift-based schedules: `GET /v3/schedules/{id}`.
//!
//! A row whose member or source is of a type that we do not know makes the whole answer unusable. Dropping the
//! row would say that somebody is off call who may be on call, and take their access away; reading it as an
//! ordinary row could give access to a shadow. Neither may happen because a provider added a word.

use serde::Deserialize;

use super::{Final, Generation, Reply};
use crate::schedule::normalise::Turn;
use crate::schedule::wire::{self, DecodeError, Id, Instant};

#[derive(Deserialize)]
struct Body {
    schedule: Schedule,
}

#[derive(Deserialize)]
struct Schedule {
    id: Id,
    #[serde(rename = "type")]
    kind: Option<String>,
    final_schedule: Option<Rendered>,
    escalation_policies: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct Rendered {
    computed_shift_assignments: Option<Vec<Assignment>>,
}

#[derive(Deserialize)]
struct Assignment {
    #[serde(rename = "type")]
    kind: Option<String>,
    start_time: Option<Instant>,
    end_time: Option<Instant>,
    member: Member,
    source: Cause,
}

#[derive(Deserialize)]
struct Member {
    #[serde(rename = "type")]
    kind: String,
    user_id: Option<String>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(rename = "type")]
    kind: String,
    override_id: Option<String>,
}

/// Reads the final schedule: several people may be on call at once.
///
/// # Errors
/// [`DecodeError`] for another id, a missing final schedule, an unknown type of row, member or source, and
/// everything that is not the documented form.
pub fn decode(body: &[u8], id: &str) -> Result<Reply, DecodeError> {
    let Body { schedule } = wire::json(body)?;
    if schedule.id.0 != id {
        return Err(DecodeError::new(&format!("another schedule ({})", schedule.id)));
    }
    match schedule.kind.as_deref() {
        Some("schedule_v3") | None => {}
        Some("schedule" | "schedule_reference") => return Ok(Reply::Other(Generation::V2)),
        Some(other) => return Err(DecodeError::new(&format!("a schedule of the unknown type {other:?}"))),
    }
    let assignments = schedule
        .final_schedule
        .ok_or_else(|| DecodeError::new("a schedule without final_schedule"))?
        .computed_shift_assignments
        .ok_or_else(|| DecodeError::new("a final schedule without computed_shift_assignments"))?;

    let mut reply = Final {
        unused: schedule.escalation_policies.is_some_and(|policies| policies.is_empty()),
        ..Final::default()
    };
    for assignment in assignments {
        if let Some(kind) = assignment.kind.filter(|kind| kind != "computed_shift_assignment") {
            return Err(unknown("row", &kind));
        }
        let via_override = match assignment.source.kind.as_str() {
            "schedule_rotation" | "custom_shift" => None,
            "schedule_rotation_override" | "custom_shift_override" => Some(
                assignment
                    .source
                    .override_id
                    .map_or(assignment.source.kind, |id| wire::one_line(&id)),
            ),
            other => return Err(unknown("source", other)),
        };
        let user_id = match assignment.member.kind.as_str() {
            "empty_member" => continue, // The slot is there and nobody is in it.
            "user_member" => assignment.member.user_id,
            other => return Err(unknown("member", other)),
        };
        let user_id = user_id
            .and_then(Id::new)
            .ok_or_else(|| DecodeError::new("a user_member without a usable user_id"))?;
        reply.turns.push(Turn {
            user_id: user_id.0,
            start: assignment.start_time.map(|start| start.0),
            end: assignment.end_time.map(|end| end.0),
            level: None,
            permanent: false,
            via_override,
        });
    }
    Ok(Reply::Final(reply))
}

fn unknown(what: &str, kind: &str) -> DecodeError {
    DecodeError::new(&format!(
        "a {what} of the unknown type {kind:?}, so that it cannot be told who is on call"
    ))
}
