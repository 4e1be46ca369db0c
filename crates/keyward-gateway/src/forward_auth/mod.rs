//! Forward-auth: answers proxies that ask before they forward a request themselves.
//!
//! Every contract reads the request that is asked about in its own way, has it decided by the
//! stages of the gateway, and says the one answer in the words its proxies understand.

mod asked;
mod check;
mod grpc;
mod nginx;
mod settings;

use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use keyward_core::error::{Error, ErrorCode, Result};

use crate::answer::{Refusal, mark};
use crate::pipeline::{Addressee, Entrance, vouch};
use crate::plane::DataPlane;
use crate::proxy::body::PlaneBody;
use crate::proxy::speaks_of_caller;
use crate::request_id;
use crate::server::{Arrival, ArrivingRequest};

use asked::Asked;

pub use grpc::CHECK_PATH;
pub(crate) use grpc::check;
pub use settings::{ForwardAuth, InvalidProxyToken, MIN_PROXY_TOKEN_BYTES, ProxyToken};

/// Where proxies ask that send the method and address of a request as `X-Forwarded-*`, and take
/// any status: Traefik, Caddy, APISIX.
pub const FORWARD_PATH: &str = "/authz/forward";
/// Where nginx asks, with `X-Original-*`; it takes 200, 401 and 403.
pub const NGINX_PATH: &str = "/authz/nginx";
/// Before the path of a request that Envoy asks about as it came; it takes exactly 200.
pub const ENVOY_PREFIX: &str = "/authz/envoy";

/// The header that carries the secret shared with proxies.
pub(crate) static PROXY_TOKEN: HeaderName = HeaderName::from_static("keyward-proxy-token");
/// Which headers Envoy takes from a request before it forwards it.
static ENVOY_REMOVES: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// How a proxy asks over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contract {
    Forward,
    Nginx,
    Envoy,
}

impl Contract {
    /// The contract that is spoken at a path.
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path {
            FORWARD_PATH => Some(Self::Forward),
            NGINX_PATH => Some(Self::Nginx),
            _ => path.strip_prefix(ENVOY_PREFIX)?.starts_with('/').then_some(Self::Envoy),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        }
    }
}

/// Answers a proxy that asks over HTTP.
pub(crate) async fn serve(
    plane: &DataPlane,
    forward_auth: &ForwardAuth,
    arrival: &Arrival,
    contract: Contract,
    request: &mut ArrivingRequest,
) -> Response<PlaneBody> {
    // a body is none of our business; its connection ends with it unread
    let (parts, _) = request.take().into_parts();
    let asked = ask(plane, forward_auth, arrival.peer, contract, parts);
    let response = decide(plane, forward_auth, arrival, contract.as_str(), asked).await;
    match contract {
        Contract::Forward => response,
        Contract::Nginx => nginx::in_its_words(response),
        Contract::Envoy => for_envoy(plane, response),
    }
}

fn ask(
    plane: &DataPlane,
    forward_auth: &ForwardAuth,
    peer: IpAddr,
    contract: Contract,
    parts: Parts,
) -> Result<Asked> {
    admit_proxy(plane, forward_auth, peer, &parts.headers)?;
    let proxies = &plane.policy.trusted_proxies;
    match contract {
        Contract::Forward => Asked::told(&asked::FORWARDED, parts, peer, proxies),
        Contract::Nginx => Asked::told(&asked::ORIGINAL, parts, peer, proxies),
        Contract::Envoy => Asked::below(ENVOY_PREFIX, parts, peer, proxies),
    }
}

/// Refuses whoever is neither a trusted proxy nor has the secret shared with proxies: what it says
/// about a request could be made up.
fn admit_proxy(
    plane: &DataPlane,
    forward_auth: &ForwardAuth,
    peer: IpAddr,
    headers: &HeaderMap,
) -> Result<()> {
    let tokens = headers.get_all(&PROXY_TOKEN).iter();
    let mut tokens = tokens.map(HeaderValue::as_bytes);
    if plane.policy.trusted_proxies.contains(peer) || tokens.any(|it| forward_auth.admits(it)) {
        return Ok(());
    }
    let text = "The proxy in front of this API may not ask for decisions: its address is not \
                among the trusted proxies, and it sent no valid Keyward-Proxy-Token";
    let error = Error::new(ErrorCode::Forbidden, text).with("failed", "proxy");
    Err(error.because(format!("asked by {peer}")))
}

/// The gateway's answer to what is asked, or why it cannot be answered.
async fn decide(
    plane: &DataPlane,
    forward_auth: &ForwardAuth,
    arrival: &Arrival,
    contract: &'static str,
    asked: Result<Asked>,
) -> Response<PlaneBody> {
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return refused(plane, contract, error),
    };
    let entrance = Entrance {
        environments: &forward_auth.environments,
        client: asked.client,
        contract: Some(contract),
    };
    let addressee =
        Addressee { audience: &forward_auth.audience, assertion_key: &forward_auth.assertion_key };
    vouch(plane, arrival, entrance, addressee, &asked.parts).await
}

/// The refusal of a question that no decision can be made about.
fn refused(plane: &DataPlane, contract: &'static str, error: Error) -> Response<PlaneBody> {
    let id = request_id::next(plane.clock.as_ref(), plane.clock.now());
    if plane.policy.request_log {
        let (code, internal) = (error.code().as_str(), error.internal_context());
        tracing::info!(
            target: "keyward::request",
            request_id = %id,
            forward_auth = contract,
            error_code = code,
            internal,
            "a proxy was refused"
        );
    }
    let mut response = Refusal::from(error).into_response(id, &plane.product.docs_base);
    mark(response.headers_mut(), request_id::header(id), None);
    response
}

/// The headers that the upstream of a permitted request must not get.
pub(crate) fn removed_headers(plane: &DataPlane) -> impl Iterator<Item = &str> {
    let tenant = plane.product.tenant_header.as_ref().map(HeaderName::as_str);
    let tenant = tenant.filter(|name| !speaks_of_caller(name));
    crate::proxy::SPEAKS_OF_CALLER.into_iter().chain(tenant)
}

/// The same answer, and what Envoy is to take away from the request.
fn for_envoy(plane: &DataPlane, mut response: Response<PlaneBody>) -> Response<PlaneBody> {
    let names: Vec<&str> = removed_headers(plane).collect();
    let names = request_id::ascii_header(names.join(","));
    response.headers_mut().insert(&ENVOY_REMOVES, names);
    response
}
