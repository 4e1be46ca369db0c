//! Which upstream and which address a request goes to, and what happens when one fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use keyward_core::environment::Environment;
use keyward_gateway::{Balance, GatewayServer, UpstreamConfig, UpstreamProtocol};

use crate::speakers::*;
use crate::support::*;

/// A gateway in front of upstreams, and a key for it.
struct Scene {
    world: World,
    server: GatewayServer,
}

impl Scene {
    fn of(upstreams: Vec<UpstreamConfig>) -> Self {
        let world = World::new();
        let mut options = options();
        options.environments = keyward_gateway::ListenerEnvironments::all_hosts(
            [Environment::Live, Environment::Test].into_iter().collect(),
        );
        let server = start(&world.plane(upstreams), options);
        Self { world, server }
    }

    fn head(&self, method: &str, path: &str, more: &str) -> String {
        let token = &self.world.token;
        format!("{method} {path} HTTP/1.1\r\nhost: a\r\nx-api-key: {token}\r\n{more}\r\n")
    }

    async fn client(&self) -> Client {
        Client::connect(self.server.local_addr()).await
    }

    async fn get(&self, path: &str) -> Answer {
        raw(self.server.local_addr(), self.head("GET", path, "").as_bytes()).await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        let length = format!("content-length: {}\r\n", body.len());
        let whole = self.head("POST", path, &length) + body;
        raw(self.server.local_addr(), whole.as_bytes()).await
    }
}

async fn http1(name: &'static str) -> Speaker {
    Speaker::on_tcp(Speech::Http1, named(name)).await
}

/// An address at which nobody listens.
async fn nobody() -> String {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", gone.local_addr().unwrap())
}

#[tokio::test]
async fn routes_choose_their_upstream_by_name_by_path_and_by_environment() {
    let (billing, single, rest, sandbox) =
        (http1("billing").await, http1("single").await, http1("rest").await, http1("box").await);
    let only = |speaker: &Speaker, environment: Environment| {
        let mut config = speaker.config();
        config.environments = std::iter::once(environment).collect();
        config
    };
    let live = |speaker: &Speaker| only(speaker, Environment::Live);
    let mut by_name = live(&billing);
    by_name.name = Some("billing".to_owned());
    let mut by_path = live(&single);
    by_path.paths = vec!["/v1/reports/{id}".to_owned()];
    let scene = Scene::of(vec![by_name, by_path, live(&rest), only(&sandbox, Environment::Test)]);
    for (path, name) in [
        ("/v1/billing/invoices", "billing"),
        ("/v1/reports/7", "single"),
        ("/v1/reports", "rest"),
        ("/v1/quick", "rest"),
    ] {
        assert_eq!(scene.get(path).await.body, format!("{name} GET {path}"));
    }
    // the only upstream of an environment takes everything
    let key = scene.world.key_of(Environment::Test);
    for path in ["/v1/billing/invoices", "/v1/reports"] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n");
        let answer = raw(scene.server.local_addr(), head.as_bytes()).await;
        assert_eq!(answer.body, format!("box GET {path}"));
    }
}

#[test]
fn choices_that_are_none_or_two_do_not_start() {
    let world = World::new();
    let config = |url: &str, name: Option<&str>, paths: &[&str]| {
        let mut config = config_of(&[url]);
        config.name = name.map(str::to_owned);
        config.paths = paths.iter().map(|path| (*path).to_owned()).collect();
        config
    };
    let refusal = |configs: Vec<UpstreamConfig>| {
        world.try_plane(configs).err().expect("a refusal").to_string()
    };
    let rest = || config("http://a:1", None, &[]);
    for (configs, what) in [
        (vec![rest(), config("http://b:1", None, &[])], "more than one upstream of live takes"),
        (vec![rest(), config("http://b:1", Some("other"), &[])], "no upstream of live has that"),
        (vec![rest(), config("http://b:1", None, &["/v2"])], "no route below /v2"),
        (
            vec![
                config("http://a:1", None, &["/v1/reports"]),
                config("http://b:1", Some("billing"), &[]),
            ],
            "no upstream of live takes GET /v1/audit",
        ),
        (
            vec![
                config("http://a:1", Some("billing"), &["/v1"]),
                config("http://b:1", None, &["/v1/"]),
            ],
            "more than one upstream of live takes",
        ),
    ] {
        let refusal = refusal(configs);
        assert!(refusal.contains(what), "{what}: {refusal}");
    }
    let with = |change: fn(&mut UpstreamConfig)| {
        let mut config = rest();
        change(&mut config);
        refusal(vec![config])
    };
    assert!(with(|it| it.addresses.clear()).contains("addresses"));
    assert!(with(|it| it.addresses.push("http://a:1".to_owned())).contains("each once"));
    assert!(with(|it| it.max_requests = Some(0)).contains("max-requests"));
    assert!(with(|it| it.health.path = Some("up".to_owned())).contains("begins with /"));
    assert!(with(|it| it.protocol = UpstreamProtocol::Http2).contains("WebSockets"));
    assert!(with(|it| it.host = Some("a b".to_owned())).contains("host"));
    let unbelieved = with(|it| {
        it.addresses = vec!["https://a".to_owned()];
        it.tls.authorities = Some(b"nothing".to_vec());
    });
    assert!(unbelieved.contains("no certificate authority"), "{unbelieved}");
}

