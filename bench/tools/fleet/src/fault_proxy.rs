//! What stands between a node and its database: a TCP proxy that can misbehave like a network.
//!
//! What is held back is not lost: like a network that heals, the proxy delivers it afterwards,
//! unless it resets the connections in between.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::chance::Chance;
use crate::moment;

/// Bytes that are read before they are passed on.
const CHUNK_BYTES: usize = 16 * 1024;

/// How the proxy behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything passes at once.
    Pass,
    /// Every piece waits this long, and up to as long again.
    Delay(Duration),
    /// Connections stay open and are made, and nothing passes.
    Stall,
    /// Nothing passes from the node to the database.
    StallRequests,
    /// Nothing passes from the database to the node.
    StallAnswers,
    /// Connections are reset, and new ones as well.
    Reset,
}

/// Which way a piece goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToDatabase,
    ToNode,
}

impl Mode {
    fn holds(self, way: Way) -> bool {
        match self {
            Self::Pass | Self::Delay(_) => false,
            Self::Stall | Self::Reset => true,
            Self::StallRequests => way == Way::ToDatabase,
            Self::StallAnswers => way == Way::ToNode,
        }
    }
}

/// A proxy with a port of its own. It ends with the runtime.
pub(crate) struct FaultProxy {
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
}

impl FaultProxy {
    /// Listens on a free port of the loopback network and connects to this one.
    pub(crate) async fn begin(database: u16, chance: Chance) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let mode = watch::Sender::new(Mode::Pass);
        let line = Line {
            database: SocketAddr::from((Ipv4Addr::LOCALHOST, database)),
            mode: mode.subscribe(),
            chance: Arc::new(chance),
        };
        tokio::spawn(line.accept(listener));
        Ok(Self { port, mode })
    }

    /// Behaves like this from now on.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Line {
    database: SocketAddr,
    mode: watch::Receiver<Mode>,
    chance: Arc<Chance>,
}

impl Line {
    async fn accept(self, listener: TcpListener) {
        loop {
            // a connection that is gone before it was accepted is no concern of ours
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(self.clone().join(stream));
            }
        }
    }

    /// Joins a node's connection with one to the database until either ends or they are reset.
    async fn join(self, node: TcpStream) {
        if *self.mode.borrow() == Mode::Reset {
            return reset(&node);
        }
        let Ok(database) = TcpStream::connect(self.database).await else {
            return reset(&node);
        };
        let quick = node.set_nodelay(true).and_then(|()| database.set_nodelay(true));
        if quick.is_err() {
            return;
        }
        let (from_node, to_node) = node.into_split();
        let (from_database, to_database) = database.into_split();
        let requests = self.clone().carry(from_node, to_database, Way::ToDatabase);
        let answers = self.clone().carry(from_database, to_node, Way::ToNode);
        let mut mode = self.mode.clone();
        let told = async {
            // the sender lives as long as the fleet
            let _ = mode.wait_for(|mode| *mode == Mode::Reset).await;
        };
        tokio::select! {
            _ = async { tokio::join!(requests, answers) } => {}
            () = told => {}
        }
    }

    /// Carries bytes one way until an end is reached; then the other side is told.
    async fn carry(self, mut from: OwnedReadHalf, to: OwnedWriteHalf, way: Way) {
        let mut to = Ending { half: to, is_over: false };
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut mode = self.mode.clone();
        loop {
            let read = from.read(&mut chunk).await.unwrap_or(0);
            // the sender lives as long as the fleet
            let held = mode.wait_for(|mode| !mode.holds(way)).await.map(|mode| *mode);
            if let Ok(Mode::Delay(span)) = held {
                moment::pause(self.chance.span(span, span * 2)).await;
            }
            let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            if to.half.write_all(bytes).await.is_err() {
                break;
            }
        }
        to.is_over = true;
        // the other way may still have something to deliver
        let _ = to.half.shutdown().await;
    }
}

/// One half of a connection, which is reset when it is given up before its end.
struct Ending {
    half: OwnedWriteHalf,
    is_over: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.is_over {
            reset(self.half.as_ref());
        }
    }
}

/// Makes the end of a connection an abrupt one.
fn reset(stream: &TcpStream) {
    // a socket that is gone needs no reset
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
