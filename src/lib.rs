//! dutybound: AWS access for exactly as long as people are on call.
//!
//! # Map
//!
//! ```text
//!  access.d/*.toml ──► policy ───┐
//!                                ▼
//!  PagerDuty ─┐                desired(policy, snapshots, t)     pure
//!  Opsgenie  ─┴► schedule ───►   │
//!    (complete snapshots,        ▼
//!     kept in the ledger)      plan(desired, live, owned)        pure ──► plan::render
//!                                │
//!  Identity Center ─► live ──────┤
//!  ledger ─► owned, predicted ───┤
//!                                ▼
//!                              guard(plan, conditions)           pure ──► held
//!                                │ ApprovedPlan
//!                                ▼
//!                              apply ──► intent ─► AWS ─► outcome (ledger)
//!
//!  ledger ─► accounting (pure) ─► metrics, report
//!  ledger's events ─► stream ─► syslog, files, collectors (beside everything else: no pass waits for it)
//!  policy + snapshots ─► forecast, compare, review (pure) ─► `forecast`, `backtest`, `diff --base`, `review`
//! ```
//!
//! Beside this, [`import`] writes down as policy what stands in AWS, and `adopt` takes it over.
//!
//! Data moves one way. [`survey`] is the reading half of a pass and has no way to write; [`reconcile`] is one pass of
//! everything; [`daemon`] decides when to make one; [`poll`] keeps the schedules current beside it; [`notify`] tells people; [`app`] puts the
//! parts together for each command.
//!
//! # Invariants
//!
//! - An error reading any source never reduces what should be. A partial read does not exist as a value.
//! - Nothing is written to AWS without an [`guard::ApprovedPlan`], which only [`guard`] makes, and a committed intent.
//! - Only what the ledger says we granted is revoked, unless an entitlement is declared exclusive. Users, groups,
//!   accounts and permission sets are never created or deleted.
//! - Same inputs, same plan, byte for byte. What was applied is not planned again.
//! - A completed row of the ledger never changes; intervals of one grant never overlap.
//! - The live state decides what is; the ledger decides only what is ours.
//! - The pure modules read no clock and do no IO: time is an argument.

// The vocabulary.
mod along;
pub mod layout;
pub mod model;
pub mod problem;
mod side_by_side;
pub mod text;

// What people write.
pub mod config;
pub mod diagnostics;
pub mod document;
pub mod policy;
pub mod schema;
pub mod secret;

// The world outside.
pub mod clock;
pub mod identity_center;
pub mod live;
pub mod schedule;
pub mod signing;
pub mod telemetry;

// The pure core.
pub mod accounting;
pub mod compare;
pub mod desired;
pub mod forecast;
pub mod guard;
pub mod iam_policy;
pub mod invariant;
pub mod plan;
pub mod review;
pub mod unfinished;

// The record, and what carries things out.
pub mod apply;
pub mod authors;
pub mod flagged;
pub mod import;
pub mod ledger;
pub mod notify;
pub mod poll;
pub mod reconcile;
pub mod restore;
pub mod stream;
pub mod survey;

// What people see and run.
pub mod app;
pub mod checkout;
pub mod cli;
pub mod commands;
pub mod daemon;
pub mod http;
pub mod metrics;
pub mod pages;

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
