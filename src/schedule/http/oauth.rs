//! OAuth client credentials: asks for a token and knows how long it lasts.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use crate::schedule::wire::{self, DecodeError};

/// An app's credentials at an OAuth server.
pub(in crate::schedule) struct ClientCredentials {
    pub(in crate::schedule) client_id: String,
    pub(in crate::schedule) client_secret: SecretString,
    pub(in crate::schedule) token_url: Url,
    pub(in crate::schedule) scope: String,
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials").finish_non_exhaustive()
    }
}

impl ClientCredentials {
    /// The form to post.
    pub(super) fn form(&self) -> [(&'static str, &str); 4] {
        [
            ("grant_type", "client_credentials"),
            ("client_id", &self.client_id),
            ("client_secret", self.client_secret.expose_secret()),
            ("scope", &self.scope),
        ]
    }

    /// The scopes that were asked for and not given. PagerDuty does not refuse a wrong scope but issues a token
    /// without it. `as_account-…` names the account and is not always repeated.
    pub(super) fn missing_scopes(&self, reply: &TokenReply) -> Vec<String> {
        let Some(given) = &reply.scope else {
            return Vec::new();
        };
        self.scope
            .split_whitespace()
            .filter(|scope| !scope.starts_with("as_account-"))
            .filter(|scope| !given.split_whitespace().any(|other| other == *scope))
            .map(str::to_owned)
            .collect()
    }
}

/// What the OAuth server answers.
#[derive(Deserialize)]
pub(super) struct TokenReply {
    access_token: SecretString,
    expires_in: Option<u64>,
    scope: Option<String>,
}

/// A token and until when it is used.
pub(super) struct Token {
    pub(super) secret: SecretString,
    use_until: Timestamp,
}

impl Token {
    /// Given up a minute before it expires, so that no call is made with a token that ends under way.
    pub(super) fn new(reply: TokenReply, now: Timestamp) -> Self {
        let lasts = i64::try_from(reply.expires_in.unwrap_or(300)).unwrap_or(300);
        let lasts = SignedDuration::from_secs(lasts.min(86_400).saturating_sub(60));
        Self {
            secret: reply.access_token,
            use_until: now.checked_add(lasts).unwrap_or(now),
        }
    }

    pub(super) fn is_usable(&self, now: Timestamp) -> bool {
        now < self.use_until
    }
}

/// Reads the OAuth server's answer.
pub(super) fn decode(body: &[u8]) -> Result<TokenReply, DecodeError> {
    // The parser's own words could quote a token.
    let reply: TokenReply = wire::json(body).map_err(|_| DecodeError::new("something that is not a token"))?;
    if reply.access_token.expose_secret().is_empty() {
        return Err(DecodeError::new("an empty access token"));
    }
    Ok(reply)
}
