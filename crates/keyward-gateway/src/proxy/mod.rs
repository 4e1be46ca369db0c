//! The streaming reverse proxy: HTTP/1.1 on both sides, nothing buffered.

pub(crate) mod body;
mod forward;
mod headers;
mod outbound;
mod pool;
mod standing;
mod stream;
mod upstream;

pub(crate) use forward::{forward, too_large};
pub(crate) use headers::check_headers;
pub(crate) use outbound::Passage;
pub(crate) use pool::Alarm;
pub(crate) use standing::{Loss, Standing, Vigil};
pub(crate) use upstream::Upstreams;
pub use upstream::{AssertionKey, InvalidUpstream, UpstreamConfig};
