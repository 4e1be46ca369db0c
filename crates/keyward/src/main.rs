//! Keyward: a SaaS's API behind scoped keys, in one binary.

mod config;

fn main() {}
