//! Load at a fixed offered rate, whatever the server does: the way to measure a p99.
//!
//! `open-loop HOST:PORT PATH KEY-FILE RATE SECONDS CONNECTIONS SEED` sends `GET PATH` with the keys
//! of the file in turn. Requests become due at random (exponential gaps, the same ones for the same
//! seed), and the latency of each counts from the instant at which it was due: a server that stalls
//! is charged for every request it keeps waiting. One thread serves all connections and sleeps
//! until a request is due or an answer arrives, so that it takes little from an upstream on its
//! core. Prints one line of JSON.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::json;

/// The most bytes of one answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// How long the server may answer nothing at all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// From the first request on; what is due so early is sent and not counted.
const WARM_UP: Duration = Duration::from_millis(500);
/// Requests that are due and find no connection free; more means a server that cannot keep up.
const MAX_WAITING: usize = 500_000;
/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// The kernel may wake a sleeper so much later than asked; its default is 50 µs.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::MIN;

struct Plan {
    address: String,
    requests: Vec<Vec<u8>>,
    gaps: Gaps,
    duration: Duration,
    connections: usize,
}

fn main() -> anyhow::Result<()> {
    let plan = Plan::from_arguments()?;
    rustix::thread::set_current_timer_slack(Some(TIMER_SLACK_NS))?;
    let seconds = plan.duration.as_secs_f64();
    let load = Load::start(plan)?;
    let mut seen = load.run()?;
    let per_second = f64::from(seen.in_time) / seconds;
    let us = |sorted: &mut Vec<u64>, ten_thousandths: usize| {
        sorted.sort_unstable();
        let position = (sorted.len() * ten_thousandths / 10_000).min(sorted.len().max(1) - 1);
        sorted.get(position).copied().unwrap_or_default()
    };
    let latencies = &mut seen.latencies;
    println!(
        "{}",
        json!({
            "requests": latencies.len(),
            "perSecond": per_second,
            "p50": us(latencies, 5_000),
            "p90": us(latencies, 9_000),
            "p99": us(latencies, 9_900),
            "p999": us(latencies, 9_990),
            "max": us(latencies, 10_000),
            "waitedForConnection": seen.waited,
            "clientLateP99": us(&mut seen.late, 9_900),
        })
    );
    Ok(())
}

impl Plan {
    fn from_arguments() -> anyhow::Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [address, path, keys, rate, seconds, connections, seed] = arguments.as_slice() else {
            bail!("usage: open-loop HOST:PORT PATH KEY-FILE RATE SECONDS CONNECTIONS SEED");
        };
        let (rate, seconds): (f64, u64) = (rate.parse()?, seconds.parse()?);
        ensure!(rate >= 1.0 && seconds > 0, "rate and seconds are at least 1");
        let keys = std::fs::read_to_string(keys).context("the file of keys")?;
        let request = |key: &str| {
            let line = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n");
            format!("{line}authorization: Bearer {key}\r\n\r\n").into_bytes()
        };
        let requests: Vec<_> = keys.lines().map(request).collect();
        ensure!(!requests.is_empty(), "the file of keys is empty");
        let connections = connections.parse()?;
        ensure!(connections > 0, "there is at least one connection");
        Ok(Self {
            address: address.clone(),
            requests,
            gaps: Gaps { state: seed.parse::<u64>()? | 1, mean: 1.0 / rate },
            duration: Duration::from_secs(seconds),
            connections,
        })
    }
}

/// The gaps between requests of many independent callers, the same for the same seed.
struct Gaps {
    state: u64,
    mean: f64,
}

