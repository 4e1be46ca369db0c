//! Upstreams that speak HTTP/2.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use keyward_gateway::{GatewayOptions, GatewayServer, UpstreamConfig, UpstreamProtocol};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

use crate::frames::Wire;
use crate::http2::h2c;
use crate::speakers::*;
use crate::support::*;
use crate::untaken::NO_WINDOW;

struct Scene {
    world: World,
    server: GatewayServer,
}

impl Scene {
    fn of(upstream: UpstreamConfig) -> Self {
        Self::with(upstream, options())
    }

    fn with(mut upstream: UpstreamConfig, options: GatewayOptions) -> Self {
        upstream.protocol = UpstreamProtocol::Http2;
        let world = World::new();
        let server = start(&world.plane(with_sockets_elsewhere(upstream)), options);
        Self { world, server }
    }

    fn head(&self, method: &str, more: &str) -> String {
        let token = &self.world.token;
        format!(
            "{method} /v1/reports?a=%20b HTTP/1.1\r\nhost: a\r\nx-api-key: {token}\r\n{more}\r\n"
        )
    }

    async fn client(&self) -> Client {
        Client::connect(self.server.local_addr()).await
    }

    async fn send(&self, method: &str, more: &str) -> Answer {
        raw(self.server.local_addr(), self.head(method, more).as_bytes()).await
    }
}

/// A body that a test feeds.
fn fed() -> (mpsc::UnboundedSender<Frame<Bytes>>, Body) {
    let (feed, mut frames) = mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |cx| {
        frames.poll_recv(cx).map(|frame| frame.map(Ok::<_, std::convert::Infallible>))
    });
    (feed, StreamBody::new(stream).boxed_unsync())
}

#[tokio::test]
async fn requests_pass_as_they_are_and_share_a_connection() {
    let answering: Answering = Arc::new(|request| {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let names: Vec<&str> = parts.headers.keys().map(http::HeaderName::as_str).collect();
            let text = format!(
                "{:?} {} {} {} {}\n{}",
                parts.version,
                parts.method,
                parts.uri,
                parts.headers.get("content-length").map_or("-", |it| it.to_str().unwrap()),
                String::from_utf8_lossy(&body),
                names.join(" "),
            );
            whole(text)
        })
    });
    let speaker = Speaker::on_tcp(Speech::Http2, answering).await;
    let scene = Scene::of(speaker.config());
    let told = scene.send("GET", "connection: x-once\r\nx-once: 1\r\nx-more: 2\r\n").await;
    let uri = format!("{}/v1/reports?a=%20b", speaker.url);
    let (line, names) = told.body.split_once('\n').unwrap();
    assert_eq!(line, format!("HTTP/2.0 GET {uri} - "));
    assert!(names.contains("keyward-assertion") && names.contains("x-more"), "{names}");
    for absent in ["host", "connection", "x-once", "transfer-encoding", "x-api-key"] {
        assert!(!names.split(' ').any(|name| name == absent), "{absent} in {names}");
    }
    assert_eq!(told.header("content-length"), Some(told.body.len().to_string().as_str()));
    let sized = scene.head("POST", "content-length: 5\r\n") + "hello";
    let told = raw(scene.server.local_addr(), sized.as_bytes()).await;
    assert!(told.body.starts_with(&format!("HTTP/2.0 POST {uri} 5 hello\n")), "{told:?}");
    let chunked = scene.head("POST", "transfer-encoding: chunked\r\n") + "2\r\nhi\r\n0\r\n\r\n";
    let told = raw(scene.server.local_addr(), chunked.as_bytes()).await;
    assert!(told.body.starts_with(&format!("HTTP/2.0 POST {uri} - hi\n")), "{told:?}");
    assert_eq!((speaker.requests(), speaker.connections()), (3, 1));
}

#[tokio::test]
async fn many_exchanges_share_few_connections() {
    let released = Arc::new(Notify::new());
    let gate = Arc::clone(&released);
    let answering: Answering = Arc::new(move |_| {
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            gate.notified().await;
            whole("ok")
        })
    });
    let speaker = Speaker::on_tcp(Speech::Http2, answering).await;
    let scene = Scene::of(speaker.config());
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = scene.client().await;
        client.write(scene.head("GET", "").as_bytes()).await;
        clients.push(client);
    }
    let arriving = async {
        while speaker.requests() < 100 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, arriving).await.expect("all are under way at once");
    assert_eq!(speaker.connections(), 2, "64 streams at most on each");
    for _ in 0..100 {
        released.notify_one();
    }
    for mut client in clients {
        assert_eq!(client.answer().await.body, "ok");
    }
}

