//! Connections that are handed over, on routes that allow it and on no other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::Request;
use keyward_core::environment::Environment;
use keyward_core::time::Timestamp;
use keyward_gateway::{DataPlane, GatewayOptions, GatewayServer, Tls, UpstreamConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::server::{Request as Asked, Response as Agreed};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

use crate::encrypted::{connector, encrypted, make, shake};
use crate::speakers::*;
use crate::support::*;

struct Scene {
    world: World,
    plane: Arc<DataPlane>,
    server: GatewayServer,
}

type Socket = WebSocketStream<TcpStream>;

impl Scene {
    fn of(upstream: UpstreamConfig) -> Self {
        Self::with(upstream, |_| {})
    }

    fn with(upstream: UpstreamConfig, tune: impl FnOnce(&mut GatewayOptions)) -> Self {
        let world = World::new();
        let plane = world.plane(vec![upstream]);
        let mut options = options();
        tune(&mut options);
        let server = start(&plane, options);
        Self { world, plane, server }
    }

    async fn open_with(&self, token: &str) -> Result<Socket, Error> {
        let stream = TcpStream::connect(self.server.local_addr()).await.unwrap();
        Self::open_on(stream, token).await
    }

    async fn open_on<S>(stream: S, token: &str) -> Result<WebSocketStream<S>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let request = Request::get("ws://api.test/v1/socket")
            .header("host", "api.test")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", "chat")
            .header("x-api-key", token)
            .body(())
            .unwrap();
        client_async(request, stream).await.map(|(socket, _)| socket)
    }

    async fn open(&self) -> Socket {
        self.open_with(&self.world.token).await.unwrap()
    }

    /// The head of an upgrade of any kind.
    fn head(&self, path: &str, protocol: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\nconnection: upgrade\r\n\
             upgrade: {protocol}\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.world.token
        )
    }

    fn metric(&self, line: &str) -> u64 {
        let metrics = metrics_of(&self.plane);
        let value = metrics.lines().find_map(|it| it.strip_prefix(line));
        value.unwrap_or_else(|| panic!("{line} in {metrics}")).trim().parse().unwrap()
    }

    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !condition(self) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("in time");
    }
}

/// Sends everything back, and tells what it was asked for.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    asked: mpsc::UnboundedSender<http::HeaderMap>,
) {
    #[expect(clippy::result_large_err, reason = "the library's own signature")]
    let answer = |request: &Asked, mut response: Agreed| {
        let _ = asked.send(request.headers().clone());
        response.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
        response.headers_mut().insert("keyward-tenant", "forged".parse().unwrap());
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, answer).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn echoing() -> (String, mpsc::UnboundedReceiver<http::HeaderMap>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream, asked.clone()));
        }
    });
    (url, told)
}

async fn says<S>(socket: &mut WebSocketStream<S>, text: &str) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    socket.send(Message::text(text)).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, socket.next()).await.expect("an answer in time");
    answer.unwrap().unwrap().into_text().unwrap().to_string()
}

#[tokio::test]
async fn messages_pass_both_ways_and_are_counted() {
    let (url, mut told) = echoing().await;
    let scene = Scene::of(config_of(&[&url]));
    let mut socket = scene.open().await;
    let headers = told.recv().await.unwrap();
    assert_eq!(headers["upgrade"], "websocket");
    assert_eq!(headers["sec-websocket-protocol"], "chat");
    assert!(headers.contains_key("keyward-assertion") && !headers.contains_key("x-api-key"));
    assert_eq!(says(&mut socket, "hello").await, "hello");
    assert_eq!(scene.metric("keyward_gateway_websockets "), 1);
    let large = vec![7_u8; 1 << 20];
    socket.send(Message::binary(large.clone())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_data(), large);
    socket.close(None).await.unwrap();
    while socket.next().await.is_some_and(|it| it.is_ok()) {}
    scene.until(|it| it.metric("keyward_gateway_websockets ") == 0).await;
    for direction in ["received", "sent"] {
        let line = format!("keyward_gateway_websocket_bytes_total{{direction=\"{direction}\"}} ");
        scene.until(|it| it.metric(&line) > 1 << 20).await;
    }
    let answered = "keyward_gateway_requests_total{route=\"GET /v1/socket\",decision=\"permit\",\
                    code=\"ok\"} ";
    assert_eq!(scene.metric(answered), 1);
}

