//! Answers of HTTP/1.1 as upstreams of all kinds send them, and bodies that cross them.

use std::fmt::Write as _;

use keyward_gateway::GatewayServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::support::*;

struct Scene {
    world: World,
    server: GatewayServer,
    accepted: UnboundedReceiver<Client>,
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

impl Scene {
    async fn new() -> Self {
        let world = World::new();
        let (address, accepted) = raw_upstream().await;
        let server = start(&world.plane(vec![upstream_at(address)]), options());
        Self { world, server, accepted }
    }

    fn head(&self, method: &str, more: &str) -> String {
        let token = &self.world.token;
        format!("{method} /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {token}\r\n{more}\r\n")
    }

    async fn client(&self) -> Client {
        Client::connect(self.server.local_addr()).await
    }

    async fn accepted(&mut self) -> Client {
        let next = tokio::time::timeout(PATIENCE, self.accepted.recv());
        next.await.expect("a connection in time").unwrap()
    }

    /// A request that an upstream on a connection of its own answers with these bytes before it
    /// ends the connection, or keeps it.
    async fn answered(&mut self, text: &str) -> (Client, Client) {
        let mut client = self.client().await;
        client.write(self.head("GET", "").as_bytes()).await;
        let mut upstream = self.accepted().await;
        upstream.head().await;
        upstream.write(text.as_bytes()).await;
        (client, upstream)
    }
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_no_answer() {
    let mut scene = Scene::new().await;
    for (line, headers) in [
        ("HTTP/1.1 200 OK", "content-length: 2\r\ncontent-length: 3\r\n"),
        ("HTTP/1.1 200 OK", "content-length: 2\r\ncontent-length: 2\r\n"),
        ("HTTP/1.1 200 OK", "content-length: 2\r\ntransfer-encoding: chunked\r\n"),
        ("HTTP/1.1 200 OK", "content-length: two\r\n"),
        ("HTTP/1.1 200 OK", "transfer-encoding: gzip\r\n"),
        ("HTTP/1.1 200 OK", "x-folded: a\r\n content-length: 2\r\n"),
        ("HTTP/1.0 200 OK", "transfer-encoding: chunked\r\n"),
        ("HTTP/3 200 OK", ""),
        ("ICY 200 OK", ""),
    ] {
        let text = format!("{line}\r\n{headers}\r\nok");
        let (mut client, _upstream) = scene.answered(&text).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 502, "{text}");
        assert_eq!(answer.refusal().1, "upstream_unreachable", "{text}");
        assert!(scene.accepted.try_recv().is_err(), "{text}: something was answered");
    }
}

#[tokio::test]
async fn nothing_follows_an_answer_that_says_too_much() {
    let mut scene = Scene::new().await;
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{poison}");
    let (mut client, _upstream) = scene.answered(&answer).await;
    assert_eq!(client.answer().await.body, "ok");
    // what came behind is nobody's answer
    client.write(scene.head("GET", "").as_bytes()).await;
    let mut next = scene.accepted().await;
    next.head().await;
    next.write(OK).await;
    assert_eq!(client.answer().await.body, "ok");
    // nor is what comes while nobody asks
    next.write(poison.as_bytes()).await;
    let (mut other, _last) = scene.answered(str::from_utf8(OK).unwrap()).await;
    assert_eq!(other.answer().await.body, "ok");
    assert!(next.is_closed().await);
}

#[tokio::test]
async fn what_only_announces_an_answer_is_not_passed_on() {
    let mut scene = Scene::new().await;
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n";
    let answer = format!("HTTP/1.1 100 Continue\r\n\r\n{early}{}", str::from_utf8(OK).unwrap());
    let (mut client, mut upstream) = scene.answered(&answer).await;
    let first = client.answer().await;
    assert_eq!((first.status, first.body.as_str(), first.header("link")), (200, "ok", None));
    client.write(scene.head("GET", "").as_bytes()).await;
    upstream.head().await;
    upstream.write(OK).await;
    assert_eq!(client.answer().await.body, "ok");
    drop(upstream);
    let (mut client, _upstream) = scene.answered(&early.repeat(40)).await;
    assert_eq!(client.answer().await.status, 502, "not for ever");
}

#[tokio::test]
async fn the_end_of_the_connection_ends_an_answer_only_in_order() {
    let mut scene = Scene::new().await;
    let (mut client, upstream) = scene.answered("HTTP/1.1 200 OK\r\n\r\nall of it").await;
    drop(upstream);
    let head = client.head().await;
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(client.bytes(9 + 5 + 5).await, b"9\r\nall of it\r\n0\r\n\r\n");
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let (mut client, upstream) = scene.answered(text).await;
        client.head().await;
        drop(upstream);
        let mut rest = Vec::new();
        while let Some(byte) = client.bytes_or_end(1).await {
            rest.extend(byte);
        }
        assert!(!rest.ends_with(b"0\r\n\r\n") && rest.len() < 12, "{rest:?}");
    }
    // a reset is no end that was meant
    let (mut client, upstream) = scene.answered("HTTP/1.1 200 OK\r\n\r\nsome").await;
    client.head().await;
    assert_eq!(client.bytes(9).await, b"4\r\nsome\r\n");
    upstream.stream.set_zero_linger().unwrap();
    drop(upstream);
    assert_eq!(client.bytes_or_end(5).await, None, "no last chunk");
}

