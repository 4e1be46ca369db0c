//! `flood`: well-formed keys that nobody made, at a high rate, against one node.
//!
//! A forged id carries no valid tag, so it must cost no read of the store, and it must not harm a
//! second client. Twice: from one address, which the node holds back after some failures, and from
//! so many addresses that it cannot.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use keyward_core::environment::Environment;
use keyward_core::key::{Pepper, SecretKind, TagKey, TokenFormat};
use keyward_core::{Clock, Timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::chance::Chance;
use crate::control::Home;
use crate::fleet::Fleet;
use crate::ledger::{Key, Outcome};
use crate::moment;
use crate::node::ROUTE;
use crate::options::FloodOptions;
use crate::report::{self, Report, Spans};
use crate::{seed, write};

/// The node believes what the flood says about where it comes from.
const GATEWAY: &str = "[gateway]\ntrusted-proxies = [\"127.9.0.0/16\"]\n";
/// Where the flood's connections come from.
const FLOODER: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 1);
/// Requests that are written at once on a connection.
const PIPELINED: usize = 16;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The second client: one request at a time, this often.
const CLIENT_EVERY: Duration = Duration::from_millis(5);
/// A node's memory may grow by this much.
const GROWTH_MB: f64 = 100.0;

const FORGET: &str = "SELECT pg_stat_statements_reset()";
const STATEMENTS: &str = "SELECT s.query, s.calls FROM pg_stat_statements s
    JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = 'keyward' ORDER BY s.calls DESC";

pub(crate) async fn run(options: &FloodOptions) -> anyhow::Result<ExitCode> {
    let seed = seed(&options.place);
    let fleet = Fleet::begin(&options.place, 1, seed, GATEWAY).await?;
    let outcome = crate::guarded(flood(Arc::clone(&fleet), options, seed)).await;
    let keep = options.place.keep || !matches!(&outcome, Ok(code) if *code == ExitCode::SUCCESS);
    if let Some(folder) = fleet.end(keep).await {
        eprintln!("logs and data are in {}", folder.display());
    }
    outcome
}

async fn flood(fleet: Arc<Fleet>, options: &FloodOptions, seed: u64) -> anyhow::Result<ExitCode> {
    let home = fleet.home("owner").await?;
    let key = fleet.key(&home).await?;
    check_the_count(&fleet, &home).await?;
    let (report, mut figures) = (Report::default(), Vec::new());
    let alone = measured(&fleet, &key, options, None).await?;
    report.says("the client alone: p50 / p99 / max", alone.client.text());
    for many in [false, true] {
        let forged = forge(&key, &fleet.chance, options)?;
        let flood = Flood { forged, many, chance: fleet.chance.fork(17) };
        let with = measured(&fleet, &key, options, Some(flood)).await?;
        judge(&report, &alone, &with, many);
        figures
            .push(json!({ "manyAddresses": many, "alone": alone.shown(), "with": with.shown() }));
    }
    let tally = fleet.ledger.begin_tally();
    report.phase("flood", &json!(figures), &tally);
    let mut about = report::circumstances(seed, &options.place.binary);
    about.set("wantedRate", options.rate);
    let about = about.shown();
    let shown = report.shown(&about, &fleet.ledger.violations_shown());
    write(&options.place, &shown)?;
    println!("{about:#}\n\n{}", report.table());
    let kept = fleet.ledger.violated() == 0 && report.is_met();
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::from(crate::VIOLATED) })
}

fn judge(report: &Report, alone: &Measured, with: &Measured, many: bool) {
    let from = if many { "from a new address each" } else { "from one address" };
    let rate = with.answers.per_second();
    report.says(&format!("forged keys {from}, answered"), format!("{rate:.0} a second"));
    let (unauthorized, held) = with.answers.refusals();
    let got = format!("{unauthorized} × 401, {held} × 429, {} otherwise", with.answers.others());
    let met = with.answers.others() == 0 && unauthorized + held > 0;
    report.wants(&format!("answers to forged keys {from}"), "401 or 429", got, met);
    let got = format!("{} ({} without the flood)", with.key_reads, alone.key_reads);
    let what = format!("statements that read keys while forged keys come {from}");
    report.wants(&what, "none more", got, with.key_reads <= alone.key_reads);
    let got = format!("{} ({} without the flood)", with.statements, alone.statements);
    report.says(&format!("all statements of the node meanwhile, {from}"), got);
    let what = format!("second client, flood {from}");
    let got = format!("{} of {} failed", with.client_failed, with.client.count());
    report.wants(&what, "0 failed", got, with.client_failed == 0);
    report.says(&format!("{what}: p50 / p99 / max"), with.client.text());
    let growth = with.memory_mb - alone.memory_mb;
    let what = format!("memory of the node after the flood {from}");
    report.wants(&what, "< +100 MB", format!("{growth:+.1} MB"), growth < GROWTH_MB);
}

