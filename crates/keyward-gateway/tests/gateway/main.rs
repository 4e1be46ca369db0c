//! The data plane over real sockets: its own upstream, its own clients, a clock moved by hand.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails, and says where"
)]

mod answers;
mod asking;
mod decisions;
mod embedded;
mod encrypted;
mod entrances;
mod envoy_grpc;
mod exposures;
mod floods;
mod forward_auth;
mod frames;
mod grpc;
mod health;
mod http2;
mod http2_upstreams;
mod identity;
mod lent;
mod logging;
mod nginx_upstream;
mod protocol;
mod proxies;
mod serving;
mod slow_bodies;
mod speakers;
mod streaming;
mod streams;
mod support;
mod taken_back;
mod trailers;
mod untaken;
mod upstreams;
mod verify;
mod websockets;