#[tokio::test]
async fn answers_of_old_servers_are_framed_anew() {
    let mut scene = Scene::new().await;
    let spaced = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                  2  \r\nok\r\n4;name=\"v\"\r\n yes\r\n0\r\n\r\n";
    let (mut client, mut upstream) = scene.answered(spaced).await;
    client.head().await;
    let mut body = Vec::new();
    while !body.ends_with(b"0\r\n\r\n") {
        body.extend(client.bytes(1).await);
    }
    let body = String::from_utf8(body).unwrap();
    assert!(!body.contains(';') && body.contains("ok") && body.contains(" yes"), "{body}");
    // and the connection is as good as any
    client.write(scene.head("GET", "").as_bytes()).await;
    upstream.head().await;
    upstream.write(OK).await;
    assert_eq!(client.answer().await.body, "ok");
    let old = "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok";
    client.write(scene.head("GET", "").as_bytes()).await;
    upstream.head().await;
    upstream.write(old.as_bytes()).await;
    assert_eq!(client.answer().await.body, "ok");
    client.write(scene.head("GET", "").as_bytes()).await;
    let mut next = scene.accepted().await;
    next.head().await;
    next.write(OK).await;
    assert_eq!(client.answer().await.body, "ok");
    drop(upstream);
}

#[tokio::test]
async fn an_upload_goes_on_beside_its_answer() {
    let mut scene = Scene::new().await;
    let mut client = scene.client().await;
    client.write(scene.head("POST", "transfer-encoding: chunked\r\n").as_bytes()).await;
    client.write(b"3\r\none\r\n").await;
    let mut upstream = scene.accepted().await;
    upstream.head().await;
    assert_eq!(upstream.bytes(8).await, b"3\r\none\r\n");
    upstream.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n").await;
    let head = client.head().await;
    assert!(head.contains("connection: close"), "the rest may never be read: {head}");
    assert_eq!(client.bytes(6).await, b"1\r\na\r\n");
    // each waits for the other
    for word in ["two", "six"] {
        let chunk = format!("3\r\n{word}\r\n");
        client.write(chunk.as_bytes()).await;
        assert_eq!(upstream.bytes(8).await, chunk.as_bytes());
        upstream.write(chunk.as_bytes()).await;
        assert_eq!(client.bytes(8).await, chunk.as_bytes());
    }
    client.write(b"0\r\n\r\n").await;
    assert_eq!(upstream.bytes(5).await, b"0\r\n\r\n");
    upstream.write(b"0\r\n\r\n").await;
    assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
}

#[tokio::test]
async fn a_caller_may_read_only_when_it_has_sent_everything() {
    const MORE_THAN_FITS: usize = 24 << 20;
    let mut scene = Scene::new().await;
    let mut client = scene.client().await;
    let length = format!("content-length: {MORE_THAN_FITS}\r\n");
    client.write(scene.head("POST", &length).as_bytes()).await;
    let mut upstream = scene.accepted().await;
    upstream.head().await;
    // answers at once, with more than all buffers on the way take, and reads meanwhile
    upstream.write(format!("HTTP/1.1 200 OK\r\n{length}\r\n").as_bytes()).await;
    let (mut reading, mut writing) = tokio::io::split(upstream.stream);
    let answering = tokio::spawn(async move {
        let written = writing.write_all(&vec![b'a'; MORE_THAN_FITS]).await;
        (writing, written)
    });
    let taking = tokio::spawn(async move {
        let mut left = MORE_THAN_FITS;
        let mut buffer = vec![0; 1 << 16];
        while left > 0 {
            left -= reading.read(&mut buffer).await.unwrap();
        }
    });
    let upload = vec![b'b'; MORE_THAN_FITS];
    let sending = client.write(&upload);
    tokio::time::timeout(PATIENCE, sending).await.expect("all of it was taken");
    tokio::time::timeout(PATIENCE, taking).await.expect("in time").unwrap();
    client.head().await;
    let answer = client.bytes(MORE_THAN_FITS).await;
    assert!(answer.iter().all(|byte| *byte == b'a'));
    answering.await.unwrap().1.unwrap();
}

#[tokio::test]
async fn an_upstream_that_refuses_an_upload_is_heard_although_it_stops_reading() {
    let mut scene = Scene::new().await;
    let mut client = scene.client().await;
    client.write(scene.head("POST", "content-length: 100000000\r\n").as_bytes()).await;
    let mut upstream = scene.accepted().await;
    upstream.head().await;
    let refusal = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\ntoo";
    upstream.write(refusal.as_bytes()).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str(), answer.closed), (413, "too", true));
    assert!(upstream.is_closed().await, "nothing follows on a connection with half a request");
}

#[tokio::test]
async fn large_chunks_arrive_as_they_were_sent() {
    let stage = stage().await;
    let (mut sent, mut body) = (String::new(), String::new());
    for (number, bytes) in [1, 70_000, 9_000, 8_192, 8_193, 3, 400_000].into_iter().enumerate() {
        let chunk = number.to_string().repeat(bytes);
        write!(sent, "{:x}\r\n{chunk}\r\n", chunk.len()).unwrap();
        body += &chunk;
    }
    sent += "0\r\n\r\n";
    let head = format!(
        "POST /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\
         transfer-encoding: chunked\r\n\r\n",
        stage.world.token
    );
    let mut client = Client::connect(stage.server.local_addr()).await;
    for _ in 0..2 {
        client.write(head.as_bytes()).await;
        client.write(sent.as_bytes()).await;
        let told = client.answer().await.told();
        assert!(told["body"].as_str().unwrap() == body, "it came through unchanged");
    }
}
