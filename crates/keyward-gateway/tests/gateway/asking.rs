//! The layer that asks a node: what the gateway refuses it refuses, and whatever nobody answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::any;
use http::{HeaderName, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;

use keyward_core::clock::Clock;
use keyward_core::environment::Environment;
use keyward_core::ip::IpAllowlist;
use keyward_core::key::{Exposure, TokenFormat};
use keyward_core::lease::Lease;
use keyward_core::time::Timestamp;
use keyward_gateway::embed::{
    InvalidVerify, MAX_QUESTIONS, VerifyConfig, VerifyLayer, VerifyToken,
};
use keyward_gateway::{
    BoxedBody, ConnectionLimits, DataPlane, FAILURE_BURST, Fallback, GatewayOptions, GatewayServer,
    InternalServer, Networks, PlanePolicy, Protocols, RuntimeShape,
};

use crate::embedded::{serve, tell};
use crate::support::*;

/// A node, a gateway that decides with the same plane, and an application that asks the node.
struct Asking {
    world: World,
    plane: Arc<DataPlane>,
    gateway: GatewayServer,
    node: InternalServer,
    address: SocketAddr,
}

fn node(plane: &Arc<DataPlane>) -> InternalServer {
    let fallback: Fallback = Arc::new(|_| {
        Box::pin(async { Response::new(BoxedBody::new(Full::default().map_err(|it| match it {}))) })
    });
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let limits = ConnectionLimits::default();
    let plane = Arc::clone(plane);
    let (protocols, runtime) = (Protocols::default(), RuntimeShape::Shared);
    InternalServer::bind(&[any], plane, fallback, limits, protocols, runtime).unwrap()
}

fn config(world: &World, node: SocketAddr, token: Option<&str>) -> VerifyConfig {
    VerifyConfig {
        node: format!("http://{node}").parse().unwrap(),
        token: token.map(|text| VerifyToken::new(text).unwrap()),
        format: profile().token_format(),
        carriers: profile().keys.carriers,
        tenant_header: Some(HeaderName::from_static("x-org")),
        environment: Some(Environment::Live),
        peer: Arc::new(|parts| {
            let connection = parts.extensions.get::<ConnectInfo<SocketAddr>>();
            connection.map(|connection| connection.0.ip())
        }),
        trusted_proxies: Networks::default(),
        timeout: PATIENCE,
        max_questions: MAX_QUESTIONS,
        docs_base: "/docs".to_owned(),
        clock: Arc::clone(&world.clock) as Arc<dyn Clock>,
    }
}

async fn application(config: VerifyConfig) -> SocketAddr {
    serve(Router::new().fallback(any(tell)).layer(VerifyLayer::new(config).unwrap())).await
}

impl Asking {
    async fn start() -> Self {
        Self::behind(Networks::default()).await
    }

    /// With a gateway and an application that believe these proxies.
    async fn behind(proxies: Networks) -> Self {
        let world = World::new();
        let upstream = Upstream::start().await;
        let upstreams = vec![upstream_at(upstream.address)];
        let policy = PlanePolicy { trusted_proxies: proxies.clone(), ..PlanePolicy::default() };
        let plane = world.plane_with(upstreams, policy, Some("x-org"));
        let node = node(&plane);
        let token = world.admin_token(&["verify"], None);
        let config = config(&world, node.local_addr(), Some(&token));
        let address = application(VerifyConfig { trusted_proxies: proxies, ..config }).await;
        let gateway = start(&plane, GatewayOptions { behind_tls: true, ..options() });
        Self { world, plane, gateway, node, address }
    }

    /// Sends a request to both, who must answer it in the same words; gives the code.
    async fn alike(&self, status: u16, line: &str, headers: &str) -> Option<String> {
        let request = format!("{line} HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
        let mine = raw(self.address, request.as_bytes()).await;
        let theirs = raw(self.gateway.local_addr(), request.as_bytes()).await;
        assert_eq!((mine.status, theirs.status), (status, status), "{request} {mine:?}");
        for name in ["www-authenticate", "allow", "retry-after"] {
            assert_eq!(mine.header(name), theirs.header(name), "{request}");
        }
        if status < 400 {
            return None;
        }
        assert_eq!(mine.refusal(), theirs.refusal(), "{request}");
        assert_eq!(mine.details(), theirs.details(), "{request}");
        let message = |answer: &Answer| answer.json()["error"]["message"].clone();
        assert_eq!(message(&mine), message(&theirs), "{request}");
        Some(mine.refusal().1)
    }

    fn head(&self, line: &str, more: &str) -> String {
        let token = &self.world.token;
        format!(
            "{line} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\nx-org: lagos-pay\r\n\
             {more}\r\n"
        )
    }
}

#[tokio::test]
async fn the_application_is_told_who_calls() {
    let asking = Asking::start().await;
    let more = "keyward-tenant: ten_x\r\nx-user-id: usr_x\r\nx-mine: 1\r\n";
    let answer = raw(asking.address, asking.head("GET /v1/reports?a=b", more).as_bytes()).await;
    let told = answer.told();
    assert_eq!(told["tenant"], json!(TENANT));
    assert_eq!(told["key"], json!(asking.world.authority.id));
    assert_eq!(told["name"], "Nächtlich 1%");
    assert_eq!(told["scopes"], json!(["reports:read", "reports:write"]));
    assert_eq!((told["role"].as_str(), &told["actor"]), (Some("admin"), &json!(OWNER)));
    assert_eq!(
        (told["environment"].as_str(), &told["client"]),
        (Some("live"), &json!("127.0.0.1"))
    );
    assert_eq!(told["headers"], json!(["host", "x-mine", "x-request-id"]));
    assert_eq!(told["requestId"].as_str(), answer.header("x-request-id"));
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn it_refuses_what_the_gateway_refuses_in_the_same_words() {
    let asking = Asking::start().await;
    let token = asking.world.token.clone();
    let test = asking.world.key_of(Environment::Test);
    let torn = &token[..token.len() - 1];
    let key = |text: &str| format!("authorization: Bearer {text}\r\nx-org: lagos-pay\r\n");
    let good = key(&token);
    let by_id = format!("authorization: Bearer {token}\r\nx-org: {TENANT}\r\n");
    let cases = [
        (200, "GET /v1/reports", good.clone()),
        (200, "GET /v1/reports", by_id),
        (401, "GET /v1/reports", String::new()),
        (401, "GET /v1/reports", format!("{good}x-api-key: {token}\r\n")),
        (401, "GET /v1/reports", key(torn)),
        (401, "GET /v1/reports", key(&test)),
        (403, "GET /v1/reports", format!("authorization: Bearer {token}\r\n")),
        (403, "GET /v1/other", format!("authorization: Bearer {token}\r\n")),
        (403, "GET /v1/reports", good.replace("lagos", "accra")),
        (400, "GET /v1/reports", format!("{good}x-org: accra-pay\r\n")),
        (403, "GET /v1/reports", format!("{good}origin: https://evil.example\r\n")),
        (403, "GET /v1/other", format!("{good}origin: https://evil.example\r\n")),
        (401, "GET /v1/reports", format!("{}origin: https://evil.example\r\n", key(&test))),
        (400, "GET /v1/reports", format!("{good}content-type: a/b\r\ncontent-type: a/b\r\n")),
        (403, "GET /v1/other", good.clone()),
        (405, "PATCH /v1/reports", good.clone()),
        (403, "GET /v1/audit", good.clone()),
        (400, "GET /v1//reports", good.clone()),
    ];
    for (status, line, headers) in cases {
        asking.alike(status, line, &headers).await;
    }
    let elsewhere = IpAllowlist::parse(&["203.0.113.0/24"]).unwrap();
    asking.world.change_key(|key| key.ip_allowlist = elsewhere);
    let answer = raw(asking.address, asking.head("GET /v1/reports", "").as_bytes()).await;
    assert_eq!(answer.refusal(), (403, "ip_not_allowed".to_owned(), "ip".to_owned()));
}

#[tokio::test]
async fn a_key_in_an_address_is_refused_as_by_the_gateway() {
    let asking = Asking::start().await;
    let token = asking.world.token.clone();
    let other = asking.world.key_of(Environment::Live);
    let torn = &token[..token.len() - 1];
    let referer = format!("referer: https://a.example/?k={token}\r\n");
    let good = format!("authorization: Bearer {token}\r\nx-org: lagos-pay\r\n");
    let twice = "content-type: a/b\r\ncontent-type: a/b\r\n";
    for (path, headers) in [
        (format!("/v1/reports?key={token}"), ""),
        (format!("/v1/reports/{token}"), ""),
        (format!("/v1/reports?key={}", token.replace('_', "%5F")), ""),
        ("/v1/reports".to_owned(), referer.as_str()),
        (format!("/v1/reports?key={other}"), ""),
        (format!("/v1/reports?key={torn}"), ""),
        (format!("/v1//reports?key={token}"), ""),
        (format!("/v1/reports?key={token}"), twice),
    ] {
        let line = format!("GET {path}");
        for key in ["", good.as_str()] {
            let code = asking.alike(400, &line, &format!("{key}{headers}")).await;
            assert_eq!(code.as_deref(), Some("credential_in_url"), "{line} {headers}");
        }
    }
}

/// Sends one request to the application; gives the code of its refusal and how the node has a key
/// exposed since.
async fn exposed_by(asking: &Asking, line: &str, headers: &str) -> (String, Vec<Exposure>) {
    asking.plane.drain_exposures();
    let request = format!("{line} HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
    let (_, code, _) = raw(asking.address, request.as_bytes()).await.refusal();
    let rows = asking.plane.drain_exposures();
    assert!(rows.iter().all(|row| (row.tenant, row.key) == (TENANT, asking.world.authority.id)));
    (code, rows.into_iter().map(|row| row.exposed.by).collect())
}

#[tokio::test]
async fn an4_the_node_is_told_of_a_key_that_was_exposed() {
    let asking = Asking::behind(Networks::new(vec!["127.0.0.0/8".parse().unwrap()])).await;
    let token = asking.world.token.clone();
    let good = format!("x-api-key: {token}\r\nx-org: lagos-pay\r\n");
    let clear = format!("x-forwarded-proto: http\r\n{good}");
    let page = format!("origin: https://a.example\r\n{good}");
    let plain = "GET /v1/reports".to_owned();
    for (line, headers, code, by) in [
        (format!("{plain}?key={token}"), "", "credential_in_url", Exposure::Url),
        (format!("GET //{}", token.replace('_', "%5F")), "", "credential_in_url", Exposure::Url),
        (plain.clone(), clear.as_str(), "tls_required", Exposure::ClearText),
        (plain.clone(), page.as_str(), "browser_origin_refused", Exposure::Browser),
    ] {
        let told = exposed_by(&asking, &line, headers).await;
        assert_eq!(told, (code.to_owned(), vec![by]), "{line}");
    }
    // what is no whole key is not told, and one that is nobody's marks nothing
    let torn = format!("{plain}?key={}", &token[..token.len() - 1]);
    for line in [torn, format!("{plain}?key={}", asking.world.key_of_nobody())] {
        let told = exposed_by(&asking, &line, "").await;
        assert_eq!(told, ("credential_in_url".to_owned(), Vec::new()), "{line}");
    }
}

#[tokio::test]
async fn a_caller_who_guesses_in_addresses_is_held_back_too() {
    let asking = Asking::start().await;
    for _ in 0..=FAILURE_BURST {
        let line = format!("GET /v1/reports?key={}", asking.world.key_of_nobody());
        let told = exposed_by(&asking, &line, "").await;
        assert_eq!(told, ("credential_in_url".to_owned(), Vec::new()));
    }
    let line = format!("GET /v1/reports?key={}", asking.world.token);
    let told = exposed_by(&asking, &line, "").await;
    assert_eq!(told, ("credential_in_url".to_owned(), Vec::new()), "refused, and nobody asked");
}

/// An application whose node takes questions and answers none.
async fn before_a_silent_node(world: &World) -> SocketAddr {
    let (silent, mut asked) = raw_upstream().await;
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Some(connection) = asked.recv().await {
            held.push(connection);
        }
    });
    let timeout = Duration::from_millis(100);
    application(VerifyConfig { timeout, ..config(world, silent, None) }).await
}

#[tokio::test]
async fn an_exposed_key_is_refused_although_nobody_can_be_told() {
    let world = World::new();
    let address = before_a_silent_node(&world).await;
    let request = format!("GET /v1/reports?key={} HTTP/1.1\r\nhost: a\r\n\r\n", world.token);
    assert_eq!(raw(address, request.as_bytes()).await.refusal().1, "credential_in_url");
}

#[tokio::test]
async fn a_key_that_a_trusted_proxy_got_in_clear_text_is_refused_as_by_the_gateway() {
    let asking = Asking::behind(Networks::new(vec!["127.0.0.0/8".parse().unwrap()])).await;
    let good = format!("x-api-key: {}\r\nx-org: lagos-pay\r\n", asking.world.token);
    let in_url = format!("GET /v1/reports?key={}", asking.world.token);
    for (said, clear) in [
        ("x-forwarded-proto: http\r\n", true),
        ("x-forwarded-proto: https, HTTP\r\nx-forwarded-for: 203.0.113.9\r\n", true),
        ("x-forwarded-proto: https\r\n", false),
        ("x-forwarded-proto: http\r\nx-forwarded-for: ::1\r\n", false),
        ("", false),
    ] {
        let (status, code) = if clear { (403, Some("tls_required")) } else { (200, None) };
        let told = asking.alike(status, "GET /v1/reports", &format!("{good}{said}")).await;
        assert_eq!(told.as_deref(), code, "{said}");
        let told = asking.alike(401, "GET /v1/reports", said).await;
        assert_eq!(told.as_deref(), Some("missing_api_key"), "{said}");
        let code = if clear { "tls_required" } else { "credential_in_url" };
        let status = if clear { 403 } else { 400 };
        let told = asking.alike(status, &in_url, &format!("{good}{said}")).await;
        assert_eq!(told.as_deref(), Some(code), "{said}");
    }
}

#[tokio::test]
async fn what_a_peer_says_that_is_no_trusted_proxy_is_nothing() {
    let asking = Asking::start().await;
    let request = asking.head("GET /v1/reports", "x-forwarded-proto: http\r\n");
    assert_eq!(raw(asking.address, request.as_bytes()).await.status, 200);
}

#[tokio::test]
async fn under_a_format_of_another_product_nothing_passes() {
    let asking = Asking::start().await;
    let token = asking.world.admin_token(&["verify"], None);
    let mut foreign = config(&asking.world, asking.node.local_addr(), Some(&token));
    foreign.format = TokenFormat::new("other", |environment| environment.as_str().to_owned());
    let address = application(foreign).await;
    let answer = raw(address, asking.head("GET /v1/reports", "").as_bytes()).await;
    assert_eq!(answer.refusal(), (500, "internal".to_owned(), "-".to_owned()));
}

#[tokio::test]
async fn a_revocation_counts_from_the_next_request() {
    let asking = Asking::start().await;
    let request = asking.head("GET /v1/reports", "");
    assert_eq!(raw(asking.address, request.as_bytes()).await.status, 200);
    asking.world.change_key(|key| key.revoked_at = Some(Timestamp::from_millis(START_MS)));
    let answer = raw(asking.address, request.as_bytes()).await;
    assert_eq!(answer.refusal(), (401, "unauthorized".to_owned(), "state".to_owned()));
}

#[tokio::test]
async fn wrong_keys_are_held_back_before_the_node_is_asked() {
    let asking = Asking::start().await;
    let wrong = "GET /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: nonsense\r\n\r\n";
    for _ in 0..=FAILURE_BURST {
        let answer = raw(asking.address, wrong.as_bytes()).await;
        assert_eq!(answer.status, 401);
    }
    let answer = raw(asking.address, asking.head("GET /v1/reports", "").as_bytes()).await;
    let refused = (429, "rate_limited".to_owned(), "failed_caller".to_owned());
    assert_eq!(answer.refusal(), refused);
    assert_eq!(answer.header("retry-after"), Some("2"));
}

/// A refusal because nobody could be asked.
fn unanswered(answer: &Answer) {
    assert_eq!(answer.refusal(), (503, "unavailable".to_owned(), "-".to_owned()));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn without_the_nodes_word_nothing_passes() {
    let asking = Asking::start().await;
    let request = asking.head("GET /v1/reports", "");
    // the node itself is not sure
    asking.plane.lease().grant(Lease::OVER);
    unanswered(&raw(asking.address, request.as_bytes()).await);
    asking.plane.lease().grant(FOR_EVER);
    // a token that may not verify, and none
    let node = node(&asking.plane);
    let weak = asking.world.admin_token(&["keys:read"], None);
    for token in [Some(weak.as_str()), Some("nonsense"), None] {
        let address = application(config(&asking.world, node.local_addr(), token)).await;
        unanswered(&raw(address, request.as_bytes()).await);
    }
    // nobody there
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = closed.local_addr().unwrap();
    drop(closed);
    let address = application(config(&asking.world, nowhere, None)).await;
    unanswered(&raw(address, request.as_bytes()).await);
    // somebody else there, who is asked on one connection
    let other = Upstream::start().await;
    let address = application(config(&asking.world, other.address, None)).await;
    for _ in 0..5 {
        unanswered(&raw(address, request.as_bytes()).await);
    }
    assert_eq!(
        (other.requests(), other.connections.load(std::sync::atomic::Ordering::SeqCst)),
        (5, 1)
    );
}

fn request(world: &World) -> String {
    let token = &world.token;
    format!("GET /v1/reports HTTP/1.1\r\nhost: a\r\nx-org: lagos-pay\r\nx-api-key: {token}\r\n\r\n")
}

#[tokio::test]
async fn a_node_that_is_silent_is_not_waited_for() {
    let world = World::new();
    let address = before_a_silent_node(&world).await;
    unanswered(&raw(address, request(&world).as_bytes()).await);
}

#[tokio::test]
async fn no_more_questions_are_under_way_than_there_are_turns() {
    let world = World::new();
    let (node, mut asked) = raw_upstream().await;
    let mut narrow = config(&world, node, None);
    narrow.max_questions = 2;
    let address = application(narrow).await;
    let request = request(&world);
    let answers = tokio::spawn(async move {
        let answers = (0..6).map(|_| raw(address, request.as_bytes()));
        futures_util::future::join_all(answers).await
    });
    for _ in 0..3 {
        let mut pair = Vec::new();
        for _ in 0..2 {
            let question = tokio::time::timeout(PATIENCE, asked.recv()).await;
            let mut question = question.expect("a question in time").unwrap();
            question.head().await;
            pair.push(question);
        }
        assert!(asked.try_recv().is_err(), "a third question at two turns");
        for mut question in pair {
            let busy = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            question.write(busy).await;
        }
    }
    for answer in answers.await.unwrap() {
        unanswered(&answer);
    }
}

#[test]
fn what_is_no_node_is_said_at_once() {
    let world = World::new();
    let mut nowhere = config(&world, "127.0.0.1:1".parse().unwrap(), None);
    nowhere.node = "/v1/verify".parse().unwrap();
    assert!(matches!(VerifyLayer::new(nowhere), Err(InvalidVerify::Node)));
    assert!(matches!(VerifyToken::new("a\nb"), Err(InvalidVerify::Token)));
}
