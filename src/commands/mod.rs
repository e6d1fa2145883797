//! What each command does, apart from the daemon.

pub mod adopt;
pub mod apply;
pub mod audit;
pub mod backtest;
pub mod base;
pub mod check;
pub mod codeowners;
pub mod diff;
pub mod explain;
pub mod forecast;
pub mod report;
pub mod review;
pub mod revoke;
pub mod status;
pub mod tree;
