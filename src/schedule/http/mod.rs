//! One careful way to ask a provider: signed in, paced, bounded in time and size, and never following a redirect.

mod failure;
mod oauth;
mod pace;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::Timestamp;
use reqwest::{
    Client, RequestBuilder, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use url::{Host, Url};

pub(super) use self::failure::Failure;
pub(super) use self::oauth::ClientCredentials;
use self::{oauth::Token, pace::Pace};
use super::wire::DecodeError;
use super::{BuildError, ReadErrorKind};
use crate::clock::Clock;
use crate::config::SourceConfig;
use crate::model::SourceName;
use crate::telemetry::{ApiCalls, CallOutcome};

/// No answer is longer; a year of a busy schedule is a hundredth of it.
const LONGEST_BODY: usize = 16 * 1024 * 1024;
/// How long one read may wait in all because the provider asks for it.
const WAIT_BUDGET: Duration = Duration::from_secs(30);
/// A peer that does not even answer the connection is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ASK_FOR_TOKEN: &str = "POST /oauth/token";

/// How to sign in.
#[derive(Debug)]
pub(super) enum Credential {
    /// A key, sent as `Authorization: {scheme}{key}`.
    Key { scheme: &'static str, key: SecretString },
    /// Tokens, asked for as they are needed.
    Oauth(ClientCredentials),
}

/// A GET.
pub(super) struct Call<'a> {
    /// The constant name under which it is counted and reported.
    pub(super) operation: &'static str,
    /// Path segments; they are percent-encoded.
    pub(super) path: &'a [&'a str],
    /// Query parameters; they are percent-encoded.
    pub(super) query: &'a [(&'a str, &'a str)],
}

/// What is gathered over the calls of one read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    waited: Duration,
    offsets_ms: Vec<i64>,
    /// For the snapshot.
    pub(super) notices: Vec<String>,
}

impl Reading {
    /// The provider's clock minus ours: the median over the read's answers.
    pub(super) fn clock_offset_ms(&mut self) -> Option<i64> {
        self.offsets_ms.sort_unstable();
        self.offsets_ms.get(self.offsets_ms.len() / 2).copied()
    }

    /// Adds a notice once.
    pub(super) fn notice(&mut self, notice: String) {
        if !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
    }
}

/// The connection to one source. Its calls leave one after another.
pub(super) struct Transport {
    client: Client,
    base_url: Url,
    service: SourceName,
    credential: Credential,
    calls: ApiCalls,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    pace: Pace,
    token: Option<Token>,
}

struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

