//! Callers that speak HTTP/2, ask for answers, and take nothing of them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use keyward_gateway::GatewayOptions;

use crate::floods::{Bystander, MAX_GROWTH, resident};
use crate::frames::*;
use crate::http2::h2c;
use crate::support::*;

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
/// Settings: initial windows of so many bytes.
pub(crate) const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];
const SMALL_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 1];
/// A window that has room for any answer here.
const ROOM: [u8; 4] = [0, 1, 0, 0];

fn impatient(options: &mut GatewayOptions) {
    h2c(options);
    options.limits.write_timeout = Duration::from_millis(300);
    options.limits.idle_timeout = Duration::from_millis(300);
}

/// What becomes of a request that takes its answer, on a connection of its own.
async fn asked(address: SocketAddr, token: &str) -> Fate {
    let mut wire = Wire::open(address, &[]).await;
    wire.get(1, "/v1/reports", &[("x-api-key", token)]).await;
    wire.fate(1).await
}

/// Asks until a request is answered, or until one is refused.
async fn ask_until(expected: &Fate, address: SocketAddr, token: &str) {
    let asking = async {
        loop {
            let fate = asked(address, token).await;
            if fate == *expected {
                return;
            }
            assert!(matches!(fate, Fate::Answered | Fate::Reset(REFUSED_STREAM)), "{fate:?}");
        }
    };
    timeout(PATIENCE, asking).await.expect("in time");
}

/// A hundred answers that a caller asks for and never takes.
#[tokio::test]
async fn answers_that_nobody_takes() {
    let stage = stage_with(impatient, None).await;
    let address = stage.server.local_addr();
    let bystander = Bystander::start(address, &stage.world.token);
    let before = resident();
    let mut wire = Wire::open(address, &NO_WINDOW).await;
    let long = "y".repeat(8_000);
    for number in 0..100 {
        let key = [("x-api-key", stage.world.token.as_str()), ("x-a", &long)];
        wire.get(2 * number + 1, "/v1/reports", &key).await;
    }
    let mut reset = 0;
    while let Some(next) = wire.next().await {
        assert!(next.kind != DATA || next.payload.is_empty());
        reset += u32::from(next.kind == RST_STREAM);
    }
    bystander.stop().await;
    assert_eq!(reset, 100);
    assert!(resident().saturating_sub(before) < MAX_GROWTH);
}

/// An answer that its caller leaves standing was read whole, and its upstream is free again.
#[tokio::test]
async fn an_answer_that_nobody_takes_holds_no_upstream() {
    let (seven, five) = ("y".repeat(7_000), "y".repeat(5_000));
    frees(["content-length: 12000", &seven, &five]).await;
    let seven = format!("1b58\r\n{seven}\r\n");
    let five = format!("1388\r\n{five}\r\n");
    frees(["transfer-encoding: chunked", &seven, &format!("{five}0\r\n\r\n")]).await;
    frees(["transfer-encoding: chunked", &format!("{seven}{five}"), "0\r\n\r\n"]).await;
}

async fn frees([framing, first, last]: [&str; 3]) {
    let world = World::new();
    let (address, mut upstream) = raw_upstream().await;
    let plane = world.plane(vec![upstream_at(address)]);
    let mut options = options();
    h2c(&mut options);
    let server = start(&plane, options);
    let key = [("x-api-key", world.token.as_str())];
    let mut wire = Wire::open(server.local_addr(), &NO_WINDOW).await;
    wire.get(1, "/v1/reports", &key).await;
    let mut behind = upstream.recv().await.unwrap();
    behind.head().await;
    behind.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes()).await;
    assert!(wire.next_of(HEADERS).await.is_some());
    behind.write(first.as_bytes()).await;
    behind.write(last.as_bytes()).await;
    // the last bytes may still be on their way when the first of these requests is sent
    for _ in 0..100 {
        let mut caller = Wire::open(server.local_addr(), &[]).await;
        caller.get(1, "/v1/reports", &key).await;
        let mut other = tokio::select! {
            _ = behind.head() => return,
            other = upstream.recv() => other.unwrap(),
        };
        other.head().await;
        let once = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
        other.write(once).await;
        assert_eq!(caller.fate(1).await, Fate::Answered);
    }
    panic!("its connection was never used again");
}

/// Whoever gives a window of one byte has a whole piece go where no deadline is.
#[tokio::test]
async fn an_answer_of_which_one_byte_is_taken_ends_too() {
    let stage = stage_with(impatient, None).await;
    let mut wire = Wire::open(stage.server.local_addr(), &SMALL_WINDOW).await;
    let key = [("x-api-key", stage.world.token.as_str())];
    wire.get(1, "/v1/reports", &key).await;
    assert_eq!(wire.fate(1).await, Fate::Reset(CANCEL));
    // and with room for it, it is whole
    wire.get(3, "/v1/reports", &key).await;
    wire.send(WINDOW_UPDATE, 0, 3, &ROOM).await;
    assert_eq!(wire.fate(3).await, Fate::Answered);
}

