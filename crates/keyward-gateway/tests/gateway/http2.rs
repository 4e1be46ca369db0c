//! Callers that speak HTTP/2.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

use keyward_core::environment::Environment;
use keyward_gateway::{GatewayOptions, RuntimeShape};

use crate::frames::*;
use crate::streams::{EVENTS, READ, Scene};
use crate::support::*;

type Http2 = SendRequest<Full<Bytes>>;

pub(crate) fn h2c(options: &mut GatewayOptions) {
    options.protocols.h2c = true;
}

pub(crate) async fn connect(address: SocketAddr) -> Http2 {
    let stream = TcpStream::connect(address).await.unwrap();
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (client, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    client
}

fn request(token: &str, method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://api.test{path}"))
        .header("x-api-key", token)
        .body(Full::from(body.to_owned()))
        .unwrap()
}

pub(crate) async fn exchange(
    client: &mut Http2,
    request: Request<Full<Bytes>>,
) -> (StatusCode, http::HeaderMap, Vec<u8>) {
    let sent = async {
        client.ready().await.unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        let (head, body) = response.into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes().to_vec())
    };
    tokio::time::timeout(PATIENCE, sent).await.expect("an answer in time")
}

#[tokio::test]
async fn a_request_is_answered_as_over_http_11() {
    let stage = stage_with(h2c, None).await;
    let mut client = connect(stage.server.local_addr()).await;
    let posted = request(&stage.world.token, "POST", "/v1/reports?a=b%20c", "hello");
    let (status, headers, body) = exchange(&mut client, posted).await;
    assert_eq!((status.as_u16(), headers["x-upstream"].to_str().unwrap()), (200, "told"));
    assert!(headers["x-request-id"].to_str().unwrap().starts_with("req_"));
    let told: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(told["target"], "/v1/reports?a=b%20c");
    assert_eq!(told["body"], "hello");
    let sent = &told["headers"];
    assert_eq!(sent["x-forwarded-host"], "api.test");
    assert_eq!(sent["x-forwarded-proto"], "http");
    assert_eq!(sent["content-length"], "5");
    assert_eq!(sent["x-api-key"], Value::Null);
    // and HTTP/1.1 on the same port
    stage.send("GET", "/v1/reports", "").await.told();

    let (status, headers, body) =
        exchange(&mut client, request("nonsense", "GET", "/v1/reports", "")).await;
    let refusal: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (status.as_u16(), refusal["error"]["code"].as_str()),
        (401, Some("invalid_api_key"))
    );
    assert_eq!(headers.get("connection"), None);
    let (status, headers, body) =
        exchange(&mut client, request(&stage.world.token, "HEAD", "/v1/reports", "")).await;
    assert_eq!((status.as_u16(), body.len()), (200, 0));
    assert!(headers.contains_key("content-length"));
}

#[tokio::test]
async fn large_bodies_pass_both_ways_and_too_large_ones_are_refused() {
    let small = |options: &mut GatewayOptions| {
        h2c(options);
        options.limits.max_body_bytes = 3_000_000;
        options.runtime = RuntimeShape::PerCore(1);
    };
    let stage = stage_with(small, None).await;
    let mut client = connect(stage.server.local_addr()).await;
    let long = "x".repeat(2_500_000);
    let posted = request(&stage.world.token, "POST", "/v1/reports", &long);
    let (status, _, body) = exchange(&mut client, posted).await;
    let told: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status.as_u16(), told["body"].as_str().unwrap().len()), (200, long.len()));
    let longer = "x".repeat(3_000_001);
    let posted = request(&stage.world.token, "POST", "/v1/reports", &longer);
    let (status, _, body) = exchange(&mut client, posted).await;
    let refusal: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (status.as_u16(), refusal["error"]["code"].as_str()),
        (413, Some("payload_too_large"))
    );
    let next = request(&stage.world.token, "GET", "/v1/reports", "");
    assert_eq!(exchange(&mut client, next).await.0, 200, "the connection goes on");
}

