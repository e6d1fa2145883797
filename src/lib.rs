//! dutybound: AWS access for exactly as long as people are on call.

pub mod clock;
pub mod config;
pub mod iam_policy;
pub mod identity_center;
pub mod model;
pub mod policy;
pub mod schedule;
pub mod telemetry;