#[tokio::test]
async fn every_kind_of_address_carries_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (asked, _told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream, asked.clone()));
        }
    });
    let scene = Scene::of(config_of(&[&format!("unix:{}", path.display())]));
    assert_eq!(says(&mut scene.open().await, "through a file").await, "through a file");

    let authority = Authority::new();
    let acceptor = authority.acceptor("api.test", &["h2", "http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config_of(&[&format!("https://{}", listener.local_addr().unwrap())]);
    config.tls.authorities = Some(authority.pem.clone());
    config.tls.server_name = Some("api.test".to_owned());
    let (asked, _told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = acceptor.accept(stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            tokio::spawn(echo(stream, asked.clone()));
        }
    });
    let scene = Scene::of(config);
    assert_eq!(says(&mut scene.open().await, "encrypted").await, "encrypted");
}

#[tokio::test]
async fn callers_reach_them_over_tls_too() {
    let made = make(&["api.test"]);
    let tls = Arc::new(Tls::new(vec![made.certificate()]).unwrap());
    let (url, _told) = echoing().await;
    let scene = Scene::with(config_of(&[&url]), encrypted(&tls));
    let connector = connector(&[&made], &[b"http/1.1"]);
    let stream = shake(&connector, scene.server.local_addr(), "api.test").await.unwrap();
    let mut socket = Scene::open_on(stream, &scene.world.token).await.unwrap();
    assert_eq!(says(&mut socket, "encrypted").await, "encrypted");
    scene.world.change_key(|key| key.revoked_at = Some(Timestamp::from_millis(START_MS)));
    scene.world.clock.ms.fetch_add(1_000, Ordering::SeqCst);
    let end = tokio::time::timeout(PATIENCE, socket.next()).await.expect("an end in time");
    assert!(end.is_none_or(|it| it.is_err()));
}

