//! Bodies pass as they come, in both directions, within their bounds.

use std::time::Duration;

use keyward_gateway::PlanePolicy;

use crate::support::*;

pub(crate) struct Raw {
    pub(crate) world: World,
    server: keyward_gateway::GatewayServer,
    upstream: tokio::sync::mpsc::UnboundedReceiver<Client>,
}

pub(crate) async fn in_front_of_raw(
    tune: impl FnOnce(&mut keyward_gateway::UpstreamConfig),
) -> Raw {
    in_front_of_raw_with(tune, |_| {}).await
}

async fn in_front_of_raw_with(
    tune: impl FnOnce(&mut keyward_gateway::UpstreamConfig),
    listen: impl FnOnce(&mut keyward_gateway::GatewayOptions),
) -> Raw {
    let world = World::new();
    let (address, upstream) = raw_upstream().await;
    let mut config = upstream_at(address);
    tune(&mut config);
    let plane = world.plane_with(vec![config], PlanePolicy::default(), None);
    let mut options = options();
    listen(&mut options);
    let server = start(&plane, options);
    Raw { world, server, upstream }
}

impl Raw {
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.server.local_addr()).await
    }

    /// Both ends of an answer of a gigabyte, of which only the head has been read.
    async fn untaken(&mut self) -> (Client, Client) {
        let mut client = self.client().await;
        client.write(self.head("GET", "").as_bytes()).await;
        let mut upstream = self.accepted().await;
        upstream.head().await;
        upstream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
        client.head().await;
        (client, upstream)
    }

    pub(crate) fn head(&self, method: &str, more: &str) -> String {
        format!(
            "{method} /v1/reports HTTP/1.1\r\nhost: api.test\r\nx-api-key: {}\r\n{more}\r\n",
            self.world.token
        )
    }

    pub(crate) async fn accepted(&mut self) -> Client {
        let next = tokio::time::timeout(PATIENCE, self.upstream.recv());
        next.await.expect("a connection in time").unwrap()
    }
}

