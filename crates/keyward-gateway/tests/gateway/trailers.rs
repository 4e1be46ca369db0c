//! Fields behind bodies, in both directions.

use keyward_gateway::GatewayServer;

use crate::speakers::*;
use crate::support::*;

struct Scene {
    world: World,
    server: GatewayServer,
}

impl Scene {
    fn of(upstream: keyward_gateway::UpstreamConfig) -> Self {
        let world = World::new();
        let server = start(&world.plane(with_sockets_elsewhere(upstream)), options());
        Self { world, server }
    }

    fn head(&self, method: &str, more: &str) -> String {
        let token = &self.world.token;
        format!("{method} /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {token}\r\n{more}\r\n")
    }
}

#[tokio::test]
async fn announced_ones_pass_and_forged_ones_do_not() {
    let (address, mut accepted) = raw_upstream().await;
    let scene = Scene::of(config_of(&[&format!("http://{address}")]));
    let mut client = Client::connect(scene.server.local_addr()).await;
    let announced = "transfer-encoding: chunked\r\nte: trailers\r\nconnection: te\r\n\
                     trailer: X-Sum, Keyward-Tenant, Content-Length\r\n";
    client.write(scene.head("POST", announced).as_bytes()).await;
    client.write(b"2\r\nhi\r\n0\r\nx-sum: 7\r\nkeyward-tenant: forged\r\nx-more: 1\r\n\r\n").await;
    let mut upstream = accepted.recv().await.unwrap();
    let head = upstream.head().await.to_ascii_lowercase();
    for line in ["te: trailers", "connection: te", "trailer: x-sum\r\n"] {
        assert!((head.clone() + "\r\n").contains(line), "{line} in {head}");
    }
    let body = b"2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n";
    assert_eq!(upstream.bytes(body.len()).await, body);
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\
                  trailer: x-state, keyward-tenant, x-request-id\r\n\r\n\
                  2\r\nok\r\n0\r\nx-state: done\r\nkeyward-tenant: forged\r\n\
                  x-request-id: 1\r\n\r\n";
    upstream.write(answer.as_bytes()).await;
    let head = client.head().await;
    assert!(head.contains("trailer: x-state\r\n"), "{head}");
    let body = b"2\r\nok\r\n0\r\nx-state: done\r\n\r\n";
    assert_eq!(client.bytes(body.len()).await, body);
    // the connections are as good as new
    client.write(scene.head("GET", "").as_bytes()).await;
    upstream.head().await;
    upstream.write(answer.as_bytes()).await;
    let head = client.head().await;
    assert!(!head.contains("trailer"), "nobody asked: {head}");
    assert_eq!(client.bytes(12).await, b"2\r\nok\r\n0\r\n\r\n");
}

#[tokio::test]
async fn they_pass_to_upstreams_of_http2_and_back() {
    let answering: Answering = std::sync::Arc::new(|request| {
        Box::pin(async move {
            use http_body_util::BodyExt as _;
            let te = request.headers().get("te").cloned();
            let body = request.into_body().collect().await.unwrap();
            let mut trailers = body.trailers().cloned().unwrap_or_default();
            trailers.insert("x-te", te.unwrap_or_else(|| "none".parse().unwrap()));
            trailers.insert("keyward-role", "forged".parse().unwrap());
            let frames = [
                Ok(hyper::body::Frame::data(body.to_bytes())),
                Ok(hyper::body::Frame::trailers(trailers)),
            ];
            let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
            let mut answer = http::Response::new(body.boxed_unsync());
            answer.headers_mut().insert("trailer", "x-te, x-sum, keyward-role".parse().unwrap());
            answer
        })
    });
    let speaker = Speaker::on_tcp(Speech::Http2, answering).await;
    let mut config = speaker.config();
    config.protocol = Speech::Http2.protocol();
    let scene = Scene::of(config);
    let mut client = Client::connect(scene.server.local_addr()).await;
    let more = "transfer-encoding: chunked\r\nte: trailers\r\nconnection: te\r\ntrailer: x-sum\r\n";
    client.write(scene.head("POST", more).as_bytes()).await;
    client.write(b"2\r\nhi\r\n0\r\nx-sum: 7\r\nkeyward-tenant: forged\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("trailer: x-te, x-sum"), "{head}");
    let mut rest = String::new();
    while !rest.ends_with("\r\n\r\n") {
        rest.push_str(&String::from_utf8(client.bytes(1).await).unwrap());
    }
    assert!(rest.starts_with("2\r\nhi\r\n0\r\n"), "{rest}");
    let trailers = rest.split_once("0\r\n").unwrap().1;
    let mut lines: Vec<&str> = trailers.split("\r\n").filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["x-sum: 7", "x-te: trailers"]);
}
