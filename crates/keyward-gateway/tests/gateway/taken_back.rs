//! Exchanges over HTTP/2 that are broken off: upstreams count the streams that are reset, and end a
//! connection with all that is under way on it when there are too many.

use std::sync::Arc;
use std::time::Duration;

use keyward_core::authority::MemberAuthority;
use keyward_core::environment::Environment;
use keyward_gateway::{GatewayServer, UpstreamConfig, UpstreamProtocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame,
};
use crate::speakers::*;
use crate::support::*;

/// The most streams that a connection resets while it begins none.
const AT_ONCE: usize = 10;
/// Those that a new connection resets when each of its streams is broken off.
const OF_A_NEW_ONE: usize = 2;
/// Broken exchanges after which a tenant's have connections apart.
const FICKLE_AT: usize = 4;
/// What Tomcat counts for a connection with four settings, for a stream that is begun, and for one
/// that is reset; at less than nothing it ends the connection.
const TOMCAT: (i64, i64, i64) = (60, 20, -50);
const ACK: u8 = 1;
/// The head of an answer: `:status: 200` of the static table (RFC 7541 appendix A).
const OK: [u8; 1] = [0x88];

/// What an upstream sees on one of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Begun { connection: usize, stream: u32 },
    Reset { connection: usize },
    Closed { connection: usize },
}

/// An upstream that tells what comes, frame by frame, and says what a test has it say.
struct Counting {
    events: mpsc::UnboundedReceiver<Event>,
    speak: mpsc::UnboundedSender<(usize, Vec<u8>)>,
    seen: Vec<Event>,
    /// What Tomcat would make of each connection.
    counts: Vec<i64>,
}

impl Counting {
    async fn start() -> (String, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, events) = mpsc::unbounded_channel();
        let (speak, mut said) = mpsc::unbounded_channel::<(usize, Vec<u8>)>();
        tokio::spawn(async move {
            let mut writers = Vec::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (socket, _) = accepted.unwrap();
                        let number = writers.len();
                        writers.push(serve(socket, number, tell.clone()));
                    }
                    Some((connection, bytes)) = said.recv() => {
                        let writer: &mpsc::UnboundedSender<_> = &writers[connection];
                        // a connection that has ended has nobody to tell
                        let _ = writer.send(bytes);
                    }
                }
            }
        });
        (url, Self { events, speak, seen: Vec::new(), counts: Vec::new() })
    }

    async fn next(&mut self) -> Event {
        let event = timeout(PATIENCE, self.events.recv()).await.expect("in time").unwrap();
        self.note(event);
        event
    }

    fn note(&mut self, event: Event) {
        let (first, begun, reset) = TOMCAT;
        let (connection, change) = match event {
            Event::Begun { connection, .. } => (connection, begun),
            Event::Reset { connection } => (connection, reset),
            Event::Closed { connection } => (connection, 0),
        };
        self.counts.resize(self.counts.len().max(connection + 1), first);
        self.counts[connection] += change;
        assert!(self.counts[connection] >= 0, "Tomcat would end connection {connection}");
        self.seen.push(event);
    }

    async fn closed(&mut self, connection: usize) {
        while !self.seen.contains(&Event::Closed { connection }) {
            self.next().await;
        }
    }

    /// Where the next request comes.
    async fn begun(&mut self) -> (usize, u32) {
        loop {
            if let Event::Begun { connection, stream } = self.next().await {
                return (connection, stream);
            }
        }
    }

    fn resets(&mut self, of: usize) -> usize {
        while let Ok(event) = self.events.try_recv() {
            self.note(event);
        }
        self.seen.iter().filter(|it| **it == Event::Reset { connection: of }).count()
    }

    fn say(&self, (connection, stream): (usize, u32), kind: u8, flags: u8, payload: &[u8]) {
        self.speak.send((connection, frame(kind, flags, stream, payload))).unwrap();
    }

    fn answer(&self, at: (usize, u32)) {
        self.say(at, HEADERS, END_HEADERS, &OK);
        self.say(at, DATA, END_STREAM, b"ok");
    }
}

