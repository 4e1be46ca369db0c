//! A node: the release binary with every role, behind a proxy to its database.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Mutex;

use keyward_testkit::FaultProxy;

use crate::chance::Chance;
use crate::ledger::{Asked, Key, Outcome};
use crate::moment;
use crate::pool::{Exchange, Pool};
use crate::process::Process;
use crate::upstream;

/// How long a request may wait for its answer; longer than any pause of a process.
const ASK_WITHIN: Duration = Duration::from_secs(15);
/// How long a call of the control plane may wait; longer than a node holds an answer back.
const CALL_WITHIN: Duration = Duration::from_secs(8);
const PROBE_WITHIN: Duration = Duration::from_millis(500);
const READY_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(40);
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// Below the ports that outgoing connections get, so that nobody takes one while its node is down.
const PORTS: std::ops::Range<u16> = 18_000..32_000;
/// The route that all keys of a run may call.
pub(crate) const ROUTE: &str = "/v1/reports/overview";

/// Where a node listens.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) gateway: SocketAddr,
    control: SocketAddr,
    internal: SocketAddr,
}

/// One node.
pub(crate) struct Node {
    pub(crate) number: usize,
    binary: PathBuf,
    folder: PathBuf,
    pub(crate) addresses: Addresses,
    pub(crate) proxy: FaultProxy,
    process: Mutex<Option<Process>>,
    /// Requests with keys that work, with keys that stopped, and of Keyward's own API.
    working: Pool,
    stopped: Pool,
    control: Pool,
    ready: AtomicBool,
}

impl Node {
    /// A node that does not run yet. Its settings end with `more`.
    pub(crate) fn new(
        number: usize,
        binary: &Path,
        folder: PathBuf,
        proxy: FaultProxy,
        chance: &Chance,
    ) -> anyhow::Result<Self> {
        let [gateway, control, internal] = free_ports(chance)?;
        let pool = |address, network, callers| {
            Pool::new(address, network, callers, chance.fork(u64::from(network)))
        };
        Ok(Self {
            number,
            binary: binary.to_owned(),
            folder,
            addresses: Addresses { gateway, control, internal },
            proxy,
            process: Mutex::new(None),
            working: pool(gateway, 1, 8),
            stopped: pool(gateway, 2, 4_096),
            control: pool(control, 3, 4),
            ready: AtomicBool::new(false),
        })
    }

    pub(crate) fn settings_file(&self) -> PathBuf {
        self.folder.join("keyward.toml")
    }

    /// The listeners' part of its settings.
    pub(crate) fn listeners(&self) -> String {
        let Addresses { gateway, control, internal } = self.addresses;
        format!(
            "[control]\nlisten = \"{control}\"\n[internal]\nlisten = \"{internal}\"\n\
             [[gateway.listener]]\nlisten = \"{gateway}\"\nenvironments = [\"live\"]\n"
        )
    }

    // -- the process ---------------------------------------------------------------------------

    /// Starts it and waits until it is ready; answers with how long that took.
    pub(crate) async fn start(&self) -> anyhow::Result<Duration> {
        let begun = moment::now_ns();
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--config"]).arg(self.settings_file()).current_dir(&self.folder);
        command.env_clear();
        let name = format!("node {}", self.number);
        let process = Process::start(&name, &mut command, &self.folder.join("log"))?;
        *self.process.lock().await = Some(process);
        loop {
            if self.health("/readyz").await == Some(200) {
                self.ready.store(true, Ordering::Relaxed);
                return Ok(Duration::from_nanos(moment::now_ns() - begun));
            }
            let ended = self.process.lock().await.as_mut().is_none_or(Process::has_ended);
            if ended || moment::now_ns() - begun > moment::ns(READY_WITHIN) {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                bail!("{name} is not ready within {READY_WITHIN:?}:\n{}", tail.join("\n"));
            }
            moment::pause(ASK_AGAIN).await;
        }
    }

