//! Simulated PagerDuty REST API: credentials, rate limit, errors and the way to the operations.

mod audit;
mod oncalls;
mod people;
mod schedules;
mod shift_schedules;
mod token;

use std::time::Instant;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::request::{Answer, Incoming, instant};
use crate::state::State;
use crate::world::pagerduty::{PagerDuty, User};

/// A refusal in PagerDuty's shape.
pub(crate) struct Refusal {
    status: u16,
    code: u32,
    message: &'static str,
    errors: Vec<String>,
}

impl Refusal {
    fn new(status: u16, code: u32, message: &'static str) -> Self {
        Self {
            status,
            code,
            message,
            errors: Vec::new(),
        }
    }

    fn invalid(detail: impl Into<String>) -> Self {
        Self {
            errors: vec![detail.into()],
            ..Self::new(400, 2001, "Invalid Input Provided")
        }
    }

    fn not_found() -> Self {
        Self::new(404, 2100, "Not Found")
    }

    fn into_answer(self) -> Answer {
        let mut error = json!({"message": self.message, "code": self.code});
        if !self.errors.is_empty() {
            error["errors"] = json!(self.errors);
        }
        Answer::json(self.status, json!({"error": error})).with_error(self.code)
    }
}

/// What an operation gives: a JSON body for 200, or a refusal.
pub(crate) type Outcome = Result<Value, Refusal>;

pub(crate) fn answer(state: &mut State, request: &Incoming) -> Answer {
    if request.method == "POST" && request.path == "/oauth/token" {
        return token::issue(state, request);
    }
    let now = state.now();
    let scopes = match authenticate(&state.world.pagerduty, request, now) {
        Ok(scopes) => scopes,
        Err(refusal) => return refusal.into_answer(),
    };
    let (within, headers) = rate(state, request);
    let answer = if within {
        route(&state.world.pagerduty, request, scopes.as_deref(), now)
            .map_or_else(Refusal::into_answer, |body| Answer::json(200, body))
    } else {
        Refusal::new(429, 2020, "Rate Limit Exceeded").into_answer()
    };
    if !state.world.pagerduty.rate_limit_headers {
        return answer;
    }
    headers
        .into_iter()
        .fold(answer, |answer, (name, value)| answer.header(name, value))
}

/// Checks the credential; gives the scopes of an app token, `None` for a key that may do everything.
fn authenticate(pager: &PagerDuty, request: &Incoming, now: Timestamp) -> Result<Option<Vec<String>>, Refusal> {
    let refused = || Refusal::new(401, 2006, "Authentication failed");
    let header = request.header("authorization").ok_or_else(refused)?;
    if let Some(key) = header.strip_prefix("Token token=") {
        return pager
            .tokens
            .iter()
            .any(|token| token == key)
            .then_some(None)
            .ok_or_else(refused);
    }
    let presented = header.strip_prefix("Bearer ").ok_or_else(refused)?;
    pager
        .oauth_tokens
        .iter()
        .find(|token| token.token == presented && token.expires > now)
        .map(|token| Some(token.scopes.clone()))
        .ok_or_else(refused)
}

