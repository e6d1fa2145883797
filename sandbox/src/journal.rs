//! The journal: one entry for every call that reached a simulated service.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One of the simulated services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// PagerDuty's REST API, v2 and v3, and its OAuth token endpoint.
    PagerDuty,
    /// Opsgenie's REST API v2.
    Opsgenie,
    /// AWS: `sso-admin` and `identitystore` on one endpoint.
    Aws,
}

impl Service {
    /// The name used in JSON: `pagerduty`, `opsgenie` or `aws`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PagerDuty => "pagerduty",
            Self::Opsgenie => "opsgenie",
            Self::Aws => "aws",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One call as the simulated service saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Position in the order of arrival, from 1; never reused, also not after the journal was cleared.
    pub seq: u64,
    /// When the call arrived, on the simulator's clock.
    pub at: Timestamp,
    /// The service that was called.
    pub service: Service,
    /// `GET /schedules/PABC123` for the on-call providers, the operation's name (`CreateAccountAssignment`) for AWS.
    pub operation: String,
    /// Path and query as sent.
    pub path: String,
    /// The request's JSON body, or its form fields as an object; secrets are replaced by `***`. Null when there was none.
    pub body: Value,
    /// The key that was presented, shortened to its kind (`Token`, `Bearer`, `GenieKey`, an AWS access key id).
    pub credential: Option<String>,
    /// The status answered; `None` while the call is held or delayed, and for a connection that was cut unanswered.
    pub status: Option<u16>,
    /// The AWS error code or the provider's numeric code that was answered.
    pub error: Option<String>,
    /// The fault that was applied, by its label.
    pub fault: Option<String>,
    /// Whether the service performed the operation, whatever the caller was told.
    pub performed: bool,
    /// Bytes of the answer's body, before compression; 0 while there is none.
    #[serde(default)]
    pub bytes: u64,
}

impl Call {
    /// Whether the operation changes something in AWS: the creation or deletion of an assignment or membership.
    pub fn is_write(&self) -> bool {
        self.service == Service::Aws && (self.operation.starts_with("Create") || self.operation.starts_with("Delete"))
    }

    /// Whether the caller was told that it worked.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}
