//! Turns what the SDK reports into what people and decisions need: a kind, AWS's words, and what to do next.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use aws_sdk_ssoadmin::config::http::HttpResponse;
use aws_sdk_ssoadmin::error::{ProvideErrorMetadata, SdkError};
use serde_json::Value;

use super::{AwsError, AwsErrorKind, Call};
use crate::telemetry::CallOutcome;

/// Where requests go, for messages.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// The configured region.
    pub(super) region: String,
    /// The endpoint override, if any.
    pub(super) endpoint: Option<String>,
}

/// One failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    /// What was attempted.
    pub(super) call: Call,
    /// What it means.
    pub(super) kind: AwsErrorKind,
    /// AWS's error code, where there was an answer.
    code: Option<String>,
    /// AWS's words or the transport's, sanitised.
    words: String,
    /// Whether the same request may succeed a little later.
    pub(super) retry: bool,
    /// How long AWS asked us to wait.
    pub(super) retry_after: Option<Duration>,
    /// Whether AWS may have carried it out.
    pub(super) outcome_unknown: bool,
    /// Whether no connection came about, so that nothing was sent.
    pub(super) never_sent: bool,
    /// Whether the time limit ended it.
    timed_out: bool,
    /// What the transport met in the end, without the layers around it.
    innermost: Option<String>,
    /// How often the request was sent.
    pub(super) tries: u32,
    /// What an answer of 200 said that the SDK could not read.
    pub(super) unread: Value,
    /// How long the attempt took, without waiting for the limiter.
    pub(super) took: Duration,
}