/// Counts when it is dropped.
struct Leaving(Arc<AtomicU64>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_caller_that_leaves_ends_its_stream_and_no_other() {
    let left = Arc::new(AtomicU64::new(0));
    let (count, released) = (Arc::clone(&left), Arc::new(Notify::new()));
    let gate = Arc::clone(&released);
    let answering: Answering = Arc::new(move |_| {
        let (leaving, gate) = (Leaving(Arc::clone(&count)), Arc::clone(&gate));
        Box::pin(async move {
            gate.notified().await;
            std::mem::forget(leaving);
            whole("ok")
        })
    });
    let speaker = Speaker::on_tcp(Speech::Http2, answering).await;
    let scene = Scene::of(speaker.config());
    let mut stays = scene.client().await;
    stays.write(scene.head("GET", "").as_bytes()).await;
    let mut leaves = scene.client().await;
    leaves.write(scene.head("GET", "").as_bytes()).await;
    let until = async |condition: &dyn Fn() -> bool| {
        let waiting = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("in time");
    };
    until(&|| speaker.requests() == 2).await;
    drop(leaves);
    until(&|| left.load(Ordering::SeqCst) == 1).await;
    released.notify_one();
    assert_eq!(stays.answer().await.body, "ok");
    assert_eq!(speaker.connections(), 1);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let (feed, body) = fed();
    let body = std::sync::Mutex::new(Some(body));
    let (tell, mut told) = mpsc::unbounded_channel();
    let answering: Answering = Arc::new(move |request| {
        let (body, tell) = (body.lock().unwrap().take().unwrap(), tell.clone());
        Box::pin(async move {
            tokio::spawn(async move {
                let mut upload = request.into_body();
                while let Some(Ok(frame)) = upload.frame().await {
                    let _ = tell.send(frame.into_data().unwrap());
                }
            });
            Response::new(body)
        })
    });
    let speaker = Speaker::on_tcp(Speech::Http2, answering).await;
    let scene = Scene::of(speaker.config());
    let mut client = scene.client().await;
    client.write(scene.head("POST", "transfer-encoding: chunked\r\n").as_bytes()).await;
    client.write(b"3\r\none\r\n").await;
    assert_eq!(told.recv().await.unwrap(), "one");
    feed.send(Frame::data("eins".into())).unwrap();
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("chunked"), "{head}");
    assert_eq!(client.bytes(9).await, b"4\r\neins\r\n");
    client.write(b"3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(told.recv().await.unwrap(), "two");
    drop(feed);
    assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
}

#[tokio::test]
async fn an_upload_that_one_stream_does_not_take_is_given_up_alone() {
    let stuck = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&stuck);
    let answering: Answering = Arc::new(move |request| {
        let stuck = flag.load(Ordering::SeqCst);
        Box::pin(async move {
            if stuck {
                // holds the body and never reads it
                let _body = request.into_body();
                std::future::pending::<()>().await;
            }
            whole("ok")
        })
    });
    let speaker = Speaker::on_tcp(Speech::Http2, answering).await;
    let mut config = speaker.config();
    config.body_idle_timeout = Duration::from_millis(300);
    let scene = Scene::of(config);
    let mut client = scene.client().await;
    client.write(scene.head("POST", "content-length: 10000000\r\n").as_bytes()).await;
    let chunk = vec![0_u8; 1 << 16];
    let mut sent = 0;
    while sent < 9_000_000 {
        let write = tokio::io::AsyncWriteExt::write(&mut client.stream, &chunk);
        match tokio::time::timeout(Duration::from_millis(50), write).await {
            Ok(Ok(count)) => sent += count,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.refusal().1.as_str()), (504, "upstream_timeout"));
    stuck.store(false, Ordering::SeqCst);
    assert_eq!(scene.send("GET", "").await.body, "ok");
    assert_eq!(speaker.connections(), 1, "the other streams of its connection go on");
}

