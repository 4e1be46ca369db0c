//! Callers that send over and over what asks for nothing: their connection ends, and nobody else
//! notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use crate::frames::*;
use crate::http2::h2c;
use crate::support::*;

/// More than any allowance.
const MANY: usize = 10_000;
/// Bytes that a process may grow by while it is attacked.
pub(crate) const MAX_GROWTH: u64 = 100 * 1024 * 1024;

/// A caller that sends requests until it is told to stop. All of them must be answered.
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    answered: JoinHandle<u32>,
}

impl Bystander {
    pub(crate) fn start(address: SocketAddr, token: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let head = format!("GET /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {token}\r\n\r\n");
        let stopped = Arc::clone(&stop);
        let answered = tokio::spawn(async move {
            let mut answered = 0;
            while !stopped.load(Ordering::SeqCst) {
                let answer = raw(
                    address,
                    head.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes(),
                )
                .await;
                answer.told();
                answered += 1;
            }
            answered
        });
        Self { stop, answered }
    }

    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        assert!(self.answered.await.unwrap() > 0);
    }
}

/// Bytes in use by this process.
pub(crate) fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

/// Sends frames over and over, and says how the connection ended.
async fn flood(opening: &[u8], frame_of: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    flood_behind(|_| opening.to_vec(), frame_of).await
}

/// The same behind an opening that has a key.
async fn flood_behind(
    opening: impl FnOnce(&str) -> Vec<u8>,
    frame_of: impl Fn(u32) -> Vec<u8>,
) -> Option<u32> {
    let stage = stage_with(h2c, None).await;
    let address = stage.server.local_addr();
    let bystander = Bystander::start(address, &stage.world.token);
    let before = resident();
    let mut wire = Wire::open(address, &[]).await;
    wire.client.write(&opening(&stage.world.token)).await;
    let mut sent = 0;
    for number in 0..u32::try_from(MANY).unwrap() {
        if wire.client.write_or_end(&frame_of(number)).await {
            sent += 1;
        } else {
            break;
        }
    }
    let ended = wire.gone_away().await;
    bystander.stop().await;
    assert!(resident().saturating_sub(before) < MAX_GROWTH);
    let metrics = metrics_of(&stage.plane);
    let counted = metrics.contains("keyward_http2_floods_total 1");
    assert!(counted || ended.is_some(), "{sent} {metrics}");
    assert!(stage.upstream.requests() > 0);
    ended
}

#[tokio::test]
async fn pings_settings_and_windows() {
    let nothing: [(u8, &[u8]); 5] = [
        (PING, &[0; 8]),
        (SETTINGS, &[0, 4, 0, 0, 255, 255]),
        (WINDOW_UPDATE, &[0, 0, 0, 1]),
        (2, &[0, 0, 0, 0, 1]),
        (0xfe, b"unknown"),
    ];
    for (kind, payload) in nothing {
        let stream = u32::from(kind == 2);
        let ended = flood(&[], |_| frame(kind, 0, stream, payload)).await;
        assert!(ended.is_some(), "{kind}: without a GOAWAY");
    }
}

#[tokio::test]
async fn pieces_of_nothing() {
    let opening = |token: &str| {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/v1/reports"),
            ("x-api-key", token),
        ];
        frame(HEADERS, END_HEADERS, 1, &block(&fields))
    };
    let ended = flood_behind(opening, |_| frame(DATA, 0, 1, &[])).await;
    assert!(ended.is_some(), "without a GOAWAY");
}

#[tokio::test]
async fn heads_without_an_end() {
    let opening = frame(HEADERS, 0, 1, &block(&[(":method", "GET")]));
    let ended = flood(&opening, |_| frame(CONTINUATION, 0, 1, &[])).await;
    assert!(ended.is_some());
    let ended = flood(&opening, |_| frame(CONTINUATION, 0, 1, &block(&[("x-a", "y")]))).await;
    assert!(ended.is_some());
}

/// A field that was remembered once and is named thousands of times.
#[tokio::test]
async fn a_small_head_that_unfolds() {
    let long = "y".repeat(4_000);
    let mut bytes = vec![0x40];
    bytes.extend(&block(&[("x-a", &long)])[1..]);
    bytes.extend([0xbe_u8].repeat(15_000 - bytes.len()));
    let stage = stage_with(h2c, None).await;
    let mut wire = Wire::open(stage.server.local_addr(), &[]).await;
    let before = resident();
    wire.send(HEADERS, END_HEADERS | END_STREAM, 1, &bytes).await;
    assert!(!matches!(wire.fate(1).await, Fate::Answered));
    assert!(resident().saturating_sub(before) < 10 * 1024 * 1024);
}

/// Requests that are taken back at once, each on a stream of its own (CVE-2023-44487).
#[tokio::test]
async fn requests_that_are_taken_back() {
    let stage = stage_with(h2c, None).await;
    let address = stage.server.local_addr();
    let bystander = Bystander::start(address, &stage.world.token);
    let before = resident();
    for pause in [false, true] {
        let mut wire = Wire::open(address, &[]).await;
        let mut sent = 0;
        for number in 0..u32::try_from(MANY).unwrap() {
            let stream = 2 * number + 1;
            let key = [("x-api-key", stage.world.token.as_str())];
            wire.get(stream, "/v1/reports", &key).await;
            if pause {
                // one by one, so that each is looked at before it is taken back
                tokio::task::yield_now().await;
            }
            if !wire.client.write_or_end(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await {
                break;
            }
            sent += 1;
        }
        let ended = wire.gone_away().await;
        assert!(sent < MANY || ended.is_some(), "{pause}: {sent}");
    }
    bystander.stop().await;
    assert!(resident().saturating_sub(before) < MAX_GROWTH);
    assert!(stage.upstream.requests() < 5_000, "{}", stage.upstream.requests());
}
