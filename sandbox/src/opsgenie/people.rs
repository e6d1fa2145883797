//! `GET /v2/users`, `/v2/users/{id or username}` and `/v2/request-limits`.

use serde_json::{Value, json};

use super::{Outcome, Refusal, data};
use crate::request::Incoming;
use crate::world::opsgenie::{Opsgenie, User};

pub(crate) fn list(genie: &Opsgenie, request: &Incoming) -> Outcome {
    let number = |name: &str, fallback: usize| match request.parameter(name) {
        None => Ok(fallback),
        Some(text) => text
            .parse::<usize>()
            .map_err(|_| Refusal::semantic(format!("{name} [{text}] is not a number"))),
    };
    let limit = number("limit", 100)?.clamp(1, 100);
    let offset = number("offset", 0)?;
    let total = genie.users.len();
    let rows: Vec<Value> = genie.users.iter().skip(offset).take(limit).map(user).collect();
    // Documented samples show plain http links; a client must not follow them with its key.
    let host = request.header("host").unwrap_or("api.opsgenie.com");
    let link = |offset: usize| format!("http://{host}/v2/users?limit={limit}&offset={offset}&order=ASC&sort=username");
    let mut paging = json!({"first": link(0), "last": link(total.saturating_sub(1) / limit * limit)});
    if offset + limit < total {
        paging["next"] = json!(link(offset + limit));
    }
    if offset > 0 {
        paging["prev"] = json!(link(offset.saturating_sub(limit)));
    }
    let mut fields = data(json!(rows));
    fields.insert("totalCount".to_owned(), json!(total));
    fields.insert("paging".to_owned(), paging);
    Ok(fields)
}

pub(crate) fn get(genie: &Opsgenie, identifier: &str) -> Outcome {
    let found = genie
        .users
        .iter()
        .find(|user| user.id == identifier || user.username.eq_ignore_ascii_case(identifier));
    let Some(found) = found else {
        return Err(Refusal::new(404, 40_400, format!("No user exists with [{identifier}]")));
    };
    let mut fields = data(user(found));
    fields.insert("expandable".to_owned(), json!(["contact"]));
    Ok(fields)
}

pub(crate) fn limits(genie: &Opsgenie) -> Value {
    let rows: Vec<Value> = genie
        .limits
        .iter()
        .map(|limit| {
            json!({
                "domain": limit.domain,
                "limits": [{"limit": limit.limit, "periodInSeconds": limit.period_seconds}],
            })
        })
        .collect();
    json!({"rateLimits": rows})
}

fn user(user: &User) -> Value {
    json!({
        "id": user.id,
        "username": user.username,
        "fullName": user.full_name,
        "role": {"id": "User", "name": "User"},
        "timeZone": "Etc/UTC",
        "locale": "en_US",
        "blocked": user.blocked,
        "verified": user.verified,
        "createdAt": "2024-01-08T09:00:00Z",
    })
}
