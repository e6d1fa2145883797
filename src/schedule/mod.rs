//! Reads complete snapshots of on-call schedules, or says why it could not; never a partial list.

#[cfg(test)]
mod hostile;
mod http;
pub mod normalise;
mod objects;
pub mod opsgenie;
pub mod pagerduty;
#[cfg(test)]
mod testing;
mod users;
pub mod wire;

use std::sync::Arc;

use async_trait::async_trait;

use self::http::{ClientCredentials, Credential, Transport};
use crate::clock::Clock;
use crate::config::{SourceApi, SourceConfig};
use crate::model::{Interval, ScheduleChange, ScheduleKey, Snapshot, SourceName};
use crate::telemetry::ApiCalls;

/// Makes the reader of one configured source. Nothing is sent before the first read.
///
/// # Errors
/// [`BuildError`] when the credential cannot be a header or the TLS library cannot start.
pub fn build(
    name: &SourceName,
    config: &SourceConfig,
    calls: ApiCalls,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Source>, BuildError> {
    let credential = match &config.api {
        SourceApi::PagerDutyKey(key) => Credential::Key {
            scheme: "Token token=",
            key: key.clone(),
        },
        SourceApi::PagerDutyOauth {
            client_id,
            client_secret,
            token_url,
            scope,
        } => Credential::Oauth(ClientCredentials {
            client_id: client_id.clone(),
            client_secret: client_secret.clone(),
            token_url: token_url.clone(),
            scope: scope.clone(),
        }),
        SourceApi::Opsgenie(key) => Credential::Key {
            scheme: "GenieKey ",
            key: key.clone(),
        },
    };
    let accept = match &config.api {
        SourceApi::PagerDutyKey(_) | SourceApi::PagerDutyOauth { .. } => pagerduty::ACCEPT,
        SourceApi::Opsgenie(_) => opsgenie::ACCEPT,
    };
    let transport = Transport::new(name.clone(), config, credential, accept, calls, clock)?;
    Ok(match &config.api {
        SourceApi::PagerDutyKey(_) | SourceApi::PagerDutyOauth { .. } => {
            Arc::new(pagerduty::PagerDuty::new(name.clone(), transport))
        }
        SourceApi::Opsgenie(_) => Arc::new(opsgenie::Opsgenie::new(name.clone(), transport)),
    })
}

/// Why a source cannot be used as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("source {source_name} cannot be used: {reason}")]
pub struct BuildError {
    /// Which one.
    pub source_name: SourceName,
    /// What is wrong with it; carries no secret.
    pub reason: String,
}

/// Reads on-call schedules from one configured source.
#[async_trait]
pub trait Source: Send + Sync {
    /// The source's name in `config.toml`.
    fn name(&self) -> &SourceName;

    /// Everything the provider's final view says about `schedule` inside `window`.
    ///
    /// The snapshot's own window says what is covered. It begins earlier where a shift was already running when
    /// `window` begins and its true start is known, and ends earlier where the provider shows no further (90 days
    /// for PagerDuty's escalation policies).
    ///
    /// # Errors
    /// [`ReadError`] whenever any part of the answer is missing, refused, late or not understood. A failed read says
    /// nothing about who is on call.
    async fn read(&self, schedule: &ScheduleKey, window: Interval) -> Result<Snapshot, ReadError>;

    /// Who changed `schedule` within `span`, the latest first, by the provider's own record. `None` where the provider
    /// keeps none that can be read. Says nothing about who is on call, and never keeps a read waiting.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadErrorKind::Forbidden`] and [`ReadErrorKind::Unauthorized`] where the credential may not see it.
    async fn changes(
        &self,
        _schedule: &ScheduleKey,
        _span: Interval,
    ) -> Result<Option<Vec<ScheduleChange>>, ReadError> {
        Ok(None)
    }
}

/// Why a schedule could not be read. `Display` names the source and the schedule, what happened and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {schedule}: {message}")]
pub struct ReadError {
    /// What was asked for.
    pub schedule: ScheduleKey,
    /// What kind of failure, for metrics, health and guards.
    pub kind: ReadErrorKind,
    /// What happened and what to do next, in one sentence; carries no secret and no body longer than a line.
    pub message: String,
}

/// Kinds of failed reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReadErrorKind {
    /// No connection, cut connection, DNS, TLS.
    Unreachable,
    /// No complete answer in time.
    Timeout,
    /// 401: the key is wrong, expired or rotated.
    Unauthorized,
    /// 402 or 403: the key may not see this.
    Forbidden,
    /// 404: the provider does not know it.
    NotFound,
    /// 429 for longer than we wait within one read.
    RateLimited,
    /// 5xx.
    Server,
    /// An answer that is not what the API promises: HTML, truncated or wrong JSON, a body over the size limit.
    Malformed,
    /// Pages that contradict each other, or do not end.
    Incomplete,
    /// A redirect or link to another host, which is never followed.
    Refused,
    /// Anything else the provider answered, such as 400.
    Rejected,
}

impl ReadErrorKind {
    /// A stable word for metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::Server => "server",
            Self::Malformed => "malformed",
            Self::Incomplete => "incomplete",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
        }
    }
}
