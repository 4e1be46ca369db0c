//! The nouns and rules of Keyward: no I/O, no async, no clock, no randomness of its own.
//!
//! Everything here is decided from its arguments. [`decide`](decision::decide) is the one place
//! that grants; the gateway, verify and every embedding call it.

pub mod assertion;
pub mod base62;
pub mod clock;
pub mod error;
pub mod id;
pub mod time;

pub use clock::Clock;
pub use error::{Error, ErrorCode, Result};
pub use time::Timestamp;