/// Speaks with the gateway on a connection; answers with a way to write on it.
fn serve(
    socket: TcpStream,
    connection: usize,
    tell: mpsc::UnboundedSender<Event>,
) -> mpsc::UnboundedSender<Vec<u8>> {
    socket.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = socket.into_split();
    let (say, mut said) = mpsc::unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        while let Some(bytes) = said.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let acknowledging = say.clone();
    tokio::spawn(async move {
        let _ = acknowledging.send(frame(SETTINGS, 0, 0, &[]));
        let mut preface = [0; PREFACE.len()];
        if reader.read_exact(&mut preface).await.is_ok() {
            while let Some((kind, flags, stream)) = next_frame(&mut reader).await {
                let event = match kind {
                    HEADERS => Event::Begun { connection, stream },
                    RST_STREAM => Event::Reset { connection },
                    SETTINGS if flags & ACK == 0 => {
                        let _ = acknowledging.send(frame(SETTINGS, ACK, 0, &[]));
                        continue;
                    }
                    _ => continue,
                };
                let _ = tell.send(event);
            }
        }
        let _ = tell.send(Event::Closed { connection });
    });
    say
}

async fn next_frame(reader: &mut OwnedReadHalf) -> Option<(u8, u8, u32)> {
    let mut head = [0; 9];
    reader.read_exact(&mut head).await.ok()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes(head[5..9].try_into().unwrap())))
}

/// A gateway in front of an upstream of HTTP/2, with a key of each of two tenants.
struct Scene {
    server: GatewayServer,
    calm: String,
    restless: String,
}

impl Scene {
    fn of(url: &str) -> Self {
        Self::with(config_of(&[url]))
    }

    fn with(mut upstream: UpstreamConfig) -> Self {
        upstream.protocol = UpstreamProtocol::Http2;
        let world = World::new();
        world.keys.replace_member(&MemberAuthority {
            tenant: OTHER_TENANT,
            user: OWNER,
            role: "admin".to_owned(),
        });
        let restless = world.key_with(Environment::Live, |key| key.tenant = OTHER_TENANT);
        // on the one thread of the test, so that all share connections
        let server = start(&world.plane(with_sockets_elsewhere(upstream)), options());
        Self { server, calm: world.token.clone(), restless }
    }

    /// Begins a request of a key on a connection of its own.
    async fn begin(&self, key: &str, method: &str, more: &str) -> Client {
        let mut client = Client::connect(self.server.local_addr()).await;
        let head = format!("{method} /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n");
        client.write(format!("{head}{more}").as_bytes()).await;
        client
    }

    async fn get(&self, key: &str) -> Client {
        self.begin(key, "GET", "\r\n").await
    }

    /// Has a request of the calm tenant answered; answers with the connection it came on.
    async fn is_answered(&self, upstream: &mut Counting) -> usize {
        let mut client = self.get(&self.calm).await;
        let at = upstream.begun().await;
        upstream.answer(at);
        assert_eq!(client.answer().await.body, "ok");
        at.0
    }

    /// Has requests of the calm tenant answered until they come on another connection.
    async fn moves_from(&self, upstream: &mut Counting, connection: usize) {
        for _ in 0..600 {
            if self.is_answered(upstream).await != connection {
                return;
            }
        }
        panic!("connection {connection} takes more and more");
    }

    /// A request whose body has begun.
    async fn post(&self, key: &str) -> Client {
        self.begin(key, "POST", BEGUN_BODY).await
    }
}

/// The end of a head, and a piece of the body.
const BEGUN_BODY: &str = "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n";

/// Breaks off a body in a way that its framing does not allow.
async fn garble(client: &mut Client) {
    client.write(b"zz\r\n").await;
    assert_eq!(client.answer().await.status, 400);
}

/// How an exchange is broken off.
#[derive(Clone, Copy, Debug)]
enum How {
    GarbledBody,
    LeftBeforeTheAnswer,
    LeftWithinTheAnswer,
}

