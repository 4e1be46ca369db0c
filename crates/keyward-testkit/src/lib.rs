//! Databases, clocks, upstreams and actors for the tests of Keyward.
#![expect(
    clippy::expect_used,
    reason = "a fixture that cannot be made fails its test"
)]

mod database;
mod postgres;

pub use database::TestDatabase;
