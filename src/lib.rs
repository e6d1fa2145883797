//! dutybound: AWS access for exactly as long as people are on call.

pub mod clock;
pub mod commands;
pub mod config;
pub mod diagnostics;
pub mod document;
pub mod identity_center;
pub mod model;
pub mod policy;
pub mod schedule;
pub mod schema;
pub mod secret;
pub mod telemetry;