/// The making of a key reads keys; if that is not seen, the reads of a flood would not be either.
async fn check_the_count(fleet: &Arc<Fleet>, home: &Home) -> anyhow::Result<()> {
    let statistics = fleet.postgres.lock().await.superuser("postgres").await?;
    statistics.batch_execute(FORGET).await?;
    fleet.key(home).await?;
    let (key_reads, ..) = statements(&statistics).await?;
    ensure!(key_reads > 0, "reads of keys are not seen in pg_stat_statements");
    Ok(())
}

/// Statements that read keys, all statements, and what they were.
async fn statements(statistics: &Client) -> anyhow::Result<(i64, i64, Vec<Value>)> {
    let (mut key_reads, mut statements, mut seen) = (0, 0, Vec::new());
    for row in statistics.query(STATEMENTS, &[]).await? {
        let (query, calls): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        statements += calls;
        // the last use of keys is noted now and then, whoever uses them
        if query.contains("api_keys") && !query.contains("UPDATE api_keys") {
            key_reads += calls;
        }
        seen.push(json!({ "calls": calls, "query": query }));
    }
    Ok((key_reads, statements, seen))
}

// -- one measurement ------------------------------------------------------------------------------

/// What came of some seconds, with or without a flood.
struct Measured {
    answers: Answers,
    client: Spans,
    client_failed: usize,
    /// Statements that read the table of keys to decide with it.
    key_reads: i64,
    statements: i64,
    memory_mb: f64,
    seen: Vec<Value>,
}

impl Measured {
    fn shown(&self) -> Value {
        let (unauthorized, held) = self.answers.refusals();
        json!({
            "answersPerSecond": self.answers.per_second(), "unauthorized": unauthorized,
            "heldBack": held, "others": self.answers.others(), "client": self.client.shown(),
            "clientFailed": self.client_failed, "keyReads": self.key_reads,
            "statements": self.statements, "memoryMb": self.memory_mb, "seen": self.seen,
        })
    }
}

async fn measured(
    fleet: &Arc<Fleet>,
    key: &Arc<Key>,
    options: &FloodOptions,
    flood: Option<Flood>,
) -> anyhow::Result<Measured> {
    let statistics = fleet.postgres.lock().await.superuser("postgres").await?;
    statistics.batch_execute(FORGET).await?;
    let stop = watch::Sender::new(false);
    let client = tokio::spawn(client(Arc::clone(fleet), Arc::clone(key), stop.subscribe()));
    let answers = if let Some(flood) = flood {
        flood.run(fleet.node(0)?.addresses.gateway, options).await?
    } else {
        moment::pause(Duration::from_secs(options.seconds.into())).await;
        Answers::default()
    };
    stop.send_replace(true);
    let asked = client.await?;
    let spans = asked.iter().map(|(took, _)| *took).collect();
    let client_failed = asked.iter().filter(|(_, outcome)| *outcome != Outcome::Accepted).count();
    let (key_reads, statements, seen) = statements(&statistics).await?;
    let memory_mb = fleet.node(0)?.resident_mb().await.context("the memory of the node")?;
    let client = Spans::new(spans);
    Ok(Measured { answers, client, client_failed, key_reads, statements, memory_mb, seen })
}

/// The second client, who has a key.
async fn client(
    fleet: Arc<Fleet>,
    key: Arc<Key>,
    stop: watch::Receiver<bool>,
) -> Vec<(u64, Outcome)> {
    let mut all = Vec::new();
    let Ok(node) = fleet.node(0) else { return all };
    while !*stop.borrow() {
        let asked = node.ask(&key, false).await;
        fleet.ledger.judge(&key, &asked);
        all.push((asked.done - asked.sent, asked.outcome));
        moment::pause(CLIENT_EVERY).await;
    }
    all
}

// -- forged keys ----------------------------------------------------------------------------------

/// Randomness for forged keys, which guard nothing.
struct Forger(Chance);

impl Clock for Forger {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(moment::wall_ms())
    }

    fn monotonic_ns(&self) -> u64 {
        moment::now_ns()
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let random = self.0.next().to_be_bytes();
            chunk.iter_mut().zip(random).for_each(|(slot, byte)| *slot = byte);
        }
    }
}

/// As many keys as the flood needs, of the same make as a real one but under tag keys of our own.
fn forge(real: &Key, chance: &Chance, options: &FloodOptions) -> anyhow::Result<Vec<String>> {
    let mut words = real.secret.splitn(3, '_');
    let (prefix, word) = words.next().zip(words.next()).context("a key with prefix and word")?;
    let format = TokenFormat::new(prefix, |_| word.to_owned());
    let forger = Forger(chance.fork(19));
    let (tags, pepper) = (TagKey::new(&[7; 32]), Pepper::new(1, &[9; 32]));
    let kind = SecretKind::Api(Environment::Live);
    let count = usize::try_from(options.rate * options.seconds)?;
    let mint = |_| format.mint(kind, &tags, &pepper, &forger).secret.expose().to_owned();
    Ok((0..count).map(mint).collect())
}