impl Gaps {
    fn next(&mut self) -> Duration {
        // splitmix64; its upper half is a fraction
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let half = u32::try_from(mixed >> 32).unwrap_or(u32::MAX);
        let fraction = (f64::from(half) + 0.5) / (f64::from(u32::MAX) + 1.0);
        Duration::from_secs_f64(-self.mean * fraction.ln())
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    due: Instant,
}

#[derive(Default)]
struct Seen {
    /// Microseconds from due to answered.
    latencies: Vec<u64>,
    /// Microseconds from due to sent, of requests that found a free connection.
    late: Vec<u64>,
    /// Requests that found none.
    waited: u64,
    /// Answers that came while requests were counted: at too high a rate, what the server can do.
    in_time: u32,
}

struct Load {
    plan: Plan,
    poll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    /// Connections without a request, the one that rested longest first.
    idle: VecDeque<usize>,
    /// Requests that are due.
    waiting: VecDeque<Instant>,
    begin: Instant,
    next: usize,
    seen: Seen,
}

impl Load {
    fn start(plan: Plan) -> anyhow::Result<Self> {
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(plan.connections);
        for number in 0..plan.connections {
            let stream = TcpStream::connect(&plan.address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(&poll, &stream, EventData::new_u64(number as u64), EventFlags::IN)?;
            let buffer = vec![0; MAX_ANSWER_BYTES];
            connections.push(Connection { stream, buffer, filled: 0, due: now() });
        }
        Ok(Self {
            idle: (0..plan.connections).collect(),
            waiting: VecDeque::new(),
            begin: now(),
            next: 0,
            seen: Seen::default(),
            plan,
            poll,
            connections,
        })
    }

    fn run(mut self) -> anyhow::Result<Seen> {
        self.begin = now();
        let end = self.begin + WARM_UP + self.plan.duration;
        let mut due = self.begin + self.plan.gaps.next();
        let mut events = Vec::with_capacity(EVENTS);
        let mut heard = self.begin;
        loop {
            let at = now();
            while due <= at && due < end {
                self.send_or_wait(due)?;
                due += self.plan.gaps.next();
            }
            let all_idle = self.idle.len() == self.connections.len();
            if due >= end && all_idle {
                return Ok(self.seen);
            }
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            epoll::wait(&self.poll, room, Some(&Timespec::default()))?;
            for event in &events {
                self.receive(event)?;
            }
            if !events.is_empty() || all_idle {
                heard = now();
            }
            ensure!(now() < heard + ANSWER_TIMEOUT, "no answer in {ANSWER_TIMEOUT:?}");
            if events.is_empty() {
                self.sleep_until(if due < end { due } else { heard + ANSWER_TIMEOUT })?;
            }
        }
    }

    /// Until then, or until an answer arrives. `epoll_wait` would round up to a millisecond and
    /// send what became due meanwhile in one burst.
    fn sleep_until(&self, wake: Instant) -> anyhow::Result<()> {
        let patience = Timespec::try_from(wake.saturating_duration_since(now()))?;
        let mut answers = [PollFd::new(&self.poll, PollFlags::IN)];
        rustix::event::poll(&mut answers, Some(&patience))?;
        Ok(())
    }

    fn send_or_wait(&mut self, due: Instant) -> anyhow::Result<()> {
        let Some(free) = self.idle.pop_front() else {
            ensure!(self.waiting.len() < MAX_WAITING, "the server cannot keep up with this rate");
            self.waiting.push_back(due);
            self.seen.waited += u64::from(due >= self.begin + WARM_UP);
            return Ok(());
        };
        self.send(free, due)?;
        let late = now().saturating_duration_since(due);
        self.seen.late.push(u64::try_from(late.as_micros())?);
        Ok(())
    }

    fn send(&mut self, number: usize, due: Instant) -> anyhow::Result<()> {
        let connection = self.connections.get_mut(number).context("a connection")?;
        let position = self.next % self.plan.requests.len();
        self.next += 1;
        let request = self.plan.requests.get(position).context("a request")?;
        connection.due = due;
        // a request is far smaller than an empty send buffer
        Ok(connection.stream.write_all(request)?)
    }

    fn receive(&mut self, event: &Event) -> anyhow::Result<()> {
        let number = usize::try_from(event.data.u64())?;
        let connection = self.connections.get_mut(number).context("a connection")?;
        if !connection.receive()? {
            return Ok(());
        }
        let at = now();
        let counted = self.begin + WARM_UP;
        self.seen.in_time += u32::from(at >= counted && at < counted + self.plan.duration);
        if connection.due >= counted {
            let latency = at.saturating_duration_since(connection.due);
            self.seen.latencies.push(u64::try_from(latency.as_micros())?);
        }
        if let Some(due) = self.waiting.pop_front() {
            return self.send(number, due);
        }
        self.idle.push_back(number);
        Ok(())
    }
}

impl Connection {
    /// Reads what has arrived; true once the answer is whole.
    fn receive(&mut self) -> anyhow::Result<bool> {
        let free = self.buffer.get_mut(self.filled..).context("the answer is too long")?;
        let read = match self.stream.read(free) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        ensure!(read > 0, "the connection was closed after {} bytes", self.filled);
        self.filled += read;
        let text = self.buffer.get(..self.filled).context("the answer is too long")?;
        let Some(head) = text.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(false);
        };
        let (head, body) = text.split_at(head + 4);
        if body.len() < body_length(head)? {
            return Ok(false);
        }
        self.filled = 0;
        Ok(true)
    }
}

/// The content length of an answer, which must be a 200.
fn body_length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head)?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "not a 200: {head}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse())
    });
    Ok(length.context("an answer without a content length")??)
}

#[expect(clippy::disallowed_methods, reason = "a load generator measures real time")]
fn now() -> Instant {
    Instant::now()
}
