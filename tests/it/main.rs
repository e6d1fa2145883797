//! Everything is proven through the front door: the real binary, or a pass against simulated services over HTTP.

mod check;
mod corpus;
mod planning;
mod readme;
