//! Audit records of a schedule: `GET /schedules/{id}/audit/records` and `/v3/schedules/{id}/audit/records`.

use jiff::SignedDuration;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{Outcome, Refusal, moment, reference, user_reference};
use crate::request::Incoming;
use crate::world::pagerduty::{AuditRecord, PagerDuty};

/// Newest first, at most 100 at once, with a cursor to the next ones.
pub(crate) fn records(pager: &PagerDuty, request: &Incoming, id: &str, v3: bool, now: Timestamp) -> Outcome {
    if !pager.audit_trail {
        return Err(Refusal::new(
            402,
            2012,
            "Account does not have the abilities to perform the action",
        ));
    }
    let shift_based = pager.shift_schedules.iter().any(|schedule| schedule.id == id);
    let layer_based = pager.schedules.iter().any(|schedule| schedule.id == id);
    match (shift_based, layer_based) {
        (false, false) => return Err(Refusal::not_found()),
        (true, _) if !v3 => {
            return Err(Refusal::invalid(
                "Schedule is a shift-based schedule. Use /v3/schedules.",
            ));
        }
        (false, _) if v3 => return Err(Refusal::invalid("Schedule is not a shift-based schedule.")),
        _ => {}
    }
    let far = || Refusal::new(400, 2005, "Invalid Query Date Range");
    let day = SignedDuration::from_hours(24);
    let since = moment(request, "since", &TimeZone::UTC)?;
    let since = since.map_or_else(|| now.checked_sub(day).map_err(|_| far()), Ok)?;
    let until = moment(request, "until", &TimeZone::UTC)?.unwrap_or(now);
    if until < since || day.saturating_mul(31) < since.duration_until(until) {
        return Err(far());
    }
    let number = |name: &str, fallback: usize| match request.parameter(name) {
        None => Ok(fallback),
        Some(text) => text
            .parse::<usize>()
            .map_err(|_| Refusal::invalid(format!("{name} must be a number."))),
    };
    let (limit, first) = (number("limit", 100)?.clamp(1, 100), number("cursor", 0)?);
    let mut found: Vec<&AuditRecord> = pager
        .audit_records
        .iter()
        .filter(|record| record.schedule == id && since <= record.at && record.at <= until)
        .collect();
    found.sort_by_key(|record| std::cmp::Reverse(record.at));
    let next = (first + limit < found.len()).then(|| (first + limit).to_string());
    let rows: Vec<Value> = found
        .into_iter()
        .skip(first)
        .take(limit)
        .map(|record| shown(pager, record))
        .collect();
    Ok(json!({"records": rows, "next_cursor": next, "limit": limit, "response_metadata": null}))
}

fn shown(pager: &PagerDuty, record: &AuditRecord) -> Value {
    let name = pager.schedules.iter().find(|schedule| schedule.id == record.schedule);
    let name = name.map_or(record.schedule.as_str(), |schedule| schedule.name.as_str());
    let actors: Value = match &record.actor {
        Some(id) => json!([user_reference(pager, id)]),
        None => Value::Null,
    };
    let references: Vec<Value> = record
        .mentions
        .iter()
        .map(|id| json!({"name": "overrides", "description": null, "added": [reference("override", id, id)], "removed": null}))
        .collect();
    json!({
        "id": record.id,
        "self": null,
        "execution_time": record.at.to_string(),
        "execution_context": {"request_id": null, "remote_address": "192.0.2.7"},
        "actors": actors,
        "method": {"type": record.method, "description": null, "truncated_token": record.truncated_token},
        "root_resource": reference("schedule", &record.schedule, name),
        "action": record.action,
        "details": {
            "resource": reference("schedule", &record.schedule, name),
            "fields": null,
            "references": references,
        },
    })
}