/// Small frames cost more memory than their bytes, so that the library ends a connection on which
/// too many wait.
#[tokio::test]
async fn small_frames_that_nobody_takes_end_nobody_elses_exchange() {
    const UNTAKEN: u64 = 40;
    const FRAME: &[u8] = &[b'x'; 40];
    let (released, sent) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
    let (gate, count) = (Arc::clone(&released), Arc::clone(&sent));
    let answering: Answering = Arc::new(move |request| {
        let (gate, count) = (Arc::clone(&gate), Arc::clone(&count));
        Box::pin(async move {
            if request.method() == http::Method::POST {
                gate.notified().await;
                return whole("ok");
            }
            let frames = futures_util::stream::repeat_with(move || {
                count.fetch_add(1, Ordering::SeqCst);
                Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(FRAME)))
            });
            Response::new(StreamBody::new(frames).boxed_unsync())
        })
    });
    let speaker = Speaker::on_tcp(Speech::Http2, answering).await;
    let mut options = options();
    h2c(&mut options);
    let scene = Scene::with(speaker.config(), options);
    let mut stays = scene.client().await;
    stays.write(scene.head("POST", "content-length: 0\r\n").as_bytes()).await;
    let mut untaken = Wire::open(scene.server.local_addr(), &NO_WINDOW).await;
    for number in 0..u32::try_from(UNTAKEN).unwrap() {
        untaken.get(2 * number + 1, "/v1/reports", &[("x-api-key", &scene.world.token)]).await;
    }
    // the windows of all of them are full
    let full = async {
        while sent.load(Ordering::SeqCst) * (FRAME.len() as u64) < UNTAKEN * 64 * 1024 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, full).await.expect("all wait on one connection");
    released.notify_one();
    assert_eq!(stays.answer().await.body, "ok");
    assert_eq!(speaker.connections(), 1);
}

/// An upstream of HTTP/2 frames: the test answers each stream itself.
async fn frames()
-> (String, mpsc::UnboundedReceiver<h2::server::Connection<tokio::net::TcpStream, Bytes>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let connection = h2::server::handshake(socket).await.unwrap();
            if sender.send(connection).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

#[tokio::test]
async fn what_an_upstream_says_it_did_not_begin_is_sent_again() {
    let (refusing, mut connections) = frames().await;
    tokio::spawn(async move {
        while let Some(mut connection) = connections.recv().await {
            tokio::spawn(async move {
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                }
            });
        }
    });
    let well = Speaker::on_tcp(Speech::Http2, named("well")).await;
    let scene = Scene::of(config_of(&[&refusing, &well.url]));
    // not safe, but refused before it began
    let delete = scene.head("DELETE", "").replace("/v1/reports?a=%20b", "/v1/reports/1");
    for _ in 0..4 {
        assert_eq!(raw(scene.server.local_addr(), delete.as_bytes()).await.status, 200);
    }
    // of a body nothing is kept that could be sent again
    let post = scene.head("POST", "content-length: 1\r\n") + "x";
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(raw(scene.server.local_addr(), post.as_bytes()).await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502]);
}

#[tokio::test]
async fn a_connection_that_is_going_away_takes_no_new_requests() {
    let (url, mut connections) = frames().await;
    let scene = Scene::of(config_of(&[&url]));
    let ok = |mut respond: h2::server::SendResponse<Bytes>| {
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data("ok".into(), true).unwrap();
    };
    let mut client = scene.client().await;
    client.write(scene.head("POST", "content-length: 0\r\n").as_bytes()).await;
    let mut first = connections.recv().await.unwrap();
    let (_, respond) = first.accept().await.unwrap().unwrap();
    ok(respond);
    first.graceful_shutdown();
    let draining = tokio::spawn(async move { while first.accept().await.is_some() {} });
    assert_eq!(client.answer().await.body, "ok");
    draining.await.unwrap();
    client.write(scene.head("POST", "content-length: 0\r\n").as_bytes()).await;
    let mut second = connections.recv().await.unwrap();
    let (_, respond) = second.accept().await.unwrap().unwrap();
    ok(respond);
    tokio::spawn(async move { while second.accept().await.is_some() {} });
    assert_eq!(client.answer().await.body, "ok");
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_closes_the_connection() {
    let answering: Answering = Arc::new(|_| {
        let mut answer = whole("no");
        *answer.status_mut() = http::StatusCode::CONFLICT;
        Box::pin(async move { answer })
    });
    let speaker = Speaker::on_tcp(Speech::Http2, answering).await;
    let scene = Scene::of(speaker.config());
    for _ in 0..3 {
        let mut client = scene.client().await;
        client.write(scene.head("POST", "content-length: 1000000\r\n").as_bytes()).await;
        client.write(b"some").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.as_str(), answer.closed), (409, "no", true));
    }
    assert_eq!(speaker.connections(), 1, "to the upstream a stream ended, not a connection");
}
