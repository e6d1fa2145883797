//! PagerDuty reads against scripted answers; names carry the case ids of the facts' table.

mod escalation;
mod fixtures;
mod layers;
mod shifts;

use serde_json::{Value, json};

use crate::model::{Shift, Snapshot};
use crate::schedule::testing::{Reply, Seen, ok, reply};

/// `start..end user` of every shift, with `?` at a bound that is not known.
pub(super) fn shown(snapshot: &Snapshot) -> Vec<String> {
    let line = |shift: &Shift| {
        format!(
            "{}{}..{}{} {}",
            if shift.start_known { "" } else { "?" },
            shift.interval.start(),
            shift.interval.end(),
            if shift.end_known { "" } else { "?" },
            shift.user.id
        )
    };
    snapshot.shifts.iter().map(line).collect()
}

fn layered(id: &str, entries: Value) -> String {
    json!({"schedule": {"id": id, "type": "schedule", "time_zone": "America/New_York",
        "escalation_policies": [{"id": "PEP", "type": "escalation_policy_reference"}],
        "overrides_subschedule": {"rendered_schedule_entries": []},
        "final_schedule": {"rendered_schedule_entries": entries, "rendered_coverage_percentage": 100.0}}})
    .to_string()
}

fn shift_based(id: &str, assignments: Value) -> String {
    json!({"schedule": {"id": id, "type": "schedule_v3", "name": "n", "time_zone": "Etc/UTC",
        "final_schedule": {"type": "final_schedule", "computed_shift_assignments": assignments}}})
    .to_string()
}

fn entry(start: &str, end: &str, user: &str) -> Value {
    json!({"start": start, "end": end, "user": {"id": user, "type": "user_reference", "summary": user}})
}

fn user(id: &str) -> String {
    json!({"user": {"id": id, "type": "user", "name": id, "email": format!("{id}@Example.com")}}).to_string()
}

/// Answers `GET /users/…` with an ordinary user.
fn any_user(seen: &Seen) -> Option<Reply> {
    seen.path.strip_prefix("/users/").map(|id| ok(user(id)))
}

fn not_v3() -> Reply {
    reply(
        400,
        r#"{"error":{"message":"Invalid Input Provided","code":2001,"errors":["layer-based"]}}"#,
    )
}
