//! Requests that turn their connection into a WebSocket (RFC 6455 §4), on routes that allow it.

use std::time::Duration;

use http::header::{CONNECTION, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version};
use http_body::Body as _;

use crate::answer::Refusal;
use crate::identity::{Inked, Sheet};
use crate::lookup::words;
use crate::proxy::body::PlaneBody;
use crate::proxy::forward::bad_answer;
use crate::proxy::headers::strip_response;
use crate::proxy::http1;
use crate::proxy::pool::{Channel, Connection, Lease};
use crate::proxy::send::{Answered, SendError};
use crate::proxy::standing::Standing;
use crate::proxy::target::Target;
use crate::proxy::tunnel::{Opened, Tunnel};
use crate::proxy::upstream::Upstream;
use crate::server::ArrivingBody;

static WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
static UPGRADES: HeaderValue = HeaderValue::from_static("upgrade");

/// Whether a request without a body asks to turn its connection into a WebSocket, as one of
/// HTTP/1.1 can.
pub(super) fn asked_for(parts: &Parts, body: &ArrivingBody) -> bool {
    parts.version == Version::HTTP_11
        && parts.method == Method::GET
        && body.is_end_stream()
        && names_websocket(&parts.headers)
        // a proxy in front that hands `Upgrade` on without meaning it expects an ordinary answer
        && words(&parts.headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"))
        && parts.headers.contains_key(SEC_WEBSOCKET_KEY)
}

/// Whether a message names WebSocket and nothing else.
fn names_websocket(headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(UPGRADE).iter();
    let only = named.next().filter(|_| named.next().is_none());
    only.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
}

/// Whether an answer agrees to the WebSocket that was asked for.
pub(super) fn is_agreed<B>(answer: &Response<B>) -> bool {
    answer.status() == StatusCode::SWITCHING_PROTOCOLS
        && names_websocket(answer.headers())
        && answer.headers().contains_key(SEC_WEBSOCKET_ACCEPT)
}

/// Says in a head, behind whatever was taken out of it, that the connection changes.
pub(super) fn say_so(sheet: &mut impl Sheet) {
    sheet.set(&CONNECTION, &UPGRADES);
    sheet.set(&UPGRADE, &WEBSOCKET);
}

/// The answer to a caller whose connection is handed over, with the tunnel among its extensions.
///
/// # Errors
/// The answer came on no connection of its own.
pub(super) fn hand_over(
    answered: Answered,
    standing: Standing,
    idle: Duration,
) -> Result<Response<PlaneBody>, Refusal> {
    let Answered { mut response, lease: Lease { channel, held, .. }, .. } = answered;
    let Channel::Connection(upstream) = channel else {
        return Err(bad_answer("101 on one stream of many".to_owned()).into());
    };
    let mut answer = Response::new(PlaneBody::Whole(None));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    strip_response(answer.headers_mut(), false);
    say_so(&mut Inked::new(answer.headers_mut()));
    let tunnel = Tunnel { upstream: upstream.http1, standing, idle, held };
    answer.extensions_mut().insert(Opened::new(tunnel));
    Ok(answer)
}

/// A connection that may be handed over.
pub(super) async fn dial(
    target: &Target,
    upstream: &Upstream,
) -> Result<Box<Connection>, SendError> {
    let socket = target.reach_http1().await.map_err(SendError::Connect)?;
    let connection = http1::Connection::new(socket, upstream.config.body_idle_timeout);
    Ok(Connection::new(connection))
}
