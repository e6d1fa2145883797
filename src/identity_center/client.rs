//! The connection to AWS that reader and writer share: both SDK clients, one limiter, retries, caches and counters.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_ssoadmin::config::http::HttpResponse;
use aws_sdk_ssoadmin::error::{ProvideErrorMetadata, SdkError};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::OnceCell;

use super::failure::{Failure, Site};
use super::groups::Groups;
use super::inventory::Inventory;
use super::limiter::{Limiter, Priority};
use super::people::PeopleCache;
use super::reader::Reader;
use super::retry::{Bounds, Patience};
use super::targets::TargetCache;
use super::writer::Writer;
use super::{AwsError, AwsErrorKind, Call, Instance, ListOf, Read, Write};
use crate::clock::Clock;
use crate::config::IdentityCenterConfig;
use crate::telemetry::{ApiCalls, CallOutcome};

/// Rows per page; the most that AWS allows.
pub(super) const PAGE: i32 = 100;

/// AWS allows 100 000 users, so no honest list is longer than 1000 pages.
const MOST_PAGES: usize = 2_000;

/// Everybody who waited for a question that failed hears that failure, instead of asking the same again in turn.
pub(super) const FAILED_FOR: SignedDuration = SignedDuration::from_secs(2);

/// A connection to Identity Center. Cloning shares it, with its limiter and caches; make one per process.
#[derive(Clone)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
}

/// What clones of a [`Client`] share.
pub(super) struct Shared {
    pub(super) admin: aws_sdk_ssoadmin::Client,
    pub(super) store: aws_sdk_identitystore::Client,
    pub(super) expected_account_id: String,
    pub(super) instance_arn: Option<String>,
    pub(super) site: Site,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) instance: OnceCell<Instance>,
    pub(super) instance_failure: Mutex<Option<(AwsError, Timestamp)>>,
    pub(super) targets: TargetCache,
    pub(super) groups: Groups,
    pub(super) people: PeopleCache,
    pub(super) looks: Looks,
    limiter: Limiter,
    calls: ApiCalls,
    bounds: Bounds,
}

/// When looks were answered last.
#[derive(Debug, Default)]
pub(super) struct Looks {
    answer: Last,
    of_people: Last,
    of_targets: Last,
}

#[derive(Debug, Default)]
struct Last(Mutex<Option<tokio::time::Instant>>);

impl Last {
    fn get(&self) -> Option<tokio::time::Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokio::time::Instant::now());
    }
}

impl Looks {
    fn of(&self, list: ListOf) -> &Last {
        match list {
            ListOf::People => &self.of_people,
            ListOf::Targets => &self.of_targets,
        }
    }

    /// A page came of a list for which lookups wait.
    pub(super) fn note_page(&self, of: ListOf) {
        self.of(of).is_now();
    }

    /// When the last of them came.
    pub(super) fn last_page(&self, of: ListOf) -> Option<tokio::time::Instant> {
        self.of(of).get()
    }

    /// When AWS answered anything.
    pub(super) fn last_answer(&self) -> Option<tokio::time::Instant> {
        self.answer.get()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("site", &self.shared.site)
            .field("instance", &self.shared.instance.get())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares the connection. Nothing is sent before the first question; credentials come from the ordinary chain
    /// (environment, profile, web identity, container, instance role) and are looked for then.
    pub async fn connect(config: &IdentityCenterConfig, calls: ApiCalls, clock: Arc<dyn Clock>) -> Self {
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).region(Region::new(config.region.clone()));
        if let Some(profile) = &config.profile {
            loader = loader.profile_name(profile);
        }
        Self::build(&loader.load().await, config, calls, clock, Bounds::default())
    }