impl Failure {
    pub(super) fn of<E>(call: Call, error: &SdkError<E, HttpResponse>, took: Duration) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let mut failure = Self {
            call,
            kind: AwsErrorKind::Rejected,
            code: None,
            words: sanitise(&chain(error)),
            retry: false,
            retry_after: None,
            outcome_unknown: false,
            never_sent: false,
            timed_out: false,
            innermost: None,
            tries: 1,
            unread: Value::Null,
            took,
        };
        match error {
            // The SDK reports an answer of 200 that it cannot parse as if AWS had answered with an error.
            SdkError::ServiceError(answer) if answer.raw().status().is_success() => failure.unreadable(answer.raw()),
            SdkError::ServiceError(answer) => {
                failure.answered(answer.err().code(), answer.err().message(), answer.raw())
            }
            SdkError::ResponseError(answer) => failure.unreadable(answer.raw()),
            SdkError::TimeoutError(_) => {
                failure.timed_out = true;
                failure.no_answer();
                failure.words = "no answer within the time limit".to_owned();
            }
            SdkError::DispatchFailure(dispatch) => {
                failure.timed_out = dispatch.is_timeout();
                // The outermost message only says "dispatch failure".
                if let Some(connector) = dispatch.as_connector_error() {
                    failure.words = sanitise(&chain(connector));
                    failure.innermost = Some(sanitise(&innermost(connector)));
                }
                failure.not_dispatched(dispatch.is_other());
            }
            _ => {}
        }
        failure
    }

    fn answered(&mut self, code: Option<&str>, message: Option<&str>, raw: &HttpResponse) {
        let status = raw.status().as_u16();
        let details = json_of(raw);
        self.code = code.map(sanitise);
        self.words = match message {
            Some(message) if !message.trim().is_empty() => sanitise(message),
            _ => format!("HTTP status {status} without a message"),
        };
        self.kind = kind_of(code, &self.words, status);
        // GetUserId answers the same exception for a user and for a store that does not exist. Only the first
        // says anything about the person.
        if self.kind == AwsErrorKind::NotFound && details["ResourceType"] == "IDENTITY_STORE" {
            self.kind = AwsErrorKind::Misconfigured;
        }
        self.retry_after = details["RetryAfterSeconds"]
            .as_u64()
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs);
        self.retry = matches!(
            self.kind,
            AwsErrorKind::Throttled | AwsErrorKind::Conflict | AwsErrorKind::Server
        );
        self.outcome_unknown = self.kind == AwsErrorKind::Server && self.call.changes();
    }

    fn unreadable(&mut self, raw: &HttpResponse) {
        let status = raw.status().as_u16();
        if raw.body().bytes().is_none() {
            // The body never arrived whole.
            self.no_answer();
        } else if status >= 400 {
            self.answered(None, None, raw);
        } else {
            self.kind = AwsErrorKind::Server;
            self.outcome_unknown = self.call.changes();
            self.words = format!("the answer could not be read: {}", self.words);
            self.unread = json_of(raw);
        }
    }

    fn not_dispatched(&mut self, other: bool) {
        let text = self.words.to_ascii_lowercase();
        if other && (text.contains("credential") || text.contains("identity")) {
            self.kind = AwsErrorKind::Denied;
            return;
        }
        self.no_answer();
        // A connection that never came about carried nothing. The SDK tells that apart in its words only; when it
        // ever changes them, the change counts as possibly made, which is the safe side.
        self.never_sent = ["(connect)", "dns error", "connect timeout"]
            .iter()
            .any(|sign| text.contains(sign));
        if self.never_sent {
            self.outcome_unknown = false;
            self.retry = true;
        }
        if let Some(cause) = &self.innermost {
            self.words = if self.never_sent {
                format!("no connection came about ({cause})")
            } else {
                format!("the connection broke off before the answer was whole ({cause})")
            };
        }
    }

    /// No whole answer came. A look is simply repeated; a change may have been made and is left to be settled.
    fn no_answer(&mut self) {
        self.kind = AwsErrorKind::Unreachable;
        self.retry = !self.call.changes();
        self.outcome_unknown = self.call.changes();
    }

    /// Whether AWS knows who asks and does not let them.
    pub(super) fn lacks_permission(&self) -> bool {
        matches!(self.code.as_deref(), Some("AccessDeniedException" | "AccessDenied"))
    }

    /// The error, or `refused` where what lacks is the permission, which others go on without.
    pub(super) fn refused_or<S: From<AwsError>>(self, refused: S, site: &Site) -> S {
        match self.lacks_permission() {
            true => refused,
            false => self.into_error(site).into(),
        }
    }

    /// The value of the metric's label.
    pub(super) fn outcome(&self) -> CallOutcome {
        match self.kind {
            _ if self.timed_out => CallOutcome::Timeout,
            AwsErrorKind::Throttled => CallOutcome::Throttled,
            AwsErrorKind::Conflict => CallOutcome::Conflict,
            AwsErrorKind::Denied => CallOutcome::Denied,
            AwsErrorKind::NotFound => CallOutcome::NotFound,
            _ => CallOutcome::Error,
        }
    }

    /// The error that leaves this module.
    pub(super) fn into_error(self, site: &Site) -> AwsError {
        let mut message = self.words.clone();
        if let Some(code) = &self.code {
            message = format!("{code}: {message}");
        }
        if self.tries > 1 {
            let _infallible = write!(message, " (tried {} times)", self.tries);
        }
        let hint = self.hint(site);
        if !hint.is_empty() {
            let _infallible = write!(message, "; {hint}");
        }
        if self.outcome_unknown {
            message.push_str("; the change may have been made");
        }
        AwsError {
            operation: self.call.label(),
            kind: self.kind,
            message,
            outcome_unknown: self.outcome_unknown,
        }
    }

    fn hint(&self, site: &Site) -> String {
        let Site { region, endpoint } = site;
        let place = match endpoint {
            Some(endpoint) => format!("endpoint_url {endpoint}"),
            None => format!("the endpoint of region {region}"),
        };
        match self.kind {
            AwsErrorKind::Denied => self.denied_hint(),
            AwsErrorKind::Unreachable => {
                let limit = if self.timed_out {
                    ", or raise identity_center.call_timeout"
                } else {
                    ""
                };
                format!("check that this host reaches {place} and that identity_center.region is right{limit}")
            }
            AwsErrorKind::Server => format!("AWS or {place} failed; the next pass tries again"),
            AwsErrorKind::Throttled => {
                "the next pass goes on; lower identity_center.requests_per_second if something else calls \
                 Identity Center too"
                    .to_owned()
            }
            AwsErrorKind::Conflict => {
                "another operation on the same account, permission set or group is under way; the next pass tries again"
                    .to_owned()
            }
            AwsErrorKind::Misconfigured => {
                "the identity store of the instance does not exist; nothing was concluded about anybody".to_owned()
            }
            AwsErrorKind::NotFound | AwsErrorKind::Rejected => match self.code.as_deref() {
                Some("UnknownOperationException") => format!("{place} does not offer this operation"),
                Some("ServiceQuotaExceededException") => {
                    "a quota of Identity Center is used up; ask AWS to raise it".to_owned()
                }
                _ => String::new(),
            },
        }
    }

    fn denied_hint(&self) -> String {
        match self.code.as_deref() {
            _ if self.lacks_permission() => {
                let kms = if self.words.contains("KMS") || self.words.contains("kms:") {
                    " and kms:Decrypt on the instance's customer managed key"
                } else {
                    ""
                };
                // Only a change can fail for what a delegated administrator may not touch.
                let pitfall = if self.call.changes() { pitfall(&self.words) } else { "" };
                format!(
                    "the credentials need {}{kms}; `dutybound iam-policy` prints the policy to attach{pitfall}",
                    self.call.iam_action()
                )
            }
            Some("InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestExpired") => {
                "check the secret access key and this host's clock".to_owned()
            }
            _ => "check the AWS credentials of this process (environment, profile, web identity, container, \
                  instance role): missing, expired or of another partition; a profile with SSO needs `aws sso login`"
                .to_owned(),
        }
    }
}

