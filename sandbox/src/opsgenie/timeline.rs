//! Schedules, their timelines and their overrides.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Span as Period, Timestamp, ToSpan};
use serde_json::{Value, json};

use super::oncalls::users_of;
use super::{Outcome, Refusal, data};
use crate::request::{Incoming, instant};
use crate::world::interval::Span;
use crate::world::opsgenie::{Duty, Group, Opsgenie, Recipient, RecipientKind, Schedule, ScheduleRotation};

pub(crate) fn schedule(genie: &Opsgenie, schedule: &Schedule, with_rotations: bool) -> Value {
    let mut value = json!({
        "id": schedule.id,
        "name": schedule.name,
        "description": "",
        "timezone": schedule.time_zone,
        "enabled": schedule.enabled,
        "rotations": [],
    });
    if with_rotations {
        value["rotations"] = schedule
            .rotations
            .iter()
            .map(|rotation| definition(genie, rotation))
            .collect();
    }
    value
}

fn definition(genie: &Opsgenie, rotation: &ScheduleRotation) -> Value {
    let mut value =
        json!({"id": rotation.id, "name": rotation.name, "type": "hourly", "length": 1, "participants": []});
    if let Some(rule) = &rotation.rotation {
        value["startDate"] = json!(rule.start.to_string());
        value["length"] = json!((rule.turn.as_secs() / 3600).max(1));
        value["participants"] = rule
            .members
            .iter()
            .map(|id| {
                let user = genie.users.iter().find(|user| user.id == *id);
                json!({"type": "user", "id": id, "username": user.map(|user| &user.username)})
            })
            .collect();
    }
    value
}

pub(crate) fn meta(schedule: &Schedule) -> Value {
    json!({"id": schedule.id, "name": schedule.name, "enabled": schedule.enabled})
}

/// Lists overrides that have not ended.
pub(crate) fn overrides(schedule: &Schedule, now: Timestamp) -> Value {
    schedule
        .overrides
        .iter()
        .filter(|over| over.end > now)
        .map(|over| {
            let mut user = json!({"type": over.user.kind.as_str()});
            if over.user.kind != RecipientKind::None {
                user["id"] = json!(over.user.id);
            }
            let rotations: Vec<Value> = schedule
                .rotations
                .iter()
                .filter(|rotation| over.rotations.is_empty() || over.rotations.contains(&rotation.id))
                .map(|rotation| json!({"id": rotation.id, "name": rotation.name}))
                .collect();
            json!({
                "_parent": meta(schedule),
                "alias": over.alias,
                "user": user,
                "startDate": over.start.to_string(),
                "endDate": over.end.to_string(),
                "rotations": rotations,
            })
        })
        .collect()
}

pub(crate) fn timeline(genie: &Opsgenie, schedule: &Schedule, request: &Incoming, now: Timestamp) -> Outcome {
    let (since, until) = snapped(schedule, request, now)?;
    let expand: Vec<&str> = request
        .parameters("expand")
        .into_iter()
        .flat_map(|list| list.split(','))
        .collect();
    let mut body = json!({
        "_parent": meta(schedule),
        "startDate": since.to_string(),
        "endDate": until.to_string(),
        "finalTimeline": render(genie, schedule, now, (since, until), |rotation| {
            schedule.final_spans(rotation, since, until)
        }),
    });
    let of_kind = |kind: &'static str| {
        move |rotation: &ScheduleRotation| {
            let mut spans = schedule.final_spans(rotation, since, until);
            spans.retain(|span| span.what.kind == kind);
            spans
        }
    };
    if expand.contains(&"base") {
        body["baseTimeline"] = render(genie, schedule, now, (since, until), |rotation| {
            rotation.base_spans(since, until)
        });
    }
    if expand.contains(&"override") {
        body["overrideTimeline"] = render(genie, schedule, now, (since, until), of_kind("override"));
    }
    if expand.contains(&"forwarding") {
        body["forwardingTimeline"] = render(genie, schedule, now, (since, until), of_kind("forwarding"));
    }
    let mut fields = data(body);
    fields.insert("expandable".to_owned(), json!(["base", "forwarding", "override"]));
    Ok(fields)
}

