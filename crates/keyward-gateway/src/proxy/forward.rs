//! Forwards a permitted request: only a [`Permit`] gets here.

use http::header::CONNECTION;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Response, StatusCode, Uri, Version};
use http_body::Body as _;

use keyward_core::catalog::Route;
use keyward_core::decision::Permit;
use keyward_core::error::{Error, ErrorCode, Result as Checked};

use crate::answer::Refusal;
use crate::proxy::answer::UpstreamBody;
use crate::proxy::body::{BodyBounds, ForwardBody, PlaneBody, Progress, RequestBody, Watch};
use crate::proxy::headers::strip_response;
use crate::proxy::outbound::{Outbound, Passage};
use crate::proxy::send::{Answered, SendError};
use crate::proxy::slowness::BodyRate;
use crate::proxy::standing::Loss;
use crate::proxy::upgrade;
use crate::proxy::upstream::Upstream;
use crate::record;
use crate::server::ArrivingBody;
use crate::stall::IdleTimer;

const BAD_ANSWER: &str = "The API behind this gateway broke off or answered unintelligibly";

/// Sends the request and answers with the upstream's answer as it arrives. The permit is spent: no
/// other way leads to an upstream.
pub(crate) async fn forward(
    permit: Permit<'_>,
    upstream: &Upstream,
    passage: &Passage<'_>,
    parts: &Parts,
    body: &mut ArrivingBody,
) -> Result<Response<PlaneBody>, Refusal> {
    let bounds = bounds(permit.route(), upstream, passage);
    let allowed = permit.route().forwarding.websocket;
    let upgrades = allowed && upgrade::asked_for(parts, body);
    let (body, watch) = bounded(body, bounds, passage.tenant_header)?;
    let path = origin_form(&parts.uri)?;
    let mut outbound = Outbound::new(upstream, passage, permit.route(), parts, path);
    outbound.upgrades = upgrades;
    let sent = if upgrades {
        // rare and large, so not a part of every request's state
        Box::pin(upstream.send_upgrade(&outbound)).await
    } else {
        upstream.send(&outbound, body, watch.as_ref()).await
    };
    let sent = sent.map_err(|error| refusal(error, upstream, &outbound))?;
    if sent.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if !(upgrades && upgrade::is_agreed(&sent.response)) {
            return Err(bad_answer("101 to something else than was asked for".to_owned()).into());
        }
        let idle = upstream.config.websocket_idle_timeout;
        return upgrade::hand_over(sent, outbound.standing(), idle);
    }
    let Answered { response, lease, until } = sent;
    if let Some(watch) = &watch {
        watch.answered();
    }
    let (mut head, ()) = response.into_parts();
    let wants_trailers = outbound.wants_trailers || parts.version == Version::HTTP_2;
    strip_response(&mut head.headers, wants_trailers);
    let unfinished = |watch: &Watch| watch.progress() != Progress::Finished;
    let cut_short = watch.as_ref().is_some_and(unfinished);
    if cut_short {
        // the rest of the request is never read, so nothing may follow it on this connection
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // an answer is begun once
    let _ = passage.standing.set(outbound.standing());
    let idle = IdleTimer::within(upstream.config.body_idle_timeout, until);
    let body = UpstreamBody::new(lease, watch, idle, wants_trailers);
    Ok(Response::from_parts(head, PlaneBody::Upstream(Box::new(body))))
}

fn bounds(route: &Route, upstream: &Upstream, passage: &Passage<'_>) -> BodyBounds {
    let config = &upstream.config;
    // so a document declares that a route is for streams
    let is_unbounded = route.forwarding.timeout_ms == Some(0);
    BodyBounds {
        max_bytes: passage.max_body_bytes,
        idle: config.body_idle_timeout,
        rate: if is_unbounded { BodyRate::ANY } else { config.min_body_rate },
    }
}

