//! A TCP proxy that can be told to misbehave: what a network does between two processes.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Connections carried at once; the next ones wait in the kernel.
const MAX_CONNECTIONS: usize = 1_024;

/// Bytes carried in one piece.
const PIECE: usize = 16 * 1_024;

/// What a proxy does to the connections through it, those that are open and those to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// Each piece waits for `least` and up to `jitter` more, each way.
    Delay {
        /// The shortest wait.
        least: Duration,
        /// What is added at most.
        jitter: Duration,
    },
    /// Nothing passes and nothing is closed. What was on the way goes on when the fault ends.
    Stall,
    /// The server is reached, and nothing it says comes back. Goes on when the fault ends.
    StallAnswers,
    /// Nothing reaches the server; what it says still comes back. Goes on when the fault ends.
    StallRequests,
    /// What comes is lost, and nothing is closed. A connection that has lost something is dead for
    /// ever: only new ones work when the fault ends.
    Drop,
    /// Connections end with a reset, open ones and new ones.
    Reset,
}

/// Which way a piece goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Answer,
}

/// A proxy on a loopback port of its own. Dropping it ends every connection through it.
pub struct FaultProxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    accepted: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts a proxy that passes everything to this server.
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free loopback port");
        let address = listener.local_addr().expect("the port of a listener");
        let (fault, seen) = watch::channel(Fault::Pass);
        let accepted = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn(accept(listener, server, seen, Arc::clone(&accepted)));
        Self { address, fault, accepted, accepting }
    }

    /// Where to connect instead of the server.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what is done from now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// The connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    fault: watch::Receiver<Fault>,
    accepted: Arc<AtomicU64>,
) {
    // ends with its owner, and every connection with it
    let mut carried = JoinSet::new();
    loop {
        while carried.len() >= MAX_CONNECTIONS {
            carried.join_next().await;
        }
        while carried.try_join_next().is_some() {}
        if let Ok((client, _)) = listener.accept().await {
            accepted.fetch_add(1, Ordering::AcqRel);
            carried.spawn(carry(client, server, fault.clone()));
        }
    }
}

async fn carry(client: TcpStream, server: SocketAddr, mut fault: watch::Receiver<Fault>) {
    if *fault.borrow() == Fault::Reset {
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = pump(&mut from_client, &mut to_server, Way::Request, fault.clone());
    let answers = pump(&mut from_server, &mut to_client, Way::Answer, fault.clone());
    let ended = tokio::select! {
        ended = async { tokio::try_join!(requests, answers) } => ended.is_ok(),
        _ = fault.wait_for(|fault| *fault == Fault::Reset) => false,
    };
    if !ended {
        let _ = (from_client.as_ref().set_zero_linger(), from_server.as_ref().set_zero_linger());
        // without the polite end that a drop sends first
        to_client.forget();
        to_server.forget();
    }
}

/// Carries one direction to its end.
async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    way: Way,
    mut fault: watch::Receiver<Fault>,
) -> Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        open(way, &mut fault).await?;
        let read = tokio::select! {
            read = from.read(&mut piece) => read?,
            // whether it may still be read is another question now
            changed = fault.changed() => {
                changed.map_err(|_| Error::from(ErrorKind::BrokenPipe))?;
                continue;
            }
        };
        open(way, &mut fault).await?;
        let now = *fault.borrow();
        match now {
            Fault::Drop => return std::future::pending().await,
            Fault::Delay { least, jitter } => pause(least, jitter).await,
            _ => {}
        }
        match piece.get(..read) {
            None | Some([]) => return to.shutdown().await,
            Some(bytes) => to.write_all(bytes).await?,
        }
    }
}

/// Waits until something may pass this way.
async fn open(way: Way, fault: &mut watch::Receiver<Fault>) -> Result<()> {
    let passes = |fault: &Fault| match fault {
        Fault::Stall => false,
        Fault::StallRequests => way == Way::Answer,
        Fault::StallAnswers => way == Way::Request,
        _ => true,
    };
    let open = fault.wait_for(passes).await;
    open.map(drop).map_err(|_| Error::from(ErrorKind::BrokenPipe))
}

async fn pause(least: Duration, jitter: Duration) {
    let mut byte = [0];
    rand::fill(&mut byte).expect("the machine's random source");
    let [byte] = byte;
    let pause = least + jitter * u32::from(byte) / u32::from(u8::MAX);
    let _ = tokio::time::timeout(pause, std::future::pending::<()>()).await;
}
