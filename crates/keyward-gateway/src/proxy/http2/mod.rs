//! HTTP/2 with upstreams: many exchanges at once on a connection.
//!
//! An exchange that is broken off resets its stream (RFC 9113 §6.4). Servers count resets, and end
//! a connection that sees too many of them with all that is under way on it (a guard against
//! CVE-2023-44487): one caller could end the exchanges of others. So a connection has a credit for
//! resets and then begins no more streams ([`resets`]), and tenants whose exchanges are broken off
//! again and again have connections apart from the others' ([`fickle`]).

mod connection;
mod exchange;
mod fickle;
mod resets;
mod upload;

pub(super) use connection::{Multiplexed, Stream};
pub(super) use exchange::{Exchange, Fault};
pub(super) use fickle::Fickle;
