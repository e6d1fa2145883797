//! Shift-based schedules: `GET /v3/schedules` and `/v3/schedules/{id}`.

use serde_json::{Value, json};

use super::schedules::coverage;
use super::{Outcome, Refusal, flag, page, window, zone};
use crate::request::Incoming;
use crate::world::pagerduty::{PagerDuty, ShiftSchedule, Slot};

pub(crate) fn list(pager: &PagerDuty, request: &Incoming) -> Outcome {
    let rows = pager.shift_schedules.iter().map(head).collect();
    let mut body = page(request, "schedules", rows, 100, 1000)?;
    // The v3 list has no total.
    if let Some(fields) = body.as_object_mut() {
        fields.remove("total");
    }
    Ok(body)
}

pub(crate) fn get(pager: &PagerDuty, request: &Incoming, id: &str) -> Outcome {
    let Some(schedule) = pager.shift_schedules.iter().find(|schedule| schedule.id == id) else {
        // A layer-based schedule's id is refused here with 400, which is how clients tell the two apart.
        return Err(match pager.schedules.iter().find(|schedule| schedule.id == id) {
            Some(_) => Refusal::invalid("Schedule is not a shift-based schedule."),
            None => Refusal::not_found(),
        });
    };
    let zone = zone(request, &schedule.time_zone)?;
    let window = window(request, &zone)?;
    let mut body = head(schedule);
    let wanted = request.parameters("include[]").contains(&"final_schedule");
    if let (Some((since, until)), true) = (window, wanted) {
        let overflow = flag(request, "overflow")?;
        let spans = schedule.final_spans(since, until);
        let manned: Vec<_> = spans
            .iter()
            .filter(|span| !span.what.member.is_empty())
            .cloned()
            .collect();
        let assignments: Vec<Value> = spans
            .iter()
            .map(|span| {
                let span = if overflow { span.clone() } else { span.cut(since, until) };
                json!({
                    "type": "computed_shift_assignment",
                    // The API gives v3 times in UTC, whatever the zone.
                    "start_time": span.start.to_string(),
                    "end_time": span.end.map(|end| end.to_string()),
                    "member": member(&span.what),
                    "source": source(&span.what),
                })
            })
            .collect();
        body["final_schedule"] = json!({
            "type": "final_schedule",
            "rendered_coverage_percentage": coverage(&manned, (since, until)),
            "computed_shift_assignments": assignments,
        });
    }
    Ok(json!({"schedule": body}))
}

fn head(schedule: &ShiftSchedule) -> Value {
    json!({
        "id": schedule.id,
        "type": "schedule_v3",
        "summary": schedule.name,
        "self": format!("https://api.pagerduty.com/v3/schedules/{}", schedule.id),
        "name": schedule.name,
        "description": "",
        "time_zone": schedule.time_zone,
    })
}

fn member(slot: &Slot) -> Value {
    if slot.member.is_empty() {
        json!({"type": "empty_member"})
    } else {
        json!({"type": "user_member", "user_id": slot.member})
    }
}

fn source(slot: &Slot) -> Value {
    let mut source = json!({"type": slot.source});
    for (name, id) in [
        ("rotation_id", &slot.rotation_id),
        ("shift_id", &slot.shift_id),
        ("override_id", &slot.override_id),
    ] {
        if let Some(id) = id {
            source[name] = json!(id);
        }
    }
    source
}