#[tokio::test]
async fn answers_that_stand_still_keep_their_caller_from_asking_for_more() {
    let few = |options: &mut GatewayOptions| {
        h2c(options);
        options.limits.max_untaken_per_address = 2;
    };
    let stage = stage_with(few, None).await;
    let address = stage.server.local_addr();
    let token = stage.world.token.as_str();
    let mut wire = Wire::open(address, &NO_WINDOW).await;
    for stream in [1, 3] {
        wire.get(stream, "/v1/reports", &[("x-api-key", token)]).await;
    }
    ask_until(&Fate::Reset(REFUSED_STREAM), address, token).await;
    let metrics = metrics_of(&stage.plane);
    let refused = "keyward_http2_requests_refused_total{too_many=\"untaken_answers\"} 1";
    assert!(metrics.contains(refused), "{metrics}");
    // other protocols of that address are as they were
    stage.send("GET", "/v1/reports", "").await.told();
    // whoever takes them after all may ask again
    wire.send(WINDOW_UPDATE, 0, 1, &ROOM).await;
    assert_eq!(wire.fate(1).await, Fate::Answered);
    assert_eq!(asked(address, token).await, Fate::Answered);
}

#[tokio::test]
async fn an_address_has_as_many_requests_under_way_as_connections() {
    let world = World::new();
    let (behind, mut upstream) = raw_upstream().await;
    let plane = world.plane(vec![upstream_at(behind)]);
    let mut options = options();
    h2c(&mut options);
    options.limits.max_connections_per_address = 2;
    let server = start(&plane, options);
    let key = [("x-api-key", world.token.as_str())];
    let mut wires =
        [Wire::open(server.local_addr(), &[]).await, Wire::open(server.local_addr(), &[]).await];
    let mut under_way = Vec::new();
    for wire in &mut wires {
        wire.get(1, "/v1/reports", &key).await;
        under_way.push(upstream.recv().await.unwrap());
    }
    for wire in &mut wires {
        wire.get(3, "/v1/reports", &key).await;
        assert_eq!(wire.fate(3).await, Fate::Reset(REFUSED_STREAM));
    }
    let metrics = metrics_of(&plane);
    let refused = "keyward_http2_requests_refused_total{too_many=\"requests\"} 2";
    assert!(metrics.contains(refused), "{metrics}");
    under_way[0].head().await;
    under_way[0].write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(wires[0].fate(1).await, Fate::Answered);
    // its place is free a moment later
    let taken = async {
        for stream in (5..).step_by(2) {
            wires[1].get(stream, "/v1/reports", &[]).await;
            let fate = wires[1].fate(stream).await;
            if fate != Fate::Reset(REFUSED_STREAM) {
                return fate;
            }
        }
        Fate::Closed
    };
    let taken = timeout(PATIENCE, taken).await.expect("in time");
    assert_eq!(taken, Fate::Refused("missing_api_key".to_owned()));
}

/// A caller may read only when it has sent everything.
#[tokio::test]
async fn an_upload_goes_on_while_its_answer_stands_still() {
    const UPLOAD_BYTES: usize = 1 << 20;
    const FRAME_BYTES: usize = 16 * 1024;
    let world = World::new();
    let (address, mut upstream) = raw_upstream().await;
    let plane = world.plane(vec![upstream_at(address)]);
    let mut options = options();
    h2c(&mut options);
    let server = start(&plane, options);
    let mut wire = Wire::open(server.local_addr(), &NO_WINDOW).await;
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "api.test"),
        (":path", "/v1/reports"),
        ("content-length", &UPLOAD_BYTES.to_string()),
        ("x-api-key", world.token.as_str()),
    ];
    wire.send(HEADERS, END_HEADERS, 1, &block(&fields)).await;
    let mut behind = upstream.recv().await.unwrap();
    behind.head().await;
    behind.write(b"HTTP/1.1 200 OK\r\ncontent-length: 40000\r\n\r\n").await;
    behind.write(&vec![b'a'; 40_000]).await;
    // what a connection and a stream have room for
    let mut room = [65_535_usize, 256 * 1024];
    let mut answered = false;
    let sending = async {
        let mut left = UPLOAD_BYTES;
        while left > 0 {
            let size = left.min(FRAME_BYTES);
            while !answered || room.iter().any(|room| *room < size) {
                let next = wire.next().await.expect("the connection goes on");
                assert_ne!(next.kind, RST_STREAM, "with {left} bytes left");
                answered |= next.kind == HEADERS;
                if next.kind == WINDOW_UPDATE {
                    room[usize::from(next.stream != 0)] += next.code() as usize;
                }
            }
            left -= size;
            room = room.map(|room| room - size);
            let ends = if left == 0 { END_STREAM } else { 0 };
            wire.send(DATA, ends, 1, &vec![b'b'; size]).await;
        }
        wire
    };
    let both = async { tokio::join!(sending, behind.bytes(UPLOAD_BYTES)) };
    let (mut wire, taken) = timeout(PATIENCE, both).await.expect("all of it in time");
    assert!(taken.iter().all(|byte| *byte == b'b'));
    wire.send(WINDOW_UPDATE, 0, 1, &ROOM).await;
    assert_eq!(wire.fate(1).await, Fate::Answered);
}
