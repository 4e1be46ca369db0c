//! Requests that turn their connection into a WebSocket (RFC 6455 §4), on routes that allow it.

use std::time::Duration;

use http::header::{CONNECTION, HeaderMap, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::proxy::alarm::Alarm;
use crate::proxy::body::PlaneBody;
use crate::proxy::headers::strip_response;
use crate::proxy::pool::{Connection, Driver};
use crate::proxy::send::{Answered, SendError};
use crate::proxy::standing::Standing;
use crate::proxy::stream::Stream;
use crate::proxy::target::{MAX_RESPONSE_HEADERS, Socket, Target};
use crate::proxy::tunnel::{Opened, Tunnel};
use crate::proxy::upstream::Upstream;

static WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
static UPGRADES: HeaderValue = HeaderValue::from_static("upgrade");

/// The caller's side of a connection that a request without a body asks to turn into a WebSocket.
/// Only HTTP/1.1 has one.
pub(super) fn asked_for(parts: &mut Parts, body: &Incoming) -> Option<OnUpgrade> {
    let asked =
        parts.method == Method::GET && body.is_end_stream() && names_websocket(&parts.headers);
    if asked { parts.extensions.remove::<OnUpgrade>() } else { None }
}

/// Whether a message names WebSocket and nothing else.
fn names_websocket(headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(UPGRADE).iter();
    let only = named.next().filter(|_| named.next().is_none());
    only.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
}

/// Whether an answer agrees to the WebSocket that was asked for.
pub(super) fn is_agreed(answer: &Response<Incoming>) -> bool {
    answer.status() == StatusCode::SWITCHING_PROTOCOLS
        && names_websocket(answer.headers())
        && answer.headers().contains_key(SEC_WEBSOCKET_ACCEPT)
}

/// Says in a head, behind whatever was taken out of it, that the connection changes.
pub(super) fn say_so(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, UPGRADES.clone());
    headers.insert(UPGRADE, WEBSOCKET.clone());
}

/// The answer to a caller whose connection is handed over, with the tunnel among its extensions.
pub(super) fn hand_over(
    caller: OnUpgrade,
    answered: Answered,
    standing: Standing,
    idle: Duration,
) -> Response<PlaneBody> {
    let Answered { mut response, lease, .. } = answered;
    let upstream = hyper::upgrade::on(&mut response);
    let mut answer = Response::new(PlaneBody::Whole(None));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    strip_response(answer.headers_mut(), false);
    say_so(answer.headers_mut());
    let tunnel = Tunnel { caller, upstream, standing, idle, lease };
    answer.extensions_mut().insert(Opened::new(tunnel));
    answer
}

/// A connection that may be handed over.
pub(super) async fn dial(target: &Target, upstream: &Upstream) -> Result<Connection, SendError> {
    let idle = upstream.config.body_idle_timeout;
    match target.reach_http1().await.map_err(SendError::Connect)? {
        Socket::Tcp(socket) => begin(Stream::new(socket, idle)).await,
        Socket::Unix(socket) => begin(Stream::new(socket, idle)).await,
        Socket::Tls(socket) => begin(Stream::new(socket, idle)).await,
    }
}

async fn begin<S>(socket: S) -> Result<Connection, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_RESPONSE_HEADERS)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(SendError::Broken)?;
    let driver = Driver::new(tokio::spawn(connection.with_upgrades()).abort_handle());
    Ok(Connection { sender, alarm: Alarm::default(), _driver: driver })
}
