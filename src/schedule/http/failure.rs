//! What can go wrong with one call, before it is known which schedule it was for.

use std::time::Duration;

use jiff::SignedDuration;
use reqwest::StatusCode;

use crate::model::ScheduleKey;
use crate::schedule::wire::{self, DecodeError, one_line};
use crate::schedule::{ReadError, ReadErrorKind};

/// A failed call or a failed part of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::schedule) struct Failure {
    pub(in crate::schedule) kind: ReadErrorKind,
    /// The status of the answer, where there was one.
    pub(in crate::schedule) status: Option<u16>,
    message: String,
}

impl Failure {
    pub(in crate::schedule) fn new(kind: ReadErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: None,
            message: message.into(),
        }
    }

    /// An answer that was read but not understood.
    pub(in crate::schedule) fn malformed(operation: &str, error: &DecodeError) -> Self {
        Self::new(
            ReadErrorKind::Malformed,
            format!(
                "{operation} was answered with {error}; nothing was concluded from it, and it is asked again at the next \
                 poll; if it stays so, check base_url and what stands between here and there, such as a proxy's login page"
            ),
        )
    }

    /// Names the schedule.
    pub(in crate::schedule) fn of(self, schedule: &ScheduleKey) -> ReadError {
        ReadError {
            schedule: schedule.clone(),
            kind: self.kind,
            message: self.message,
        }
    }

    /// Adds what the operator should know or do.
    pub(in crate::schedule) fn hint(mut self, hint: &str) -> Self {
        self.message = format!("{}; {hint}", self.message);
        self
    }

    /// Says which id was asked for, where the name of the operation has only its place.
    pub(super) fn naming(mut self, operation: &str, path: &[&str]) -> Self {
        let place = operation.split('/').skip(1).position(|segment| segment == "{id}");
        if let Some(id) = place.and_then(|place| path.get(place)) {
            let named = operation.replace("{id}", &one_line(id));
            self.message = self.message.replacen(operation, &named, 1);
        }
        self
    }

    /// A connection to `host` that failed, or an answer that did not arrive whole within `limit`.
    pub(super) fn transport(operation: &str, error: reqwest::Error, host: &str, limit: Duration) -> Self {
        let host = one_line(host);
        // The address may carry a secret in its query, and reqwest shows it.
        let error = error.without_url();
        if error.is_timeout() {
            return Self::new(
                ReadErrorKind::Timeout,
                format!(
                    "{operation} got no complete answer from {host} within {:#}; it is asked again at the next poll; if it \
                     stays so, check that this host reaches it, or raise `timeout` of the source",
                    SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX)
                ),
            );
        }
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let cause = one_line(&cause.to_string());
        let what = if error.is_connect() {
            format!("could not connect to {host} ({cause})")
        } else {
            format!("was cut off by {host} before its answer was whole ({cause})")
        };
        Self::new(
            ReadErrorKind::Unreachable,
            format!(
                "{operation} {what}; it is asked again at the next poll; if it stays so, check that this host reaches \
                 {host}, and what stands between, such as a proxy or a firewall"
            ),
        )
    }

    /// A redirect; only the host it points at is shown, because the rest may carry secrets.
    pub(super) fn redirected(operation: &str, status: StatusCode, host: Option<String>) -> Self {
        let host = host.map_or_else(|| "elsewhere".to_owned(), |host| one_line(&host));
        let mut failure = Self::new(
            ReadErrorKind::Refused,
            format!(
                "{operation} was redirected to {host} ({}), which is never followed with a credential; \
                 check base_url",
                status.as_u16()
            ),
        );
        failure.status = Some(status.as_u16());
        failure
    }

    /// An answer other than 200. `secrets` are taken out of the provider's words.
    pub(super) fn answered(operation: &str, status: StatusCode, body: &[u8], secrets: &[&str]) -> Self {
        let (kind, advice) = match status.as_u16() {
            401 => (
                ReadErrorKind::Unauthorized,
                "the credential is wrong, expired or was rotated; give the source a valid one, and a running daemon a restart",
            ),
            402 => (
                ReadErrorKind::Forbidden,
                "the account's plan does not allow this call; ask the provider for one that does",
            ),
            403 => (
                ReadErrorKind::Forbidden,
                "the credential may not see this; check its permissions or scopes",
            ),
            404 => (
                ReadErrorKind::NotFound,
                "it may have been deleted or renamed; check the id, and that the credential can see it",
            ),
            408 | 504 => (
                ReadErrorKind::Timeout,
                "the provider was too slow; it is asked again at the next poll",
            ),
            410 => (
                ReadErrorKind::Rejected,
                "the provider has ended this API; look for a newer dutybound",
            ),
            500..=599 => (
                ReadErrorKind::Server,
                "the provider has a fault; it is asked again at the next poll",
            ),
            200..=299 => (
                ReadErrorKind::Malformed,
                "only 200 is a complete answer, so nothing was concluded from it; it is asked again at the next poll",
            ),
            _ => (ReadErrorKind::Rejected, "check the source's configuration"),
        };
        let mut words = String::new();
        if let Some(refusal) = wire::refusal(body, secrets) {
            if !refusal.text.is_empty() {
                words = format!(" ({:?})", refusal.text);
            }
            if let Some(code) = refusal.code {
                words.push_str(&format!(" [code {code}]"));
            }
        }
        let mut failure = Self::new(
            kind,
            format!("{operation} was answered with {}{words}; {advice}", status.as_u16()),
        );
        failure.status = Some(status.as_u16());
        failure
    }
}