    /// The SDK's own retries are off: every request must pass our limiter, and the SDK never retries a conflict.
    pub(super) fn build(
        sdk: &SdkConfig,
        config: &IdentityCenterConfig,
        calls: ApiCalls,
        clock: Arc<dyn Clock>,
        bounds: Bounds,
    ) -> Self {
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(config.call_timeout)
            .operation_attempt_timeout(config.call_timeout)
            .build();
        let mut admin = aws_sdk_ssoadmin::config::Builder::from(sdk)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.clone());
        let mut store = aws_sdk_identitystore::config::Builder::from(sdk)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        // Set on the two services only, so that the credential chain's own calls (STS, SSO) are not redirected.
        if let Some(url) = &config.endpoint_url {
            admin = admin.endpoint_url(url.as_str());
            store = store.endpoint_url(url.as_str());
        }
        Self {
            shared: Arc::new(Shared {
                admin: aws_sdk_ssoadmin::Client::from_conf(admin.build()),
                store: aws_sdk_identitystore::Client::from_conf(store.build()),
                expected_account_id: config.expected_account_id.clone(),
                instance_arn: config.instance_arn.clone(),
                site: Site {
                    region: config.region.clone(),
                    endpoint: config.endpoint_url.as_ref().map(shown),
                },
                instance: OnceCell::new(),
                instance_failure: Mutex::default(),
                targets: TargetCache::default(),
                groups: Groups::default(),
                people: PeopleCache::default(),
                looks: Looks::default(),
                limiter: Limiter::new(config.requests_per_second, clock.clone()),
                clock,
                calls,
                bounds,
            }),
        }
    }

    /// The half that looks. `check`, `diff` and `explain` ask for nothing else.
    #[must_use]
    pub fn reader(&self) -> Arc<dyn Read> {
        Arc::new(Reader::new(self.clone()))
    }

    /// What there is at all; for `import` only.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        Inventory::new(self.clone())
    }

    /// The half that changes; for `apply` only.
    #[must_use]
    pub fn writer(&self) -> Arc<dyn Write> {
        Arc::new(Writer::new(self.clone()))
    }

    /// Sends one request, once, when the limiter lets it. A request takes kilobytes and is made only then: of a large
    /// organisation tens of thousands wait.
    pub(super) async fn attempt<T, E, F>(
        &self,
        call: Call,
        priority: Priority,
        send: impl FnOnce() -> F,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        self.shared.limiter.acquire(priority).await;
        let sent = Instant::now();
        let result = Box::pin(send())
            .await
            .map_err(|error| Failure::of(call, &error, sent.elapsed()));
        // That something is not there is an answer as well.
        let is_answer = |failure: &Failure| failure.kind == AwsErrorKind::NotFound;
        if priority == Priority::Look && result.as_ref().err().is_none_or(is_answer) {
            self.shared.looks.answer.is_now();
        }
        let outcome = match &result {
            Ok(_) => CallOutcome::Ok,
            Err(failure) => failure.outcome(),
        };
        self.shared.calls.record(call.service(), call.name(), outcome);
        result
    }

    /// Pauses before the next attempt, or gives the failure back because it is final.
    pub(super) async fn pause(&self, patience: &mut Patience, mut failure: Failure) -> Result<(), Failure> {
        match patience.after(&failure) {
            Some(pause) => {
                tracing::debug!(
                    call = failure.call.label(),
                    kind = failure.kind.as_str(),
                    ?pause,
                    "trying again"
                );
                self.shared.clock.sleep(pause).await;
                Ok(())
            }
            None => {
                failure.outcome_unknown |= patience.outcome_unknown;
                failure.tries = patience.tries;
                Err(failure)
            }
        }
    }

    /// The time for one request with all its repetitions.
    pub(super) fn patience(&self, call: Call) -> Patience {
        let Bounds { look, change } = self.shared.bounds;
        Patience::new(if call.changes() { change } else { look })
    }

    /// Sends a request, repeating it while that is safe and may help.
    pub(super) async fn run<T, E, F>(
        &self,
        call: Call,
        priority: Priority,
        send: impl FnMut() -> F,
    ) -> Result<T, AwsError>
    where
        E: ProvideErrorMetadata + Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let answer = self.persist(call, priority, send).await;
        answer.map_err(|failure| failure.into_error(&self.shared.site))
    }

    /// Like [`Client::run`], for callers that look into the failure.
    pub(super) async fn persist<T, E, F>(
        &self,
        call: Call,
        priority: Priority,
        mut send: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let mut patience = self.patience(call);
        loop {
            match self.attempt(call, priority, &mut send).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.pause(&mut patience, failure).await?,
            }
        }
    }

    /// Reads a whole list, or fails.
    pub(super) async fn pages<T, F>(
        &self,
        call: Call,
        mut page: impl FnMut(Option<String>) -> F,
    ) -> Result<Vec<T>, AwsError>
    where
        F: Future<Output = Result<(Vec<T>, Option<String>), AwsError>>,
    {
        let mut rows = Vec::new();
        let mut paging = Paging::new(call);
        let mut token = None;
        loop {
            let (more, next) = page(token).await?;
            rows.extend(more);
            token = match paging.after(next)? {
                Some(next) => Some(next),
                None => return Ok(rows),
            };
        }
    }
}

/// Goes from page to page of a list. The SDK's paginator ends silently when a token repeats, which would make a partial list
/// look complete; here that is an error.
pub(super) struct Paging {
    call: Call,
    seen: HashSet<String>,
}

impl Paging {
    pub(super) fn new(call: Call) -> Self {
        Self {
            call,
            seen: HashSet::new(),
        }
    }

    /// The token of the page after the one that answered `next`; `None` after the last.
    pub(super) fn after(&mut self, next: Option<String>) -> Result<Option<String>, AwsError> {
        let Some(next) = next.filter(|next| !next.is_empty()) else {
            return Ok(None);
        };
        if !self.seen.insert(next.clone()) {
            let what = "the pages repeat, so the list cannot be read to its end";
            return Err(unreadable(self.call, what));
        }
        if self.seen.len() > MOST_PAGES {
            return Err(unreadable(self.call, "the list does not end: more than 2000 pages"));
        }
        Ok(Some(next))
    }
}

/// An URL without what might be secret in it.
fn shown(url: &url::Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

/// An answer that makes no sense.
pub(super) fn unreadable(call: Call, what: &str) -> AwsError {
    AwsError {
        operation: call.label(),
        kind: AwsErrorKind::Server,
        message: format!("{what}; nothing was concluded from it, the next pass tries again"),
        outcome_unknown: call.changes(),
    }
}

/// A member that AWS must send. The SDK fills in an empty text when it is missing.
pub(super) fn required(call: Call, name: &str, value: Option<&str>) -> Result<String, AwsError> {
    match value {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(unreadable(call, &format!("the answer has no {name}"))),
    }
}
