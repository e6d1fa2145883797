//! One careful way to ask a provider: signed in, paced, bounded in time and size, and never following a redirect.

mod failure;
mod oauth;
mod pace;
mod send;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use reqwest::{
    Client, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect,
};
use secrecy::SecretString;
use url::Url;

pub(super) use self::failure::Failure;
pub(super) use self::oauth::ClientCredentials;
use self::{
    oauth::{Token, authorization},
    pace::Pace,
};
use super::wire::DecodeError;
use super::{BuildError, ReadErrorKind};
use crate::clock::Clock;
use crate::config::{SourceConfig, is_loopback};
use crate::model::SourceName;
use crate::telemetry::{ApiCalls, CallOutcome};

/// A peer that does not even answer the connection is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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

/// The connection to one source. Its calls share a pace and a token and do not wait for each other's answers.
pub(super) struct Transport {
    client: Client,
    base_url: Url,
    /// For one whole answer.
    timeout: Duration,
    service: SourceName,
    credential: Credential,
    calls: ApiCalls,
    clock: Arc<dyn Clock>,
    pace: Mutex<Pace>,
    /// Locked while a new one is asked for, so that it is asked for once.
    token: tokio::sync::Mutex<Option<Arc<Token>>>,
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
            timeout: config.timeout,
            pace: Mutex::new(Pace::new(config.requests_per_minute)),
            token: tokio::sync::Mutex::new(None),
            service,
            credential,
            calls,
            clock,
        })
    }

    /// Another connection to the same place, for what is worth a try and must never keep the calls of this one waiting: it
    /// has a pace of its own and, where tokens are used, one of its own with this scope alone.
    pub(super) fn aside(&self, scope: &str, per_minute: u32) -> Self {
        let credential = match &self.credential {
            Credential::Key { scheme, key } => Credential::Key {
                scheme,
                key: key.clone(),
            },
            Credential::Oauth(app) => Credential::Oauth(app.for_scope(scope)),
        };
        Self {
            client: self.client.clone(),
            base_url: self.base_url.clone(),
            timeout: self.timeout,
            service: self.service.clone(),
            credential,
            calls: self.calls.clone(),
            clock: Arc::clone(&self.clock),
            pace: Mutex::new(Pace::new(per_minute)),
            token: tokio::sync::Mutex::new(None),
        }
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
        let answer = self.ask(reading, call, decode).await;
        answer.map_err(|failure| failure.naming(call.operation, call.path))
    }

    async fn ask<T>(
        &self,
        reading: &mut Reading,
        call: &Call<'_>,
        decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, Failure> {
        let url = self.url(call)?;
        let mut renewed = false;
        loop {
            let (header, token) = self.authorization(reading).await?;
            let answer = self
                .send(token.as_deref(), reading, call.operation, || {
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
            if let (StatusCode::UNAUTHORIZED, false, Some(refused)) = (answer.status, renewed, &token) {
                // Another call may have got a new one meanwhile.
                self.token.lock().await.take_if(|held| Arc::ptr_eq(held, refused));
                renewed = true;
                continue;
            }
            let secrets = self.secrets(token.as_deref());
            return Err(Failure::answered(call.operation, answer.status, &answer.body, &secrets));
        }
    }

    /// Like [`Transport::get`], but what is not found is asked for once more: somebody on duty loses access by that
    /// answer, so it has to be given twice.
    pub(super) async fn get_unless_gone<T>(
        &self,
        reading: &mut Reading,
        call: &Call<'_>,
        decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, Failure> {
        match self.get(reading, call, &decode).await {
            Err(failure) if failure.status == Some(404) => self.get(reading, call, &decode).await,
            found => found,
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

    fn count(&self, operation: &'static str, outcome: CallOutcome) {
        self.calls.record(&self.service.0, operation, outcome);
    }
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