#[tokio::test]
async fn an_upload_is_seen_before_its_end_and_an_answer_too() {
    let mut raw = in_front_of_raw(|_| {}).await;
    let mut client = raw.client().await;
    client.write(raw.head("POST", "transfer-encoding: chunked\r\n").as_bytes()).await;
    client.write(b"5\r\nfirst\r\n").await;
    let mut upstream = raw.accepted().await;
    let head = upstream.head().await;
    assert!(head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(upstream.bytes(10).await, b"5\r\nfirst\r\n");
    client.write(b"4\r\nlast\r\n0\r\nx-trailer: dropped\r\n\r\n").await;
    assert_eq!(upstream.bytes(14).await, b"4\r\nlast\r\n0\r\n\r\n");
    upstream.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(client.bytes(8).await, b"3\r\none\r\n");
    upstream.write(b"3\r\ntwo\r\n0\r\nkeyward-tenant: forged\r\n\r\n").await;
    assert_eq!(client.bytes(13).await, b"3\r\ntwo\r\n0\r\n\r\n");
}

#[tokio::test]
async fn megabytes_pass_both_ways_and_nothing_is_kept() {
    let stage = stage().await;
    let body = "0123456789abcdef".repeat(256 * 1024);
    let length = format!("content-length: {}\r\n", body.len());
    let head = format!(
        "POST /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n{length}\r\n",
        stage.world.token
    );
    let mut client = Client::connect(stage.server.local_addr()).await;
    client.write(head.as_bytes()).await;
    client.write(body.as_bytes()).await;
    let told = client.answer().await.told();
    assert!(told["body"].as_str().unwrap() == body, "4 MiB came through unchanged");
    assert_eq!(told["headers"]["content-length"], body.len().to_string());
}

#[tokio::test]
async fn a_slow_reader_holds_the_upstream_back() {
    let mut raw = in_front_of_raw(|_| {}).await;
    let (_client, mut upstream) = raw.untaken().await;
    // the client reads nothing: the upstream's writes must stop long before the gigabyte
    let chunk = vec![0_u8; 1 << 20];
    let mut written = 0_usize;
    let blocked = loop {
        let write = tokio::io::AsyncWriteExt::write(&mut upstream.stream, &chunk);
        match tokio::time::timeout(Duration::from_millis(300), write).await {
            Ok(count) => written += count.unwrap(),
            Err(_) => break true,
        }
        if written > 100 << 20 {
            break false;
        }
    };
    assert!(blocked, "{written} bytes were taken for a client that reads nothing");
}

#[tokio::test]
async fn a_caller_that_takes_nothing_of_its_answer_is_cut_off() {
    let impatient = |options: &mut keyward_gateway::GatewayOptions| {
        options.limits.write_timeout = Duration::from_millis(300);
    };
    let mut raw = in_front_of_raw_with(|_| {}, impatient).await;
    let (_client, mut upstream) = raw.untaken().await;
    let chunk = vec![0_u8; 1 << 20];
    let sending = async {
        let mut written = 0_usize;
        while let Ok(count) = tokio::io::AsyncWriteExt::write(&mut upstream.stream, &chunk).await {
            written += count;
        }
        written
    };
    let written = tokio::time::timeout(PATIENCE, sending).await.expect("the upstream is let go");
    assert!(written < 100 << 20, "{written} bytes were taken for a client that reads nothing");
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_the_checks_have_passed() {
    let stage = stage().await;
    let expect = "expect: 100-continue\r\ncontent-length: 5\r\n";
    let mut refused = Client::connect(stage.server.local_addr()).await;
    let head = format!("POST /v1/reports HTTP/1.1\r\nhost: a\r\n{expect}\r\n");
    refused.write(head.as_bytes()).await;
    assert_eq!(refused.answer().await.status, 401, "no 100 before the refusal");
    let mut client = Client::connect(stage.server.local_addr()).await;
    let key = format!("x-api-key: {}\r\n", stage.world.token);
    let head = format!("POST /v1/reports HTTP/1.1\r\nhost: a\r\n{key}{expect}\r\n");
    client.write(head.as_bytes()).await;
    assert!(client.head().await.starts_with("HTTP/1.1 100"));
    client.write(b"hello").await;
    let told = client.answer().await.told();
    assert_eq!(told["body"], "hello");
    assert_eq!(told["headers"].get("expect"), None);
}

#[tokio::test]
async fn bodies_past_the_limit() {
    let tiny = |options: &mut keyward_gateway::GatewayOptions| options.limits.max_body_bytes = 8;
    let stage = stage_with(tiny, None).await;
    let head = |more: &str| {
        format!(
            "POST /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n{more}\r\n",
            stage.world.token
        )
    };
    let declared = head("content-length: 9\r\n");
    let answer = raw(stage.server.local_addr(), declared.as_bytes()).await;
    assert_eq!(answer.refusal().1, "payload_too_large");
    assert_eq!((answer.status, answer.closed), (413, true));
    assert_eq!(stage.upstream.requests(), 0);
    let chunked = head("transfer-encoding: chunked\r\n") + "5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n";
    let answer = raw(stage.server.local_addr(), chunked.as_bytes()).await;
    assert_eq!((answer.refusal().1.as_str(), answer.status), ("payload_too_large", 413));
    assert!(answer.closed);
    let within = head("content-length: 8\r\n") + "12345678";
    let told = raw(stage.server.local_addr(), within.as_bytes()).await.told();
    assert_eq!(told["body"], "12345678");
}

#[tokio::test]
async fn framing_is_ours_on_the_other_side() {
    let stage = stage().await;
    let empty = stage.send("POST", "/v1/reports", "content-length: 0\r\n").await.told();
    assert_eq!(empty["headers"]["content-length"], "0");
    let none = stage.send("GET", "/v1/reports", "").await.told();
    assert_eq!(none["headers"].get("content-length"), None);
    assert_eq!(none["headers"].get("transfer-encoding"), None);
    let odd = format!(
        "DELETE /v1/reports/1 HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\ncontent-length: 2\r\n\r\nhi",
        stage.world.token
    );
    let told = raw(stage.server.local_addr(), odd.as_bytes()).await.told();
    assert_eq!(
        (told["body"].as_str(), told["headers"]["content-length"].as_str()),
        (Some("hi"), Some("2"))
    );
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_closes_the_connection() {
    let mut raw = in_front_of_raw(|_| {}).await;
    let mut client = raw.client().await;
    client.write(raw.head("POST", "content-length: 1000000\r\n").as_bytes()).await;
    client.write(b"some").await;
    let mut upstream = raw.accepted().await;
    upstream.head().await;
    upstream.write(b"HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\nno").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str(), answer.closed), (409, "no", true));
}

#[tokio::test]
async fn an_upstream_that_is_late_gone_or_unintelligible() {
    let code = |answer: &Answer| answer.refusal().1;
    let mut raw = in_front_of_raw(|config| {
        config.first_byte_timeout = Duration::from_millis(50);
    })
    .await;
    let mut client = raw.client().await;
    client.write(raw.head("GET", "").as_bytes()).await;
    let silent = raw.accepted().await;
    let late = client.answer().await;
    assert_eq!((late.status, code(&late).as_str()), (504, "upstream_timeout"));
    drop(silent);
    for wrong in ["nonsense\r\n\r\n", "", "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"]
    {
        client.write(raw.head("POST", "content-length: 1\r\n").as_bytes()).await;
        client.write(b"x").await;
        let mut upstream = raw.accepted().await;
        upstream.head().await;
        upstream.write(wrong.as_bytes()).await;
        drop(upstream);
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (502, "upstream_unreachable"),
            "{wrong:?}"
        );
        client = raw.client().await;
    }
    let world = World::new();
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = start(&world.plane(vec![upstream_at(gone)]), options());
    let head = format!("GET /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\r\n", world.token);
    let refused = crate::support::raw(server.local_addr(), head.as_bytes()).await;
    assert_eq!((refused.status, code(&refused).as_str()), (502, "upstream_unreachable"));
    let none = start(&world.plane(Vec::new()), options());
    let absent = crate::support::raw(none.local_addr(), head.as_bytes()).await;
    assert_eq!((absent.status, code(&absent).as_str()), (503, "unavailable"));
    assert_eq!(absent.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let mut raw = in_front_of_raw(|config| {
        config.body_idle_timeout = Duration::from_millis(50);
    })
    .await;
    let mut client = raw.client().await;
    client.write(raw.head("POST", "content-length: 10\r\n").as_bytes()).await;
    client.write(b"some").await;
    let mut upstream = raw.accepted().await;
    upstream.head().await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.refusal().1.as_str()), (400, "invalid_request"));
    let mut client = raw.client().await;
    client.write(raw.head("GET", "").as_bytes()).await;
    let mut upstream = raw.accepted().await;
    upstream.head().await;
    upstream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nsome").await;
    client.head().await;
    client.bytes(4).await;
    assert!(client.is_closed().await, "a cut answer ends the connection");
}