type Fields<'a> = &'a [(&'a str, &'a str)];

const USUAL: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "api.test"), (":path", "/v1/reports")];

/// The fate of a request with these fields.
async fn fate(stage: &Stage, fields: Fields<'_>, body: Option<&[u8]>) -> Fate {
    let mut wire = Wire::open(stage.server.local_addr(), &[]).await;
    let ends = if body.is_none() { END_STREAM } else { 0 };
    wire.send(HEADERS, END_HEADERS | ends, 1, &block(fields)).await;
    if let Some(body) = body {
        wire.send(DATA, END_STREAM, 1, body).await;
    }
    wire.fate(1).await
}

/// The usual fields but for one, and others behind them.
fn fields<'a>(but: &str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let usual = USUAL.into_iter().filter(|(name, _)| *name != but);
    let (pseudo, plain): (Vec<_>, Vec<_>) =
        more.iter().copied().partition(|(name, _)| name.starts_with(':'));
    usual.chain(pseudo).chain(plain).collect()
}

#[tokio::test]
async fn heads_that_read_two_ways_are_refused_with_the_envelope() {
    let stage = stage_with(h2c, None).await;
    let key = ("x-api-key", stage.world.token.as_str());
    assert_eq!(fate(&stage, &fields("", &[key]), None).await, Fate::Answered);
    let table: [(&str, Fields<'_>, &str); 14] = [
        (":authority", &[], "invalid_request"),
        ("", &[("host", "other.test")], "invalid_request"),
        (":authority", &[("host", "a.test"), ("host", "a.test")], "invalid_request"),
        (":authority", &[(":authority", "me@api.test")], "invalid_request"),
        ("", &[("x-a", " padded")], "invalid_request"),
        ("", &[("x-a", "padded\t")], "invalid_request"),
        ("", &[("content-length", "0"), ("content-length", "0")], "invalid_request"),
        (":path", &[(":path", "*")], "invalid_path"),
        (":path", &[(":path", "/v1//reports")], "invalid_path"),
        (":path", &[(":path", "/v1/%2e%2e/reports")], "invalid_path"),
        (":path", &[(":path", "/v1/caf\u{e9}")], "invalid_path"),
        (":scheme", &[(":scheme", "ftp")], "invalid_path"),
        ("", &[("content-type", "a/b"), ("content-type", "a/b")], "invalid_request"),
        ("", &[("authorization", "Bearer x")], "ambiguous_api_key"),
    ];
    for (but, more, expected) in table {
        let fields = fields(but, &[more, &[key]].concat());
        let refused = Fate::Refused(expected.to_owned());
        assert_eq!(fate(&stage, &fields, None).await, refused, "{but} {more:?}");
    }
    assert_eq!(stage.upstream.requests(), 1);
}

/// RFC 9113 §8.1.1: a malformed request is an error of its stream.
#[tokio::test]
async fn what_is_no_http2_never_becomes_a_request() {
    const PROTOCOL_ERROR: u32 = 1;
    let stage = stage_with(h2c, None).await;
    let key = ("x-api-key", stage.world.token.as_str());
    let table: [(&str, Fields<'_>); 20] = [
        ("", &[("X-Upper", "a")]),
        ("", &[("connection", "x")]),
        ("", &[("keep-alive", "1")]),
        ("", &[("proxy-connection", "x")]),
        ("", &[("transfer-encoding", "chunked")]),
        ("", &[("upgrade", "websocket")]),
        ("", &[("te", "gzip")]),
        ("", &[("x-a", "a\r\nb: c")]),
        ("", &[("x-a", "a\0b")]),
        ("", &[("x-a", "a\nb")]),
        ("", &[("", "a")]),
        ("", &[("x a", "a")]),
        ("", &[("x:a", "a")]),
        ("", &[(":path", "/v1/audit")]),
        ("", &[(":unknown", "a")]),
        ("", &[(":status", "200")]),
        (":method", &[]),
        (":path", &[(":path", "")]),
        (":path", &[(":path", "/v1/<reports>")]),
        (":scheme", &[]),
    ];
    for (but, more) in table {
        let fields = fields(but, &[more, &[key]].concat());
        let fate = fate(&stage, &fields, None).await;
        let refused = matches!(fate, Fate::Reset(PROTOCOL_ERROR) | Fate::GoneAway(PROTOCOL_ERROR));
        assert!(refused, "{but} {more:?}: {fate:?}");
    }
    // a pseudo field behind the others
    let late = [&USUAL[..3], &[key, USUAL[3]]].concat();
    assert_eq!(fate(&stage, &late, None).await, Fate::Reset(PROTOCOL_ERROR));
    for (length, body) in [("4", "hello"), ("6", "hello"), ("5", ""), ("x", "hello")] {
        let fields = fields("", &[key, ("content-length", length)]);
        let fate = fate(&stage, &fields, Some(body.as_bytes())).await;
        assert!(
            matches!(&fate, Fate::Reset(PROTOCOL_ERROR)) || matches!(&fate, Fate::Refused(_)),
            "{length} {body}: {fate:?}"
        );
    }
    // an upstream may see the beginning of a body that turns out to be none
    assert_eq!(stage.upstream.requests(), 0);
}

#[tokio::test]
async fn large_heads() {
    let stage = stage_with(h2c, None).await;
    let token = stage.world.token.clone();
    let long = "y".repeat(15 * 1024);
    let usual = fields("", &[("x-api-key", &token), ("x-a", &long)]);
    assert_eq!(fate(&stage, &usual, None).await, Fate::Answered);
    let longer = "y".repeat(16 * 1024);
    for more in [vec![("x-a", longer.as_str())], vec![("x-a", "y"); 101]] {
        let mut wire = Wire::open(stage.server.local_addr(), &[]).await;
        let bytes = block(&fields("", &more));
        let (head, rest) = bytes.split_at(bytes.len().min(16 * 1024));
        wire.send(HEADERS, END_STREAM, 1, head).await;
        wire.send(CONTINUATION, END_HEADERS, 1, rest).await;
        assert_eq!(wire.fate(1).await, Fate::Refused("headers_too_large".to_owned()));
    }
    // far beyond it nobody makes an envelope, and nothing is kept
    let fields: Vec<_> = USUAL.into_iter().chain([("x-a", longer.as_str()); 3]).collect();
    let mut wire = Wire::open(stage.server.local_addr(), &[]).await;
    let bytes = block(&fields);
    let pieces: Vec<&[u8]> = bytes.chunks(16 * 1024).collect();
    wire.send(HEADERS, END_STREAM, 1, pieces[0]).await;
    for (position, piece) in pieces.iter().enumerate().skip(1) {
        let ends = if position + 1 == pieces.len() { END_HEADERS } else { 0 };
        wire.send(CONTINUATION, ends, 1, piece).await;
    }
    assert_ne!(wire.fate(1).await, Fate::Refused("headers_too_large".to_owned()));
    assert_eq!(stage.upstream.requests(), 1);
}

#[tokio::test]
async fn callers_that_are_slow_or_silent_are_let_go() {
    let short = |options: &mut GatewayOptions| {
        h2c(options);
        options.limits.header_timeout = Duration::from_millis(60);
        options.limits.idle_timeout = Duration::from_millis(120);
    };
    let stage = stage_with(short, None).await;
    let address = stage.server.local_addr();
    let mut silent = Client::connect(address).await;
    let mut half_a_preface = Client::connect(address).await;
    half_a_preface.write(&PREFACE[..10]).await;
    for client in [&mut silent, &mut half_a_preface] {
        assert!(client.is_closed().await);
    }
    let mut nothing = Wire::open(address, &[]).await;
    while nothing.next().await.is_some() {}
    let mut half_a_head = Wire::open(address, &[]).await;
    half_a_head.send(HEADERS, END_STREAM, 1, &block(&USUAL)).await;
    while half_a_head.next().await.is_some() {}
    let mut idle = Wire::open(address, &[]).await;
    idle.get(1, "/v1/reports", &[]).await;
    assert_eq!(idle.fate(1).await, Fate::Refused("missing_api_key".to_owned()));
    assert_eq!(idle.next_of(GOAWAY).await.map(|frame| frame.code()), Some(0));
}

#[tokio::test]
async fn a_listener_on_its_way_out_says_so_and_ends_what_is_under_way() {
    let world = World::new();
    let (address, mut upstream) = raw_upstream().await;
    let plane = world.plane(vec![upstream_at(address)]);
    let mut options = options();
    h2c(&mut options);
    let server = start(&plane, options);
    let mut wire = Wire::open(server.local_addr(), &[]).await;
    wire.get(1, "/v1/reports", &[("x-api-key", &world.token)]).await;
    let mut behind = upstream.recv().await.unwrap();
    behind.head().await;
    server.leave();
    assert_eq!(wire.next_of(GOAWAY).await.map(|frame| frame.code()), Some(0));
    let drained = tokio::spawn(server.drain(PATIENCE));
    behind.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(wire.fate(1).await, Fate::Answered);
    assert!(drained.await.unwrap(), "every request ended");
}

#[tokio::test]
async fn a_request_that_comes_while_the_listener_leaves_is_the_last() {
    let stage = stage_with(h2c, None).await;
    stage.server.leave();
    let mut wire = Wire::open(stage.server.local_addr(), &[]).await;
    wire.get(1, "/v1/reports", &[("x-api-key", &stage.world.token)]).await;
    let (mut answered, mut gone) = (false, false);
    while let Some(next) = wire.next().await {
        answered |= next.kind == DATA && next.stream == 1;
        gone |= next.kind == GOAWAY;
    }
    assert!(answered && gone);
}

/// A stream of events over HTTP/2, and the upstream's end of it.
async fn events(scene: &mut Scene, wire: &mut Wire, stream: u32, token: &str) -> Client {
    wire.get(stream, "/v1/reports", &[("x-api-key", token)]).await;
    let accepted = tokio::time::timeout(PATIENCE, scene.upstream.recv()).await;
    let mut upstream = accepted.expect("a connection in time").unwrap();
    upstream.head().await;
    upstream.write(EVENTS).await;
    tell(wire, stream, &mut upstream).await;
    upstream
}

/// An event passes.
async fn tell(wire: &mut Wire, stream: u32, upstream: &mut Client) {
    upstream.write(b"3\r\none\r\n").await;
    let frame = wire.next_of(DATA).await.unwrap();
    assert_eq!((frame.stream, frame.payload.as_slice()), (stream, &b"one"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_key_and_the_others_of_the_connection_go_on() {
    const CANCEL: u32 = 8;
    let mut scene = Scene::set_with(h2c).await;
    let (mine, other) = (scene.world.token.clone(), scene.world.key_of(Environment::Live));
    let mut wire = Wire::open(scene.server.local_addr(), &[]).await;
    let mut ended = events(&mut scene, &mut wire, 1, &mine).await;
    let mut talking = events(&mut scene, &mut wire, 3, &mine).await;
    let mut going_on = events(&mut scene, &mut wire, 5, &other).await;
    scene.pass_ms(1_000).await;
    tell(&mut wire, 1, &mut ended).await;
    scene.revoke();
    // no timer rings: what the upstream says brings the question up before it is passed on
    scene.world.clock.ms.fetch_add(1_000, Ordering::SeqCst);
    talking.write(b"3\r\none\r\n").await;
    assert_eq!(wire.fate(3).await, Fate::Reset(CANCEL));
    scene.world.clock.ms.fetch_add(-1_000, Ordering::SeqCst);
    scene.pass_ms(1_000).await;
    assert_eq!(wire.fate(1).await, Fate::Reset(CANCEL));
    for _ in 0..3 {
        tell(&mut wire, 5, &mut going_on).await;
        scene.pass_ms(1_000).await;
    }
    assert!(ended.is_closed().await, "the upstream is let go too");
    assert_eq!(scene.cuts(READ, "state"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_taken_back_lets_its_upstream_go() {
    let mut scene = Scene::set_with(h2c).await;
    let token = scene.world.token.clone();
    let mut wire = Wire::open(scene.server.local_addr(), &[]).await;
    let mut begun = events(&mut scene, &mut wire, 1, &token).await;
    wire.get(3, "/v1/reports", &[("x-api-key", &token)]).await;
    let mut unanswered = scene.upstream.recv().await.unwrap();
    unanswered.head().await;
    for stream in [1, 3] {
        wire.send(RST_STREAM, 0, stream, &[0, 0, 0, 8]).await;
    }
    assert!(begun.is_closed().await && unanswered.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_caller_takes_nothing_is_reset_and_no_other() {
    const CANCEL: u32 = 8;
    let write_timeout = |options: &mut GatewayOptions| {
        h2c(options);
        options.limits.write_timeout = Duration::from_secs(5);
    };
    let mut scene = Scene::set_with(write_timeout).await;
    let token = scene.world.token.clone();
    let mut wire = Wire::open(scene.server.local_addr(), &[]).await;
    let mut stuck = events(&mut scene, &mut wire, 1, &token).await;
    let mut going_on = events(&mut scene, &mut wire, 3, &token).await;
    wire.send(WINDOW_UPDATE, 0, 0, &65_536_u32.to_be_bytes()).await;
    // the window of the stream is as the protocol begins with; it never grows
    let chunk = [b"10000\r\n", &b".".repeat(0x10000)[..], b"\r\n"].concat();
    stuck.write(&chunk.repeat(2)).await;
    let mut read = 0;
    while read < 65_535 - b"one".len() {
        read += wire.next_of(DATA).await.unwrap().payload.len();
    }
    for _ in 0..4 {
        scene.pass_ms(1_000).await;
        tell(&mut wire, 3, &mut going_on).await;
    }
    scene.pass_ms(1_100).await;
    assert_eq!(wire.fate(1).await, Fate::Reset(CANCEL));
    assert!(stuck.is_closed().await);
    tell(&mut wire, 3, &mut going_on).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_answers_no_ping_is_gone() {
    let mut scene = Scene::set_with(h2c).await;
    let token = scene.world.token.clone();
    let mut wire = Wire::open(scene.server.local_addr(), &[]).await;
    let mut upstream = events(&mut scene, &mut wire, 1, &token).await;
    wire.answers_pings = false;
    for _ in 0..50 {
        scene.pass_ms(1_000).await;
        tokio::task::yield_now().await;
    }
    assert!(upstream.is_closed().await);
    while wire.next().await.is_some() {}
}

#[tokio::test]
async fn a_connection_that_is_old_is_ended_without_losing_a_request() {
    let world = World::new();
    let (address, mut upstream) = raw_upstream().await;
    let plane = world.plane(vec![upstream_at(address)]);
    let mut options = options();
    h2c(&mut options);
    options.limits.max_connection_age = Some(Duration::from_millis(200));
    let server = start(&plane, options);
    let mut wire = Wire::open(server.local_addr(), &[]).await;
    wire.get(1, "/v1/reports", &[("x-api-key", &world.token)]).await;
    let mut behind = upstream.recv().await.unwrap();
    behind.head().await;
    // it is busy, and told to go all the same
    assert_eq!(wire.next_of(GOAWAY).await.map(|frame| frame.code()), Some(0));
    // a request that crossed the word is answered, as is the one under way
    wire.get(3, "/v1/reports", &[]).await;
    assert_eq!(wire.fate(3).await, Fate::Refused("missing_api_key".to_owned()));
    behind.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(wire.fate(1).await, Fate::Answered);
    // others begin anew
    let mut next = Wire::open(server.local_addr(), &[]).await;
    next.get(1, "/v1/reports", &[]).await;
    assert_eq!(next.fate(1).await, Fate::Refused("missing_api_key".to_owned()));
}
