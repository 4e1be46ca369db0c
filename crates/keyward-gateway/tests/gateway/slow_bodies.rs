//! Bodies that come slowly: those of callers that could hold connections that way are ended, those
//! that have a reason go on.

use std::time::Duration;

use keyward_gateway::{BodyRate, UpstreamConfig};
use tokio::time::timeout;

use crate::streaming::{Raw, in_front_of_raw};
use crate::support::*;

/// Between two pieces of a body that comes slowly.
const PAUSE: Duration = Duration::from_millis(20);

/// 10 kB/s after 200 ms; what is saved up lasts for 600 ms.
fn bounded(config: &mut UpstreamConfig) {
    let grace = Duration::from_millis(200);
    config.min_body_rate = BodyRate { bytes_per_second: 10_000, grace };
}

/// Sends a piece again and again, until an answer comes or it was sent so often.
async fn drip(client: &mut Client, piece: &[u8], times: usize) -> usize {
    for sent in 0..times {
        client.write(piece).await;
        if timeout(PAUSE, client.more()).await.is_ok() {
            return sent;
        }
    }
    times
}

#[tokio::test]
async fn a_body_that_drips_in_is_ended_although_it_never_stands_still() {
    let mut raw = in_front_of_raw(bounded).await;
    for (framing, piece) in [
        ("content-length: 100000\r\n", &b"x"[..]),
        ("transfer-encoding: chunked\r\n", b"1\r\nx\r\n"),
    ] {
        let mut client = raw.client().await;
        client.write(raw.head("POST", framing).as_bytes()).await;
        let mut upstream = raw.accepted().await;
        upstream.head().await;
        let sent = drip(&mut client, piece, 1_000).await;
        assert!(sent < 1_000, "it was never ended");
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.refusal().1.as_str()), (400, "invalid_request"));
        assert_eq!(answer.header("connection"), Some("close"));
        // it ends: the upstream is free again
        while upstream.more().await {}
    }
}

#[tokio::test]
async fn a_body_that_comes_fast_enough_may_take_its_time() {
    let mut raw = in_front_of_raw(bounded).await;
    let mut client = raw.client().await;
    let piece = [b'x'; 10_000];
    let head = raw.head("POST", &format!("content-length: {}\r\n", 50 * piece.len()));
    client.write(head.as_bytes()).await;
    let mut upstream = raw.accepted().await;
    upstream.head().await;
    // for a second: longer than the grace and all that can be saved up
    assert_eq!(drip(&mut client, &piece, 50).await, 50);
    upstream.bytes(50 * piece.len()).await;
    upstream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(client.answer().await.body, "ok");
}

/// A request to this path whose head has reached the upstream.
async fn begun(raw: &mut Raw, path: &str, length: usize) -> (Client, Client) {
    let mut client = raw.client().await;
    let head = raw.head("POST", &format!("content-length: {length}\r\n"));
    client.write(head.replace("/v1/reports", path).as_bytes()).await;
    let mut upstream = raw.accepted().await;
    upstream.head().await;
    (client, upstream)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn what_the_upstream_does_not_take_is_not_held_against_the_caller() {
    const LENGTH: usize = 32 << 20;
    let mut raw = in_front_of_raw(bounded).await;
    let (client, mut upstream) = begun(&mut raw, "/v1/reports", LENGTH).await;
    let (mut answers, mut body) = client.stream.into_split();
    let sending = tokio::spawn(async move {
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..LENGTH / piece.len() {
            tokio::io::AsyncWriteExt::write_all(&mut body, &piece).await.unwrap();
        }
        body
    });
    // longer than the grace and all that can be saved up
    let _ = timeout(Duration::from_millis(900), std::future::pending::<()>()).await;
    upstream.bytes(LENGTH).await;
    upstream.write(OK).await;
    let body = sending.await.unwrap();
    let mut answer = vec![0; OK.len()];
    tokio::io::AsyncReadExt::read_exact(&mut answers, &mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    drop(body);
}

#[tokio::test]
async fn a_caller_that_is_being_answered_may_send_when_it_likes() {
    let mut raw = in_front_of_raw(bounded).await;
    let (mut client, mut upstream) = begun(&mut raw, "/v1/reports", 50).await;
    upstream.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.head().await;
    assert_eq!(drip(&mut client, b"x", 50).await, 50);
    assert_eq!(upstream.bytes(50).await, [b'x'; 50]);
    upstream.write(b"2\r\nok\r\n0\r\n\r\n").await;
    assert_eq!(client.bytes(12).await, b"2\r\nok\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_route_for_streams_takes_bodies_however_slow() {
    let mut raw = in_front_of_raw(bounded).await;
    let (mut client, mut upstream) = begun(&mut raw, "/v1/reports:import", 50).await;
    assert_eq!(drip(&mut client, b"x", 50).await, 50);
    assert_eq!(upstream.bytes(50).await, [b'x'; 50]);
    upstream.write(OK).await;
    assert_eq!(client.answer().await.body, "ok");
}