/// What a person should know about refusals that concern the organisation's management account.
pub(super) fn pitfall(words: &str) -> &'static str {
    let words = words.to_ascii_lowercase();
    let denied = words.contains("403") || words.contains("access denied") || words.contains("not authorized");
    if denied {
        "; a delegated administrator can change neither the management account nor a permission set that is also \
         provisioned there, and assignments in the management account need further iam:* permissions"
    } else {
        ""
    }
}

fn kind_of(code: Option<&str>, words: &str, status: u16) -> AwsErrorKind {
    let lower = words.to_ascii_lowercase();
    if lower.contains("rate exceeded") || lower.contains("too many requests") {
        return AwsErrorKind::Throttled;
    }
    match code.unwrap_or_default() {
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException" => AwsErrorKind::Throttled,
        "ConflictException" => AwsErrorKind::Conflict,
        "ResourceNotFoundException" => AwsErrorKind::NotFound,
        "AccessDeniedException"
        | "AccessDenied"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "NotAuthorized"
        | "OptInRequired" => AwsErrorKind::Denied,
        _ => match status {
            429 => AwsErrorKind::Throttled,
            401 | 403 => AwsErrorKind::Denied,
            500.. => AwsErrorKind::Server,
            _ => AwsErrorKind::Rejected,
        },
    }
}

/// The body, where it is JSON.
fn json_of(raw: &HttpResponse) -> Value {
    let body = raw.body().bytes().unwrap_or_default();
    serde_json::from_slice(body).unwrap_or_default()
}

/// All messages of an error's chain, without repeating a message that its parent already contains.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = inner.source();
    }
    text
}

fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Foreign text made safe to show: no control characters, no invisible or direction-changing ones, 300 characters.
pub(super) fn sanitise(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut clean = text.chars().map(|c| match c {
        c if c.is_control() => ' ',
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => ' ',
        c => c,
    });
    let mut kept: String = clean.by_ref().take(LONGEST).collect();
    if clean.next().is_some() {
        kept.push('…');
    }
    kept.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_cannot_steer_a_terminal() {
        let hostile = format!("a\u{1b}[31m\r\nb\u{202e}c{}", "x".repeat(400));
        let clean = sanitise(&hostile);
        assert!(clean.starts_with("a [31m  b cxxx") && clean.ends_with('…'), "{clean}");
        assert_eq!(clean.chars().count(), 301);
    }

    #[test]
    fn codes_mean_what_they_mean() {
        for (code, words, status, kind) in [
            (Some("ThrottlingException"), "", 400, AwsErrorKind::Throttled),
            (Some("Odd"), "Rate exceeded", 400, AwsErrorKind::Throttled),
            (Some("ExpiredTokenException"), "", 400, AwsErrorKind::Denied),
            (Some("ValidationException"), "", 400, AwsErrorKind::Rejected),
            (Some("InternalServerException"), "", 500, AwsErrorKind::Server),
            // A proxy's 404 is not AWS saying that a person does not exist.
            (None, "", 404, AwsErrorKind::Rejected),
            (None, "", 403, AwsErrorKind::Denied),
            (None, "", 503, AwsErrorKind::Server),
        ] {
            assert_eq!(kind_of(code, words, status), kind, "{code:?} {words:?} {status}");
        }
    }
}