#[tokio::test]
async fn only_routes_that_allow_it_and_keys_that_may() {
    let (url, mut told) = echoing().await;
    let scene = Scene::of(config_of(&[&url]));
    let refused = scene.open_with("acme_live_nonsense").await.unwrap_err();
    assert!(matches!(refused, Error::Http(answer) if answer.status() == 401));
    scene.world.change_key(|key| key.scopes.clear());
    let refused = scene.open_with(&scene.world.token).await.unwrap_err();
    assert!(matches!(refused, Error::Http(answer) if answer.status() == 403));
    assert!(told.try_recv().is_err(), "the upstream saw nothing of it");
    // elsewhere the wish ends here, and the request is an ordinary one
    let stage = stage().await;
    for (path, more) in [
        ("/v1/reports", "connection: upgrade\r\nupgrade: websocket\r\n"),
        ("/v1/socket", "connection: upgrade\r\nupgrade: h2c\r\n"),
        // as a proxy in front hands on what it does not mean: a 101 would be a tunnel for everybody
        ("/v1/socket", "upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        (
            "/v1/socket",
            "connection: keep-alive\r\nupgrade: websocket\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
        ("/v1/socket", "connection: upgrade\r\nupgrade: websocket\r\n"),
        ("/v1/socket", "connection: upgrade\r\nupgrade: websocket, h2c\r\n"),
        ("/v1/socket", ""),
    ] {
        let told = stage.send("GET", path, more).await.told();
        assert_eq!(told["headers"].get("upgrade"), None, "{path} {more}");
        assert_eq!(told["headers"].get("connection"), None, "{path} {more}");
    }
}

#[tokio::test]
async fn an_upstream_may_decline_and_may_not_pretend() {
    let (address, mut accepted) = raw_upstream().await;
    let scene = Scene::of(config_of(&[&format!("http://{address}")]));
    let mut client = Client::connect(scene.server.local_addr()).await;
    client.write(scene.head("/v1/socket", "websocket").as_bytes()).await;
    let mut upstream = accepted.recv().await.unwrap();
    let head = upstream.head().await.to_ascii_lowercase();
    assert!(head.contains("connection: upgrade") && head.contains("upgrade: websocket"), "{head}");
    upstream.write(b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno").await;
    let declined = client.answer().await;
    assert_eq!((declined.status, declined.body.as_str(), declined.closed), (426, "no", false));
    for pretence in [
        "upgrade: h2c\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n",
        "upgrade: websocket\r\nconnection: upgrade\r\n",
        "sec-websocket-accept: x\r\n",
    ] {
        let mut client = Client::connect(scene.server.local_addr()).await;
        client.write(scene.head("/v1/socket", "websocket").as_bytes()).await;
        let mut upstream = tokio::select! {
            upstream = accepted.recv() => upstream.unwrap(),
            () = tokio::task::yield_now() => accepted.recv().await.unwrap(),
        };
        upstream.head().await;
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{pretence}\r\n");
        upstream.write(answer.as_bytes()).await;
        let refused = client.answer().await;
        assert_eq!(refused.refusal().1, "upstream_unreachable", "{pretence}");
    }
}

#[tokio::test]
async fn a_silent_one_is_given_up() {
    let (url, _told) = echoing().await;
    let mut config = config_of(&[&url]);
    config.websocket_idle_timeout = Duration::from_secs(1);
    let scene = Scene::of(config);
    let mut socket = scene.open().await;
    // longer than that in all
    for _ in 0..6 {
        let pause = tokio::time::timeout(Duration::from_millis(200), socket.next()).await;
        assert!(pause.is_err(), "it is open");
        assert_eq!(says(&mut socket, "still here").await, "still here");
    }
    let end = tokio::time::timeout(PATIENCE, socket.next()).await.expect("an end in time");
    assert!(end.is_none_or(|it| it.is_err()));
}

#[tokio::test]
async fn it_ends_within_a_second_of_its_keys_authority() {
    let (url, _told) = echoing().await;
    let scene = Scene::of(config_of(&[&url]));
    let other = scene.world.key_of(Environment::Live);
    let (mut mine, mut theirs) = (scene.open().await, scene.open_with(&other).await.unwrap());
    assert_eq!(says(&mut mine, "a").await, "a");
    scene.world.change_key(|key| key.revoked_at = Some(Timestamp::from_millis(START_MS)));
    scene.world.clock.ms.fetch_add(1_000, Ordering::SeqCst);
    let begun = tokio::time::Instant::now();
    let end = tokio::time::timeout(PATIENCE, mine.next()).await.expect("an end in time").unwrap();
    let reset = |error: &Error| {
        matches!(error, Error::Io(it) if it.kind() == std::io::ErrorKind::ConnectionReset)
            || matches!(error, Error::Protocol(_))
    };
    assert!(end.as_ref().is_err_and(reset), "{end:?}");
    // a second, and what a busy machine takes
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(says(&mut theirs, "b").await, "b");
    let cut = "keyward_gateway_streams_cut_total{route=\"GET /v1/socket\",failed=\"state\"} ";
    scene.until(|it| metrics_of(&it.plane).contains(cut)).await;
    assert_eq!(scene.metric(cut), 1);
}

#[tokio::test]
async fn a_drain_waits_for_them_and_cuts_those_that_stay() {
    let (url, _told) = echoing().await;
    let Scene { world, plane, server } = Scene::of(config_of(&[&url]));
    let scene = Scene { world, plane: Arc::clone(&plane), server };
    let mut leaves = scene.open().await;
    assert_eq!(says(&mut leaves, "a").await, "a");
    let mut draining = tokio::spawn(scene.server.drain(PATIENCE));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut draining).await;
    assert!(early.is_err(), "it is waited for");
    assert_eq!(says(&mut leaves, "still").await, "still");
    leaves.close(None).await.unwrap();
    while leaves.next().await.is_some_and(|it| it.is_ok()) {}
    drop(leaves);
    assert!(draining.await.unwrap(), "it ended in time");

    let scene = Scene::of(config_of(&[&url]));
    let mut stays = scene.open().await;
    assert_eq!(says(&mut stays, "a").await, "a");
    assert!(!scene.server.drain(Duration::from_millis(50)).await);
    let end = tokio::time::timeout(PATIENCE, stays.next()).await.expect("an end in time");
    assert!(end.is_none_or(|it| it.is_err()));
}
