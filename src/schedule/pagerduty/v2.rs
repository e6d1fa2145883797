//! Decodes layer-based schedules: `GET /schedules/{id}`.

use std::collections::HashSet;

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
    overrides_subschedule: Option<Rendered>,
    escalation_policies: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct Rendered {
    rendered_schedule_entries: Option<Vec<Entry>>,
    /// Null when nothing was rendered, which is not the same as nobody being on call.
    #[serde(default = "zero")]
    rendered_coverage_percentage: Option<f64>,
}

fn zero() -> Option<f64> {
    Some(0.0)
}

#[derive(Deserialize)]
struct Entry {
    start: Option<Instant>,
    end: Option<Instant>,
    user: super::users::Reference,
}

/// Reads the final schedule, in which overrides are already applied.
///
/// # Errors
/// [`DecodeError`] for another id, a schedule that was not rendered, and everything that is not the documented
/// form. A list that is there and empty is an answer: nobody is on call.
pub fn decode(body: &[u8], id: &str) -> Result<Reply, DecodeError> {
    let Body { schedule } = wire::json(body)?;
    if schedule.id.0 != id {
        return Err(DecodeError::new(&format!("another schedule ({})", schedule.id)));
    }
    match schedule.kind.as_deref() {
        Some("schedule") | None => {}
        Some("schedule_v3" | "schedule_v3_reference") => return Ok(Reply::Other(Generation::V3)),
        Some(other) => return Err(DecodeError::new(&format!("a schedule of the unknown type {other:?}"))),
    }
    let rendered = schedule
        .final_schedule
        .ok_or_else(|| DecodeError::new("a schedule without final_schedule"))?;
    let entries = rendered
        .rendered_schedule_entries
        .ok_or_else(|| DecodeError::new("a final schedule without rendered_schedule_entries"))?;
    if entries.is_empty() && rendered.rendered_coverage_percentage.is_none() {
        return Err(DecodeError::new(
            "a final schedule that was not rendered (its coverage is null)",
        ));
    }
    let overrides: HashSet<(String, Option<Instant>, Option<Instant>)> = schedule
        .overrides_subschedule
        .and_then(|overrides| overrides.rendered_schedule_entries)
        .unwrap_or_default()
        .into_iter()
        .map(|entry| (entry.user.id.0, entry.start, entry.end))
        .collect();

    let mut reply = Final {
        unused: schedule.escalation_policies.is_some_and(|policies| policies.is_empty()),
        ..Final::default()
    };
    for entry in entries {
        let row = (entry.user.id.0.clone(), entry.start, entry.end);
        reply.turns.push(Turn {
            user_id: entry.user.id.0.clone(),
            start: entry.start.map(|start| start.0),
            end: entry.end.map(|end| end.0),
            level: None,
            permanent: false,
            via_override: overrides.contains(&row).then(|| "override".to_owned()),
        });
        reply.users.push(entry.user);
    }
    Ok(Reply::Final(reply))
}
