//! A listener whose requests the binary answers has the bounds of the others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};

use keyward_gateway::{BoxedBody, ConnectionLimits, Fallback, LentServer, Peer, Protocols};

use crate::support::*;

/// Answers with the method, the path and the caller, once the body is there.
fn telling() -> Fallback {
    Arc::new(|request: http::Request<keyward_gateway::ArrivingBody>| {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_or(0, |whole| whole.to_bytes().len());
            let Peer(peer) = parts.extensions.get::<Peer>().unwrap();
            let text = format!("{} {} {peer} {body}", parts.method, parts.uri);
            let body = Full::from(Bytes::from(text)).map_err(|never| match never {});
            Response::new(BoxedBody::new(body))
        })
    })
}

fn lent(limits: ConnectionLimits) -> LentServer {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    LentServer::bind(
        &[any],
        World::new().plane(Vec::new()),
        telling(),
        limits,
        Protocols::default(),
    )
    .unwrap()
}

#[tokio::test]
async fn every_request_is_the_binarys_also_one_to_the_path_of_verify() {
    let server = lent(ConnectionLimits::default());
    let request = b"POST /v1/verify HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
    let answer = raw(server.local_addr(), request).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "POST /v1/verify 127.0.0.1 2"));
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_answered_with_the_envelope() {
    let server = lent(ConnectionLimits::default());
    for (head, code) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "invalid_request"),
        ("nonsense\r\n\r\n".to_owned(), "invalid_request"),
        (
            format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(20_000)),
            "headers_too_large",
        ),
    ] {
        let answer = raw(server.local_addr(), head.as_bytes()).await;
        assert_eq!((answer.refusal().1.as_str(), answer.closed), (code, true));
    }
}

#[tokio::test]
async fn stalled_callers_lock_nobody_out() {
    let server = lent(ConnectionLimits {
        max_connections: 3,
        max_connections_per_address: 2,
        header_timeout: Duration::from_millis(50),
        body_timeout: Duration::from_millis(50),
        ..ConnectionLimits::default()
    });
    let address = server.local_addr();
    let mut no_head = Client::connect(address).await;
    no_head.write(b"POST /v1/setup HTTP/1.1\r\n").await;
    let mut no_body = Client::connect(address).await;
    no_body.write(b"POST /v1/setup HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n").await;
    assert!(Client::connect(address).await.is_closed().await, "a third of one address");
    assert!(no_head.is_closed().await, "a head that never ends");
    no_body.answer().await;
    drop((no_head, no_body));
    let mut client = Client::connect(address).await;
    client.write(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.body, "GET /livez 127.0.0.1 0");
}

#[tokio::test]
async fn a_socket_that_listens_already_can_be_lent_and_drained() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let plane = World::new().plane(Vec::new());
    let limits = ConnectionLimits::default();
    let server = LentServer::on(socket, plane, telling(), limits, Protocols::default()).unwrap();
    assert_eq!(server.local_addr(), address);
    let mut client = Client::connect(address).await;
    client.write(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.body, "GET /a 127.0.0.1 0");
    assert!(server.drain(PATIENCE).await);
    assert!(client.is_closed().await);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
