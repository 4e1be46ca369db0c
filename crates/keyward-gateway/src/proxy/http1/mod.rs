//! HTTP/1.1 with upstreams. A connection has no task of its own: whoever waits for an answer, or
//! reads its body, drives what is still sent as well.

mod connection;
mod head;
mod socket;
mod upload;

#[cfg(test)]
mod tests;

pub(super) use connection::{Connection, Fault};
pub(super) use socket::Socket;
