//! Load at a fixed offered rate, whatever the server does: the way to measure a p99.
//!
//! `open-loop HOST:PORT PATH KEY-FILE RATE SECONDS CONNECTIONS` sends `GET PATH` with the keys of
//! the file in turn. Every request has an instant at which it is due; its latency counts from
//! there, so that a server that stalls is charged for every request it keeps waiting.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// The most bytes of one answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for all connections to be made before the first request is due.
const HEAD_START: Duration = Duration::from_millis(300);

struct Plan {
    address: String,
    requests: Vec<Vec<u8>>,
    interval: Duration,
    total: u64,
    connections: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, keys, rate, seconds, connections] = arguments.as_slice() else {
        bail!("usage: open-loop HOST:PORT PATH KEY-FILE RATE SECONDS CONNECTIONS");
    };
    let (rate, seconds): (u64, u64) = (rate.parse()?, seconds.parse()?);
    ensure!(rate > 0 && seconds > 0, "rate and seconds are at least 1");
    let keys = std::fs::read_to_string(keys).context("the file of keys")?;
    let request = |key: &str| {
        let text = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}");
        format!("{text}\r\n\r\n").into_bytes()
    };
    let plan = Arc::new(Plan {
        address: address.clone(),
        requests: keys.lines().map(request).collect(),
        interval: Duration::from_secs(1) / u32::try_from(rate)?,
        total: rate * seconds,
        connections: connections.parse()?,
    });
    ensure!(!plan.requests.is_empty(), "the file of keys is empty");
    let mut latencies = run(&plan)?;
    latencies.sort_unstable();
    report(&latencies, rate);
    Ok(())
}

/// All requests over all connections; the latencies in microseconds.
fn run(plan: &Arc<Plan>) -> anyhow::Result<Vec<u64>> {
    let next = Arc::new(AtomicU64::new(0));
    let begin = now() + HEAD_START;
    let workers: Vec<_> = (0..plan.connections)
        .map(|_| {
            let (plan, next) = (Arc::clone(plan), Arc::clone(&next));
            std::thread::spawn(move || work(&plan, &next, begin))
        })
        .collect();
    let mut latencies = Vec::new();
    for worker in workers {
        let done = worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
        latencies.extend(done?);
    }
    Ok(latencies)
}

/// One connection: takes the next request, waits until it is due, sends it, reads the answer.
fn work(plan: &Plan, next: &AtomicU64, begin: Instant) -> anyhow::Result<Vec<u64>> {
    let mut stream = TcpStream::connect(&plan.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut buffer = vec![0; MAX_ANSWER_BYTES];
    let mut latencies = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.total {
            return Ok(latencies);
        }
        let due = begin + plan.interval * u32::try_from(number)?;
        wait_until(due);
        let position = usize::try_from(number)? % plan.requests.len();
        let request = plan.requests.get(position).context("a request")?;
        stream.write_all(request)?;
        read_answer(&mut stream, &mut buffer)?;
        latencies.push(u64::try_from(now().saturating_duration_since(due).as_micros())?);
    }
}

/// Reads one answer with a content length, which must be a 200.
fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    let mut filled = 0;
    loop {
        let free = buffer.get_mut(filled..).context("the answer is too long")?;
        let read = stream.read(free)?;
        ensure!(read > 0, "the connection was closed after {filled} bytes");
        filled += read;
        let text = buffer.get(..filled).context("the answer is too long")?;
        let Some(head) = text.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let (head, _) = text.split_at(head + 4);
        if filled >= head.len() + body_length(head)? {
            return Ok(());
        }
    }
}

fn body_length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head)?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "not a 200: {head}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse())
    });
    Ok(length.context("an answer without a content length")??)
}

fn report(latencies: &[u64], rate: u64) {
    let at = |thousandths: usize| {
        let position = (latencies.len() * thousandths / 1000).min(latencies.len().max(1) - 1);
        latencies.get(position).copied().unwrap_or_default()
    };
    let (p50, p99, p999, max) = (at(500), at(990), at(999), at(1000));
    println!(
        "rate={rate} requests={} p50_us={p50} p99_us={p99} p999_us={p999} max_us={max}",
        latencies.len()
    );
}

#[expect(clippy::disallowed_methods, reason = "a load generator measures real time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a request is sent when it is due, not before")]
fn wait_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(now()));
}
