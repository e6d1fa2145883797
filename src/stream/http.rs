//! Posts batches to a collector or webhook.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::fmt::rfc2822;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, redirect};
use secrecy::{ExposeSecret, SecretString};

use super::batch::Batch;
use super::sink::{Again, Refusal, Sink};
use super::until;
use crate::clock::Clock;
use crate::config::{HttpBody, HttpSink, is_loopback};
use crate::signing::{SIGNATURE_HEADER, TIMESTAMP_HEADER, sign};

/// A peer that does not even answer the connection is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for each try of a batch, <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// So much of an answer is read, to keep the connection; nothing in it matters.
const ANSWER_READ: usize = 64 << 10;

pub(super) struct Http {
    client: Client,
    config: HttpSink,
    ledger: String,
    clock: Arc<dyn Clock>,
}

impl Http {
    pub(super) fn new(config: &HttpSink, ledger: &str, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        let kind = match config.body {
            HttpBody::Ndjson => "application/x-ndjson",
            HttpBody::Array => "application/json",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(token) = &config.token {
            headers.insert(AUTHORIZATION, secret("Bearer ", token)?);
        }
        if let Some((name, value)) = &config.header {
            headers.insert(name.clone(), secret("", value)?);
        }
        let mut client = Client::builder()
            .user_agent(concat!("dutybound/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT.min(config.timeout))
            .timeout(config.timeout);
        if is_loopback(&config.url) {
            // A proxy of the environment could not reach our loopback.
            client = client.no_proxy();
        }
        Ok(Self {
            client: client.build().map_err(|error| error.without_url().to_string())?,
            config: config.clone(),
            ledger: ledger.to_owned(),
            clock,
        })
    }

    fn judge(&self, answer: &Response) -> Result<(), Refusal> {
        let status = answer.status();
        let again = match status.as_u16() {
            200..=299 => return Ok(()),
            408 | 425 | 429 | 500..=599 => match self.told_to_wait(answer.headers()) {
                Some(wait) => Again::After(wait),
                None => Again::Soon,
            },
            413 => Again::Smaller,
            _ => Again::Seldom,
        };
        let note = if status.is_redirection() {
            ", and redirects are not followed: write the final URL"
        } else {
            ""
        };
        let host = self.config.url.host_str().unwrap_or_default();
        Err(Refusal {
            again,
            reason: format!("{host} answered {status}{note}"),
        })
    }

    fn told_to_wait(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Some(until(self.clock.now(), at))
    }
}

fn secret(scheme: &str, value: &SecretString) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("{scheme}{}", value.expose_secret()))
        .map_err(|_| "a secret has characters that cannot be sent in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[async_trait]
impl Sink for Http {
    async fn send(&mut self, batch: &Batch) -> Result<(), Refusal> {
        let body = match self.config.body {
            HttpBody::Ndjson => batch.ndjson(),
            HttpBody::Array => batch.array(),
        };
        let mut request = self
            .client
            .post(self.config.url.clone())
            .header(IDEMPOTENCY_KEY, batch.key(&self.ledger));
        if let Some(key) = &self.config.signing_key {
            let signed =
                sign(key, self.clock.now(), &body).ok_or_else(|| Refusal::soon("the body cannot be signed"))?;
            request = request
                .header(TIMESTAMP_HEADER, signed.timestamp)
                .header(SIGNATURE_HEADER, signed.signature);
        }
        let unreachable = |error: reqwest::Error| Refusal::soon(crate::chain(&error.without_url()));
        let mut answer = request.body(body).send().await.map_err(unreachable)?;
        self.judge(&answer)?;
        let mut read = 0;
        while read < ANSWER_READ
            && let Ok(Some(chunk)) = answer.chunk().await
        {
            read += chunk.len();
        }
        Ok(())
    }
}
