//! What is remembered of every request: one struct feeds log, metrics and usage.

use std::net::IpAddr;

use http::{HeaderValue, Method};

use keyward_core::catalog::Route;
use keyward_core::error::ErrorCode;
use keyward_core::id::RequestId;
use keyward_core::key::SecretKind;
use keyward_core::time::Timestamp;

use crate::keyset::KnownKey;
use crate::metrics::{CLIENT_GONE, Counted};
use crate::plane::DataPlane;
use crate::proxy::{Loss, Passed, Standing, TunnelEnd};
use crate::usage::Use;

/// One request from its head to the head of its answer.
pub(crate) struct Record<'p> {
    pub(crate) request_id: RequestId,
    /// How the proxy asked that would forward it; `None` for the gateway itself.
    pub(crate) contract: Option<&'static str>,
    pub(crate) trace: Option<HeaderValue>,
    pub(crate) agent: Option<HeaderValue>,
    pub(crate) method: Method,
    pub(crate) client: IpAddr,
    pub(crate) at: Timestamp,
    pub(crate) started_ns: u64,
    pub(crate) matched: Option<Matched<'p>>,
    pub(crate) key: Option<KnownKey<'p>>,
    pub(crate) permitted: bool,
}

/// The route of a request.
#[derive(Clone, Copy)]
pub(crate) struct Matched<'p> {
    pub(crate) route: &'p Route,
    pub(crate) position: usize,
}

/// Whether a request got an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The head of an answer was made.
    Answered,
    /// The caller left before that.
    ClientGone,
}

/// The outcome in the log of a stream that was cut.
const AUTHORITY_LOST: &str = "authority_lost";

/// Records how a stream ended whose key may not make its request any more. The request itself was
/// recorded when its answer began.
pub(crate) fn stream_cut(plane: &DataPlane, stream: &Standing, loss: Loss) {
    plane.recorder.metrics.count_cut(stream.route as usize, loss);
    let key = plane.authority.keys.present(stream.key);
    let format = plane.authority.keys.keyring().format();
    let duration_ns = plane.clock.monotonic_ns().saturating_sub(stream.begun_ns);
    let route = stream.route(plane);
    tracing::info!(
        target: "keyward::request",
        request_id = %stream.request_id,
        method = route.map(|route| route.method.as_str()),
        route = route.map(|route| route.template.as_str()),
        outcome = AUTHORITY_LOST,
        failed = loss.step(),
        error_code = loss.code().as_str(),
        reason = loss.reason(),
        tenant = key.as_ref().map(|key| tracing::field::display(key.tenant.id)),
        env = stream.environment.as_str(),
        key_id = %stream.key,
        key_prefix = format.head(SecretKind::Api(stream.environment)),
        integration = key.as_ref().map(|key| &*key.name),
        duration_ms = duration_ns / 1_000_000,
        ip = %stream.client,
        "stream cut"
    );
}

/// Records how a connection ended that was handed over. Its request was recorded when it began.
pub(crate) fn tunnel_closed(plane: &DataPlane, passed: &Passed) {
    let Passed { standing, received, sent, end } = passed;
    plane.recorder.metrics.count_tunnel(*received, *sent);
    if let TunnelEnd::Lost(loss) = end {
        stream_cut(plane, standing, *loss);
    }
    if !plane.policy.request_log {
        return;
    }
    let key = plane.authority.keys.present(standing.key);
    let duration_ns = plane.clock.monotonic_ns().saturating_sub(standing.begun_ns);
    tracing::info!(
        target: "keyward::request",
        request_id = %standing.request_id,
        route = standing.route(plane).map(|route| route.template.as_str()),
        outcome = end.as_str(),
        tenant = key.as_ref().map(|key| tracing::field::display(key.tenant.id)),
        env = standing.environment.as_str(),
        key_id = %standing.key,
        integration = key.as_ref().map(|key| &*key.name),
        bytes_received = *received,
        bytes_sent = *sent,
        duration_ms = duration_ns / 1_000_000,
        ip = %standing.client,
        "websocket closed"
    );
}

