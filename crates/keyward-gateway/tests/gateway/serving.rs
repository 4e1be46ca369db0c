//! Listeners: reuse of connections, shapes of the runtime, limits, drain.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyward_core::environment::{Environment, EnvironmentSet};
use keyward_gateway::{ListenerEnvironments, Networks, PlanePolicy, RuntimeShape};

use crate::streams::Scene;
use crate::support::*;

fn head(token: &str, more: &str) -> String {
    format!("GET /v1/reports HTTP/1.1\r\nhost: api.test\r\nx-api-key: {token}\r\n{more}\r\n")
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    for runtime in [RuntimeShape::Shared, RuntimeShape::PerCore(2)] {
        let stage = stage_with(|options| options.runtime = runtime, None).await;
        let mut client = Client::connect(stage.server.local_addr()).await;
        for _ in 0..20 {
            client.write(head(&stage.world.token, "").as_bytes()).await;
            client.answer().await.told();
        }
        assert_eq!(stage.upstream.requests(), 20);
        let connections = stage.upstream.connections.load(Ordering::SeqCst);
        assert!(connections <= 2, "{connections} connections to the upstream with {runtime:?}");
    }
}

#[tokio::test]
async fn refusals_keep_the_connection_when_nothing_is_unread() {
    let stage = stage().await;
    let mut client = Client::connect(stage.server.local_addr()).await;
    for path in ["/v1//x", "/v1/reports", "/v1/admin"] {
        client.write(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await;
        assert!(!client.answer().await.closed);
    }
    client.write(head(&stage.world.token, "").as_bytes()).await;
    client.answer().await.told();
}

#[tokio::test]
async fn hosts_and_upstreams_by_environment() {
    let world = World::new();
    let only = |environment: Environment| std::iter::once(environment).collect();
    let (live_api, test_api) = (Upstream::start().await, Upstream::start().await);
    let mut to_live = upstream_at(live_api.address);
    to_live.environments = only(Environment::Live);
    let mut to_test = upstream_at(test_api.address);
    to_test.environments = only(Environment::Test);
    let plane = world.plane(vec![to_live, to_test]);
    let mut options = options();
    let hosts = vec![
        ("live.test".to_owned(), only(Environment::Live)),
        ("sandbox.test".to_owned(), only(Environment::Test)),
    ];
    options.environments = ListenerEnvironments::by_host(hosts, EnvironmentSet::default());
    let server = start(&plane, options);
    let test_token = world.key_of(Environment::Test);
    let ask = async |host: &str, token: &str| {
        let head =
            format!("GET /v1/reports HTTP/1.1\r\nhost: {host}\r\nx-api-key: {token}\r\n\r\n");
        raw(server.local_addr(), head.as_bytes()).await.status
    };
    assert_eq!(ask("live.test", &world.token).await, 200);
    assert_eq!(ask("LIVE.test:8443", &world.token).await, 200);
    assert_eq!(ask("live.test.:8443", &world.token).await, 200);
    assert_eq!(ask("sandbox.test.", &world.token).await, 401);
    assert_eq!(ask("sandbox.test", &test_token).await, 200);
    assert_eq!(ask("live.test", &test_token).await, 401);
    assert_eq!(ask("sandbox.test", &world.token).await, 401);
    assert_eq!(ask("other.test", &world.token).await, 401);
    assert_eq!((live_api.requests(), test_api.requests()), (3, 1));
}

#[tokio::test]
async fn addresses_come_from_trusted_proxies_only() {
    let world = World::new();
    let upstream = Upstream::start().await;
    let policy = PlanePolicy {
        trusted_proxies: Networks::new(vec!["127.0.0.0/8".parse().unwrap()]),
        ..PlanePolicy::default()
    };
    let plane = world.plane_with(vec![upstream_at(upstream.address)], policy, None);
    let server = start(&plane, options());
    let forwarded = "x-forwarded-for: 6.6.6.6, 203.0.113.9\r\n";
    let answer = raw(server.local_addr(), head(&world.token, forwarded).as_bytes()).await;
    assert_eq!(answer.told()["headers"]["x-forwarded-for"], "203.0.113.9");
}

#[tokio::test]
async fn one_address_cannot_take_every_connection() {
    let stage = stage_with(|options| options.limits.max_connections_per_address = 2, None).await;
    let address = stage.server.local_addr();
    let mut kept = [Client::connect(address).await, Client::connect(address).await];
    for client in &mut kept {
        client.write(head(&stage.world.token, "").as_bytes()).await;
        client.answer().await.told();
    }
    assert!(Client::connect(address).await.is_closed().await);
    drop(kept);
}

#[tokio::test]
async fn a_drain_ends_what_is_under_way_and_takes_nothing_new() {
    for runtime in [RuntimeShape::Shared, RuntimeShape::PerCore(1)] {
        let world = World::new();
        let (address, mut accepted) = raw_upstream().await;
        let plane = world.plane(vec![upstream_at(address)]);
        let mut options = options();
        options.runtime = runtime;
        let server = start(&plane, options);
        let listening: SocketAddr = server.local_addr();
        let mut idle = Client::connect(listening).await;
        idle.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        idle.answer().await.refusal();
        let mut busy = Client::connect(listening).await;
        busy.write(head(&world.token, "").as_bytes()).await;
        let mut upstream = accepted.recv().await.unwrap();
        upstream.head().await;
        let draining = tokio::spawn(server.drain(PATIENCE));
        assert!(idle.is_closed().await);
        upstream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let answer = busy.answer().await;
        assert_eq!((answer.body.as_str(), answer.closed), ("ok", true));
        assert!(draining.await.unwrap(), "everything ended in time");
        assert!(tokio::net::TcpStream::connect(listening).await.is_err());
    }
}

#[tokio::test]
async fn a_listener_that_leaves_serves_on_and_ends_each_connection_with_its_answer() {
    for runtime in [RuntimeShape::Shared, RuntimeShape::PerCore(1)] {
        let world = World::new();
        let (address, mut accepted) = raw_upstream().await;
        let mut options = options();
        options.runtime = runtime;
        let server = start(&world.plane(vec![upstream_at(address)]), options);
        let mut kept = Client::connect(server.local_addr()).await;
        kept.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        kept.answer().await.refusal();
        server.leave();
        // the kept connection still works once, and so does a new one
        let new = Client::connect(server.local_addr()).await;
        for mut client in [kept, new] {
            client.write(head(&world.token, "").as_bytes()).await;
            let mut upstream = accepted.recv().await.unwrap();
            upstream.head().await;
            let ok = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
            upstream.write(ok).await;
            let answer = client.answer().await;
            assert_eq!((answer.body.as_str(), answer.closed), ("ok", true));
        }
        assert!(server.drain(PATIENCE).await);
    }
}

#[tokio::test]
async fn a_drain_cuts_what_does_not_end() {
    for runtime in [RuntimeShape::Shared, RuntimeShape::PerCore(1)] {
        let world = World::new();
        let (address, mut accepted) = raw_upstream().await;
        let mut options = options();
        options.runtime = runtime;
        let server = start(&world.plane(vec![upstream_at(address)]), options);
        let mut busy = Client::connect(server.local_addr()).await;
        busy.write(head(&world.token, "").as_bytes()).await;
        let mut upstream = accepted.recv().await.unwrap();
        upstream.head().await;
        assert!(!server.drain(Duration::from_millis(20)).await);
        assert!(busy.is_closed().await);
    }
}

#[tokio::test]
async fn metrics_name_routes_and_codes_and_nobody() {
    let stage = stage().await;
    stage.send("GET", "/v1/reports/rep_secret", "").await.told();
    stage.send("GET", "/v1/audit", "").await.refusal();
    let text = metrics_of(&stage.plane);
    for labels in [
        r#"{route="GET /v1/reports/{id}",decision="permit",code="ok"}"#,
        r#"{route="GET /v1/audit",decision="deny",code="forbidden"}"#,
    ] {
        let line = format!("keyward_gateway_requests_total{labels} 1\n");
        assert!(text.contains(&line), "{line} in {text}");
    }
    assert!(text.contains("keyward_gateway_duration_seconds_count 2"), "{text}");
    for absent in ["rep_secret", "ten_", "key_", &stage.world.token] {
        assert!(!text.contains(absent), "{absent}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_ends_with_an_answer() {
    let scene = Scene::set_with(|options| {
        options.limits.max_connection_age = Some(Duration::from_secs(20));
        options.limits.idle_timeout = Duration::from_mins(10);
    })
    .await;
    let ask = async |client: &mut Client| {
        client.write(b"GET /v1/reports HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 401);
        answer.closed
    };
    let mut client = Client::connect(scene.server.local_addr()).await;
    for _ in 0..3 {
        assert!(!ask(&mut client).await);
        scene.pass_ms(5_000).await;
    }
    let mut younger = Client::connect(scene.server.local_addr()).await;
    assert!(!ask(&mut younger).await);
    scene.pass_ms(10_000).await;
    assert!(ask(&mut client).await, "it is 25 seconds old");
    assert!(client.is_closed().await);
    assert!(!ask(&mut younger).await);
}
