//! Layer-based schedules: `GET /schedules`, `/schedules/{id}`, its `/users` and its `/overrides`.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::people::full;
use super::{Outcome, Refusal, flag, moment, page, reference, user_reference, window, zone};
use crate::request::{Incoming, rendered};
use crate::world::interval::Span;
use crate::world::pagerduty::{PagerDuty, Schedule, ShiftOnV2, Target};

pub(crate) fn list(pager: &PagerDuty, request: &Incoming) -> Outcome {
    let query = request.parameter("query").unwrap_or_default().to_lowercase();
    let rows = pager
        .schedules
        .iter()
        .filter(|schedule| schedule.name.to_lowercase().contains(&query))
        .map(|schedule| head(pager, schedule))
        .collect();
    page(request, "schedules", rows, 25, 100)
}

pub(crate) fn get(pager: &PagerDuty, request: &Incoming, id: &str) -> Outcome {
    let schedule = match find(pager, id) {
        Ok(schedule) => schedule,
        Err(refusal) => return other_shape(pager, id).ok_or(refusal),
    };
    let zone = zone(request, &schedule.time_zone)?;
    let window = window(request, &zone)?;
    let spans = match window {
        Some((since, until)) if !too_narrow(since, until) => schedule.final_spans(since, until),
        _ => Vec::new(),
    };
    let overrides: Vec<Span<String>> = schedule
        .overrides
        .iter()
        .map(|over| Span {
            start: over.start,
            end: Some(over.end),
            what: over.user.clone(),
        })
        .filter(|span| window.is_some_and(|(since, until)| span.overlaps(since, until)))
        .collect();
    let overflow = flag(request, "overflow")?;
    let mut body = head(pager, schedule);
    body["schedule_layers"] = json!(layers(pager, schedule, &zone));
    body["overrides_subschedule"] = subschedule(pager, "Overrides", overrides, None, window, overflow, &zone);
    let coverage = window.map(|window| coverage(&spans, window));
    body["final_schedule"] = subschedule(pager, "Final Schedule", spans, coverage, window, overflow, &zone);
    Ok(json!({"schedule": body}))
}

/// Without a window everybody on the schedule, whoever is on call; deleted people as bare references.
pub(crate) fn users(pager: &PagerDuty, request: &Incoming, id: &str) -> Outcome {
    let schedule = find(pager, id)?;
    let zone = zone(request, &schedule.time_zone)?;
    let people = match window(request, &zone)? {
        None => schedule.people(),
        Some((since, until)) => {
            let mut people: Vec<String> = Vec::new();
            for span in schedule.final_spans(since, until) {
                if !people.contains(&span.what) {
                    people.push(span.what);
                }
            }
            people
        }
    };
    let users: Vec<Value> = people
        .iter()
        .map(|id| {
            match pager
                .users
                .iter()
                .find(|user| user.id == *id && user.deleted_at.is_none())
            {
                Some(user) => full(user),
                None => user_reference(pager, id),
            }
        })
        .collect();
    Ok(json!({"users": users}))
}

pub(crate) fn overrides(pager: &PagerDuty, request: &Incoming, id: &str) -> Outcome {
    let schedule = find(pager, id)?;
    let zone = zone(request, &schedule.time_zone)?;
    let (Some(since), Some(until)) = (moment(request, "since", &zone)?, moment(request, "until", &zone)?) else {
        return Err(Refusal::invalid("Since and until are required."));
    };
    let overflow = flag(request, "overflow")?;
    let rows: Vec<Value> = schedule
        .overrides
        .iter()
        .map(|over| {
            let what = (over.id.clone(), over.user.clone());
            Span {
                start: over.start,
                end: Some(over.end),
                what,
            }
        })
        .filter(|span| span.overlaps(since, until))
        .map(|span| if overflow { span } else { span.cut(since, until) })
        .map(|span| {
            let (id, user) = &span.what;
            json!({
                "id": id,
                "start": rendered(span.start, &zone),
                "end": span.end.map(|end| rendered(end, &zone)),
                "user": user_reference(pager, user),
            })
        })
        .collect();
    Ok(json!({"overrides": rows}))
}

/// A window of some microseconds gives an empty list, one of no length at all does not
/// (github.com/PagerDuty/api-schema issue 479).
fn too_narrow(since: Timestamp, until: Timestamp) -> bool {
    since < until && until.duration_since(since).as_millis() == 0
}