impl Transport {
    pub(super) fn new(
        service: SourceName,
        config: &SourceConfig,
        credential: Credential,
        accept: &'static str,
        calls: ApiCalls,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut client = Client::builder()
            .user_agent(concat!("dutybound/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT.min(config.timeout))
            .timeout(config.timeout);
        if is_loopback(&config.base_url) {
            // A proxy of the environment could not reach our loopback.
            client = client.no_proxy();
        }
        let refuse = |reason: String| BuildError {
            source_name: service.clone(),
            reason,
        };
        let client = client
            .build()
            .map_err(|error| refuse(error.without_url().to_string()))?;
        if config.base_url.cannot_be_a_base() {
            return Err(refuse("base_url has no host and path".to_owned()));
        }
        if let Credential::Key { scheme, key } = &credential
            && authorization(scheme, key).is_none()
        {
            return Err(refuse(
                "the key contains characters that no key has, such as a line break".to_owned(),
            ));
        }
        Ok(Self {
            client,
            base_url: config.base_url.clone(),
            state: Mutex::new(State {
                pace: Pace::new(config.requests_per_minute),
                token: None,
            }),
            service,
            credential,
            calls,
            clock,
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Asks and decodes. Only a 200 with a body that `decode` understands is an answer.
    ///
    /// Waits for its turn and as the provider says, within the read's budget; a cut connection and a 5xx are
    /// tried twice more; a 401 earns one new token where tokens are used.
    pub(super) async fn get<T>(
        &self,
        reading: &mut Reading,
        call: &Call<'_>,
        decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, Failure> {
        let url = self.url(call)?;
        let mut state = self.state.lock().await;
        let mut renewed = false;
        loop {
            let header = self.authorization(&mut state, reading).await?;
            let answer = self
                .send(&mut state, reading, call.operation, || {
                    self.client.get(url.clone()).header(AUTHORIZATION, header.clone())
                })
                .await?;
            if answer.status == StatusCode::OK {
                let decoded = decode(&answer.body).map_err(|error| Failure::malformed(call.operation, &error));
                self.count(
                    call.operation,
                    if decoded.is_ok() {
                        CallOutcome::Ok
                    } else {
                        CallOutcome::Error
                    },
                );
                return decoded;
            }
            self.count(call.operation, outcome(answer.status));
            if answer.status == StatusCode::UNAUTHORIZED && !renewed && state.token.take().is_some() {
                renewed = true;
                continue;
            }
            let secret = match (&self.credential, &state.token) {
                (Credential::Key { key, .. }, _) => key.expose_secret(),
                (Credential::Oauth(_), Some(token)) => token.secret.expose_secret(),
                (Credential::Oauth(_), None) => "",
            };
            return Err(Failure::answered(call.operation, answer.status, &answer.body, secret));
        }
    }

    fn url(&self, call: &Call<'_>) -> Result<Url, Failure> {
        let mut url = self.base_url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(call.path);
        }
        if call.path.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
            let message = format!("{} needs ids that are not empty and not dots", call.operation);
            return Err(Failure::new(ReadErrorKind::Rejected, message));
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(call.query);
        }
        Ok(url)
    }

    /// The header that signs in, with a new token where the old one is used up.
    async fn authorization(&self, state: &mut State, reading: &mut Reading) -> Result<HeaderValue, Failure> {
        let unusable = || Failure::new(ReadErrorKind::Unauthorized, "the credential cannot be sent in a header");
        let app = match &self.credential {
            Credential::Key { scheme, key } => return authorization(scheme, key).ok_or_else(unusable),
            Credential::Oauth(app) => app,
        };
        if let Some(token) = state.token.as_ref().filter(|token| token.is_usable(self.clock.now())) {
            return authorization("Bearer ", &token.secret).ok_or_else(unusable);
        }
        let answer = self
            .send(state, reading, ASK_FOR_TOKEN, || {
                self.client
                    .post(app.token_url.clone())
                    .header(ACCEPT, "application/json")
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .form(&app.form())
            })
            .await?;
        if answer.status != StatusCode::OK {
            self.count(ASK_FOR_TOKEN, outcome(answer.status));
            let secret = app.client_secret.expose_secret();
            let mut failure = Failure::answered(ASK_FOR_TOKEN, answer.status, &answer.body, secret);
            if answer.status.is_client_error() {
                failure.kind = ReadErrorKind::Unauthorized;
                failure = failure.hint("check client_id, client_secret, token_url and scope");
            }
            // It is about the token and says nothing about what was to be read.
            failure.status = None;
            return Err(failure);
        }
        let reply = oauth::decode(&answer.body).map_err(|error| Failure::malformed(ASK_FOR_TOKEN, &error));
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
        let token = state.token.insert(Token::new(reply, self.clock.now()));
        authorization("Bearer ", &token.secret).ok_or_else(unusable)
    }

    /// Sends until there is an answer that waiting and trying again cannot better. Counts every answer but it.
    async fn send(
        &self,
        state: &mut State,
        reading: &mut Reading,
        operation: &'static str,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Answer, Failure> {
        let mut again = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(200))
            .with_factor(3.0)
            .with_max_times(2)
            .with_jitter()
            .build();
        let mut throttled = ExponentialBuilder::new()
            .with_min_delay(Duration::from_secs(1))
            .with_max_delay(Duration::from_secs(8))
            .with_max_times(5)
            .with_jitter()
            .build();
        loop {
            self.wait_for_turn(state, reading, operation).await?;
            let failure = match self.exchange(state, reading, operation, request()).await {
                Ok((answer, headers)) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                    self.count(operation, CallOutcome::Throttled);
                    let Some(step) = throttled.next() else {
                        return Err(rate_limited(operation, "again and again"));
                    };
                    let now = self.clock.now();
                    let wait = match pace::told_to_wait(now, &headers) {
                        Some(told) => told + step / 4,
                        None => step,
                    };
                    state.pace.hold_for(now, wait);
                    continue;
                }
                Ok((answer, _)) if answer.status.is_server_error() || answer.status == StatusCode::REQUEST_TIMEOUT => {
                    self.count(operation, outcome(answer.status));
                    Failure::answered(operation, answer.status, &answer.body, "")
                }
                Ok((answer, _)) => return Ok(answer),
                Err(failure) => {
                    let outcome = match failure.kind {
                        ReadErrorKind::Timeout => CallOutcome::Timeout,
                        _ => CallOutcome::Error,
                    };
                    self.count(operation, outcome);
                    if failure.kind != ReadErrorKind::Unreachable {
                        return Err(failure);
                    }
                    failure
                }
            };
            match again.next() {
                Some(pause) => self.clock.sleep(pause).await,
                None => return Err(failure),
            }
        }
    }

    /// Waits as the provider asked, if the read's budget allows, and as our own limit asks.
    async fn wait_for_turn(
        &self,
        state: &mut State,
        reading: &mut Reading,
        operation: &'static str,
    ) -> Result<(), Failure> {
        let hold = state.pace.hold(self.clock.now());
        if !hold.is_zero() {
            if reading.waited + hold > WAIT_BUDGET {
                return Err(rate_limited(
                    operation,
                    &format!("for another {} s", hold.as_secs() + 1),
                ));
            }
            reading.waited += hold;
            self.clock.sleep(hold).await;
        }
        let wait = state.pace.book(self.clock.now());
        if !wait.is_zero() {
            self.clock.sleep(wait).await;
        }
        Ok(())
    }

    /// One request and its whole answer.
    async fn exchange(
        &self,
        state: &mut State,
        reading: &mut Reading,
        operation: &'static str,
        request: RequestBuilder,
    ) -> Result<(Answer, HeaderMap), Failure> {
        let cut = |error| Failure::transport(operation, error);
        let before = self.clock.now();
        let mut response = request.send().await.map_err(cut)?;
        let after = self.clock.now();
        let headers = response.headers().clone();
        reading.offsets_ms.extend(clock_offset_ms(before, after, &headers));
        state.pace.observe(after, &headers);
        let status = response.status();
        if status.is_redirection() {
            let host = headers.get(LOCATION).and_then(|to| to.to_str().ok());
            let host = host.and_then(|to| self.base_url.join(to).ok()?.host_str().map(str::to_owned));
            return Err(Failure::redirected(operation, status, host));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(cut)? {
            if body.len() + chunk.len() > LONGEST_BODY {
                let error = DecodeError::new(&format!("more than {} MiB", LONGEST_BODY / 1024 / 1024));
                return Err(Failure::malformed(operation, &error));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((Answer { status, body }, headers))
    }

    fn count(&self, operation: &'static str, outcome: CallOutcome) {
        self.calls.record(&self.service.0, operation, outcome);
    }
}

fn rate_limited(operation: &str, how_long: &str) -> Failure {
    let message = format!(
        "{operation} is being rate limited {how_long}; the next poll asks again, and a lower requests_per_minute \
         leaves room for others that share the limit"
    );
    Failure::new(ReadErrorKind::RateLimited, message)
}

fn authorization(scheme: &str, secret: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{scheme}{}", secret.expose_secret())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn outcome(status: StatusCode) -> CallOutcome {
    match status.as_u16() {
        401..=403 => CallOutcome::Denied,
        404 => CallOutcome::NotFound,
        408 | 504 => CallOutcome::Timeout,
        429 => CallOutcome::Throttled,
        _ => CallOutcome::Error,
    }
}

/// The smallest difference between the provider's clock and ours that the `Date` header allows: it is cut to
/// whole seconds, and was written about midway between the request and the answer.
fn clock_offset_ms(before: Timestamp, after: Timestamp, headers: &HeaderMap) -> Option<i64> {
    let date = pace::http_date(headers, "date")?;
    let midway = before.as_millisecond().midpoint(after.as_millisecond());
    let earliest = date.as_millisecond();
    let latest = earliest + 999;
    Some(if midway < earliest {
        earliest - midway
    } else if midway > latest {
        latest - midway
    } else {
        0
    })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