/// Begins many exchanges beside one of somebody else, and breaks them off all at once.
async fn many_are_broken_off(how: How) {
    const MANY: usize = 60;
    let (url, mut upstream) = Counting::start().await;
    let scene = Scene::of(&url);
    let mut stays = scene.get(&scene.calm).await;
    let kept = upstream.begun().await;
    let mut leaving = Vec::new();
    for _ in 0..MANY {
        let mut client = match how {
            How::GarbledBody => scene.post(&scene.restless).await,
            _ => scene.get(&scene.restless).await,
        };
        let at = upstream.begun().await;
        assert_eq!(at.0, kept.0, "nobody is known to be fickle yet");
        if let How::LeftWithinTheAnswer = how {
            upstream.say(at, HEADERS, END_HEADERS, &OK);
            client.head().await;
        }
        leaving.push(client);
    }
    for mut client in leaving {
        if let How::GarbledBody = how {
            garble(&mut client).await;
        }
    }
    // somebody else goes elsewhere as soon as some are broken off
    scene.moves_from(&mut upstream, kept.0).await;
    upstream.answer(kept);
    assert_eq!(stays.answer().await.body, "ok", "{how:?}");
    // with the last of its exchanges, all that was left of the others ends
    upstream.closed(kept.0).await;
    let resets = upstream.resets(kept.0);
    // what was begun meanwhile may have earned another one
    assert!((AT_ONCE..AT_ONCE + 3).contains(&resets), "{how:?}: {resets}");
}

#[tokio::test]
async fn bodies_that_are_garbled_end_nobody_elses_exchange() {
    many_are_broken_off(How::GarbledBody).await;
}

#[tokio::test]
async fn callers_that_leave_before_their_answers_end_nobody_elses_exchange() {
    many_are_broken_off(How::LeftBeforeTheAnswer).await;
}

#[tokio::test]
async fn callers_that_leave_within_their_answers_end_nobody_elses_exchange() {
    many_are_broken_off(How::LeftWithinTheAnswer).await;
}

#[tokio::test]
async fn a_connection_that_begins_no_more_ends_without_being_asked_for() {
    let (url, mut upstream) = Counting::start().await;
    let scene = Scene::of(&url);
    for _ in 0..OF_A_NEW_ONE {
        let mut client = scene.post(&scene.restless).await;
        upstream.begun().await;
        garble(&mut client).await;
    }
    upstream.closed(0).await;
}

#[tokio::test]
async fn tenants_that_break_off_again_and_again_have_connections_apart() {
    let (url, mut upstream) = Counting::start().await;
    let scene = Scene::of(&url);
    // what was begun allows for resets
    for _ in 0..2 * AT_ONCE {
        assert_eq!(scene.is_answered(&mut upstream).await, 0);
    }
    let mut went = Vec::new();
    for _ in 0..FICKLE_AT + 2 * OF_A_NEW_ONE {
        let mut client = scene.post(&scene.restless).await;
        went.push(upstream.begun().await.0);
        garble(&mut client).await;
        assert_eq!(scene.is_answered(&mut upstream).await, 0, "others are not moved: {went:?}");
    }
    let expected = [vec![0; FICKLE_AT], vec![1; OF_A_NEW_ONE], vec![2; OF_A_NEW_ONE]].concat();
    assert_eq!(went, expected);
    assert_eq!(upstream.resets(0), FICKLE_AT);
}

#[tokio::test]
async fn an_answer_whose_end_comes_alone_is_not_broken_off() {
    let (url, mut upstream) = Counting::start().await;
    let scene = Scene::of(&url);
    // of an unknown length, of a known one, and with none
    let sized = [0x88, 0x0f, 0x0d, 1, b'2'];
    let (no_content, not_modified) = ([0x89], [0x8b]);
    let heads = [("GET", &OK[..]), ("GET", &sized), ("GET", &no_content), ("GET", &not_modified)];
    for (method, head) in heads.into_iter().chain([("HEAD", &sized[..])]) {
        // more than are waited for at a time
        for _ in 0..80 {
            let mut client = scene.begin(&scene.calm, method, "\r\n").await;
            let at = upstream.begun().await;
            assert_eq!(at.0, 0);
            upstream.say(at, HEADERS, END_HEADERS, head);
            if method == "GET" && head[0] == OK[0] {
                upstream.say(at, DATA, 0, b"ok");
                upstream.say(at, DATA, END_STREAM, b"");
                assert_eq!(client.answer().await.body, "ok");
            } else {
                client.head().await;
                upstream.say(at, DATA, END_STREAM, b"");
            }
        }
    }
    assert_eq!(upstream.resets(0), 0);
}