fn find<'a>(pager: &'a PagerDuty, id: &str) -> Result<&'a Schedule, Refusal> {
    if pager.shift_schedules.iter().any(|schedule| schedule.id == id) {
        return Err(Refusal::invalid(
            "Schedule is a shift-based schedule. Use /v3/schedules.",
        ));
    }
    pager
        .schedules
        .iter()
        .find(|schedule| schedule.id == id)
        .ok_or_else(Refusal::not_found)
}

fn other_shape(pager: &PagerDuty, id: &str) -> Option<Value> {
    if pager.shift_schedule_on_v2_path == ShiftOnV2::BadRequest {
        return None;
    }
    let schedule = pager.shift_schedules.iter().find(|schedule| schedule.id == id)?;
    Some(json!({"schedule": {
        "id": schedule.id,
        "type": "schedule_v3",
        "summary": schedule.name,
        "name": schedule.name,
        "time_zone": schedule.time_zone,
    }}))
}

fn head(pager: &PagerDuty, schedule: &Schedule) -> Value {
    let policies: Vec<Value> = pager
        .escalation_policies
        .iter()
        .filter(|policy| {
            policy
                .levels
                .iter()
                .flatten()
                .any(|target| *target == Target::Schedule(schedule.id.clone()))
        })
        .map(|policy| {
            json!({
                "id": policy.id,
                "type": "escalation_policy_reference",
                "summary": policy.name,
                "self": format!("https://api.pagerduty.com/escalation_policies/{}", policy.id),
                "html_url": null,
            })
        })
        .collect();
    let mut head = reference("schedule", &schedule.id, &schedule.name);
    head["type"] = json!("schedule");
    head["name"] = json!(schedule.name);
    head["time_zone"] = json!(schedule.time_zone);
    head["description"] = Value::Null;
    head["users"] = schedule.people().iter().map(|id| user_reference(pager, id)).collect();
    head["escalation_policies"] = json!(policies);
    head["teams"] = json!([]);
    head
}

fn layers(pager: &PagerDuty, schedule: &Schedule, zone: &TimeZone) -> Vec<Value> {
    let Some(rotation) = &schedule.rotation else {
        return Vec::new();
    };
    let members: Vec<Value> = rotation
        .members
        .iter()
        .map(|id| json!({"user": user_reference(pager, id)}))
        .collect();
    vec![json!({
        "id": format!("{}L1", schedule.id),
        "name": "Schedule Layer 1",
        "start": rendered(rotation.start, zone),
        "end": null,
        "rotation_virtual_start": rendered(rotation.start, zone),
        "rotation_turn_length_seconds": rotation.turn.as_secs(),
        "users": members,
        "restrictions": [],
        "rendered_schedule_entries": [],
        "rendered_coverage_percentage": null,
    })]
}

fn subschedule(
    pager: &PagerDuty,
    name: &str,
    spans: Vec<Span<String>>,
    coverage: Option<f64>,
    window: Option<(Timestamp, Timestamp)>,
    overflow: bool,
    zone: &TimeZone,
) -> Value {
    let entries: Vec<Value> = spans
        .into_iter()
        .map(|span| match window {
            Some((since, until)) if !overflow => span.cut(since, until),
            _ => span,
        })
        .map(|span| {
            json!({
                "start": rendered(span.start, zone),
                "end": span.end.map(|end| rendered(end, zone)),
                "user": user_reference(pager, &span.what),
            })
        })
        .collect();
    json!({
        "name": name,
        "rendered_schedule_entries": entries,
        "rendered_coverage_percentage": coverage,
    })
}

/// How much of the window is covered by anybody, in percent with one decimal.
pub(crate) fn coverage<T: Clone>(spans: &[Span<T>], (since, until): (Timestamp, Timestamp)) -> f64 {
    let whole = until.duration_since(since).as_secs_f64();
    if whole <= 0.0 {
        return 0.0;
    }
    let mut covered = 0.0;
    let mut reached = since;
    for span in spans {
        let cut = span.cut(since, until);
        let end = cut.end.unwrap_or(until);
        let start = cut.start.max(reached);
        if end > start {
            covered += end.duration_since(start).as_secs_f64();
            reached = end;
        }
    }
    (covered / whole * 1000.0).round() / 10.0
}
