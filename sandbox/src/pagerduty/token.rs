//! `POST /oauth/token`: app tokens by client credentials.

use jiff::SignedDuration;
use serde_json::json;

use crate::request::{Answer, Incoming};
use crate::state::State;
use crate::world::pagerduty::OauthToken;

/// How long an app token lasts, in seconds.
const LIFETIME: i64 = 86_400;

/// Issues a token. Scopes that the client may not have are left out without a word, as PagerDuty does.
pub(crate) fn issue(state: &mut State, request: &Incoming) -> Answer {
    let form = request.form();
    let field = |name: &str| {
        form.iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value.as_str())
    };
    if field("grant_type") != "client_credentials" {
        return refuse(400, "unsupported_grant_type");
    }
    let client = state
        .world
        .pagerduty
        .oauth_clients
        .iter()
        .find(|client| client.id == field("client_id") && client.secret == field("client_secret"));
    let Some(client) = client else {
        return refuse(401, "invalid_client");
    };
    let scopes: Vec<String> = field("scope")
        .split_whitespace()
        .filter(|scope| client.scopes.iter().any(|own| own == scope))
        .map(str::to_owned)
        .collect();
    let now = state.now();
    let token = format!("pdus+_sandbox_{:06}", state.next());
    let answer = json!({
        "access_token": token,
        "scope": scopes.join(" "),
        "token_type": "bearer",
        "expires_in": LIFETIME,
    });
    let expires = now
        .checked_add(SignedDuration::from_secs(LIFETIME))
        .unwrap_or(jiff::Timestamp::MAX);
    state
        .world
        .pagerduty
        .oauth_tokens
        .push(OauthToken { token, scopes, expires });
    Answer::json(200, answer)
}

fn refuse(status: u16, code: &str) -> Answer {
    Answer::json(
        status,
        json!({"error": code, "error_description": code.replace('_', " ")}),
    )
    .with_error(code)
}
