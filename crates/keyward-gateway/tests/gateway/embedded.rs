//! The layer in an application of its own: what the gateway refuses, it refuses alike.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

use keyward_core::Caller;
use keyward_core::environment::Environment;
use keyward_core::ip::IpAllowlist;
use keyward_core::key::Exposure;
use keyward_core::lease::Lease;
use keyward_core::time::Timestamp;
use keyward_gateway::embed::{EmbeddedLayer, EmbeddedOptions};
use keyward_gateway::{DataPlane, GatewayOptions, GatewayServer, Networks, Peer, PlanePolicy};

use crate::support::*;

/// The peer, as the framework of the application knows it.
fn by_connection(options: EmbeddedOptions) -> EmbeddedOptions {
    options.peer(|parts| {
        let connection = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        connection.map(|connection| connection.0.ip())
    })
}

pub(crate) async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}

/// An application that tells what it got, as the upstream of the other tests does.
pub(crate) async fn tell(
    Extension(caller): Extension<Caller>,
    Extension(client): Extension<Peer>,
    request: Request,
) -> ([(&'static str, &'static str); 3], Json<Value>) {
    let names: Vec<String> = request.headers().keys().map(ToString::to_string).collect();
    let told = json!({
        "tenant": caller.tenant, "environment": caller.environment.as_str(), "key": caller.key,
        "name": caller.key_name.as_deref(), "scopes": caller.scopes, "role": &*caller.role,
        "actor": caller.actor, "requestId": caller.request_id, "client": client.0.to_string(),
        "target": request.uri().to_string(), "headers": names,
    });
    let signs = [
        ("x-upstream", "told"),
        ("keyward-tenant", "forged"),
        ("access-control-allow-origin", "*"),
    ];
    (signs, Json(told))
}

struct Application {
    world: World,
    plane: Arc<DataPlane>,
    address: SocketAddr,
    /// A gateway that decides with the same plane.
    gateway: GatewayServer,
}

impl Application {
    async fn start(router: Router, tenant_header: Option<&str>) -> Self {
        Self::behind(Networks::default(), router, tenant_header).await
    }

    /// With a plane that believes these proxies.
    async fn behind(proxies: Networks, router: Router, tenant_header: Option<&str>) -> Self {
        let world = World::new();
        let upstream = Upstream::start().await;
        let upstreams = vec![upstream_at(upstream.address)];
        let policy = PlanePolicy { trusted_proxies: proxies, ..PlanePolicy::default() };
        let plane = world.plane_with(upstreams, policy, tenant_header);
        let by_connection = by_connection(EmbeddedOptions::new(live()));
        let layer = EmbeddedLayer::new(Arc::clone(&plane), by_connection);
        let address = serve(router.layer(layer)).await;
        let gateway = start(&plane, GatewayOptions { behind_tls: true, ..options() });
        Self { world, plane, address, gateway }
    }

    fn head(&self, line: &str, more: &str) -> Vec<u8> {
        let token = &self.world.token;
        let head = format!("{line} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n{more}");
        format!("{head}\r\n").into_bytes()
    }
}

