//! Demands the token of the configuration, where there is one: as a bearer token, or as the password of any user.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::Site;

/// What supervisors ask, which says nothing about anybody.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

pub(super) async fn demanded(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let Some(token) = &site.token else {
        return next.run(request).await;
    };
    let mut shown = request.headers().get_all(header::AUTHORIZATION).iter();
    let knows = match (shown.next(), shown.next()) {
        (Some(value), None) => shows(value, token),
        _ => false,
    };
    if knows || OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let challenge = HeaderValue::from_static("Basic realm=\"dutybound\", charset=\"UTF-8\"");
    let refused = "this needs the token of [http]: as a bearer token, or as the password of any user\n";
    (
        StatusCode::UNAUTHORIZED,
        [(header::WWW_AUTHENTICATE, challenge)],
        refused,
    )
        .into_response()
}

fn shows(value: &HeaderValue, token: &SecretString) -> bool {
    let Some((scheme, given)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return false;
    };
    let given = given.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return same(given.as_bytes(), token);
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return false;
    }
    let Ok(pair) = STANDARD.decode(given) else {
        return false;
    };
    // The user's name ends at the first colon (RFC 7617, section 2).
    let colon = pair.iter().position(|byte| *byte == b':');
    colon.is_some_and(|at| same(pair.get(at + 1..).unwrap_or_default(), token))
}

/// Compares digests, and all of them whatever differs, so that the time it takes tells nothing about the token.
fn same(given: &[u8], token: &SecretString) -> bool {
    let (given, token) = (Sha256::digest(given), Sha256::digest(token.expose_secret()));
    given
        .iter()
        .zip(&token)
        .fold(0, |different, (a, b)| different | (a ^ b))
        == 0
}
