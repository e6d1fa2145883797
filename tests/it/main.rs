//! Everything is proven through the front door: the real binary, or a pass against simulated services over HTTP.

mod adversary;
mod applying;
mod backtest;
mod bad_input;
mod check;
mod compare;
mod corpus;
mod crash;
mod daemon;
mod demo;
mod edits;
mod faults;
mod forecast;
mod harness;
mod ledger_faults;
mod notify;
mod one_shot;
mod planning;
mod readme;
mod restored;
mod review;
mod scenarios;
mod seen;
mod training;
mod tree;
