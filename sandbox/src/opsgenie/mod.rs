//! Simulated Opsgenie REST API v2: credentials, rate limits, envelope, errors and the way to the operations.

mod oncalls;
mod people;
mod timeline;

use std::time::Instant;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::request::{Answer, Incoming};
use crate::state::State;
use crate::world::opsgenie::{Opsgenie, Schedule};

/// A refusal in Opsgenie's shape.
pub(crate) struct Refusal {
    status: u16,
    code: u32,
    message: String,
}

impl Refusal {
    fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    fn semantic(message: impl Into<String>) -> Self {
        Self::new(422, 42_200, message)
    }

    fn unseen_schedule() -> Self {
        Self::new(403, 40_301, "Api key is not authorized to access the schedule")
    }
}

/// What an operation gives: the fields of the envelope beside `took` and `requestId`, or a refusal.
pub(crate) type Outcome = Result<Map<String, Value>, Refusal>;

/// The envelope with `data` alone.
fn data(data: Value) -> Map<String, Value> {
    Map::from_iter([("data".to_owned(), data)])
}

/// What a caller may see: every schedule, or those a team key names.
struct Caller<'a> {
    schedules: Option<&'a [String]>,
}

pub(crate) fn answer(state: &mut State, request: &Incoming) -> Answer {
    let now = state.now();
    let request_id = state.uuid();
    let outcome = check_rate(state, request)
        .and_then(|()| authenticate(&state.world.opsgenie, request))
        .and_then(|caller| route(&state.world.opsgenie, request, &caller, now));
    let (status, mut body, code) = match outcome {
        Ok(body) => (200, body, None),
        Err(Refusal { status, code, message }) => {
            let fields = [("message".to_owned(), json!(message)), ("code".to_owned(), json!(code))];
            (status, Map::from_iter(fields), Some(code))
        }
    };
    body.insert("took".to_owned(), json!(0.004));
    body.insert("requestId".to_owned(), json!(request_id));
    let mut answer = Answer::json(status, Value::Object(body)).header("x-request-id", request_id);
    if let Some(code) = code {
        answer = answer
            .with_error(code)
            .header("x-opsgenie-errortype", error_type(status));
    }
    if status == 429 {
        let domain = domain(request);
        let period = state.world.opsgenie.limits.iter().find(|limit| limit.domain == domain);
        answer = answer
            .header("x-ratelimit-state", "THROTTLED")
            .header("x-ratelimit-reason", "ACCOUNT")
            .header(
                "x-ratelimit-period-in-sec",
                period.map_or(1, |limit| limit.period_seconds),
            );
    }
    answer
}

fn error_type(status: u16) -> &'static str {
    match status {
        401 | 403 => "AuthorizationError",
        404 => "NotFound",
        429 => "TooManyRequests",
        _ => "RequestParameterError",
    }
}

fn domain(request: &Incoming) -> &'static str {
    match request.path.as_str() {
        path if path.ends_with("on-calls") => "Schedule-oncalls",
        "/v2/users" => "Search",
        _ => "Configuration",
    }
}

fn check_rate(state: &mut State, request: &Incoming) -> Result<(), Refusal> {
    let domain = domain(request);
    let limits = &state.world.opsgenie.limits;
    let limits: Vec<(u32, u32)> = limits
        .iter()
        .filter(|limit| limit.domain == domain)
        .map(|limit| (limit.limit, limit.period_seconds))
        .collect();
    for (limit, period) in limits {
        let capacity = f64::from(limit);
        let bucket = state.bucket(&format!("opsgenie {domain} {period}"), capacity);
        if !bucket.take(capacity, capacity / f64::from(period.max(1)), Instant::now()) {
            return Err(Refusal::new(429, 42_900, "You are making too many requests!"));
        }
    }
    Ok(())
}