/// Answers by status.
#[derive(Default)]
struct Answers {
    unauthorized: AtomicU64,
    held_back: AtomicU64,
    others: AtomicU64,
    took_ns: u64,
}

impl Answers {
    fn refusals(&self) -> (u64, u64) {
        (self.unauthorized.load(Ordering::Relaxed), self.held_back.load(Ordering::Relaxed))
    }

    fn others(&self) -> u64 {
        self.others.load(Ordering::Relaxed)
    }

    fn count(&self, status: u16) {
        let slot = match status {
            401 => &self.unauthorized,
            429 => &self.held_back,
            _ => &self.others,
        };
        slot.fetch_add(1, Ordering::Relaxed);
    }

    fn per_second(&self) -> f64 {
        let (unauthorized, held) = self.refusals();
        let all = u32::try_from(unauthorized + held + self.others()).unwrap_or(u32::MAX);
        f64::from(all) / Duration::from_nanos(self.took_ns.max(1)).as_secs_f64()
    }
}

/// A flood that has not begun.
struct Flood {
    forged: Vec<String>,
    /// Whether every request names another address.
    many: bool,
    chance: Chance,
}

impl Flood {
    async fn run(self, to: SocketAddr, options: &FloodOptions) -> anyhow::Result<Answers> {
        let connections = usize::try_from(options.connections.max(1))?;
        let answers = Arc::new(Answers::default());
        let per_batch =
            Duration::from_secs(1) * options.connections.max(1) * u32::try_from(PIPELINED)?
                / options.rate.max(1);
        let begun = moment::now_ns();
        let until = begun + moment::ns(Duration::from_secs(options.seconds.into()));
        let flood = Arc::new(self);
        let mut workers = JoinSet::new();
        for number in 0..connections {
            let (flood, answers) = (Arc::clone(&flood), Arc::clone(&answers));
            let mine = (number, connections);
            workers.spawn(async move {
                flood.work(to, mine, moment::ns(per_batch), until, &answers).await
            });
        }
        while let Some(worker) = workers.join_next().await {
            worker??;
        }
        let mut answers = Arc::into_inner(answers).context("all workers have ended")?;
        answers.took_ns = moment::now_ns() - begun;
        Ok(answers)
    }

    /// One connection, which presents its share of the forged keys.
    async fn work(
        &self,
        to: SocketAddr,
        (number, of): (usize, usize),
        every: u64,
        until: u64,
        answers: &Answers,
    ) -> anyhow::Result<()> {
        let mut stream = connect(to).await?;
        let mut answered = Answered::default();
        let mine: Vec<&String> = self.forged.iter().skip(number).step_by(of).collect();
        let mut due = moment::now_ns();
        for batch in mine.chunks(PIPELINED) {
            moment::pause_until(due).await;
            due += every;
            if moment::now_ns() > until {
                break;
            }
            let requests: String = batch.iter().map(|forged| self.request(forged)).collect();
            stream.write_all(requests.as_bytes()).await?;
            for _ in batch {
                let status = answered.next_status(&mut stream).await?;
                answers.count(status);
            }
        }
        Ok(())
    }

    fn request(&self, forged: &str) -> String {
        let number =
            if self.many { u32::try_from(self.chance.next() >> 40).unwrap_or(1) } else { 1 };
        let from = Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 0]) | (number & 0x00ff_ffff));
        format!(
            "GET {ROUTE} HTTP/1.1\r\nhost: fleet\r\nx-forwarded-for: {from}\r\n\
             authorization: Bearer {forged}\r\n\r\n"
        )
    }
}

async fn connect(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((FLOODER, 0)))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What was answered on a connection and not looked at yet.
#[derive(Default)]
struct Answered {
    buffer: Vec<u8>,
    seen: usize,
}

impl Answered {
    /// The status of the next answer; its body is skipped.
    async fn next_status(&mut self, stream: &mut TcpStream) -> anyhow::Result<u16> {
        loop {
            let unseen = self.buffer.get(self.seen..).unwrap_or_default();
            if let Some((status, length)) = whole(unseen)? {
                self.seen += length;
                return Ok(status);
            }
            self.buffer.drain(..self.seen);
            self.seen = 0;
            let read = timeout(ANSWER_WITHIN, stream.read_buf(&mut self.buffer)).await;
            let read = read.context("an answer to a forged key takes too long")??;
            ensure!(read > 0, "the node closed a connection of the flood");
        }
    }
}

/// Status and bytes of the first answer in the buffer, once it is whole.
fn whole(buffer: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, _) = buffer.split_at(end);
    let head = std::str::from_utf8(head)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("a status")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let whole = end + 4 + length.context("an answer without a length")??;
    Ok((buffer.len() >= whole).then_some((status, whole)))
}
