//! Keyward: a product's public API behind scoped keys, in one binary.
//!
//! The library is what the binary is made of; [`dev::Dev`] lets tests and programs start a whole
//! node with its sandbox in their own process, and [`embedded::EmbeddedNode`] lets an application
//! decide its requests itself.
#![deny(missing_docs)]

mod administrator;
mod bootstrap;
pub mod cli;
mod config;
mod control;
pub mod embedded;
mod node;
mod password;
mod product;
mod restore;
mod setup_link;
mod usage;
mod user_agent;

/// A node with a sandbox and demo tenants, in this process.
pub mod dev {
    pub use crate::node::SystemClock;
    pub use crate::node::dev::{Dev, DevOptions};
}