#[tokio::test]
async fn what_is_broken_off_on_a_connection_that_is_going_away_counts_as_well() {
    let (url, mut upstream) = Counting::start().await;
    let scene = Scene::of(&url);
    let mut stays = scene.get(&scene.calm).await;
    let kept = upstream.begun().await;
    let mut leaving = Vec::new();
    let mut last = kept.1;
    for _ in 0..60 {
        leaving.push(scene.post(&scene.restless).await);
        last = upstream.begun().await.1;
    }
    let no_error = [last.to_be_bytes(), [0; 4]].concat();
    upstream.say((kept.0, 0), GOAWAY, 0, &no_error);
    // seen when the next request goes elsewhere
    scene.moves_from(&mut upstream, kept.0).await;
    for mut client in leaving {
        garble(&mut client).await;
    }
    upstream.answer(kept);
    assert_eq!(stays.answer().await.body, "ok");
    upstream.closed(kept.0).await;
    assert!(upstream.resets(kept.0) <= AT_ONCE);
}

/// The upstream opens no window for the body: nothing can be told to the task that sends it.
#[tokio::test]
async fn an_upload_that_is_stuck_when_its_exchange_ends_ends_with_its_connection() {
    let (url, mut upstream) = Counting::start().await;
    let mut config = config_of(&[&url]);
    config.body_idle_timeout = Duration::from_secs(1);
    let scene = Scene::with(config);
    let mut stays = scene.get(&scene.calm).await;
    let kept = upstream.begun().await;
    let length = 10_000_000;
    let more = format!("content-length: {length}\r\n\r\n");
    let mut leaves = scene.begin(&scene.restless, "POST", &more).await;
    let at = upstream.begun().await;
    upstream.say(at, HEADERS, END_HEADERS, &OK);
    leaves.head().await;
    // as much as the gateway takes
    let chunk = vec![0; 1 << 16];
    let mut sent = 0;
    while sent < length {
        let write = leaves.stream.write(&chunk);
        match timeout(Duration::from_millis(250), write).await {
            Ok(Ok(count)) => sent += count,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    assert!(sent < length, "it is stuck");
    assert!(leaves.is_closed().await, "nothing moves");
    assert_ne!(scene.is_answered(&mut upstream).await, kept.0);
    upstream.answer(kept);
    assert_eq!(stays.answer().await.body, "ok");
    upstream.closed(kept.0).await;
}

/// A server of HTTP/2 as it is sold, on a thread of its own.
fn stock_server(answering: Answering) -> Speaker {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tell.send(Speaker::on_tcp(Speech::Http2, answering).await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    told.recv().unwrap()
}

/// It ends a connection when twenty streams are reset before it has begun with them, as when it is
/// busy with something else.
#[tokio::test]
async fn a_stock_server_bears_callers_that_break_off_while_it_is_busy() {
    const STAYING: u64 = 20;
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let answering: Answering = Arc::new(move |request| {
        if request.method() == http::Method::GET {
            // ends with the other side, when the test is over
            let _ = released.lock().unwrap().recv();
        }
        Box::pin(async move {
            let _ = http_body_util::BodyExt::collect(request.into_body()).await;
            whole("ok")
        })
    });
    let speaker = stock_server(answering);
    let scene = Scene::of(&speaker.url);
    let mut staying = Vec::new();
    for _ in 0..STAYING {
        staying.push(scene.post(&scene.calm).await);
    }
    let mut busy = scene.get(&scene.calm).await;
    let arriving = async {
        while speaker.requests() < STAYING + 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, arriving).await.expect("all are under way");
    let mut leaving = Vec::new();
    for _ in 0..40 {
        leaving.push(scene.post(&scene.restless).await);
    }
    for client in &mut leaving {
        garble(client).await;
    }
    release.send(()).unwrap();
    assert_eq!(busy.answer().await.status, 200);
    for mut client in staying {
        client.write(b"0\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
    }
}
