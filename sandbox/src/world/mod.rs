//! The world that the simulated services serve: plain data that tests build, change at any time, and store as JSON.

pub mod aws;
pub(crate) mod interval;
pub mod opsgenie;
pub mod pagerduty;
mod small;

pub use interval::Rotation;

use serde::{Deserialize, Serialize};

/// Everything the three services know. The default has no people, but accepts the key `test-key` at both on-call
/// providers and any credentials at AWS.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct World {
    /// PagerDuty.
    pub pagerduty: pagerduty::PagerDuty,
    /// Opsgenie.
    pub opsgenie: opsgenie::Opsgenie,
    /// AWS IAM Identity Center.
    pub aws: aws::Aws,
}
