//! One address of an upstream: how it is reached, and how it does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use http::HeaderValue;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::proxy::address::{Address, Endpoint};
use crate::proxy::config::{InvalidUpstream, UpstreamConfig, UpstreamProtocol};
use crate::proxy::health::Health;
use crate::proxy::http1::{self, Socket};
use crate::proxy::http2::{Fickle, Multiplexed};
use crate::proxy::pool::{self, Channel, Common, Connection, Wish};
use crate::proxy::send::{Broken, SendError};
use crate::proxy::tls::{HTTP_2, Tls, Trust};
use crate::stall::Stalling;

/// The most headers an upstream may answer with.
pub(super) const MAX_RESPONSE_HEADERS: usize = 200;

/// The version that is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Wire {
    Http1 = 1,
    Http2 = 2,
}

/// What is not known until the first connection is open.
const UNKNOWN: u8 = 0;

/// One address of an upstream.
pub(super) struct Target {
    /// Tells it from all others of this process.
    pub(super) id: u64,
    pub(super) address: Address,
    pub(super) host: HeaderValue,
    pub(super) health: Health,
    /// Where idle connections wait when all threads share them.
    pub(super) common: Option<Arc<Common>>,
    under_way: Arc<AtomicUsize>,
    tls: Option<Tls>,
    wire: AtomicU8,
    /// Tenants whose streams have connections of their own.
    pub(super) fickle: Arc<Fickle>,
    /// Taken while the first of possibly many exchanges opens the connection for all of them.
    opening: Semaphore,
    /// The same for fickle tenants: nobody else waits for their connections.
    opening_apart: Semaphore,
    protocol: UpstreamProtocol,
}

/// A request that is counted as long as it lasts.
pub(super) struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Target {
    pub(super) fn new(
        address: Address,
        config: &UpstreamConfig,
        trust: Option<&Trust>,
    ) -> Result<Self, InvalidUpstream> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let host = config.host.as_deref().unwrap_or(address.authority.as_str());
        let wrong = || InvalidUpstream::Host(host.to_owned());
        let authority: http::uri::Authority = host.parse().map_err(|_| wrong())?;
        let host = HeaderValue::try_from(host).map_err(|_| wrong())?;
        let wire = match config.protocol {
            UpstreamProtocol::Http2 => Wire::Http2 as u8,
            UpstreamProtocol::Auto if address.is_tls() => UNKNOWN,
            UpstreamProtocol::Auto | UpstreamProtocol::Http1 => Wire::Http1 as u8,
        };
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            host,
            health: Health::new(&config.health),
            common: config.max_requests.map(|_| Arc::default()),
            under_way: Arc::default(),
            tls: trust.map(|trust| trust.tls(config, &address)).transpose()?,
            fickle: Arc::new(Fickle::at(&address.text)),
            address: Address { authority, ..address },
            wire: AtomicU8::new(wire),
            opening: Semaphore::new(1),
            opening_apart: Semaphore::new(1),
            protocol: config.protocol,
        })
    }

    /// What is spoken with it, once that is known.
    pub(super) fn wire(&self) -> Option<Wire> {
        let wire = self.wire.load(Ordering::Relaxed);
        [Wire::Http1, Wire::Http2].into_iter().find(|it| *it as u8 == wire)
    }

    /// Requests under way, where they are counted.
    pub(super) fn load(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Counts a request.
    pub(super) fn count(&self) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&self.under_way))
    }

    /// A new channel. One connection for many streams is opened once for all that wait for it.
    pub(super) async fn open(
        &self,
        config: &UpstreamConfig,
        wish: Wish,
    ) -> Result<Channel, SendError> {
        let _turn = if self.wire() == Some(Wire::Http1) {
            None
        } else {
            let is_apart = self.fickle.contains(wish.tenant);
            let opening = if is_apart { &self.opening_apart } else { &self.opening };
            // a closed semaphore would mean the same: nobody else is at it
            let turn = opening.acquire().await.ok();
            if self.wire() == Some(Wire::Http2)
                && let Some(channel) = pool::take(self, wish)
            {
                return Ok(channel);
            }
            turn
        };
        let (socket, wire) = self.reach_any().await.map_err(SendError::Connect)?;
        if wire == Wire::Http1 {
            let connection = http1::Connection::new(socket, config.body_idle_timeout);
            return Ok(Channel::Connection(Connection::new(connection)));
        }
        let socket = Stalling::new(socket, config.body_idle_timeout);
        let broken = |error| SendError::Broken(Broken::Stream(error));
        let fickle = Arc::clone(&self.fickle);
        // it may have become one in the meantime
        let is_apart = fickle.contains(wish.tenant);
        let connection = Multiplexed::begin(socket, fickle, is_apart).await.map_err(broken)?;
        let stream = connection.stream(wish.tenant, wish.now_ns);
        pool::keep(self, connection);
        let none = || SendError::Connect(io::ErrorKind::ConnectionRefused.into());
        stream.map(Channel::Stream).ok_or_else(none)
    }

    /// A socket, and what is spoken on it.
    pub(super) async fn reach_any(&self) -> io::Result<(Socket, Wire)> {
        let socket = self.reach(self.tls.as_ref().map(|tls| &tls.connector)).await?;
        let wire = match &socket {
            Socket::Tls(socket) => self.negotiated(socket)?,
            Socket::Tcp(_) | Socket::Unix(_) => self.plain(),
        };
        Ok((socket, wire))
    }

    /// A socket for a connection that is handed over whole, so that HTTP/1.1 is spoken on it.
    pub(super) async fn reach_http1(&self) -> io::Result<Socket> {
        self.reach(self.tls.as_ref().map(|tls| &tls.http1_only)).await
    }

    async fn reach(&self, connector: Option<&TlsConnector>) -> io::Result<Socket> {
        let socket = match &self.address.endpoint {
            Endpoint::Unix(path) => return UnixStream::connect(path).await.map(Socket::Unix),
            Endpoint::Tcp { host, port } => TcpStream::connect((host.as_str(), *port)).await?,
        };
        // a proxy writes whole heads; waiting for more only adds delay
        socket.set_nodelay(true)?;
        match (connector, &self.tls) {
            (Some(connector), Some(tls)) => {
                let secured = connector.connect(tls.name.clone(), socket).await?;
                Ok(Socket::Tls(Box::new(secured)))
            }
            _ => Ok(Socket::Tcp(socket)),
        }
    }

    /// What is spoken without TLS.
    const fn plain(&self) -> Wire {
        match self.protocol {
            UpstreamProtocol::Http2 => Wire::Http2,
            UpstreamProtocol::Auto | UpstreamProtocol::Http1 => Wire::Http1,
        }
    }

    fn negotiated(&self, socket: &TlsStream<TcpStream>) -> io::Result<Wire> {
        let chosen = socket.get_ref().1.alpn_protocol();
        let wire = if chosen == Some(HTTP_2) { Wire::Http2 } else { Wire::Http1 };
        if self.protocol == UpstreamProtocol::Http2 && wire != Wire::Http2 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "it does not speak HTTP/2"));
        }
        self.wire.store(wire as u8, Ordering::Relaxed);
        Ok(wire)
    }
}
