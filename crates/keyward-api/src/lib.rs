//! The wire contract of Keyward: operations, bodies, error codes, OpenAPI.
//!
//! [`operation::OPERATIONS`] is the one list of what Keyward's own API can do. The router, the
//! OpenAPI document, the clients and the authorization tests are made from it.
#![deny(missing_docs)]

pub mod admin_tokens;
pub mod audit;
pub mod bounds;
pub mod catalog;
pub mod error;
pub mod fence;
pub mod keys;
pub mod members;
pub mod nodes;
pub mod openapi;
pub mod operation;
pub mod page;
pub mod revocations;
pub mod scope;
pub mod secret;
pub mod service_accounts;
pub mod setup;
pub mod tenants;
pub mod users;
pub mod verify;
pub mod whoami;

mod schema;

pub use bounds::Bounded;
pub use operation::{OPERATIONS, Operation};