/// The limit, what remains of it, and the seconds until it is whole again.
type Rate = [(&'static str, u64); 3];

/// Counts the request against its credential's limits and gives the headers of the one closest to being reached.
fn rate(state: &mut State, request: &Incoming) -> (bool, Rate) {
    let credential = request.header("authorization").unwrap_or_default().to_owned();
    let general = state.world.pagerduty.requests_per_minute;
    let (within, rate) = minute(state, &format!("pagerduty {credential}"), general);
    match state.world.pagerduty.oncalls_per_minute {
        Some(limit) if request.path == "/oncalls" => {
            let (also_within, other) = minute(state, &format!("pagerduty oncalls {credential}"), limit);
            let closest = if other[1].1 < rate[1].1 { other } else { rate };
            (within && also_within, closest)
        }
        _ => (within, rate),
    }
}

/// Counts against one window of a minute, refilled at once: that is what seconds until reset describe.
fn minute(state: &mut State, name: &str, limit: u32) -> (bool, Rate) {
    let window = state
        .windows
        .entry(name.to_owned())
        .or_insert_with(|| (Instant::now(), 0));
    if window.0.elapsed().as_secs() >= 60 {
        *window = (Instant::now(), 0);
    }
    let within = window.1 < limit;
    if within {
        window.1 += 1;
    }
    let rate = [
        ("ratelimit-limit", u64::from(limit)),
        ("ratelimit-remaining", u64::from(limit.saturating_sub(window.1))),
        ("ratelimit-reset", 60_u64.saturating_sub(window.0.elapsed().as_secs())),
    ];
    (within, rate)
}

fn route(pager: &PagerDuty, request: &Incoming, scopes: Option<&[String]>, now: Timestamp) -> Outcome {
    let needs = |scope: &str| match scopes {
        Some(scopes) if !scopes.iter().any(|own| own == scope) => Err(Refusal::new(403, 2010, "Access Denied")),
        _ => Ok(()),
    };
    let segments = request.segments();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if request.method != "GET" {
        return Err(Refusal::not_found());
    }
    match segments.as_slice() {
        ["oncalls"] => {
            needs("oncalls.read")?;
            oncalls::list(pager, request, now)
        }
        ["schedules"] => {
            needs("schedules.read")?;
            schedules::list(pager, request)
        }
        ["schedules", id] => {
            needs("schedules.read")?;
            schedules::get(pager, request, id)
        }
        ["schedules", id, "users"] => {
            needs("users.read")?;
            schedules::users(pager, request, id)
        }
        ["schedules", id, "overrides"] => {
            needs("schedules.read")?;
            schedules::overrides(pager, request, id)
        }
        ["schedules", id, "audit", "records"] => {
            needs("audit_records.read")?;
            audit::records(pager, request, id, false, now)
        }
        ["escalation_policies", id] => {
            needs("escalation_policies.read")?;
            oncalls::policy(pager, id)
        }
        ["v3", "schedules"] => {
            needs("schedules.read")?;
            shift_schedules::list(pager, request)
        }
        ["v3", "schedules", id] => {
            needs("schedules.read")?;
            shift_schedules::get(pager, request, id)
        }
        ["v3", "schedules", id, "audit", "records"] => {
            needs("audit_records.read")?;
            audit::records(pager, request, id, true, now)
        }
        ["users"] => {
            needs("users.read")?;
            people::list(pager, request)
        }
        ["users", id] => {
            needs("users.read")?;
            people::get(pager, id)
        }
        _ => Err(Refusal::not_found()),
    }
}

/// Classic paging: `limit` (default, maximum), `offset`, `more`, and `total` only when asked for.
fn page(request: &Incoming, name: &str, rows: Vec<Value>, default: usize, maximum: usize) -> Outcome {
    let number = |name: &str, fallback: usize| match request.parameter(name) {
        None => Ok(fallback),
        Some(text) => text
            .parse::<usize>()
            .map_err(|_| Refusal::invalid(format!("{name} must be a number."))),
    };
    let limit = number("limit", default)?.clamp(1, maximum);
    let offset = number("offset", 0)?;
    if offset + limit > 10_000 {
        return Err(Refusal::invalid("Offset + limit may not exceed 10000."));
    }
    let with_total = flag(request, "total")?;
    let total = rows.len();
    let rows: Vec<Value> = rows.into_iter().skip(offset).take(limit).collect();
    Ok(json!({
        name: rows,
        "limit": limit,
        "offset": offset,
        "more": offset + limit < total,
        "total": with_total.then_some(total),
    }))
}

/// A boolean, which must be in lower case.
fn flag(request: &Incoming, name: &str) -> Result<bool, Refusal> {
    match request.parameter(name) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Refusal::invalid(format!("{name} must be true or false."))),
    }
}

/// The zone asked for, otherwise the given one.
fn zone(request: &Incoming, default: &str) -> Result<TimeZone, Refusal> {
    let name = request.parameter("time_zone").unwrap_or(default);
    TimeZone::get(name).map_err(|_| Refusal::invalid("Time zone is invalid."))
}

/// An instant from the query.
fn moment(request: &Incoming, name: &str, zone: &TimeZone) -> Result<Option<Timestamp>, Refusal> {
    request
        .parameter(name)
        .map(|text| instant(text, zone).ok_or_else(|| Refusal::new(400, 2004, "Invalid Date Format")))
        .transpose()
}

/// A window from the query; with one bound the other is two weeks away, with none there is no window.
fn window(request: &Incoming, zone: &TimeZone) -> Result<Option<(Timestamp, Timestamp)>, Refusal> {
    let fortnight = jiff::SignedDuration::from_hours(14 * 24);
    let far = || Refusal::new(400, 2005, "Invalid Query Date Range");
    let window = match (moment(request, "since", zone)?, moment(request, "until", zone)?) {
        (None, None) => return Ok(None),
        (Some(since), Some(until)) => (since, until),
        (Some(since), None) => (since, since.checked_add(fortnight).map_err(|_| far())?),
        (None, Some(until)) => (until.checked_sub(fortnight).map_err(|_| far())?, until),
    };
    if window.1 < window.0 {
        return Err(far());
    }
    Ok(Some(window))
}

/// A reference to a person, with `deleted_at` for a deleted one.
fn user_reference(pager: &PagerDuty, id: &str) -> Value {
    let user = pager.users.iter().find(|user| user.id == id);
    let mut reference = reference("user", id, user.map_or(id, |user| user.name.as_str()));
    if let Some(User {
        deleted_at: Some(at), ..
    }) = user
    {
        reference["deleted_at"] = json!(at.to_string());
        reference["html_url"] = Value::Null;
    }
    reference
}

fn reference(kind: &str, id: &str, summary: &str) -> Value {
    json!({
        "id": id,
        "type": format!("{kind}_reference"),
        "summary": summary,
        "self": format!("https://api.pagerduty.com/{kind}s/{id}"),
        "html_url": format!("https://sandbox.pagerduty.com/{kind}s/{id}"),
    })
}