    /// Stops the process where it is, or lets it go on.
    pub(crate) async fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        match &*self.process.lock().await {
            Some(process) => process.signal(signal),
            None => Ok(()),
        }
    }

    /// `kill -9`.
    pub(crate) async fn kill(&self) -> anyhow::Result<()> {
        self.ready.store(false, Ordering::Relaxed);
        match self.process.lock().await.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM, and waits for the end, which must be a success.
    pub(crate) async fn terminate(&self) -> anyhow::Result<Duration> {
        let Some(mut process) = self.process.lock().await.take() else {
            bail!("node {} does not run", self.number);
        };
        let begun = moment::now_ns();
        process.signal(Signal::TERM)?;
        let status = process.ended(STOP_WITHIN).await?;
        self.ready.store(false, Ordering::Relaxed);
        ensure!(status.success(), "node {} ended with {status} after SIGTERM", self.number);
        Ok(Duration::from_nanos(moment::now_ns() - begun))
    }

    pub(crate) async fn runs(&self) -> bool {
        self.process.lock().await.as_mut().is_some_and(|process| !process.has_ended())
    }

    /// The resident memory of the process in MB of 10^6 bytes.
    pub(crate) async fn resident_mb(&self) -> Option<f64> {
        let pid = self.process.lock().await.as_ref()?.pid().as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u32 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(f64::from(kib) * 1024.0 / 1e6)
    }

    /// The status of a path of the internal listener.
    pub(crate) async fn health(&self, path: &str) -> Option<u16> {
        // not through a pool: a load balancer asks anew each time
        let pool = Pool::new(self.addresses.internal, 4, 1, Chance::new(0));
        let request = format!("GET {path} HTTP/1.1\r\nhost: fleet\r\nconnection: close\r\n\r\n");
        let exchange = pool.ask(|_| request.into_bytes(), PROBE_WITHIN).await;
        exchange.result.ok().map(|answer| answer.status)
    }

    /// What a load balancer knows of it, after asking again.
    pub(crate) async fn look(&self) {
        let ready = self.health("/readyz").await == Some(200);
        self.ready.store(ready, Ordering::Relaxed);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    // -- requests ------------------------------------------------------------------------------

    /// One request with this key. `stopped` chooses where it comes from.
    pub(crate) async fn ask(&self, key: &Key, stopped: bool) -> Asked {
        let pool = if stopped { &self.stopped } else { &self.working };
        let (number, secret) = (self.number, &key.secret);
        let request = |sent| {
            format!(
                "GET {ROUTE} HTTP/1.1\r\nhost: fleet\r\nauthorization: Bearer {secret}\r\n\
                 {}: {sent}\r\n{}: {number}\r\n\r\n",
                upstream::SENT,
                upstream::NODE
            )
            .into_bytes()
        };
        let Exchange { sent, done, result } = pool.ask(request, ASK_WITHIN).await;
        let outcome = match result {
            Err(failure) => Outcome::Failed(failure.to_string()),
            Ok(answer) => match answer.status {
                200..=299 => Outcome::Accepted,
                status @ (401 | 403 | 429) => Outcome::Refused(status, code(&answer.body)),
                503 if code(&answer.body) == "unavailable" => {
                    Outcome::Unavailable { retry_after: answer.header("retry-after").is_some() }
                }
                status => Outcome::Other(status, code(&answer.body)),
            },
        };
        Asked { node: number, sent, done, outcome }
    }

    /// A call of Keyward's own API.
    pub(crate) async fn call(
        &self,
        token: &str,
        method: &str,
        path: &str,
        headers: &str,
        body: &Value,
    ) -> Exchange {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: fleet\r\nauthorization: Bearer {token}\r\n\
             {headers}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.control.ask(|_| request.into_bytes(), CALL_WITHIN).await
    }
}

/// The error code of a refusal.
pub(crate) fn code(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = body.pointer("/error/code").and_then(Value::as_str);
    code.unwrap_or("(no error envelope)").to_owned()
}

/// Free addresses, all held until all are known.
fn free_ports(chance: &Chance) -> anyhow::Result<[SocketAddr; 3]> {
    const ATTEMPTS: usize = 200;
    let mut held = Vec::new();
    for _ in 0..ATTEMPTS {
        let span = usize::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(chance.below(span)).unwrap_or(0);
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        if let [one, two, three] = held.as_slice() {
            return Ok([one.local_addr()?, two.local_addr()?, three.local_addr()?]);
        }
    }
    bail!("no three free ports in {PORTS:?}")
}

/// A free port for the database, below those of outgoing connections as well.
pub(crate) fn free_port(chance: &Chance) -> anyhow::Result<u16> {
    let [address, ..] = free_ports(chance).context("a port for PostgreSQL")?;
    Ok(address.port())
}