#[tokio::test]
async fn an_upstream_that_stops_reading_is_given_up() {
    let mut raw = in_front_of_raw(|config| {
        config.body_idle_timeout = Duration::from_millis(100);
    })
    .await;
    let mut client = raw.client().await;
    client.write(raw.head("POST", "content-length: 100000000\r\n").as_bytes()).await;
    let mut upstream = raw.accepted().await;
    upstream.head().await;
    // until all buffers on the way are full
    let chunk = vec![0_u8; 1 << 20];
    for _ in 0..90 {
        let write = tokio::io::AsyncWriteExt::write(&mut client.stream, &chunk);
        match tokio::time::timeout(Duration::from_millis(50), write).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.refusal().1.as_str()), (504, "upstream_timeout"));
    assert_eq!(answer.header("connection"), Some("close"));
    while upstream.more().await {}
}

#[tokio::test]
async fn an_upload_that_moves_is_waited_for_and_then_the_first_byte() {
    let mut raw = in_front_of_raw(|config| {
        config.first_byte_timeout = Duration::from_millis(40);
    })
    .await;
    let mut client = raw.client().await;
    client.write(raw.head("POST", "content-length: 6\r\n").as_bytes()).await;
    let mut upstream = raw.accepted().await;
    upstream.head().await;
    for byte in [b"a", b"b", b"c", b"d", b"e"] {
        client.write(byte).await;
        assert_eq!(upstream.bytes(1).await, byte);
        let pause = tokio::time::timeout(Duration::from_millis(30), upstream.more()).await;
        assert!(pause.is_err(), "the upload is waited for");
    }
    client.write(b"f").await;
    assert_eq!(upstream.bytes(1).await, b"f");
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.refusal().1.as_str()), (504, "upstream_timeout"));
}

