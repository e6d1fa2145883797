//! What each command does, apart from the daemon.

pub mod apply;
pub mod diff;
pub mod explain;
pub mod status;
//! The commands, each in its own module.

pub mod check;
