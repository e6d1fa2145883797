//! What the tests of sources share: a scripted provider on loopback, a clock that jumps instead of sleeping.

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, body::to_bytes, extract::Request, response::Response};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use url::Url;

use super::{Source, build};
use crate::clock::Clock;
use crate::config::{SourceApi, SourceConfig};
use crate::model::{Interval, ScheduleKey, ScheduleKind, SourceName};
use crate::telemetry::ApiCalls;

pub(super) fn t(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn span(start: &str, end: &str) -> Interval {
    Interval::new(t(start), t(end)).unwrap()
}

/// Stands still, except that sleeping moves it on at once.
pub(super) struct TestClock {
    now: Mutex<Timestamp>,
    slept: Mutex<Vec<Duration>>,
}

impl TestClock {
    pub(super) fn at(now: &str) -> Arc<Self> {
        Arc::new(Self {
            now: Mutex::new(t(now)),
            slept: Mutex::default(),
        })
    }

    pub(super) fn slept(&self) -> Duration {
        self.slept.lock().unwrap().iter().sum()
    }

    pub(super) fn advance(&self, by: SignedDuration) {
        let mut now = self.now.lock().unwrap();
        *now = now.checked_add(by).unwrap();
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    async fn sleep(&self, duration: Duration) {
        self.slept.lock().unwrap().push(duration);
        self.advance(SignedDuration::try_from(duration).unwrap());
    }
}

/// A request as the provider saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Seen {
    /// `GET /path`.
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What the provider answers.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

pub(super) fn reply(status: u16, body: impl Into<String>) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        body: body.into(),
    }
}

pub(super) fn ok(body: impl Into<String>) -> Reply {
    reply(200, body)
}

impl Reply {
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A provider whose answers are made by a function of the request and of how many came before it.
pub(super) struct Provider {
    pub(super) url: Url,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Provider {
    pub(super) async fn start(answer: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let journal = Arc::clone(&seen);
        let answer = Arc::new(answer);
        let app = Router::new().fallback(move |request: Request| {
            let (journal, answer) = (Arc::clone(&journal), Arc::clone(&answer));
            async move {
                let seen = look_at(request).await;
                let before = {
                    let mut journal = journal.lock().unwrap();
                    journal.push(seen.clone());
                    journal.len() - 1
                };
                let reply = answer(&seen, before);
                let mut response = Response::builder().status(reply.status);
                for (name, value) in reply.headers {
                    response = response.header(name, value);
                }
                response.body(axum::body::Body::from(reply.body)).unwrap()
            }
        });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            url: url.parse().unwrap(),
            seen,
        }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests as `GET /path` each.
    pub(super) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

async fn look_at(request: Request) -> Seen {
    let (parts, body) = request.into_parts();
    let url: Url = format!("http://peer{}", parts.uri).parse().unwrap();
    Seen {
        method: parts.method.to_string(),
        path: url.path().to_owned(),
        query: url.query_pairs().into_owned().collect(),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").to_owned()))
            .collect(),
        body: String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap(),
    }
}

pub(super) fn config(api: SourceApi, base_url: Url) -> SourceConfig {
    SourceConfig {
        api,
        base_url,
        requests_per_minute: 600,
        timeout: Duration::from_secs(10),
        expires: None,
    }
}

pub(super) fn source(api: SourceApi, base_url: &Url, clock: &Arc<TestClock>) -> Arc<dyn Source> {
    let calls = ApiCalls::new().unwrap();
    build(
        &name(),
        &config(api, base_url.clone()),
        calls,
        Arc::<TestClock>::clone(clock),
    )
    .unwrap()
}

pub(super) fn pagerduty(provider: &Provider, clock: &Arc<TestClock>) -> Arc<dyn Source> {
    source(SourceApi::PagerDutyKey(SecretString::from("k3y")), &provider.url, clock)
}

pub(super) fn opsgenie(provider: &Provider, clock: &Arc<TestClock>) -> Arc<dyn Source> {
    source(SourceApi::Opsgenie(SecretString::from("k3y")), &provider.url, clock)
}

pub(super) fn name() -> SourceName {
    SourceName("src".into())
}

pub(super) fn schedule(id: &str) -> ScheduleKey {
    ScheduleKey {
        source: name(),
        kind: ScheduleKind::Schedule,
        id: id.into(),
    }
}

pub(super) fn policy(id: &str) -> ScheduleKey {
    ScheduleKey {
        source: name(),
        kind: ScheduleKind::EscalationPolicy,
        id: id.into(),
    }
}

/// A file of the shared folder, or `None` on a plain clone, which has no such folder. CI must have it.
pub(super) fn shared(path: &str) -> Option<Vec<u8>> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let file = std::env::var_os("DUTYBOUND_SHARED")
        .map_or_else(beside, PathBuf::from)
        .join(path);
    match std::fs::read(&file) {
        Ok(bytes) => Some(bytes),
        Err(error) if std::env::var_os("CI").is_some() => panic!("{}: {error}", file.display()),
        Err(_) => {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                // Straight to the stream, because the test harness hides what passing tests print.
                let line = "left out: recorded provider answers, for ../shared is not beside this checkout";
                writeln!(std::io::stderr(), "{line}").unwrap();
            });
            None
        }
    }
}
