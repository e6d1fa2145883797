//! The commands, each in its own module.

pub mod check;