#[tokio::test]
async fn addresses_take_turns() {
    let (one, two, three) = (http1("1").await, http1("2").await, http1("3").await);
    let scene = Scene::of(vec![config_of(&[&one.url, &two.url, &three.url])]);
    for _ in 0..12 {
        assert_eq!(scene.get("/v1/reports").await.status, 200);
    }
    assert_eq!((one.requests(), two.requests(), three.requests()), (4, 4, 4));
}

#[tokio::test]
async fn the_address_with_the_fewest_requests_under_way_is_next() {
    let (address, mut accepted) = raw_upstream().await;
    let quick = http1("quick").await;
    let slow = format!("http://{address}");
    let mut config = config_of(&[&slow, &quick.url]);
    config.balance = Balance::LeastRequests;
    let scene = Scene::of(vec![config]);
    // until the slow one has got a request that it does not answer
    let mut held = Vec::new();
    let upstream = loop {
        let mut client = scene.client().await;
        client.write(scene.head("GET", "/v1/reports", "").as_bytes()).await;
        held.push(client);
        let next = tokio::time::timeout(Duration::from_millis(50), accepted.recv());
        if let Ok(upstream) = next.await {
            break upstream.unwrap();
        }
    };
    let before = quick.requests();
    for _ in 0..6 {
        assert_eq!(scene.get("/v1/reports").await.status, 200);
    }
    assert_eq!(quick.requests(), before + 6);
    assert!(accepted.try_recv().is_err(), "the busy one got nothing more");
    drop(upstream);
}

#[tokio::test]
async fn what_could_not_be_sent_goes_to_another_address() {
    let well = http1("well").await;
    let gone = nobody().await;
    let scene = Scene::of(vec![config_of(&[&gone, &well.url])]);
    for _ in 0..4 {
        assert_eq!(scene.get("/v1/reports").await.body, "well GET /v1/reports");
        // whatever it is: it was not sent
        assert_eq!(scene.post("/v1/reports", "x").await.body, "well POST /v1/reports");
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_only_repeated_when_that_is_safe() {
    let well = http1("well").await;
    let (address, mut accepted) = raw_upstream().await;
    tokio::spawn(async move {
        // takes the request and breaks off
        while let Some(mut upstream) = accepted.recv().await {
            upstream.head().await;
        }
    });
    let broken = format!("http://{address}");
    let scene = Scene::of(vec![config_of(&[&broken, &well.url])]);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        assert_eq!(scene.get("/v1/reports").await.status, 200, "a safe one is repeated");
    }
    for _ in 0..4 {
        statuses.push(scene.post("/v1/reports", "x").await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502], "those that reached the broken one are not");
}

#[tokio::test]
async fn an_outage_is_not_made_worse_by_repeating() {
    // answers nothing, and counts
    let (address, mut accepted) = raw_upstream().await;
    let (other, mut accepted_too) = raw_upstream().await;
    let seen = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = accepted.recv() => next,
                next = accepted_too.recv() => next,
            };
            let Some(mut upstream) = next else { return };
            upstream.head().await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let urls = [format!("http://{address}"), format!("http://{other}")];
    let scene = Scene::of(vec![config_of(&[&urls[0], &urls[1]])]);
    let requests = 400;
    let mut client = scene.client().await;
    for _ in 0..requests {
        client.write(scene.head("GET", "/v1/reports", "").as_bytes()).await;
        assert_eq!(client.answer().await.status, 502);
    }
    // one in ten, and what was saved up for each of the two addresses
    let most = requests + requests / 10 + 2 * 11;
    let seen = seen.load(Ordering::SeqCst);
    assert!((requests + 20..=most).contains(&seen), "{seen} of at most {most}");
}