#[tokio::test]
async fn a_dead_pooled_connection_is_replaced_without_harm() {
    let mut raw = in_front_of_raw(|_| {}).await;
    let mut client = raw.client().await;
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    client.write(raw.head("GET", "").as_bytes()).await;
    let mut first = raw.accepted().await;
    first.head().await;
    first.write(ok).await;
    assert_eq!(client.answer().await.body, "ok");
    // reused, then closed in answer to the request: a safe one is sent again
    client.write(raw.head("GET", "").as_bytes()).await;
    first.head().await;
    drop(first);
    let mut second = raw.accepted().await;
    second.head().await;
    second.write(ok).await;
    assert_eq!(client.answer().await.body, "ok");
    // one that may have had an effect is not
    client.write((raw.head("POST", "content-length: 1\r\n") + "x").as_bytes()).await;
    second.head().await;
    drop(second);
    assert_eq!(client.answer().await.status, 502);
    // closed while idle: nothing was sent on it, so anything may take a new one
    let mut client = raw.client().await;
    client.write(raw.head("GET", "").as_bytes()).await;
    let mut third = raw.accepted().await;
    third.head().await;
    third.write(ok).await;
    assert_eq!(client.answer().await.body, "ok");
    drop(third);
    client.write((raw.head("POST", "content-length: 1\r\n") + "x").as_bytes()).await;
    let mut fourth = raw.accepted().await;
    fourth.head().await;
    fourth.write(ok).await;
    assert_eq!(client.answer().await.body, "ok");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_upstream_work_along() {
    let mut raw = in_front_of_raw(|_| {}).await;
    let mut client = raw.client().await;
    client.write(raw.head("GET", "").as_bytes()).await;
    let mut upstream = raw.accepted().await;
    upstream.head().await;
    drop(client);
    assert!(upstream.is_closed().await);
}

#[tokio::test]
async fn a_slow_answer_outlives_the_idle_time_of_its_connection() {
    let mut raw = in_front_of_raw_with(
        |_| {},
        |options| {
            options.limits.header_timeout = Duration::from_millis(20);
            options.limits.idle_timeout = Duration::from_millis(20);
        },
    )
    .await;
    let mut client = raw.client().await;
    client.write(raw.head("GET", "").as_bytes()).await;
    let mut upstream = raw.accepted().await;
    upstream.head().await;
    let pause = tokio::time::timeout(Duration::from_millis(200), upstream.more()).await;
    assert!(pause.is_err(), "the request is still under way");
    upstream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(client.answer().await.body, "ok");
}

#[tokio::test]
async fn a_body_that_never_comes_holds_nothing() {
    let mut raw = in_front_of_raw_with(
        |_| {},
        |options| options.limits.body_timeout = Duration::from_millis(50),
    )
    .await;
    for framing in ["content-length: 10\r\n", "transfer-encoding: chunked\r\n"] {
        let mut client = raw.client().await;
        client.write(raw.head("POST", framing).as_bytes()).await;
        let mut upstream = raw.accepted().await;
        upstream.head().await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.refusal().1.as_str()), (400, "invalid_request"));
        let builtin = raw.head("GET", framing).replace("/v1/reports", "/v1/openapi.json");
        let mut client = raw.client().await;
        client.write(builtin.as_bytes()).await;
        assert_eq!(client.answer().await.status, 400);
    }
}

#[tokio::test]
async fn a_built_in_operation_does_not_wait_for_a_body_that_drips_in() {
    let raw = in_front_of_raw_with(
        |_| {},
        |options| options.limits.whole_body_timeout = Duration::from_millis(100),
    )
    .await;
    let head = raw.head("GET", "content-length: 10000\r\n");
    let mut client = raw.client().await;
    client.write(head.replace("/v1/reports", "/v1/openapi.json").as_bytes()).await;
    for _ in 0..1_000 {
        client.write(b" ").await;
        let pause = tokio::time::timeout(Duration::from_millis(20), client.more()).await;
        if pause.is_ok() {
            break;
        }
    }
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.refusal().1.as_str()), (400, "invalid_request"));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn upstreams_that_cannot_be_used_are_named() {
    let world = World::new();
    let address = "127.0.0.1:1".parse().unwrap();
    for (url, what) in [
        ("unix:api.sock", "whole path"),
        ("http://api.test/base", "has no path"),
        ("api.test", "http://host:port"),
        ("ftp://api.test", "http://host:port"),
    ] {
        let mut config = upstream_at(address);
        config.addresses = vec![url.to_owned()];
        let error = world.try_plane(vec![config]).err().unwrap().to_string();
        assert!(error.contains(url) && error.contains(what), "{error}");
    }
    let twice = vec![upstream_at(address), upstream_at(address)];
    assert!(world.try_plane(twice).err().unwrap().to_string().contains("more than one"));
}
