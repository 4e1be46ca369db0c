//! Requests that two readers could understand differently reach nobody, and are told why.

use std::time::Duration;

use crate::support::*;

#[tokio::test]
async fn ambiguous_paths_are_refused_before_the_key_is_looked_at() {
    let stage = stage().await;
    let bad = [
        "//v1/reports",
        "/v1//reports",
        "/v1/reports//",
        "/v1/./reports",
        "/v1/../admin",
        "/v1/reports/..",
        "/v1/reports/.",
        "/v1/%2e%2e/admin",
        "/v1/%2E%2E/admin",
        "/v1/.%2e/admin",
        "/v1/..%2fadmin",
        "/v1/reports%2f1",
        "/v1/reports%2F1",
        "/v1/reports%5c1",
        "/v1\\reports",
        "/v1/reports;x=1",
        "/v1/..;/admin",
        "/v1/reports%3bx",
        "/v1/reports%00",
        "/v1/reports%0a",
        "/v1/reports%0d%0aX:y",
        "/v1/%72eports",
        "/%76%31/reports",
        "/v1/reports%2D",
        "/v1/%252e%252e",
        "/v1/%25%32%66",
        "/v1/%2",
        "/v1/%",
        "/v1/%zz",
        "/v1/%c0%ae%c0%ae/admin",
        "/v1/%c0%af",
        "/v1/%ff",
        "/v1/%e0%80%af",
        "/v1/%c2%80",
        "/v1/{reports}",
        "/v1/reports|1",
        "/v1/reports^",
        "/v1/\"reports\"",
        "/v1/[reports]",
        "/v1/reports%7f",
        "/v1/<reports>",
        "/v1/reports`",
        "/v1/reports#f",
        "*",
        "v1/reports",
        "http://evil.test/v1/reports",
        "api.test:443",
        "?a=b",
        "http://user@api.test/v1/reports",
        "/v1/caf\u{e9}",
        "/v1/reports\u{ff0f}1",
        "/v1/%u002e",
    ];
    for path in bad {
        let answer = stage.send_bare("GET", path, "").await;
        let (status, code, _) = answer.refusal();
        assert_eq!((status, code.as_str()), (400, "invalid_path"), "{path:?}");
    }
    assert_eq!(stage.upstream.requests(), 0);
}

#[tokio::test]
async fn what_was_matched_is_what_is_forwarded() {
    let stage = stage().await;
    for path in [
        "/v1/reports",
        "/v1/reports/1",
        "/v1/reports/caf%C3%A9",
        "/v1/reports/a%20b",
        "/v1/reports/100%25",
        "/v1/reports/a@b",
        "/v1/reports/a,b",
        "/v1/reports/~x",
        "/v1/reports?a=%2F..%2f&b=//",
        "/v1/reports?",
        "/v1/reports/%3F?%23",
        "http://api.test/v1/reports?x=1",
    ] {
        let told = stage.send("GET", path, "").await.told();
        assert_eq!(told["target"], path.trim_start_matches("http://api.test"), "{path:?}");
    }
}

#[tokio::test]
async fn a_header_passes_as_it_is_sent_also_when_it_is_empty() {
    let stage = stage().await;
    let told = stage.send("GET", "/v1/reports", "x-empty:\r\nx-full: a  b\r\n").await.told();
    assert_eq!(
        (&told["headers"]["x-empty"], &told["headers"]["x-full"]),
        (&"".into(), &"a  b".into())
    );
}

#[tokio::test]
async fn keys_in_addresses_are_refused() {
    let stage = stage().await;
    let token = stage.world.token.clone();
    let escaped = format!("%61{}", &token[1..]);
    for path in [
        format!("/v1/reports?key={token}"),
        format!("/v1/reports/{token}"),
        format!("/v1/reports?key={escaped}"),
    ] {
        let answer = stage.send("GET", &path, "").await;
        let (status, code, _) = answer.refusal();
        assert_eq!((status, code.as_str()), (400, "credential_in_url"));
        assert!(!answer.body.contains(&token));
    }
    let referer = format!("referer: https://a.example/?k={token}\r\n");
    assert_eq!(stage.send("GET", "/v1/reports", &referer).await.status, 400);
    assert_eq!(stage.upstream.requests(), 0);
}

