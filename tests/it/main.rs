//! Everything is proven through the front door: the real binary, or a pass against simulated services over HTTP.

mod check;
mod daemon;
mod harness;
mod one_shot;
mod planning;
mod readme;
