//! The streaming reverse proxy: nothing buffered, on either side HTTP/1.1 or HTTP/2.

mod address;
mod alarm;
mod answer;
pub(crate) mod body;
mod check;
mod config;
mod forward;
mod gate;
mod headers;
mod health;
mod http1;
mod http2;
mod outbound;
mod pool;
mod send;
mod slowness;
mod standing;
mod target;
mod tls;
mod trailers;
mod tunnel;
mod upgrade;
mod upstream;

pub(crate) use alarm::Alarm;
pub(crate) use check::check;
pub use config::{
    AssertionKey, Balance, HealthPolicy, InvalidUpstream, UpstreamConfig, UpstreamProtocol,
    UpstreamTls,
};
pub(crate) use forward::{forward, too_large};
pub(crate) use headers::{
    SPEAKS_OF_CALLER, check_headers, ends_here, is_ours_in_an_answer, is_tenant_header,
    speaks_of_caller,
};
pub(crate) use outbound::Passage;
pub use slowness::BodyRate;
pub(crate) use standing::{Loss, Standing, Vigil};
pub(crate) use tunnel::{Opened, Passed, Tunnel, TunnelEnd};
pub(crate) use upstream::Upstreams;