fn bounded(
    body: &mut ArrivingBody,
    bounds: BodyBounds,
    tenant_header: Option<&HeaderName>,
) -> Checked<(ForwardBody, Option<Watch>)> {
    if body.is_end_stream() {
        return Ok((ForwardBody::Empty, None));
    }
    if body.size_hint().lower() > bounds.max_bytes {
        return Err(too_large(bounds.max_bytes));
    }
    let (body, watch) = RequestBody::new(body.take(), bounds, tenant_header.cloned());
    Ok((ForwardBody::Streaming(Box::new(body)), Some(watch)))
}

/// Records an upload that was cut, and makes the answer that its caller can still be given.
fn cut_upload(outbound: &Outbound<'_>, loss: Loss) -> Error {
    let (standing, plane) = (outbound.standing(), outbound.passage.plane);
    record::stream_cut(plane, &standing, loss);
    standing.refusal(plane, loss, outbound.path())
}

/// The refusal of a body past the limit.
pub(crate) fn too_large(max_bytes: u64) -> Error {
    let text = format!("The body is larger than {max_bytes} bytes");
    Error::new(ErrorCode::PayloadTooLarge, text).with("maxBytes", max_bytes)
}

/// The same path and query, byte for byte, without a scheme and host.
fn origin_form(uri: &Uri) -> Checked<&PathAndQuery> {
    uri.path_and_query().ok_or_else(|| Error::internal("a matched request has no path"))
}

fn refusal(error: SendError, upstream: &Upstream, outbound: &Outbound<'_>) -> Refusal {
    // before it is looked at again nothing can change
    let next_check = upstream.config.health.interval.as_secs().max(1);
    let retry_after = matches!(error, SendError::AllDown).then_some(next_check);
    let refusal = Refusal::from(upstream_error(error, outbound));
    Refusal { retry_after: retry_after.or(refusal.retry_after), ..refusal }
}

/// The error of an upstream that does not answer as HTTP has it.
pub(super) fn bad_answer(cause: String) -> Error {
    Error::new(ErrorCode::UpstreamUnreachable, BAD_ANSWER).because(cause)
}

fn upstream_error(error: SendError, outbound: &Outbound<'_>) -> Error {
    let unreachable = "The API behind this gateway could not be reached; try again";
    let late = "The API behind this gateway did not answer in time";
    match error {
        SendError::Connect(cause) => {
            Error::new(ErrorCode::UpstreamUnreachable, unreachable).because(cause.to_string())
        }
        SendError::ConnectTimeout => {
            Error::new(ErrorCode::UpstreamTimeout, late).because("connecting took too long")
        }
        SendError::TotalTimeout => {
            Error::new(ErrorCode::UpstreamTimeout, late).because("the whole exchange took too long")
        }
        SendError::Busy => {
            let text = "The API behind this gateway has too many requests under way; try again";
            Error::new(ErrorCode::Unavailable, text).because("no slot became free in time")
        }
        SendError::AllDown => {
            let text = "The API behind this gateway is down; try again";
            Error::new(ErrorCode::Unavailable, text).because("no address of the upstream is up")
        }
        SendError::FirstByteTimeout => {
            Error::new(ErrorCode::UpstreamTimeout, late).because("no first byte in time")
        }
        SendError::UploadStalled => {
            Error::new(ErrorCode::UpstreamTimeout, late).because("it took no more of the body")
        }
        SendError::Broken(cause) => bad_answer(cause.to_string()),
        SendError::Lost(loss) => cut_upload(outbound, loss),
        SendError::Body(Progress::TooLarge) => {
            Error::new(ErrorCode::PayloadTooLarge, "The body grew past the limit")
        }
        SendError::Body(Progress::TimedOut) => {
            let text = "The body stood still for too long, or came too slowly";
            Error::new(ErrorCode::InvalidRequest, text)
        }
        SendError::Body(_) => {
            Error::new(ErrorCode::InvalidRequest, "The body broke off or is framed wrongly")
        }
    }
}