/// The window: it begins with the day, week or month around `date` in the schedule's zone, not with `date`.
fn snapped(schedule: &Schedule, request: &Incoming, now: Timestamp) -> Result<(Timestamp, Timestamp), Refusal> {
    let zone = TimeZone::get(&schedule.time_zone).map_err(|error| Refusal::semantic(error.to_string()))?;
    let date = match request.parameter("date") {
        None => now,
        Some(text) => instant(text, &zone).ok_or_else(|| Refusal::semantic(format!("date [{text}] is not valid")))?,
    };
    let interval: i64 = match request.parameter("interval") {
        None => 1,
        Some(text) => text
            .parse()
            .ok()
            .filter(|interval| (1..=1000).contains(interval))
            .ok_or_else(|| Refusal::semantic(format!("interval [{text}] is not valid")))?,
    };
    let day = date.to_zoned(zone.clone()).date();
    let back = i64::from(day.weekday().to_monday_zero_offset());
    let (first, length): (_, Period) = match request.parameter("intervalUnit").unwrap_or("weeks") {
        "days" => (day, interval.days()),
        "weeks" => (day.saturating_sub(back.days()), interval.weeks()),
        "months" => (day.first_of_month(), interval.months()),
        other => {
            return Err(Refusal::semantic(format!("intervalUnit [{other}] is not valid")));
        }
    };
    let bound = |day: jiff::civil::Date| day.to_datetime(Time::midnight()).to_zoned(zone.clone());
    match (bound(first), bound(first.saturating_add(length))) {
        (Ok(since), Ok(until)) => Ok((since.timestamp(), until.timestamp())),
        _ => Err(Refusal::semantic("date is out of range")),
    }
}

fn render(
    genie: &Opsgenie,
    schedule: &Schedule,
    now: Timestamp,
    (since, until): (Timestamp, Timestamp),
    spans: impl Fn(&ScheduleRotation) -> Vec<Span<Duty>>,
) -> Value {
    let rotations: Vec<Value> = schedule
        .rotations
        .iter()
        .map(|rotation| {
            let mut value = json!({"id": rotation.id, "name": rotation.name, "order": rotation.order});
            if !rotation.without_periods {
                value["periods"] = spans(rotation)
                    .into_iter()
                    .flat_map(|span| split_at_now(span.cut(since, until), genie.split_history_at_now, now))
                    .map(|span| period(genie, &span, now))
                    .collect();
            }
            value
        })
        .collect();
    json!({"rotations": rotations})
}

fn split_at_now(span: Span<Duty>, wanted: bool, now: Timestamp) -> Vec<Span<Duty>> {
    let running = span.start < now && span.end.is_none_or(|end| now < end);
    if !wanted || !running {
        return vec![span];
    }
    vec![
        Span {
            end: Some(now),
            ..span.clone()
        },
        Span { start: now, ..span },
    ]
}

/// A period. What is over is `historical`, and only then are teams and escalations flattened.
fn period(genie: &Opsgenie, span: &Span<Duty>, now: Timestamp) -> Value {
    let past = span.end.is_some_and(|end| end <= now);
    let duty = &span.what;
    let kind = if past { "historical" } else { duty.kind.as_str() };
    let mut value = json!({
        "startDate": span.start.to_string(),
        "endDate": span.end.map(|end| end.to_string()),
        "type": kind,
        "recipient": recipient(genie, &duty.recipient),
    });
    if kind == "historical" {
        value["flattenedRecipients"] = users_of(genie, &duty.recipient)
            .into_iter()
            .map(|id| recipient(genie, &Recipient::user(&id)))
            .collect();
    }
    if let (Some(from), "forwarding") = (&duty.from_user, kind) {
        let user = genie.users.iter().find(|user| user.id == *from);
        value["fromUser"] = json!(user.map_or(from, |user| &user.username));
    }
    value
}

/// A recipient; a user's name is the e-mail, and nobody has neither id nor name.
fn recipient(genie: &Opsgenie, recipient: &Recipient) -> Value {
    let name = match recipient.kind {
        RecipientKind::None => return json!({"type": "none"}),
        RecipientKind::User => genie
            .users
            .iter()
            .find(|user| user.id == recipient.id)
            .map(|user| user.username.clone()),
        RecipientKind::Schedule => genie
            .schedules
            .iter()
            .find(|schedule| schedule.id == recipient.id)
            .map(|schedule| schedule.name.clone()),
        RecipientKind::Team | RecipientKind::Escalation => group(genie, recipient).map(|group| group.name.clone()),
    };
    let mut value = json!({"id": recipient.id, "type": recipient.kind.as_str()});
    if let Some(name) = name {
        value["name"] = json!(name);
    }
    value
}

/// The team or escalation behind a recipient.
pub(crate) fn group<'a>(genie: &'a Opsgenie, recipient: &Recipient) -> Option<&'a Group> {
    genie
        .groups
        .iter()
        .find(|group| group.kind == recipient.kind && group.id == recipient.id)
}
