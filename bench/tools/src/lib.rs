//! What the programs of the benchmarks have in common.

pub mod plane;
