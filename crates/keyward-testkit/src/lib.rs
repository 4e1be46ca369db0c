//! Databases, clocks, real servers, raw connections and a network that fails, for the tests of
//! Keyward.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a fixture that cannot be made fails its test"
)]

mod admin_token;
mod behind;
mod browser;
mod clock;
mod database;
mod fault_proxy;
mod pg_bouncer;
mod postgres;
mod scripting;
mod server_process;
mod wire;

pub use admin_token::admin_token;
pub use behind::TextRow;
pub use browser::Browser;
pub use clock::ManualClock;
pub use database::TestDatabase;
pub use fault_proxy::{Fault, FaultProxy};
pub use pg_bouncer::PgBouncer;
pub use scripting::{command, node_with, python_with};
pub use server_process::{Program, ServerProcess};
pub use wire::{Wire, WireAnswer};
