//! Sends one message to one destination.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822, tz::TimeZone};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, RequestBuilder, StatusCode, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use url::{Host, Url};

use super::message::Message;
use super::outbox::Waiting;
use super::render::words;
use super::route::{CHANNEL, PERSON};
use super::slack::{blocks, refused, said};
use crate::clock::Clock;
use crate::config::notify::{Api, Destination};
use crate::signing::{SIGNATURE_HEADER, TIMESTAMP_HEADER, sign};
use crate::text::clean;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer says little; more of it is not read.
const LONGEST_ANSWER: usize = 64 << 10;
/// Why a message was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Nothing gets there now; everything for the destination waits, at least as long as it asks.
    Destination(String, Option<Duration>),
    /// This reader cannot be reached; the other messages go on.
    Lane(String),
    /// This message will never be taken.
    Message(String),
}

/// The connection to one destination.
pub struct Sender {
    client: Client,
    destination: Destination,
    default_zone: TimeZone,
    clock: Arc<dyn Clock>,
    /// Slack's users by address: id and time zone. Forgotten with the process.
    users: Mutex<BTreeMap<String, (String, Option<String>)>>,
}

impl Sender {
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn new(
        destination: Destination,
        default_zone: TimeZone,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, reqwest::Error> {
        let mut client = Client::builder()
            .user_agent(concat!("dutybound/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT);
        if destination.api.url().is_some_and(|url| is_loopback(&url)) {
            // A proxy of the environment could not reach our loopback.
            client = client.no_proxy();
        }
        Ok(Self {
            client: client.build()?,
            destination,
            default_zone,
            clock,
            users: Mutex::default(),
        })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn send(&self, waiting: &Waiting) -> Result<(), Failure> {
        let message = &waiting.message;
        match &self.destination.api {
            Api::Webhook { url, key } => self.webhook(url, key, message).await,
            Api::SlackWebhook { url } => {
                let url = Url::parse(url.expose_secret())
                    .map_err(|_| Failure::Destination("the secret `url` is not a URL".to_owned(), None))?;
                let body = blocks(&words(message, &self.zone(message, None), false));
                self.slack_webhook(self.client.post(url).json(&body)).await
            }
            Api::SlackBot { token, base_url, .. } => self.slack_bot(base_url, token, waiting).await,
        }
    }

    /// The reader's own zone, else the project's, else the destination's, else the one for all.
    fn zone(&self, message: &Message, own: Option<&str>) -> TimeZone {
        let named = |name: &str| TimeZone::get(name).ok();
        own.and_then(named)
            .or_else(|| message.zone.as_deref().and_then(named))
            .or_else(|| self.destination.zone.clone())
            .unwrap_or_else(|| self.default_zone.clone())
    }

    async fn webhook(&self, url: &Url, key: &SecretString, message: &Message) -> Result<(), Failure> {
        let text = words(message, &self.zone(message, None), false).text();
        let body = json!({
            "id": message.key, "kind": message.kind, "at": message.at, "project": message.project,
            "person": message.person, "text": text, "content": message.content,
        })
        .to_string();
        let now = self.clock.now();
        let Some(signed) = sign(key, now, body.as_bytes()) else {
            return Err(Failure::Message("cannot be signed with this key".to_owned()));
        };
        let request = self
            .client
            .post(url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(TIMESTAMP_HEADER, signed.timestamp)
            .header(SIGNATURE_HEADER, signed.signature)
            .body(body);
        let (status, headers, _) = self.exchange(request).await?;
        match status.as_u16() {
            200..=299 => Ok(()),
            400 | 413 | 415 | 422 => Err(Failure::Message(format!(
                "the receiver refuses it with {}",
                status.as_u16()
            ))),
            _ => Err(self.answered(status, &headers)),
        }
    }

    /// <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors>
    async fn slack_webhook(&self, request: RequestBuilder) -> Result<(), Failure> {
        let (status, headers, body) = self.exchange(request).await?;
        let said = said(&String::from_utf8_lossy(&body));
        match status.as_u16() {
            200 => Ok(()),
            400 => Err(Failure::Message(format!("Slack refuses it: {said}"))),
            403 | 404 | 410 => Err(Failure::Destination(
                format!("Slack says {said}: the webhook or its channel is gone; make a new one and give its URL"),
                None,
            )),
            _ => Err(self.answered(status, &headers)),
        }
    }

    async fn slack_bot(&self, base: &Url, token: &SecretString, waiting: &Waiting) -> Result<(), Failure> {
        let message = &waiting.message;
        let lane = &waiting.lane;
        let (channel, zone) = match (lane.strip_prefix(PERSON), lane.strip_prefix(CHANNEL)) {
            (Some(email), _) => {
                let (id, zone) = self.user(base, token, email).await?;
                (id, zone)
            }
            (None, channel) => (channel.unwrap_or(lane).to_owned(), None),
        };
        let to_person = lane.starts_with(PERSON);
        let mut body = blocks(&words(message, &self.zone(message, zone.as_deref()), to_person));
        if let Value::Object(body) = &mut body {
            body.insert("channel".to_owned(), channel.into());
            body.insert("unfurl_links".to_owned(), false.into());
            body.insert("unfurl_media".to_owned(), false.into());
        }
        let request = self
            .client
            .post(method(base, "chat.postMessage"))
            .bearer_auth(token.expose_secret())
            .json(&body);
        self.call(request).await.map(drop)
    }

    /// The user with this address, and their time zone.
    async fn user(&self, base: &Url, token: &SecretString, email: &str) -> Result<(String, Option<String>), Failure> {
        let known = self
            .users
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(email)
            .cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let request = self
            .client
            .get(method(base, "users.lookupByEmail"))
            .query(&[("email", email)]);
        let answer = self.call(request.bearer_auth(token.expose_secret())).await?;
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let Some(id) = text("/user/id") else {
            return Err(Failure::Destination("Slack's answer names no user".to_owned(), None));
        };
        let found = (id, text("/user/tz"));
        self.users
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(email.to_owned(), found.clone());
        Ok(found)
    }

    /// One call of Slack's Web API, which says `ok: false` with status 200,
    /// <https://docs.slack.dev/apis/web-api/#responses>.
    async fn call(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let (status, headers, body) = self.exchange(request).await?;
        if !status.is_success() {
            return Err(self.answered(status, &headers));
        }
        let garbled = || Failure::Destination("the answer is not Slack's; check `base_url`".to_owned(), None);
        let answer: Value = serde_json::from_slice(&body).map_err(|_| garbled())?;
        if answer.get("ok").and_then(Value::as_bool) == Some(true) {
            return Ok(answer);
        }
        let error = answer.get("error").and_then(Value::as_str).ok_or_else(garbled)?;
        Err(refused(error, told_to_wait(self.clock.now(), &headers)))
    }

    fn answered(&self, status: StatusCode, headers: &HeaderMap) -> Failure {
        let what = match status.as_u16() {
            300..=399 => "a redirect, which is never followed; check the URL",
            401 | 403 => "a refusal; check the secret",
            404 | 410 => "that there is nothing there; check the URL",
            429 => "that it was asked too often",
            500..=599 => "a fault of its own",
            _ => "something unexpected",
        };
        let wait = told_to_wait(self.clock.now(), headers);
        Failure::Destination(format!("it answers {}, {what}", status.as_u16()), wait)
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<(StatusCode, HeaderMap, Vec<u8>), Failure> {
        let cut = |error: reqwest::Error| {
            // The address of an incoming webhook is its secret.
            let error = error.without_url();
            let what = if error.is_timeout() {
                format!("no whole answer within {} s", TIMEOUT.as_secs())
            } else {
                crate::chain(&error)
            };
            Failure::Destination(clean(&what), None)
        };
        let mut response = request.send().await.map_err(cut)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(cut)? {
            if body.len() + chunk.len() > LONGEST_ANSWER {
                break;
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, headers, body))
    }
}

fn method(base: &Url, name: &str) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(name);
    }
    url
}

/// How long an answer asks us to wait: seconds or a date, an hour at most.
fn told_to_wait(now: Timestamp, headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::try_from(now.duration_until(at)).unwrap_or_default()
        }
    };
    Some(wait.min(Duration::from_secs(3600)))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date_and_never_for_ever() {
        let now: Timestamp = "2026-10-21T07:28:00Z".parse().unwrap();
        let wait = |text: &str| {
            let headers: HeaderMap = [("retry-after".parse().unwrap(), text.parse().unwrap())]
                .into_iter()
                .collect();
            told_to_wait(now, &headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("30"), Some(30));
        assert_eq!(wait("Wed, 21 Oct 2026 07:28:05 GMT"), Some(5));
        assert_eq!(wait("Wed, 21 Oct 2026 07:00:00 GMT"), Some(0));
        assert_eq!(wait("99999999"), Some(3600));
        assert_eq!(wait("soon"), None);
    }
}
