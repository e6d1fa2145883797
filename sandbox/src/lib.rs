//! Simulated PagerDuty, Opsgenie and IAM Identity Center over real HTTP on loopback, with scripted faults and a journal of every call.
//!
//! [`Sandbox::start`] binds one port for each service and serves the [`World`] it was given; tests change that world at
//! any time, script a [`Fault`] and read the journal. Nothing here is shared with the daemon, so that the two cannot
//! share a mistake.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use dutybound_sandbox::{Fault, Sandbox, Service, World};
//! use jiff::{SignedDuration, Timestamp};
//!
//! let world = World::small_organisation(Timestamp::now(), SignedDuration::from_secs(20));
//! let sandbox = Sandbox::start(world).await?;
//! sandbox.fault(Fault::on(Service::Aws, "CreateAccountAssignment").times(1).lost_reply());
//! // Point a client at `sandbox.pagerduty_url()`, `sandbox.opsgenie_url()` and `sandbox.aws_url()`.
//! let granted = |view: dutybound_sandbox::View<'_>| {
//!     view.world.aws.holds("111122223333", "AdministratorAccess", "alice@example.com")
//! };
//! sandbox.wait_for(granted, Duration::from_secs(10)).await?;
//! assert!(sandbox.journal().iter().any(|call| call.is_write()));
//! # Ok(())
//! # }
//! ```

mod aws;
mod control;
mod faults;
mod journal;
mod opsgenie;
pub mod organisation;
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
