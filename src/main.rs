//! The dutybound program.

fn main() {}
