//! The data plane of Keyward: the gateway in front of a product's API, verify and forward-auth.
//!
//! A [`DataPlane`] holds what decisions are made with; [`GatewayServer`] and [`InternalServer`]
//! listen for it, and a [`LentServer`] guards the control plane in the same way. Every request
//! passes the stages of `pipeline` in order, and is granted by [`keyward_core::decision::decide`]
//! or refused. Nothing here waits for the store: the binary feeds [`KeySet`] and [`AdminTokens`]
//! from the change log, and takes usage out.
#![deny(missing_docs)]

mod admin_tokens;
mod answer;
pub mod authority;
mod builtin;
mod carrier;
mod client_address;
pub mod embed;
mod exposures;
mod failed_callers;
mod forward_auth;
mod http1;
mod identity;
mod internal;
mod keyset;
mod lent;
mod lookup;
mod metrics;
mod pipeline;
mod plane;
mod primitives;
mod proxy;
mod recall;
mod record;
mod request_id;
mod server;
mod spare;
mod stall;
mod usage;
mod verify;

pub use admin_tokens::{AdminCaller, AdminDenial, AdminTokens};
pub use builtin::{BuiltinCall, BuiltinCaller, BuiltinHandler, Builtins, MAX_BUILTIN_BODY_BYTES};
pub use client_address::Networks;
pub use exposures::{ExposedRow, MAX_EXPOSED_KEYS};
pub use failed_callers::{FAILURE_BURST, FORGIVE_EVERY_MS, MAX_CALLERS};
pub use forward_auth::{
    CHECK_PATH, ENVOY_PREFIX, FORWARD_PATH, ForwardAuth, InvalidProxyToken, MIN_PROXY_TOKEN_BYTES,
    NGINX_PATH, ProxyToken,
};
pub use keyset::{DEFAULT_MAX_KEYS, KeySet, KnownKey, Recognized, TenantFacts};
pub use lent::Peer;
pub use metrics::Metrics;
pub use plane::{DataPlane, DataPlaneConfig, InvalidConfig, PlanePolicy, ProductConfig};
pub use proxy::body::{BodyError, BoxedBody};
pub use proxy::{
    AssertionKey, Balance, BodyRate, HealthPolicy, InvalidUpstream, UpstreamConfig,
    UpstreamProtocol, UpstreamTls,
};
pub use server::{
    ArrivingBody, Certificate, ChallengeAnswer, ConnectionLimits, Fallback, GatewayOptions,
    GatewayServer, InternalServer, InvalidCertificate, LentServer, ListenerEnvironments,
    MAX_CERTIFICATES, Protocols, RuntimeShape, Tls, WHOLE_BODY_TIMEOUT, head_length,
};
pub use usage::{LastUse, MAX_AGENT_BYTES, MAX_USED_KEYS, USAGE_PARTS, USAGE_TURNS, UsageRow};
pub use verify::{MAX_VERIFY_BODY_BYTES, VERIFY_PATH, VERIFY_SCOPE};