#[tokio::test]
async fn an_upstream_gets_no_more_requests_than_it_may() {
    let (address, mut accepted) = raw_upstream().await;
    let mut config = config_of(&[&format!("http://{address}")]);
    config.max_requests = Some(1);
    config.queue_timeout = Duration::from_millis(500);
    let scene = Scene::of(vec![config]);
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let mut first = scene.client().await;
    first.write(scene.head("GET", "/v1/reports", "").as_bytes()).await;
    let mut upstream = accepted.recv().await.unwrap();
    upstream.head().await;
    // over the bound, and nothing becomes free in time
    let refused = scene.get("/v1/reports").await;
    assert_eq!((refused.status, refused.refusal().1.as_str()), (503, "unavailable"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    // one that waits gets the connection of the one before it
    let mut second = scene.client().await;
    second.write(scene.head("GET", "/v1/reports", "").as_bytes()).await;
    upstream.write(ok).await;
    assert_eq!(first.answer().await.body, "ok");
    upstream.head().await;
    upstream.write(ok).await;
    assert_eq!(second.answer().await.body, "ok");
    assert!(accepted.try_recv().is_err(), "one connection did");
}

#[tokio::test]
async fn threads_share_the_connections_of_a_bounded_upstream() {
    let speaker = http1("only").await;
    let mut config = speaker.config();
    config.max_requests = Some(2);
    let world = World::new();
    let mut options = options();
    options.runtime = keyward_gateway::RuntimeShape::PerCore(4);
    let server = start(&world.plane(vec![config]), options);
    let scene = Scene { world, server };
    for _ in 0..24 {
        assert_eq!(scene.get("/v1/reports").await.status, 200);
    }
    assert!(speaker.connections() <= 2, "{} connections", speaker.connections());
}

#[tokio::test]
async fn an_exchange_has_an_end_however_it_moves() {
    let (address, mut accepted) = raw_upstream().await;
    let mut config = config_of(&[&format!("http://{address}")]);
    config.total_timeout = Some(Duration::from_mins(5));
    let scene = Scene::of(vec![config]);
    // the route says 300 ms: before the head
    let mut client = scene.client().await;
    client.write(scene.head("GET", "/v1/quick", "").as_bytes()).await;
    let silent = accepted.recv().await.unwrap();
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.refusal().1.as_str()), (504, "upstream_timeout"));
    drop(silent);
    // and behind it, although bytes come all the time
    let mut client = scene.client().await;
    let begun = tokio::time::Instant::now();
    client.write(scene.head("GET", "/v1/quick", "").as_bytes()).await;
    let mut upstream = accepted.recv().await.unwrap();
    upstream.head().await;
    upstream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await;
    client.head().await;
    let dripping = async {
        while tokio::time::timeout(Duration::from_millis(20), client.more()).await != Ok(false) {
            upstream.write(b".").await;
        }
    };
    tokio::time::timeout(PATIENCE, dripping).await.expect("an end in time");
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_socket_is_an_address_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let host = Arc::new(|request: Request<Incoming>| {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let answer: futures_util::future::BoxFuture<'static, _> =
            Box::pin(async move { whole(host) });
        answer
    });
    let speaker = Speaker::on_socket(&path, Speech::Http1, host);
    let scene = Scene::of(vec![speaker.config()]);
    assert_eq!(scene.get("/v1/reports").await.body, "localhost");
    assert_eq!(scene.get("/v1/reports").await.body, "localhost");
    assert_eq!(speaker.connections(), 1, "connections are kept");
    let mut renamed = speaker.config();
    renamed.host = Some("api.internal:8080".to_owned());
    let scene = Scene::of(vec![renamed]);
    assert_eq!(scene.get("/v1/reports").await.body, "api.internal:8080");
    let second = folder.path().join("h2.sock");
    let speaker = Speaker::on_socket(&second, Speech::Http2, named("h2"));
    let mut config = speaker.config();
    config.protocol = UpstreamProtocol::Http2;
    config.environments = std::iter::once(Environment::Live).collect();
    let refused = World::new().try_plane(vec![config]).err().expect("WebSockets").to_string();
    assert!(refused.contains("WebSockets"), "{refused}");
}

#[tokio::test]
async fn upstreams_over_tls_are_believed_by_their_certificates() {
    let authority = Authority::new();
    for (offered, protocol, spoken) in [
        (&["h2", "http/1.1"][..], UpstreamProtocol::Auto, "HTTP/2.0"),
        (&["h2", "http/1.1"][..], UpstreamProtocol::Http1, "HTTP/1.1"),
        (&["http/1.1"][..], UpstreamProtocol::Auto, "HTTP/1.1"),
        (&[][..], UpstreamProtocol::Auto, "HTTP/1.1"),
    ] {
        let version: Answering = Arc::new(|request| {
            let text = format!("{:?} {}", request.version(), request.uri().path());
            Box::pin(async move { whole(text) })
        });
        let speaker = Speaker::on_tls(&authority, "api.test", offered, version).await;
        let mut config = speaker.config();
        config.protocol = protocol;
        config.tls.authorities = Some(authority.pem.clone());
        config.tls.server_name = Some("api.test".to_owned());
        let scene = Scene::of(vec![config]);
        for _ in 0..3 {
            assert_eq!(scene.get("/v1/reports").await.body, format!("{spoken} /v1/reports"));
        }
        assert_eq!(speaker.connections(), 1, "connections are kept");
    }
}

#[tokio::test]
async fn certificates_that_are_not_believed_are_no_upstream() {
    let authority = Authority::new();
    let speaker = Speaker::on_tls(&authority, "api.test", &["http/1.1"], named("tls")).await;
    let with = |authorities: &Authority, name: &str| {
        let mut config = speaker.config();
        config.tls.authorities = Some(authorities.pem.clone());
        config.tls.server_name = Some(name.to_owned());
        Scene::of(vec![config])
    };
    for scene in [with(&Authority::new(), "api.test"), with(&authority, "other.test")] {
        let refused = scene.get("/v1/reports").await;
        assert_eq!((refused.status, refused.refusal().1.as_str()), (502, "upstream_unreachable"));
    }
    assert_eq!(speaker.requests(), 0);
    assert_eq!(with(&authority, "api.test").get("/v1/reports").await.status, 200);
}
