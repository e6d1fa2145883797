//! Counts the calls that leave the process, by service, operation and outcome.

use prometheus::{IntCounterVec, Opts};

/// A shared counter of outgoing API calls. Cloning shares the counter.
#[derive(Debug, Clone)]
pub struct ApiCalls {
    counter: IntCounterVec,
}

/// How a call ended; the closed set of values of the `outcome` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// A usable answer.
    Ok,
    /// 429, or one of AWS's throttling errors.
    Throttled,
    /// AWS's ConflictException.
    Conflict,
    /// 401 or 403, or AWS's equivalents.
    Denied,
    /// 404, or AWS's ResourceNotFoundException.
    NotFound,
    /// No answer within the time limit.
    Timeout,
    /// Everything else.
    Error,
}

impl CallOutcome {
    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Throttled => "throttled",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Timeout => "timeout",
            Self::Error => "error",
        }
    }
}

impl ApiCalls {
    /// # Errors
    /// Never in practice: the metric's name and labels are constants that the prometheus crate checks.
    pub fn new() -> Result<Self, prometheus::Error> {
        let opts = Opts::new(
            "dutybound_api_calls_total",
            "Calls made to providers and to AWS, by service, operation and outcome.",
        );
        Ok(Self {
            counter: IntCounterVec::new(opts, &["service", "operation", "outcome"])?,
        })
    }

    /// Counts one call. `service` is a source's name, `ssoadmin` or `identitystore`; `operation` is a constant
    /// such as `GET /oncalls` or `CreateAccountAssignment`, never a path with ids in it.
    pub fn record(&self, service: &str, operation: &'static str, outcome: CallOutcome) {
        self.counter
            .with_label_values(&[service, operation, outcome.as_str()])
            .inc();
    }

    /// For registration with a Prometheus registry.
    #[must_use]
    pub fn collector(&self) -> IntCounterVec {
        self.counter.clone()
    }
}