#[tokio::test]
async fn heads_that_read_two_ways_end_the_connection() {
    let stage = stage().await;
    let token = stage.world.token.clone();
    let next = "GET /v1/reports HTTP/1.1\r\nhost: api.test\r\n\r\n";
    for bad in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: +5\r\n",
        "content-length: 5,5\r\n",
        "content-length: 0x5\r\n",
        "content-length:\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: \x0bchunked\r\n",
        "transfer-encoding : chunked\r\n",
        "x: y\r\n folded\r\n",
        " x: y\r\n",
        "x: y\n",
        "x: a\0b\r\n",
        "x: a\rb\r\n",
        "host: other\r\n",
        "x y: z\r\n",
        "nocolon\r\n",
    ] {
        let head = format!(
            "POST /v1/reports HTTP/1.1\r\nhost: api.test\r\nauthorization: Bearer {token}\r\n\
             {bad}\r\n"
        );
        let mut client = Client::connect(stage.server.local_addr()).await;
        client.write(format!("{head}0\r\n\r\n{next}").as_bytes()).await;
        let answer = client.answer().await;
        let (status, code, _) = answer.refusal();
        assert_eq!((status, code.as_str()), (400, "invalid_request"), "{bad:?}");
        assert!(answer.closed, "{bad:?}");
    }
    let no_host = raw(stage.server.local_addr(), b"GET /v1/reports HTTP/1.1\r\n\r\n").await;
    assert_eq!(no_host.refusal().1, "invalid_request");
    let garbage = raw(stage.server.local_addr(), b"\x16\x03\x01\x02\x00\x01\r\n\r\n").await;
    assert_eq!(garbage.refusal().1, "invalid_request");
    let preface = raw(stage.server.local_addr(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(preface.status, 400);
    assert_eq!(stage.upstream.requests(), 0);
}

#[tokio::test]
async fn large_heads() {
    let stage = stage().await;
    let long = format!("x: {}\r\n", "y".repeat(17 * 1024));
    let many = "x: y\r\n".repeat(101);
    let endless = "y".repeat(64 * 1024);
    for headers in [long.as_str(), &many] {
        let answer = stage.send("GET", "/v1/reports", headers).await;
        assert_eq!(answer.refusal().1, "headers_too_large");
        assert_eq!((answer.status, answer.closed), (431, true));
    }
    let answer = raw(stage.server.local_addr(), endless.as_bytes()).await;
    assert_eq!(answer.status, 431);
    let path = format!("/v1/reports?{}", "y".repeat(9 * 1024));
    assert_eq!(stage.send("GET", &path, "").await.refusal().1, "invalid_path");
    stage.send("GET", "/v1/reports", &"x: y\r\n".repeat(80)).await.told();
}

#[tokio::test]
async fn malformed_chunks_reach_the_upstream_as_no_whole_body() {
    let stage = stage().await;
    for bad in ["5;ext\r\nhello\r\n0\r\n\r\n", "5\nhello\n0\n\n", "z\r\n", "5\r\nhelloX0\r\n\r\n"] {
        let head = format!(
            "POST /v1/reports HTTP/1.1\r\nhost: api.test\r\nauthorization: Bearer {}\r\n\
             transfer-encoding: chunked\r\n\r\n{bad}",
            stage.world.token
        );
        let answer = raw(stage.server.local_addr(), head.as_bytes()).await;
        let (status, code, _) = answer.refusal();
        assert_eq!((status, code.as_str()), (400, "invalid_request"), "{bad:?}");
        assert!(answer.closed);
    }
}

#[tokio::test]
async fn refusals_keep_their_turn_in_a_pipeline() {
    let stage = stage().await;
    let good = format!(
        "GET /v1/reports HTTP/1.1\r\nhost: api.test\r\nx-api-key: {}\r\n\r\n",
        stage.world.token
    );
    let mut client = Client::connect(stage.server.local_addr()).await;
    client.write(format!("{good}{good}BAD\r\n\r\n{good}").as_bytes()).await;
    client.answer().await.told();
    client.answer().await.told();
    let refused = client.answer().await;
    assert_eq!(refused.refusal().1, "invalid_request");
    assert!(refused.closed);
    assert_eq!(stage.upstream.requests(), 2);
}

#[tokio::test]
async fn head_answers_have_no_body() {
    let stage = stage().await;
    let mut client = Client::connect(stage.server.local_addr()).await;
    client.write(b"HEAD /v1/reports HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let refused = client.answer_to("HEAD").await;
    assert_eq!((refused.status, refused.header("content-length").is_some()), (401, true));
    let head =
        format!("HEAD /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\r\n", stage.world.token);
    client.write(head.as_bytes()).await;
    let answer = client.answer_to("HEAD").await;
    assert_eq!((answer.status, answer.header("x-upstream")), (200, Some("told")));
    assert!(answer.header("content-length").unwrap() != "0");
    client.write(b"HEAD //x HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.answer_to("HEAD").await.status, 400);
    client.write(b"HEAD / HTTP/1.1\r\nhost: a\r\nbad\r\n\r\n").await;
    let refused = client.answer_to("HEAD").await;
    assert_eq!((refused.status, refused.closed), (400, true));
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed() {
    let short = |options: &mut keyward_gateway::GatewayOptions| {
        options.limits.header_timeout = Duration::from_millis(40);
        options.limits.idle_timeout = Duration::from_millis(80);
    };
    let stage = stage_with(short, None).await;
    let mut silent = Client::connect(stage.server.local_addr()).await;
    let mut slow = Client::connect(stage.server.local_addr()).await;
    slow.write(b"GET /v1/reports HTTP/1.1\r\nhos").await;
    let mut idle = Client::connect(stage.server.local_addr()).await;
    idle.write(b"GET /v1/reports HTTP/1.1\r\nhost: a\r\n\r\n").await;
    idle.answer().await.refusal();
    for client in [&mut silent, &mut slow, &mut idle] {
        assert!(client.is_closed().await);
    }
    // a caller that does not end its side holds no place and stops nobody from stopping
    assert!(stage.server.drain(Duration::from_secs(1)).await);
    drop((silent, slow, idle));
}

#[tokio::test]
async fn a_caller_that_was_refused_is_waited_for_only_so_long() {
    let stage = stage().await;
    let mut client = Client::connect(stage.server.local_addr()).await;
    client.write(b"GET /v1/reports HTTP/1.1\r\nbad\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 400);
    assert!(client.is_closed().await);
    assert!(stage.server.drain(Duration::from_secs(10)).await);
    drop(client);
}
