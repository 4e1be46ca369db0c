//! The whole product over real sockets, on each engine at hand. Tests named after a requirement
//! carry its id.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, and says where"
)]

mod accept;
mod acme;
mod away;
mod certificates;
mod coverage;
mod deploy;
mod embedded;
mod exposed;
mod forward_auth;
mod harness;
mod keys;
mod nodes;
mod operations;
mod pooled;
mod restore;
mod roles;
mod secrets;
mod starting;
mod supervised;
mod tenancy;
mod upstreams;
mod verify;
