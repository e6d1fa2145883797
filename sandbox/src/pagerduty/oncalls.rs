//! `GET /oncalls`: one row per escalation policy, level and shift.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::people::full;
use super::{Outcome, Refusal, flag, moment, page, reference, user_reference, zone};
use crate::request::{Incoming, rendered};
use crate::world::interval::Span;
use crate::world::pagerduty::{EscalationPolicy, PagerDuty, Target};

/// One row, before it is rendered.
struct Row<'a> {
    policy: &'a EscalationPolicy,
    level: usize,
    /// Schedule id, its name, and the type of a reference to it; `None` for a person named by the policy.
    schedule: Option<(&'a str, &'a str, &'static str)>,
    user: String,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

pub(crate) fn list(pager: &PagerDuty, request: &Incoming, now: Timestamp) -> Outcome {
    let zone = zone(request, &pager.time_zone)?;
    let since = moment(request, "since", &zone)?.unwrap_or(now);
    let until = moment(request, "until", &zone)?.unwrap_or_else(|| since.max(now));
    if until < since {
        return Err(Refusal::new(400, 2005, "Invalid Query Date Range"));
    }
    // Shifts are limited to 90 days in the future; whether a later `until` is refused is not documented.
    let horizon = now
        .checked_add(SignedDuration::from_hours(90 * 24))
        .unwrap_or(Timestamp::MAX);
    let until = until.min(horizon.max(since));

    let mut rows = Vec::new();
    for policy in &pager.escalation_policies {
        for (number, targets) in policy.levels.iter().enumerate() {
            for target in targets {
                collect(pager, policy, number + 1, target, (since, until), &mut rows);
            }
        }
    }
    filter(request, &mut rows, flag(request, "earliest")?);
    let clipped = pager.oncalls_cut_at_window && since < until;
    let includes = request.parameters("include[]");
    let rows = rows
        .into_iter()
        .map(|row| {
            let span = Span {
                start: row.start.unwrap_or(since),
                end: row.end,
                what: (),
            };
            let (start, end) = match row.start {
                Some(_) if clipped => (Some(span.cut(since, until).start), span.cut(since, until).end),
                _ => (row.start, row.end),
            };
            json!({
                "escalation_policy": policy_value(row.policy, includes.contains(&"escalation_policies")),
                "escalation_level": row.level,
                "schedule": row.schedule.map(|schedule| schedule_value(schedule, includes.contains(&"schedules"))),
                "user": user_value(pager, &row.user, includes.contains(&"users")),
                "start": start.map(|at| rendered(at, &zone)),
                "end": end.map(|at| rendered(at, &zone)),
            })
        })
        .collect();
    page(request, "oncalls", rows, 25, 100)
}

fn collect<'a>(
    pager: &'a PagerDuty,
    policy: &'a EscalationPolicy,
    level: usize,
    target: &'a Target,
    (since, until): (Timestamp, Timestamp),
    rows: &mut Vec<Row<'a>>,
) {
    let id = match target {
        Target::User(user) => {
            rows.push(Row {
                policy,
                level,
                schedule: None,
                user: user.clone(),
                start: None,
                end: None,
            });
            return;
        }
        Target::Schedule(id) => id,
    };
    if let Some(schedule) = pager.schedules.iter().find(|schedule| schedule.id == *id) {
        let reference = (schedule.id.as_str(), schedule.name.as_str(), "schedule_reference");
        rows.extend(schedule.final_spans(since, until).into_iter().map(|span| Row {
            policy,
            level,
            schedule: Some(reference),
            user: span.what,
            start: Some(span.start),
            end: span.end,
        }));
    }
    let shift_schedule = pager.shift_schedules.iter().find(|schedule| schedule.id == *id);
    if let (Some(schedule), true) = (shift_schedule, pager.oncalls_cover_shift_schedules) {
        let reference = (schedule.id.as_str(), schedule.name.as_str(), "schedule_v3_reference");
        let spans = schedule.final_spans(since, until).into_iter();
        rows.extend(spans.filter(|span| !span.what.member.is_empty()).map(|span| Row {
            policy,
            level,
            schedule: Some(reference),
            user: span.what.member,
            start: Some(span.start),
            end: span.end,
        }));
    }
}

/// Set filters: OR inside one, AND across. `schedule_ids[]=null` stands for people named by the policy.
fn filter(request: &Incoming, rows: &mut Vec<Row<'_>>, earliest: bool) {
    let schedules = request.parameters("schedule_ids[]");
    let users = request.parameters("user_ids[]");
    let policies = request.parameters("escalation_policy_ids[]");
    rows.retain(|row| {
        let schedule = row.schedule.map_or("null", |(id, _, _)| id);
        (schedules.is_empty() || schedules.contains(&schedule))
            && (users.is_empty() || users.contains(&row.user.as_str()))
            && (policies.is_empty() || policies.contains(&row.policy.id.as_str()))
    });
    if earliest {
        let mut seen: Vec<(String, usize, String)> = Vec::new();
        rows.sort_by_key(|row| row.start);
        rows.retain(|row| {
            let key = (row.policy.id.clone(), row.level, row.user.clone());
            let first = !seen.contains(&key);
            seen.push(key);
            first
        });
    }
}

/// `GET /escalation_policies/{id}`: the policy with its levels.
pub(crate) fn policy(pager: &PagerDuty, id: &str) -> Outcome {
    let policy = pager
        .escalation_policies
        .iter()
        .find(|policy| policy.id == id)
        .ok_or_else(Refusal::not_found)?;
    let target = |target: &Target| match target {
        Target::Schedule(id) => reference("schedule", id, id),
        Target::User(id) => user_reference(pager, id),
    };
    let rules: Vec<Value> = policy
        .levels
        .iter()
        .map(|targets| {
            json!({
                "escalation_delay_in_minutes": 30,
                "targets": targets.iter().map(target).collect::<Vec<_>>(),
            })
        })
        .collect();
    let mut value = policy_value(policy, true);
    value["num_loops"] = json!(0);
    value["escalation_rules"] = json!(rules);
    Ok(json!({"escalation_policy": value}))
}

fn policy_value(policy: &EscalationPolicy, in_full: bool) -> Value {
    let mut value = json!({
        "id": policy.id,
        "type": "escalation_policy_reference",
        "summary": policy.name,
        "self": format!("https://api.pagerduty.com/escalation_policies/{}", policy.id),
        "html_url": null,
    });
    if in_full {
        value["type"] = json!("escalation_policy");
        value["name"] = json!(policy.name);
    }
    value
}

fn schedule_value((id, name, kind): (&str, &str, &str), in_full: bool) -> Value {
    let mut value = reference("schedule", id, name);
    value["type"] = json!(kind);
    if in_full {
        value["type"] = json!(kind.trim_end_matches("_reference"));
        value["name"] = json!(name);
    }
    value
}

fn user_value(pager: &PagerDuty, id: &str, in_full: bool) -> Value {
    match pager
        .users
        .iter()
        .find(|user| user.id == id && user.deleted_at.is_none())
    {
        Some(user) if in_full => full(user),
        _ => user_reference(pager, id),
    }
}
