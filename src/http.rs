//! The daemon's listener: the status page, metrics and health, read-only, for this host by default.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header, uri::Authority};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp, Unit};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, Identity};
use crate::ledger::{Ledger, StoredSnapshots};
use crate::metrics::Metrics;
use crate::model::SourceName;
use crate::pages;
use crate::policy::Policy;

mod token;

/// Style, script, the script's requests and the icon come from this listener, everything else from nowhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How long requests under way may take to end once the daemon is told to stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// What the pages show.
pub struct Site {
    /// The daemon's metrics.
    pub metrics: Arc<Metrics>,
    /// Whether the daemon works.
    pub health: Arc<Health>,
    /// For what derives from the record. A handle of its own, opened for reading, keeps scrapes out of the writer's way.
    pub ledger: Ledger,
    /// The ledger's file.
    pub ledger_path: PathBuf,
    /// What schedules were read to say, as the daemon has it in memory: of a large organisation it is not kept twice.
    pub snapshots: Arc<tokio::sync::Mutex<StoredSnapshots>>,
    /// What the daemon works by.
    pub in_use: watch::Receiver<Arc<InUse>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What whoever asks must show; `None` asks for nothing.
    pub token: Option<SecretString>,
}

/// What the daemon works by, as far as pages need it.
#[derive(Debug)]
pub struct InUse {
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// The operator's mapping of people.
    pub identities: Vec<Identity>,
    /// How long a stored schedule stands in for a source that cannot be read.
    pub max_staleness: SignedDuration,
    /// Whether the policy files hold a newer policy that was refused.
    pub policy_refused: bool,
}

impl InUse {
    /// Takes over what pages need.
    #[must_use]
    pub fn new(policy: &Arc<Policy>, config: &Config, policy_refused: bool) -> Self {
        Self {
            policy: Arc::clone(policy),
            identities: config.identities.clone(),
            max_staleness: config.timing.max_staleness,
            policy_refused,
        }
    }
}

/// Whether the daemon works, told by the daemon and asked by supervisors.
#[derive(Debug)]
pub struct Health {
    started: Timestamp,
    stalls_after: SignedDuration,
    state: Mutex<HealthState>,
}

#[derive(Debug)]
struct HealthState {
    last_attempt: Option<Timestamp>,
    /// When AWS last answered a pass that was under way.
    last_answer: Option<Timestamp>,
    passed: bool,
    unread: BTreeSet<SourceName>,
}

