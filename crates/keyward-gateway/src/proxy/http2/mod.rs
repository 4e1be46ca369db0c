//! HTTP/2 with upstreams: many exchanges at once on a connection.
//!
//! An exchange that is broken off takes its stream back (`RST_STREAM`, RFC 9113 §6.4). Servers count
//! these, and end a connection that sees too many of them with all that is under way on it (a
//! guard against CVE-2023-44487): one caller could end the exchanges of others. So a connection
//! takes back a few streams and then begins no more ([`resets`]), and tenants that break off again
//! and again have connections apart from the others' ([`fickle`]).

mod connection;
mod exchange;
mod fickle;
mod resets;
mod upload;

pub(super) use connection::{Multiplexed, Stream};
pub(super) use exchange::{Exchange, Fault};
pub(super) use fickle::Fickle;
