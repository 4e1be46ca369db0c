//! Streams end with the authority of their key, whether they move or stand still.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use keyward_core::authority::TenantAuthority;
use keyward_core::environment::Environment;
use keyward_core::ip::IpAllowlist;
use keyward_core::lease::Lease;
use keyward_core::time::Timestamp;
use keyward_gateway::{DataPlane, GatewayOptions, GatewayServer, PlanePolicy};

use crate::support::*;

pub(crate) const EVENTS: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
/// The lease of a node that is sure of what it knows.
const ENDLESS: Lease = Lease { until_ns: u64::MAX, stale_until_ns: 0 };
/// For how long a refused upload is read on, so that its caller sees the refusal.
const LINGER_MS: i64 = 2_000;
pub(crate) const READ: &str = "GET /v1/reports";
const WRITE: &str = "POST /v1/reports";

/// Keeps the paused time of timers where it is while a test waits for its sockets. A test that
/// waits for too long gets time back, and with it the timeouts that fail it.
struct Still {
    _held: mpsc::Sender<()>,
}

impl Still {
    fn hold() -> Self {
        let (held, released) = mpsc::channel();
        tokio::task::spawn_blocking(move || released.recv_timeout(PATIENCE));
        Self { _held: held }
    }
}

/// A gateway in front of raw connections, and time that only the test moves.
pub(crate) struct Scene {
    pub(crate) world: World,
    plane: Arc<DataPlane>,
    pub(crate) server: GatewayServer,
    pub(crate) upstream: tokio::sync::mpsc::UnboundedReceiver<Client>,
    _still: Still,
}

/// One exchange: the caller's end of it and the upstream's.
pub(crate) struct Exchange {
    client: Client,
    upstream: Client,
}

impl Scene {
    pub(crate) async fn set() -> Self {
        Self::set_with(|_| {}).await
    }

    pub(crate) async fn set_with(tune: impl FnOnce(&mut GatewayOptions)) -> Self {
        let still = Still::hold();
        let world = World::new();
        let (address, upstream) = raw_upstream().await;
        let plane = world.plane_with(vec![upstream_at(address)], PlanePolicy::default(), None);
        plane.lease().grant(ENDLESS);
        let mut options = options();
        tune(&mut options);
        let server = start(&plane, options);
        Self { world, plane, server, upstream, _still: still }
    }

    async fn send(&mut self, operation: &str, token: &str, more: &str) -> Exchange {
        let mut client = Client::connect(self.server.local_addr()).await;
        let head = format!("{operation} HTTP/1.1\r\nhost: a\r\nx-api-key: {token}\r\n{more}\r\n");
        client.write(head.as_bytes()).await;
        let accepted = tokio::time::timeout(PATIENCE, self.upstream.recv()).await;
        let mut upstream = accepted.expect("a connection in time").unwrap();
        upstream.head().await;
        Exchange { client, upstream }
    }

    /// A stream of events that has begun.
    pub(crate) async fn events(&mut self, token: &str) -> Exchange {
        let mut exchange = self.send(READ, token, "").await;
        exchange.upstream.write(EVENTS).await;
        assert!(exchange.client.head().await.starts_with("HTTP/1.1 200"));
        exchange.tell().await;
        exchange
    }

    pub(crate) async fn my_events(&mut self) -> Exchange {
        let token = self.world.token.clone();
        self.events(&token).await
    }

    /// An upload without a declared end, of which a part has arrived.
    async fn upload(&mut self) -> Exchange {
        let token = self.world.token.clone();
        let mut exchange = self.send(WRITE, &token, "transfer-encoding: chunked\r\n").await;
        exchange.push().await;
        exchange
    }

    pub(crate) async fn pass_ms(&self, ms: i64) {
        self.world.clock.ms.fetch_add(ms, Ordering::SeqCst);
        // timers count in whole milliseconds, and round up
        tokio::time::advance(Duration::from_millis(ms.unsigned_abs() + 1)).await;
    }

    pub(crate) fn revoke(&self) {
        self.world.change_key(|key| key.revoked_at = Some(Timestamp::from_millis(START_MS)));
    }

    pub(crate) fn cuts(&self, operation: &str, failed: &str) -> u64 {
        let metrics = metrics_of(&self.plane);
        let label = format!(
            "keyward_gateway_streams_cut_total{{route=\"{operation}\",failed=\"{failed}\"}} "
        );
        let count = metrics.lines().find_map(|line| line.strip_prefix(&label));
        count.map_or(0, |count| count.parse().unwrap())
    }
}

