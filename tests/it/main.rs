//! Everything is proven through the front door: the real binary, or a pass against simulated services over HTTP.

mod applying;
mod bad_input;
mod check;
mod corpus;
mod crash;
mod daemon;
mod demo;
mod edits;
mod faults;
mod harness;
mod ledger_faults;
mod one_shot;
mod planning;
mod readme;
mod scenarios;
