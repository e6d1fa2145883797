//! dutybound: AWS access for exactly as long as people are on call.

pub mod accounting;
pub mod app;
pub mod apply;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod desired;
pub mod diagnostics;
pub mod document;
pub mod guard;
pub mod http;
pub mod iam_policy;
pub mod identity_center;
pub mod ledger;
pub mod live;
pub mod metrics;
pub mod model;
pub mod plan;
pub mod policy;
pub mod poll;
pub mod problem;
pub mod reconcile;
pub mod schedule;
pub mod schema;
pub mod secret;
pub mod survey;
pub mod telemetry;
pub mod text;

/// An error and its causes on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
