//! Everything is proven through the front door: the real binary, or a pass against simulated services over HTTP.

mod planning;
//! Tests of the program as its users meet it.

mod check;
