//! Simulated PagerDuty, Opsgenie and IAM Identity Center over real HTTP on loopback, with scripted faults and a journal of every call.
//!
//! [`Sandbox::start`] binds one port for each service and serves the [`World`] it was given; tests change that world at
//! any time, script a [`Fault`] and read the journal. Nothing here is shared with the daemon, so that the two cannot
//! share a mistake.

mod aws;
mod control;
mod faults;
mod journal;
mod opsgenie;
mod pagerduty;
mod request;
mod server;
mod state;
mod wire;
pub mod world;

pub use faults::{Effect, Fault};
pub use journal::{Call, Service};
pub use server::{Ports, Sandbox};
pub use state::{TimedOut, View};
pub use world::World;