impl Health {
    /// A daemon that starts now and has `sources` to read. It counts as stalled when no pass has ended for three polls
    /// and an operation besides.
    #[must_use]
    pub fn new(
        sources: impl IntoIterator<Item = SourceName>,
        poll: SignedDuration,
        operation_timeout: Duration,
        now: Timestamp,
    ) -> Self {
        let slack = SignedDuration::try_from(operation_timeout).unwrap_or(SignedDuration::MAX);
        let three_polls = poll.saturating_mul(3);
        Self {
            started: now,
            stalls_after: three_polls.saturating_add(slack),
            state: Mutex::new(HealthState {
                last_attempt: None,
                last_answer: None,
                passed: false,
                unread: sources.into_iter().collect(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, HealthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pass ended, well or not; `complete` if it came to a plan.
    pub fn pass_ended(&self, complete: bool, now: Timestamp) {
        let mut state = self.state();
        state.last_attempt = Some(now);
        state.passed |= complete;
    }

    /// AWS answers a pass that is under way, which of a large organisation may take long.
    pub fn pass_goes_on(&self, now: Timestamp) {
        self.state().last_answer = Some(now);
    }

    /// A read of one of the source's schedules ended, well or not.
    pub fn source_read(&self, source: &SourceName) {
        self.state().unread.remove(source);
    }

    /// Whether every source has been tried at least once.
    #[must_use]
    pub fn all_sources_read(&self) -> bool {
        self.state().unread.is_empty()
    }

    /// # Errors
    /// Why the reconcile loop counts as stalled.
    pub fn alive(&self, now: Timestamp) -> Result<(), String> {
        let (last, answer) = {
            let state = self.state();
            (state.last_attempt, state.last_answer)
        };
        let idle = last.max(answer).unwrap_or(self.started).duration_until(now);
        if idle <= self.stalls_after {
            return Ok(());
        }
        let since = last.map_or_else(
            || format!("since the start at {}", seconds(self.started)),
            |t| format!("since {}", seconds(t)),
        );
        Err(format!(
            "no pass has ended {since}, and for longer than {:#} nothing was heard of one; see the log for what it waits for",
            self.stalls_after
        ))
    }

    /// # Errors
    /// What is missing, one entry for each thing.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        let state = self.state();
        let mut missing = Vec::new();
        if !state.passed {
            missing.push("no pass has been completed yet".to_owned());
        }
        for source in &state.unread {
            missing.push(format!(
                "no schedule of {} has been asked for yet",
                source.0.escape_debug()
            ));
        }
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }
}

fn seconds(t: Timestamp) -> Timestamp {
    t.round(Unit::Second).unwrap_or(t)
}

/// Serves until `shutdown` ends, then lets requests under way end for two seconds at most.
///
/// # Errors
/// When the listener's address cannot be told or accepting fails for good.
pub async fn serve(
    listener: TcpListener,
    site: Site,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let address = listener.local_addr()?.ip();
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let server = axum::serve(listener, router(Arc::new(site), address)).with_graceful_shutdown(async move {
        shutdown.await;
        stop.cancel();
    });
    let out_of_patience = async move {
        stopping.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        ended = server => ended,
        () = out_of_patience => Ok(()),
    }
}

fn router(site: Arc<Site>, address: IpAddr) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Arc::clone(&site))
        .merge(pages::router(Arc::clone(&site)))
        .layer(from_fn_with_state(site, token::demanded))
        .layer(from_fn_with_state(address, only_this_host))
        .layer(map_response(harden))
}

async fn metrics(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    let policy = Arc::clone(&site.in_use.borrow().policy);
    let accept = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let accept = accept.collect::<Vec<_>>().join(",");
    let now = site.clock.now();
    // Ten thousand entitlements are more than a hundred thousand samples: written away from the daemon's work.
    let runtime = tokio::runtime::Handle::current();
    let written = tokio::task::spawn_blocking(move || {
        runtime.block_on(site.metrics.negotiate(&accept, &site.ledger, &policy, now))
    });
    let written = written
        .await
        .unwrap_or_else(|error| Err(prometheus::Error::Msg(error.to_string())));
    match written {
        Ok((kind, text)) => ([(header::CONTENT_TYPE, kind), (header::VARY, "Accept")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be encoded");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics could not be encoded; see the log\n",
            )
                .into_response()
        }
    }
}

async fn healthz(State(site): State<Arc<Site>>) -> Response {
    match site.health.alive(site.clock.now()) {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn readyz(State(site): State<Arc<Site>>) -> Response {
    match site.health.ready() {
        Ok(()) => "ok\n".into_response(),
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response(),
    }
}

/// A web page open on this host can make its browser ask a loopback listener under a name of the page's own, which it
/// points at 127.0.0.1 (DNS rebinding), and read the answer. Under no other name than this host's own do we answer.
async fn only_this_host(State(address): State<IpAddr>, request: Request, next: Next) -> Response {
    if !address.to_canonical().is_loopback() || names_this_host(&request) {
        return next.run(request).await;
    }
    (
        StatusCode::FORBIDDEN,
        "this listener answers under localhost and loopback addresses only\n",
    )
        .into_response()
}

fn names_this_host(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    let by_uri = request.uri().authority().is_none_or(is_loopback);
    by_uri && authority.as_ref().is_some_and(is_loopback)
}

fn is_loopback(authority: &Authority) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CONTENT_SECURITY_POLICY),
    );
    for name in ["cross-origin-resource-policy", "cross-origin-opener-policy"] {
        headers.insert(name, HeaderValue::from_static("same-origin"));
    }
    response
}

#[cfg(test)]
mod tests;