fn authenticate<'a>(genie: &'a Opsgenie, request: &Incoming) -> Result<Caller<'a>, Refusal> {
    let refused = || Refusal::new(401, 40_100, "Could not authenticate");
    let key = request
        .header("authorization")
        .and_then(|header| header.strip_prefix("GenieKey "))
        .ok_or_else(refused)?;
    if genie.keys.iter().any(|own| own == key) {
        return Ok(Caller { schedules: None });
    }
    genie
        .team_keys
        .iter()
        .find(|own| own.key == key)
        .map(|own| Caller {
            schedules: Some(&own.schedules),
        })
        .ok_or_else(refused)
}

fn route(genie: &Opsgenie, request: &Incoming, caller: &Caller<'_>, now: Timestamp) -> Outcome {
    let segments = request.segments();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if request.method != "GET" {
        return Err(Refusal::new(405, 40_500, "Method not allowed"));
    }
    match segments.as_slice() {
        ["v2", "schedules"] => {
            let rows: Vec<Value> = genie
                .schedules
                .iter()
                .filter(|schedule| caller.sees(schedule))
                .map(|schedule| timeline::schedule(genie, schedule, request.parameter("expand") == Some("rotation")))
                .collect();
            let mut fields = data(json!(rows));
            fields.insert("expandable".to_owned(), json!(["rotation"]));
            Ok(fields)
        }
        ["v2", "schedules", "on-calls"] => oncalls::all(genie, request, caller.schedules, now),
        ["v2", "schedules", id] => {
            let schedule = find(genie, request, caller, id, "identifierType")?;
            Ok(data(timeline::schedule(genie, schedule, true)))
        }
        ["v2", "schedules", id, "timeline"] => {
            let schedule = find(genie, request, caller, id, "identifierType")?;
            timeline::timeline(genie, schedule, request, now)
        }
        ["v2", "schedules", id, "on-calls"] => {
            let schedule = find(genie, request, caller, id, "scheduleIdentifierType")?;
            oncalls::one(genie, schedule, request, now)
        }
        ["v2", "schedules", id, "overrides"] => {
            let schedule = find(genie, request, caller, id, "scheduleIdentifierType")?;
            Ok(data(timeline::overrides(schedule, now)))
        }
        ["v2", "users"] => people::list(genie, request),
        ["v2", "users", id] => people::get(genie, id),
        ["v2", "request-limits"] => {
            if caller.schedules.is_some() {
                return Err(Refusal::new(403, 40_301, "Api key is not authorized"));
            }
            Ok(data(people::limits(genie)))
        }
        _ => Err(Refusal::new(404, 40_400, "Not found")),
    }
}

impl Caller<'_> {
    fn sees(&self, schedule: &Schedule) -> bool {
        self.schedules.is_none_or(|ids| ids.contains(&schedule.id))
    }
}

/// Finds a schedule by id or name; the parameter that says which has different names in different calls.
fn find<'a>(
    genie: &'a Opsgenie,
    request: &Incoming,
    caller: &Caller<'_>,
    identifier: &str,
    parameter: &str,
) -> Result<&'a Schedule, Refusal> {
    let by_name = match request.parameter(parameter) {
        None | Some("id") => false,
        Some("name") => true,
        Some(other) => {
            return Err(Refusal::semantic(format!("{parameter} [{other}] is not valid")));
        }
    };
    let schedule = genie.schedules.iter().find(|schedule| {
        if by_name {
            schedule.name == identifier
        } else {
            schedule.id == identifier
        }
    });
    match schedule {
        Some(schedule) if caller.sees(schedule) => Ok(schedule),
        Some(_) => Err(Refusal::unseen_schedule()),
        None if genie.missing_schedule_is_forbidden => Err(Refusal::unseen_schedule()),
        None => {
            let kind = if by_name { "name" } else { "id" };
            Err(Refusal::new(
                404,
                40_400,
                format!("Schedule with {kind} [{identifier}] does not exist"),
            ))
        }
    }
}