/// How a request ended.
#[derive(Clone, Copy)]
pub(crate) struct Ending<'e> {
    pub(crate) outcome: Outcome,
    pub(crate) status: u16,
    pub(crate) code: Option<ErrorCode>,
    /// Text of an error that stays inside.
    pub(crate) internal: Option<&'e str>,
}

/// Bytes of a method in the log; the registered ones have up to 17.
const MAX_SHOWN_METHOD: usize = 32;

fn shown(method: &Method) -> &str {
    let method = method.as_str();
    method.get(..MAX_SHOWN_METHOD).unwrap_or(method)
}

/// The status in the log of a request whose caller left before the answer.
const CLIENT_GONE_STATUS: u16 = 499;

impl Ending<'_> {
    /// The caller left before the answer.
    pub(crate) const CLIENT_GONE: Self = Self {
        outcome: Outcome::ClientGone,
        status: CLIENT_GONE_STATUS,
        code: None,
        internal: None,
    };
    /// A fault of ours ended it.
    pub(crate) const PANICKED: Self = Self {
        outcome: Outcome::Answered,
        status: 500,
        code: Some(ErrorCode::Internal),
        internal: Some("a panic"),
    };
    /// This node stopped before the answer.
    pub(crate) const CUT: Self = Self {
        outcome: Outcome::Answered,
        status: 503,
        code: Some(ErrorCode::Unavailable),
        internal: Some("cut at the end of the drain"),
    };
}

impl Record<'_> {
    /// Feeds what is kept of every request. Always runs.
    pub(crate) fn close(&self, plane: &DataPlane, ending: Ending<'_>) {
        let duration_ns = plane.clock.monotonic_ns().saturating_sub(self.started_ns);
        plane.recorder.metrics.count(&Counted {
            route: self.matched.map(|matched| matched.position),
            code: ending.code,
            status: ending.status,
            outcome: ending.outcome,
            duration_ns,
        });
        if let Some(key) = &self.key {
            plane.recorder.usage.note(&Use {
                tenant: key.tenant.id,
                key: key.id,
                permitted: self.permitted,
                at: self.at,
                ip: self.client,
                agent: self.agent.as_ref().map(HeaderValue::as_bytes),
            });
        }
        if plane.policy.request_log {
            self.log(plane, ending, duration_ns);
        } else if let Some(internal) = ending.internal {
            let request_id = self.request_id;
            tracing::warn!(%request_id, internal, "a request failed");
        }
    }

    /// Names keys by id and prefix, paths by template: no caller's text but the name of the key
    /// and the beginning of the method.
    fn log(&self, plane: &DataPlane, ending: Ending<'_>, duration_ns: u64) {
        let key = self.key.as_ref();
        let prefix = key.map(|key| {
            let format = plane.authority.keys.keyring().format();
            format.head(SecretKind::Api(key.environment))
        });
        let trace = self.trace.as_ref().and_then(|trace| trace.to_str().ok());
        let begun = format!("{:032x}", self.request_id.bits());
        let trace_id = trace.and_then(|trace| trace.get(3..35)).unwrap_or(&begun);
        tracing::info!(
            target: "keyward::request",
            request_id = %self.request_id,
            trace_id,
            forward_auth = self.contract,
            method = shown(&self.method),
            route = self.matched.map(|matched| matched.route.template.as_str()),
            status = ending.status,
            error_code = ending.code.map(ErrorCode::as_str),
            outcome = (ending.outcome == Outcome::ClientGone).then_some(CLIENT_GONE),
            tenant = key.map(|key| tracing::field::display(key.tenant.id)),
            env = key.map(|key| key.environment.as_str()),
            key_id = key.map(|key| tracing::field::display(key.id)),
            key_prefix = prefix,
            integration = key.map(|key| &*key.name),
            duration_ms = duration_ns / 1_000_000,
            ip = %self.client,
            internal = ending.internal,
            "request"
        );
    }
}