impl Exchange {
    /// An event passes.
    async fn tell(&mut self) {
        self.upstream.write(b"3\r\none\r\n").await;
        assert_eq!(self.client.bytes(8).await, b"3\r\none\r\n");
    }

    /// A part of an upload passes.
    async fn push(&mut self) {
        // as much as a body must bring in a second
        let piece = format!("400\r\n{}\r\n", "x".repeat(1024));
        self.client.write(piece.as_bytes()).await;
        assert_eq!(self.upstream.bytes(piece.len()).await, piece.as_bytes());
    }

    /// The refusal of an upload. Its connection closes once the caller had the time to read it.
    async fn refusal(&mut self, scene: &Scene) -> (u16, String, String) {
        let head = self.client.head().await;
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        assert_eq!(header("connection: "), Some("close"), "{head}");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = header("content-length: ").unwrap().parse().unwrap();
        let body = String::from_utf8(self.client.bytes(length).await).unwrap();
        scene.pass_ms(LINGER_MS).await;
        assert!(self.client.is_closed().await);
        Answer { status, head, body, closed: true }.refusal()
    }

    /// The caller reads what is left, and the connection breaks off.
    pub(crate) async fn is_cut(&mut self) -> bool {
        let mut scrap = vec![0; 64 * 1024];
        loop {
            let read = self.client.stream.read(&mut scrap);
            match tokio::time::timeout(PATIENCE, read).await.expect("an end in time") {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    /// The upstream reads what is left, which ends without the mark of an end.
    async fn is_abandoned(&mut self) -> bool {
        let mut rest = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let read = self.upstream.stream.read(&mut chunk);
            match tokio::time::timeout(PATIENCE, read).await.expect("an end in time") {
                Ok(0) | Err(_) => return !rest.ends_with(b"0\r\n\r\n"),
                Ok(count) => rest.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

/// Writes until nothing has been taken for many turns of the runtime.
async fn fill(full: &Client) -> usize {
    let chunk = vec![b'.'; 64 * 1024];
    let (mut written, mut turns) = (0, 0);
    while turns < 500 {
        match full.stream.try_write(&chunk) {
            Ok(count) => {
                written += count;
                turns = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                turns += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    written
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_ends_with_its_key_and_that_of_another_key_goes_on() {
    let mut scene = Scene::set().await;
    let other = scene.world.key_of(Environment::Live);
    let mut mine = scene.my_events().await;
    let mut theirs = scene.events(&other).await;
    scene.pass_ms(1_000).await;
    mine.tell().await;
    scene.revoke();
    scene.pass_ms(999).await;
    mine.tell().await;
    scene.pass_ms(1).await;
    assert!(mine.is_cut().await);
    assert!(mine.is_abandoned().await);
    for _ in 0..3 {
        theirs.tell().await;
        scene.pass_ms(1_000).await;
    }
    theirs.tell().await;
    assert_eq!(scene.cuts(READ, "state"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_talks_ends_too() {
    let mut scene = Scene::set().await;
    let mut stream = scene.my_events().await;
    for _ in 0..30 {
        // no timer rings: the events themselves bring the question up
        scene.world.clock.ms.fetch_add(100, Ordering::SeqCst);
        stream.tell().await;
    }
    scene.revoke();
    scene.world.clock.ms.fetch_add(1_000, Ordering::SeqCst);
    stream.upstream.write(b"3\r\none\r\n").await;
    assert!(stream.is_cut().await);
    assert_eq!(scene.cuts(READ, "state"), 1);
}

#[tokio::test(start_paused = true)]
async fn everything_that_lowers_authority_ends_a_stream() {
    type Lowering = fn(&World);
    let lowerings: [(Lowering, &str); 8] = [
        (
            |it| it.change_key(|key| key.revoked_at = Some(Timestamp::from_millis(START_MS))),
            "state",
        ),
        (
            |it| it.change_key(|key| key.expires_at = Some(Timestamp::from_millis(START_MS + 500))),
            "state",
        ),
        (|it| it.change_key(|key| key.scopes = vec!["reports:write".to_owned()]), "scope"),
        (|it| it.set_role("auditor"), "role"),
        (|it| it.keys.remove_member(TENANT, OWNER), "role"),
        (
            |it| {
                it.keys.replace_tenant(TenantAuthority {
                    id: TENANT,
                    slug: "lagos-pay".to_owned(),
                    suspended: true,
                });
            },
            "state",
        ),
        (
            |it| {
                let elsewhere = IpAllowlist::parse(&["203.0.113.0/24"]).unwrap();
                it.change_key(|key| key.ip_allowlist = elsewhere);
            },
            "ip",
        ),
        (|it| it.keys.remove_key(it.authority.id), "lookup"),
    ];
    for (lower, failed) in lowerings {
        let mut scene = Scene::set().await;
        let mut stream = scene.my_events().await;
        lower(&scene.world);
        scene.pass_ms(1_000).await;
        assert!(stream.is_cut().await, "{failed}");
        assert_eq!(scene.cuts(READ, failed), 1, "{failed}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_leaves_the_request_allowed_leaves_the_stream_alone() {
    let mut scene = Scene::set().await;
    let mut stream = scene.my_events().await;
    let changes: [fn(&World); 3] = [
        |it| it.change_key(|key| key.scopes = vec!["reports:read".to_owned()]),
        |it| it.change_key(|key| key.expires_at = Some(Timestamp::from_millis(START_MS + 90_000))),
        |it| {
            let here = IpAllowlist::parse(&["127.0.0.0/8"]).unwrap();
            it.change_key(|key| key.ip_allowlist = here);
        },
    ];
    for change in changes {
        change(&scene.world);
        scene.pass_ms(1_000).await;
        stream.tell().await;
        stream.tell().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_read_is_cut_all_the_same() {
    let mut scene = Scene::set().await;
    let token = scene.world.token.clone();
    let mut stream = scene.send(READ, &token, "").await;
    stream.upstream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
    let written = fill(&stream.upstream).await;
    assert!(written < 500_000_000, "{written} bytes were taken for a caller that reads nothing");
    scene.pass_ms(1_000).await;
    fill(&stream.upstream).await;
    scene.revoke();
    scene.pass_ms(1_000).await;
    assert!(stream.is_abandoned().await);
    assert!(stream.is_cut().await);
    assert_eq!(scene.cuts(READ, "state"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stands_still_is_refused_and_goes_no_further() {
    let mut scene = Scene::set().await;
    let mut upload = scene.upload().await;
    scene.pass_ms(1_000).await;
    upload.push().await;
    scene.world.change_key(|key| key.scopes = vec!["reports:read".to_owned()]);
    scene.pass_ms(1_000).await;
    assert!(upload.is_abandoned().await);
    let refusal = upload.refusal(&scene).await;
    assert_eq!(refusal, (403, "forbidden".to_owned(), "scope".to_owned()));
    assert_eq!(scene.cuts(WRITE, "scope"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_moves_slowly_is_refused_too() {
    let mut scene = Scene::set().await;
    let mut upload = scene.upload().await;
    for _ in 0..25 {
        upload.push().await;
        scene.pass_ms(100).await;
    }
    upload.push().await;
    scene.revoke();
    for _ in 0..5 {
        scene.pass_ms(100).await;
        upload.client.write(b"4\r\npart\r\n").await;
    }
    let refusal = upload.refusal(&scene).await;
    assert_eq!(refusal, (401, "unauthorized".to_owned(), "state".to_owned()));
    assert!(upload.is_abandoned().await);
    assert_eq!(scene.cuts(WRITE, "state"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_nobody_takes_is_refused_too() {
    let mut scene = Scene::set().await;
    let token = scene.world.token.clone();
    let mut upload = scene.send(WRITE, &token, "content-length: 99000000\r\n").await;
    let written = fill(&upload.client).await;
    assert!(written < 99_000_000, "{written} bytes were taken for an upstream that reads nothing");
    scene.revoke();
    scene.pass_ms(1_000).await;
    let refusal = upload.refusal(&scene).await;
    assert_eq!(refusal, (401, "unauthorized".to_owned(), "state".to_owned()));
    assert!(upload.is_abandoned().await);
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_answer_has_begun_is_cut_with_it() {
    let mut scene = Scene::set().await;
    let mut both = scene.upload().await;
    both.upstream.write(EVENTS).await;
    assert!(both.client.head().await.starts_with("HTTP/1.1 200"));
    both.tell().await;
    both.push().await;
    scene.revoke();
    scene.pass_ms(1_000).await;
    assert!(both.is_cut().await);
    assert!(both.is_abandoned().await);
    assert_eq!(scene.cuts(WRITE, "state"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_sure_keeps_streams_for_a_while() {
    let mut scene = Scene::set().await;
    let mut stream = scene.my_events().await;
    scene.pass_ms(5_000).await;
    stream.tell().await;
    stream.tell().await;
    scene.plane.lease().grant(Lease::OVER);
    // what is loaded anew is empty at first, and says nothing about the key
    scene.world.keys.remove_member(TENANT, OWNER);
    for _ in 0..19 {
        scene.pass_ms(1_000).await;
        stream.tell().await;
    }
    scene.world.set_role("admin");
    scene.plane.lease().grant(ENDLESS);
    scene.pass_ms(1_000).await;
    stream.tell().await;
    stream.tell().await;
    scene.plane.lease().grant(Lease::OVER);
    for _ in 0..19 {
        scene.pass_ms(1_000).await;
        stream.tell().await;
    }
    scene.pass_ms(999).await;
    stream.tell().await;
    scene.pass_ms(1).await;
    assert!(stream.is_cut().await);
    assert_eq!(scene.cuts(READ, "authority"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_sure_still_knows_what_is_certain() {
    for expires in [false, true] {
        let mut scene = Scene::set().await;
        let mut stream = scene.my_events().await;
        scene.plane.lease().grant(Lease::OVER);
        if expires {
            let soon = Timestamp::from_millis(START_MS + 500);
            scene.world.change_key(|key| key.expires_at = Some(soon));
        } else {
            scene.revoke();
        }
        scene.pass_ms(1_000).await;
        assert!(stream.is_cut().await);
        assert_eq!(scene.cuts(READ, "state"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_on_a_node_that_is_not_sure_gets_503() {
    let mut scene = Scene::set().await;
    let mut upload = scene.upload().await;
    scene.plane.lease().grant(Lease::OVER);
    for _ in 0..19 {
        scene.pass_ms(1_000).await;
        upload.push().await;
    }
    scene.pass_ms(1_000).await;
    assert_eq!(upload.refusal(&scene).await, (503, "unavailable".to_owned(), "-".to_owned()));
    assert!(upload.is_abandoned().await);
    assert_eq!(scene.cuts(WRITE, "authority"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_over_is_not_asked_about() {
    let mut scene = Scene::set().await;
    let mut stream = scene.my_events().await;
    scene.pass_ms(3_000).await;
    stream.tell().await;
    stream.upstream.write(b"0\r\n\r\n").await;
    assert_eq!(stream.client.bytes(5).await, b"0\r\n\r\n");
    scene.revoke();
    scene.pass_ms(3_000).await;
    let head = format!("{READ} HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\r\n", scene.world.token);
    stream.client.write(head.as_bytes()).await;
    let answer = stream.client.answer().await;
    assert_eq!(answer.refusal(), (401, "unauthorized".to_owned(), "state".to_owned()));
    assert_eq!(scene.cuts(READ, "state"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_second_stream_of_a_connection_is_asked_about_like_the_first() {
    let mut scene = Scene::set().await;
    let mut first = scene.my_events().await;
    scene.pass_ms(400).await;
    first.upstream.write(b"0\r\n\r\n").await;
    assert_eq!(first.client.bytes(5).await, b"0\r\n\r\n");
    let head = format!("{READ} HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\r\n", scene.world.token);
    first.client.write(head.as_bytes()).await;
    first.upstream.head().await;
    first.upstream.write(EVENTS).await;
    first.client.head().await;
    first.tell().await;
    scene.revoke();
    scene.pass_ms(700).await;
    first.tell().await;
    scene.pass_ms(300).await;
    assert!(first.is_cut().await);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_whole_when_it_comes_is_handed_on() {
    let mut scene = Scene::set().await;
    let token = scene.world.token.clone();
    let mut late = scene.send(READ, &token, "").await;
    scene.revoke();
    scene.pass_ms(30_000).await;
    late.upstream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(late.client.answer().await.body, "ok", "it was under way, and its work was done");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_late_is_asked_about_at_once() {
    let mut scene = Scene::set().await;
    let token = scene.world.token.clone();
    let mut late = scene.send(READ, &token, "").await;
    scene.revoke();
    scene.pass_ms(30_000).await;
    late.upstream.write(EVENTS).await;
    assert!(late.is_cut().await);
}
