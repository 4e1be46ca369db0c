//! The nouns and rules of Keyward: no I/O, no async, no clock, no randomness of its own.
//!
//! Everything here is decided from its arguments. [`decide`](decision::decide) is the one place
//! that grants; the gateway, verify and every embedding call it.

pub mod assertion;
pub mod audit;
pub mod authority;
pub mod base62;
pub mod caller;
pub mod catalog;
pub mod clock;
pub mod decision;
pub mod denial;
pub mod environment;
pub mod error;
pub mod fingerprint;
pub mod id;
pub mod ip;
pub mod json;
pub mod key;
pub mod lease;
pub mod mac;
pub mod path;
pub mod profile;
pub mod scope;
pub mod secret;
pub mod time;

pub use caller::Caller;
pub use catalog::Catalog;
pub use clock::Clock;
pub use environment::Environment;
pub use error::{Error, ErrorCode, Result};
pub use time::Timestamp;