#[tokio::test]
async fn the_application_is_told_who_calls_and_nothing_a_client_claims() {
    let app = Application::start(Router::new().fallback(any(tell)), None).await;
    let more = "keyward-tenant: ten_x\r\nx-user-id: usr_x\r\ncookie: a=b\r\nx-mine: 1\r\n\
                x-forwarded-for: 203.0.113.9\r\nx-request-id: theirs\r\n";
    let answer = raw(app.address, &app.head("GET /v1/reports?limit=2", more)).await;
    let told = answer.told();
    assert_eq!(told["tenant"], json!(TENANT));
    assert_eq!(told["environment"], "live");
    assert_eq!(told["key"], json!(app.world.authority.id));
    assert_eq!(told["name"], "Nächtlich 1%");
    assert_eq!(told["scopes"], json!(["reports:read", "reports:write"]));
    assert_eq!((told["role"].as_str(), &told["actor"]), (Some("admin"), &json!(OWNER)));
    assert_eq!(told["client"], "127.0.0.1", "the header is nobody's word");
    assert_eq!(told["target"], "/v1/reports?limit=2");
    assert_eq!(told["headers"], json!(["host", "x-mine", "x-request-id"]));
    assert_eq!(told["requestId"].as_str(), answer.header("x-request-id"));
    assert_eq!(answer.header("keyward-accepted-scopes"), Some("reports:read"));
    assert_eq!(answer.header("keyward-tenant"), None);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let rows = app.plane.drain_usage(10);
    assert_eq!((rows[0].key, rows[0].permitted), (app.world.authority.id, 1));
    let metrics = metrics_of(&app.plane);
    assert!(metrics.contains(r#"route="GET /v1/reports",decision="permit",code="ok"} 1"#));
}

/// What both entrances say to a request, but for the id of the request.
async fn both(app: &Application, request: &[u8]) -> (Answer, Answer) {
    let (mine, theirs) =
        tokio::join!(raw(app.address, request), raw(app.gateway.local_addr(), request));
    (mine, theirs)
}

#[tokio::test]
async fn it_refuses_what_the_gateway_refuses_in_the_same_words() {
    let app = Application::start(Router::new().fallback(any(tell)), Some("x-org")).await;
    let token = app.world.token.clone();
    let test = app.world.key_of(Environment::Test);
    let torn = &token[..token.len() - 1];
    let key = |text: &str| format!("authorization: Bearer {text}\r\nx-org: lagos-pay\r\n");
    let good = key(&token);
    let two = format!("{good}x-api-key: {token}\r\n");
    let in_url = format!("GET /v1/reports?key={token}");
    let cases = [
        ("GET /v1/reports", String::new()),
        ("GET /v1/reports", two),
        ("GET /v1/reports", key(torn)),
        ("GET /v1/reports", key(&test)),
        ("GET /v1/reports", format!("authorization: Bearer {token}\r\n")),
        ("GET /v1/reports", key(&token).replace("lagos", "accra")),
        ("GET /v1/reports", format!("{good}origin: https://evil.example\r\n")),
        ("GET /v1/reports", format!("{good}content-type: a/b\r\ncontent-type: a/b\r\n")),
        ("GET /v1/reports", format!("{good}connection: keyward-tenant\r\n")),
        ("GET /v1/other", good.clone()),
        ("PATCH /v1/reports", good.clone()),
        ("GET /v1/audit", good.clone()),
        ("GET /v1//reports", good.clone()),
        ("GET /v1/reports%2f1", good.clone()),
        (in_url.as_str(), good.clone()),
    ];
    for (line, headers) in cases {
        let request = format!("{line} HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
        let (mine, theirs) = both(&app, request.as_bytes()).await;
        assert!(mine.status >= 400, "{request}");
        assert_eq!(mine.refusal(), theirs.refusal(), "{request}");
        assert_eq!(mine.details(), theirs.details(), "{request}");
        for name in ["www-authenticate", "allow", "keyward-accepted-scopes", "retry-after"] {
            assert_eq!(mine.header(name), theirs.header(name), "{request}");
        }
    }
    let request = format!("GET /v1/reports HTTP/1.1\r\nhost: a\r\n{good}\r\n");
    let (mine, theirs) = both(&app, request.as_bytes()).await;
    assert_eq!((mine.status, theirs.status), (200, 200));
    app.world.change_key(|key| key.ip_allowlist = IpAllowlist::parse(&["203.0.113.0/24"]).unwrap());
    let (mine, theirs) = both(&app, request.as_bytes()).await;
    assert_eq!(mine.refusal(), (403, "ip_not_allowed".to_owned(), "ip".to_owned()));
    assert_eq!(mine.refusal(), theirs.refusal());
    app.plane.lease().grant(Lease::OVER);
    let (mine, theirs) = both(&app, request.as_bytes()).await;
    assert_eq!(mine.refusal(), (503, "unavailable".to_owned(), "-".to_owned()));
    assert_eq!(mine.refusal(), theirs.refusal());
}

/// What became known about the key since the last time.
fn exposed(app: &Application) -> Vec<Exposure> {
    let rows = app.plane.drain_exposures();
    assert!(rows.iter().all(|row| row.key == app.world.authority.id));
    rows.into_iter().map(|row| row.exposed.by).collect()
}

#[tokio::test]
async fn a_key_that_a_trusted_proxy_got_in_clear_text_is_refused_and_kept() {
    let proxies = Networks::new(vec!["127.0.0.0/8".parse().unwrap()]);
    let app = Application::behind(proxies, Router::new().fallback(any(tell)), None).await;
    for said in ["http", "https, HTTP", "http\r\nx-forwarded-for: 203.0.113.9"] {
        let said = format!("x-forwarded-proto: {said}\r\n");
        // an operation of the product's own is no exception
        for line in ["GET /v1/reports", "GET /v1/openapi.json", "GET /v1//reports"] {
            let request = app.head(line, &said);
            let mine = raw(app.address, &request).await;
            assert_eq!(mine.refusal(), (403, "tls_required".to_owned(), "-".to_owned()));
            assert_eq!(exposed(&app), [Exposure::ClearText], "{line} {said}");
            let theirs = raw(app.gateway.local_addr(), &request).await;
            assert_eq!(mine.refusal(), theirs.refusal(), "{line} {said}");
            assert_eq!(exposed(&app), [Exposure::ClearText], "{line} {said}");
        }
        let bare = format!("GET /v1/reports HTTP/1.1\r\nhost: a\r\n{said}\r\n");
        assert_eq!(raw(app.address, bare.as_bytes()).await.refusal().1, "missing_api_key");
    }
    for said in ["https", "http, https", "http\r\nx-forwarded-for: 127.0.0.1"] {
        let said = format!("x-forwarded-proto: {said}\r\n");
        raw(app.address, &app.head("GET /v1/reports", &said)).await.told();
    }
    raw(app.address, &app.head("GET /v1/reports", "")).await.told();
    assert_eq!(exposed(&app), []);
}

#[tokio::test]
async fn of_peers_that_are_no_trusted_proxies_the_layer_knows_nothing() {
    let world = World::new();
    let policy = PlanePolicy {
        trusted_proxies: Networks::new(vec!["127.0.0.0/8".parse().unwrap()]),
        ..PlanePolicy::default()
    };
    let plane = world.plane_with(Vec::new(), policy, None);
    // a client of another machine, which may have come by the application's own TLS
    let elsewhere = EmbeddedOptions::new(live()).peer(|_| Some([203, 0, 113, 9].into()));
    let layer = EmbeddedLayer::new(Arc::clone(&plane), elsewhere);
    let address = serve(Router::new().fallback(any(tell)).layer(layer)).await;
    for said in ["", "x-forwarded-proto: http\r\n"] {
        let token = &world.token;
        let head = format!("GET /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {token}\r\n{said}");
        raw(address, format!("{head}\r\n").as_bytes()).await.told();
    }
    assert_eq!(plane.drain_exposures().len(), 0);
}

#[tokio::test]
async fn a_built_in_operation_is_answered_without_the_application() {
    let app = Application::start(Router::new().fallback(any(tell)), None).await;
    let answer = raw(app.address, &app.head("GET /v1/openapi.json", "")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, format!("openapi /v1/openapi.json {TENANT}"));
}

#[tokio::test]
async fn without_a_peer_nothing_passes() {
    let world = World::new();
    let plane = world.plane(Vec::new());
    let layer = EmbeddedLayer::new(plane, EmbeddedOptions::new(live()));
    let address = serve(Router::new().fallback(any(tell)).layer(layer)).await;
    let request =
        format!("GET /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\r\n", world.token);
    let answer = raw(address, request.as_bytes()).await;
    assert_eq!(answer.refusal(), (500, "internal".to_owned(), "-".to_owned()));
    assert!(!answer.body.contains("peer"), "what helps only us stays inside");
}

#[tokio::test]
async fn a_revoked_key_ends_what_it_began() {
    let begun = Arc::new(Notify::new());
    let (waiting, streaming) = (Arc::clone(&begun), Arc::clone(&begun));
    // an upload that the application waits for, and an answer that never ends
    let router = Router::new()
        .route(
            "/v1/reports",
            post(move |body: Body| async move {
                waiting.notify_one();
                let read = axum::body::to_bytes(body, usize::MAX).await;
                format!("{} bytes", read.unwrap().len())
            }),
        )
        .route(
            "/v1/reports/{id}",
            get(move || async move {
                streaming.notify_one();
                let one = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"one"))]);
                Body::from_stream(stream::StreamExt::chain(one, stream::pending()))
            }),
        );
    let app = Application::start(router, None).await;
    let mut upload = Client::connect(app.address).await;
    upload.write(&app.head("POST /v1/reports", "transfer-encoding: chunked\r\n")).await;
    upload.write(b"3\r\nabc\r\n").await;
    begun.notified().await;
    let mut events = Client::connect(app.address).await;
    events.write(&app.head("GET /v1/reports/7", "")).await;
    assert!(events.head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(events.bytes(8).await, b"3\r\none\r\n");
    app.world.change_key(|key| key.revoked_at = Some(Timestamp::from_millis(START_MS)));
    app.world.clock.ms.fetch_add(1_000, std::sync::atomic::Ordering::SeqCst);
    let refused = tokio::time::timeout(Duration::from_secs(10), upload.answer()).await;
    let refusal = refused.expect("a refusal within seconds").refusal();
    assert_eq!(refusal, (401, "unauthorized".to_owned(), "state".to_owned()));
    assert!(events.is_closed().await, "the stream ends without its last chunk");
    let cuts = metrics_of(&app.plane);
    assert!(cuts.contains(r#"cut_total{route="GET /v1/reports/{id}",failed="state"} 1"#), "{cuts}");
}

#[tokio::test]
async fn a_caller_that_leaves_is_recorded() {
    let (sender, called) = oneshot::channel();
    let sender = Arc::new(parking_lot::Mutex::new(Some(sender)));
    let router = Router::new().fallback(any(move || async move {
        let sender = sender.lock().take();
        let _ = sender.unwrap().send(());
        std::future::pending::<()>().await;
    }));
    let app = Application::start(router, None).await;
    let mut client = Client::connect(app.address).await;
    client.write(&app.head("GET /v1/reports", "")).await;
    called.await.unwrap();
    drop(client);
    let gone = async {
        while !metrics_of(&app.plane).contains(r#"code="client_gone"} 1"#) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("a record of the caller that left");
}
