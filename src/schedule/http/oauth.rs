//! Signs in: with a key, or with OAuth tokens that are asked for as they are needed.

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use reqwest::{
    StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::{Credential, Failure, Reading, Transport, outcome};
use crate::schedule::ReadErrorKind;
use crate::schedule::wire::{self, DecodeError};
use crate::telemetry::CallOutcome;

const ASK_FOR_TOKEN: &str = "POST /oauth/token";

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
    /// The same app asking the same account for this scope alone.
    pub(super) fn for_scope(&self, scope: &str) -> Self {
        let account = self
            .scope
            .split_whitespace()
            .find(|scope| scope.starts_with("as_account-"));
        Self {
            client_id: self.client_id.clone(),
            client_secret: self.client_secret.clone(),
            token_url: self.token_url.clone(),
            scope: account.into_iter().chain([scope]).collect::<Vec<_>>().join(" "),
        }
    }

    /// The form to post.
    fn form(&self) -> [(&'static str, &str); 4] {
        [
            ("grant_type", "client_credentials"),
            ("client_id", &self.client_id),
            ("client_secret", self.client_secret.expose_secret()),
            ("scope", &self.scope),
        ]
    }

    /// The scopes that were asked for and not given. PagerDuty does not refuse a wrong scope but issues a token
    /// without it. `as_account-…` names the account and is not always repeated.
    fn missing_scopes(&self, reply: &TokenReply) -> Vec<String> {
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
struct TokenReply {
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
    fn new(reply: TokenReply, now: Timestamp) -> Self {
        let lasts = i64::try_from(reply.expires_in.unwrap_or(300)).unwrap_or(300);
        let lasts = SignedDuration::from_secs(lasts.min(86_400).saturating_sub(60));
        Self {
            secret: reply.access_token,
            use_until: now.checked_add(lasts).unwrap_or(now),
        }
    }

    fn is_usable(&self, now: Timestamp) -> bool {
        now < self.use_until
    }
}

/// Reads the OAuth server's answer.
fn decode(body: &[u8]) -> Result<TokenReply, DecodeError> {
    // The parser's own words could quote a token.
    let reply: TokenReply = wire::json(body).map_err(|_| DecodeError::new("something that is not a token"))?;
    if reply.access_token.expose_secret().is_empty() {
        return Err(DecodeError::new("an empty access token"));
    }
    Ok(reply)
}

impl Transport {
    /// Everything that must not appear in what is shown.
    pub(super) fn secrets<'a>(&'a self, token: Option<&'a Token>) -> Vec<&'a str> {
        let token = token.map(|token| token.secret.expose_secret());
        let own = match &self.credential {
            Credential::Key { key, .. } => key.expose_secret(),
            Credential::Oauth(app) => app.client_secret.expose_secret(),
        };
        token.into_iter().chain([own]).collect()
    }

    /// The header that signs in, with a new token where the old one is used up; and the token, where tokens are used.
    pub(super) async fn authorization(
        &self,
        reading: &mut Reading,
    ) -> Result<(HeaderValue, Option<Arc<Token>>), Failure> {
        let unusable = || Failure::new(ReadErrorKind::Unauthorized, "the credential cannot be sent in a header");
        let app = match &self.credential {
            Credential::Key { scheme, key } => {
                let header = authorization(scheme, key).ok_or_else(unusable)?;
                return Ok((header, None));
            }
            Credential::Oauth(app) => app,
        };
        let bearer = |token: &Arc<Token>| {
            let header = authorization("Bearer ", &token.secret).ok_or_else(unusable)?;
            Ok((header, Some(Arc::clone(token))))
        };
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref().filter(|token| token.is_usable(self.clock.now())) {
            return bearer(token);
        }
        let answer = self
            .send(None, reading, ASK_FOR_TOKEN, || {
                self.client
                    .post(app.token_url.clone())
                    .header(ACCEPT, "application/json")
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .form(&app.form())
            })
            .await?;
        if answer.status != StatusCode::OK {
            self.count(ASK_FOR_TOKEN, outcome(answer.status));
            let secrets = self.secrets(None);
            let mut failure = Failure::answered(ASK_FOR_TOKEN, answer.status, &answer.body, &secrets);
            if answer.status.is_client_error() {
                failure.kind = ReadErrorKind::Unauthorized;
                failure = failure.hint("check client_id, client_secret, token_url and scope");
            }
            // It is about the token and says nothing about what was to be read.
            failure.status = None;
            return Err(failure);
        }
        let reply = decode(&answer.body).map_err(|error| Failure::malformed(ASK_FOR_TOKEN, &error));
        self.count(
            ASK_FOR_TOKEN,
            if reply.is_ok() {
                CallOutcome::Ok
            } else {
                CallOutcome::Error
            },
        );
        let reply = reply?;
        let missing = app.missing_scopes(&reply);
        if !missing.is_empty() {
            let message = format!(
                "the token was issued without the scope {}; grant it to the app",
                missing.join(" ")
            );
            return Err(Failure::new(ReadErrorKind::Forbidden, message));
        }
        bearer(held.insert(Arc::new(Token::new(reply, self.clock.now()))))
    }
}

/// The value of the `Authorization` header, or `None` for a secret that no header can carry.
pub(super) fn authorization(scheme: &str, secret: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{scheme}{}", secret.expose_secret())).ok()?;
    value.set_sensitive(true);
    Some(value)
}
