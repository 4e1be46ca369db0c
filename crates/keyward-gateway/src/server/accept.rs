//! Accept loops, on the caller's runtime or on threads of their own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use keyward_core::environment::EnvironmentSet;
use keyward_core::ip::canonical;

use crate::plane::DataPlane;
use crate::server::admission::Connections;
use crate::server::connection::{Fallback, Serving, Task};
use crate::server::entrance::enter;
use crate::server::http1::serve;
use crate::server::{
    ClearText, ConnectionLimits, GatewayOptions, Listener, ListenerEnvironments, Protocols,
    RuntimeShape, Stage,
};

/// Connections the kernel keeps for us before they are accepted.
const BACKLOG: i32 = 1_024;
/// For how long accepting stops when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running listener of the product's API.
pub struct GatewayServer(Running);

/// A running internal listener: verify, and what the binary serves beside it.
pub struct InternalServer(Running);

/// A running listener whose requests the binary answers.
pub struct LentServer(Running);

impl GatewayServer {
    /// Listens on these addresses. Port 0 takes a free one.
    pub fn bind(
        addresses: &[SocketAddr],
        plane: Arc<DataPlane>,
        options: GatewayOptions,
    ) -> io::Result<Self> {
        let stage = watch::Sender::new(Stage::Open);
        let listener = Listener {
            environments: options.environments,
            public_scheme: scheme(&options.protocols, options.behind_tls),
            clear_text: clear_text(&options.protocols, options.behind_tls),
            max_body_bytes: options.limits.max_body_bytes,
            whole_body_timeout: options.limits.whole_body_timeout,
            stage: stage.subscribe(),
        };
        let GatewayOptions { limits, protocols, .. } = options;
        let setup = Setup { plane, listener, limits, protocols, task: Task::Gateway, stage };
        Running::start(addresses, setup, options.runtime).map(Self)
    }

    /// The address of the first listener.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.address
    }

    /// From now on every answer ends its connection, so that callers go elsewhere with their next
    /// request while this listener still takes those that have not noticed.
    pub fn leave(&self) {
        self.0.leave();
    }

    /// Stops accepting, lets requests under way end, and cuts those that have not ended by the
    /// deadline. True when all of them ended.
    pub async fn drain(self, deadline: Duration) -> bool {
        self.0.drain(deadline).await
    }
}

impl InternalServer {
    /// Listens on these addresses. Port 0 takes a free one.
    pub fn bind(
        addresses: &[SocketAddr],
        plane: Arc<DataPlane>,
        fallback: Fallback,
        limits: ConnectionLimits,
        protocols: Protocols,
        runtime: RuntimeShape,
    ) -> io::Result<Self> {
        let setup = Setup::beside(plane, limits, protocols, Task::Internal(fallback));
        Running::start(addresses, setup, runtime).map(Self)
    }

    /// The address of the first listener.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.address
    }

    /// From now on every answer ends its connection, so that callers go elsewhere with their next
    /// request while this listener still takes those that have not noticed.
    pub fn leave(&self) {
        self.0.leave();
    }

    /// Stops accepting, lets requests under way end, and cuts those that have not ended by the
    /// deadline. True when all of them ended.
    pub async fn drain(self, deadline: Duration) -> bool {
        self.0.drain(deadline).await
    }
}

impl LentServer {
    /// Listens on these addresses, on the runtime it is started on. Port 0 takes a free one.
    /// Requests carry the [`crate::Peer`] they came from among their extensions.
    pub fn bind(
        addresses: &[SocketAddr],
        plane: Arc<DataPlane>,
        fallback: Fallback,
        limits: ConnectionLimits,
        protocols: Protocols,
    ) -> io::Result<Self> {
        let setup = Setup::beside(plane, limits, protocols, Task::Lent(fallback));
        Running::start(addresses, setup, RuntimeShape::Shared).map(Self)
    }

    /// The same on a socket that listens already, for one whose address must be known before there
    /// is a plane.
    pub fn on(
        socket: std::net::TcpListener,
        plane: Arc<DataPlane>,
        fallback: Fallback,
        limits: ConnectionLimits,
        protocols: Protocols,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let setup = Setup::beside(plane, limits, protocols, Task::Lent(fallback));
        Running::run((address, vec![vec![socket]]), setup, RuntimeShape::Shared).map(Self)
    }

    /// The address of the first listener.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.address
    }

    /// From now on every answer ends its connection, so that callers go elsewhere with their next
    /// request while this listener still takes those that have not noticed.
    pub fn leave(&self) {
        self.0.leave();
    }

    /// Stops accepting, lets requests under way end, and cuts those that have not ended by the
    /// deadline. True when all of them ended.
    pub async fn drain(self, deadline: Duration) -> bool {
        self.0.drain(deadline).await
    }
}

struct Setup {
    plane: Arc<DataPlane>,
    listener: Listener,
    limits: ConnectionLimits,
    protocols: Protocols,
    task: Task,
    stage: watch::Sender<Stage>,
}

impl Setup {
    /// Of a listener that serves no environment.
    fn beside(
        plane: Arc<DataPlane>,
        limits: ConnectionLimits,
        protocols: Protocols,
        task: Task,
    ) -> Self {
        let stage = watch::Sender::new(Stage::Open);
        let listener = Listener {
            environments: ListenerEnvironments::all_hosts(EnvironmentSet::ALL),
            public_scheme: scheme(&protocols, false),
            // its callers are the operator's own
            clear_text: ClearText::Never,
            max_body_bytes: limits.max_body_bytes,
            whole_body_timeout: limits.whole_body_timeout,
            stage: stage.subscribe(),
        };
        Self { plane, listener, limits, protocols, task, stage }
    }
}

/// How callers reach a listener.
const fn scheme(protocols: &Protocols, behind_tls: bool) -> &'static str {
    if behind_tls || protocols.tls.is_some() { "https" } else { "http" }
}

const fn clear_text(protocols: &Protocols, behind_tls: bool) -> ClearText {
    match (protocols.tls.is_some(), behind_tls) {
        (true, _) => ClearText::Never,
        (false, true) => ClearText::AsProxiesSay,
        (false, false) => ClearText::FromElsewhere,
    }
}

struct Running {
    address: SocketAddr,
    stage: watch::Sender<Stage>,
    connections: Connections,
    threads: Vec<JoinHandle<()>>,
}

type SocketsByThread = Vec<Vec<std::net::TcpListener>>;

impl Running {
    fn start(addresses: &[SocketAddr], setup: Setup, runtime: RuntimeShape) -> io::Result<Self> {
        let copies = match runtime {
            RuntimeShape::Shared => 1,
            RuntimeShape::PerCore(threads) => threads.max(1),
        };
        Self::run(listen(addresses, copies)?, setup, runtime)
    }

    fn run(
        (address, sockets): (SocketAddr, SocketsByThread),
        setup: Setup,
        runtime: RuntimeShape,
    ) -> io::Result<Self> {
        let connections = Connections::new(&setup.limits);
        let serving = Arc::new(Serving {
            plane: setup.plane,
            listener: Arc::new(setup.listener),
            limits: setup.limits,
            protocols: setup.protocols,
            task: setup.task,
        });
        let mut threads = Vec::new();
        for sockets in sockets {
            let serving = Arc::clone(&serving);
            let connections = connections.clone();
            match runtime {
                RuntimeShape::Shared => {
                    for socket in sockets {
                        let listener = TcpListener::from_std(socket)?;
                        tokio::spawn(accept(listener, serving.clone(), connections.clone()));
                    }
                }
                RuntimeShape::PerCore(_) => {
                    threads.push(start_thread(sockets, serving, connections)?);
                }
            }
        }
        Ok(Self { address, stage: setup.stage, connections, threads })
    }

    fn leave(&self) {
        self.stage.send_if_modified(|stage| {
            let open = *stage == Stage::Open;
            if open {
                *stage = Stage::Leaving;
            }
            open
        });
    }

    async fn drain(self, deadline: Duration) -> bool {
        self.stage.send_replace(Stage::Draining);
        let ended = timeout(deadline, self.connections.all_ended()).await.is_ok();
        self.stage.send_replace(Stage::Stopped);
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().all(|thread| thread.join().is_ok())
        });
        ended && joined.await.unwrap_or(false)
    }
}

/// Sockets for each thread. Several threads share an address by `SO_REUSEPORT`.
fn listen(addresses: &[SocketAddr], copies: usize) -> io::Result<(SocketAddr, SocketsByThread)> {
    let mut bound: Vec<SocketAddr> = Vec::with_capacity(addresses.len());
    let mut threads = Vec::with_capacity(copies);
    for copy in 0..copies {
        let mut sockets = Vec::with_capacity(addresses.len());
        for (position, address) in addresses.iter().enumerate() {
            let address = if copy == 0 { address } else { bound.get(position).unwrap_or(address) };
            let socket = listen_on(*address, copies > 1)?;
            if copy == 0 {
                bound.push(socket.local_addr()?);
            }
            sockets.push(socket);
        }
        threads.push(sockets);
    }
    let first = bound.first().copied();
    let none = || io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on");
    Ok((first.ok_or_else(none)?, threads))
}

fn listen_on(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // two families, two listeners: one socket for both hides which one a caller used
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn start_thread(
    sockets: Vec<std::net::TcpListener>,
    serving: Arc<Serving>,
    connections: Connections,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("keyward-plane".to_owned()).spawn(move || {
        runtime.block_on(async {
            for socket in sockets {
                match TcpListener::from_std(socket) {
                    Ok(listener) => {
                        tokio::spawn(accept(listener, serving.clone(), connections.clone()));
                    }
                    Err(error) => tracing::error!(%error, "a listener could not be started"),
                }
            }
            // the runtime, and with it every connection that is left, ends with this
            let mut stage = serving.listener.stage.clone();
            let _ = stage.wait_for(|stage| *stage == Stage::Stopped).await;
        });
    })
}

/// Accepts connections until the listener drains.
async fn accept(listener: TcpListener, serving: Arc<Serving>, connections: Connections) {
    let mut stage = serving.listener.stage.clone();
    loop {
        let next = next_connection(&listener, &connections);
        let accepted = tokio::select! {
            biased;
            _ = stage.wait_for(|stage| *stage >= Stage::Draining) => return,
            accepted = next => accepted,
        };
        let Some((stream, peer, slot)) = accepted else {
            continue;
        };
        let peer = canonical(peer.ip());
        let exempt = serving.plane.policy.trusted_proxies.contains(peer);
        if let Some(counted) = connections.admit(peer, exempt) {
            let serving = Arc::clone(&serving);
            tokio::spawn(async move {
                if serving.protocols.is_plain_http_11() {
                    serve(serving, stream, Vec::new(), peer).await;
                } else {
                    // larger, and not a part of every connection's state
                    Box::pin(enter(serving, stream, peer, counted.caller())).await;
                }
                drop((counted, slot));
            });
        }
    }
}

/// The next connection once there is room for it; `None` when it is gone before it was accepted.
async fn next_connection(
    listener: &TcpListener,
    connections: &Connections,
) -> Option<(tokio::net::TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = connections.slot().await?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // answers are whole when they are written; waiting for more only adds delay
            let _ = stream.set_nodelay(true);
            Some((stream, peer, slot))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            let _ = timeout(ACCEPT_PAUSE, std::future::pending::<()>()).await;
            None
        }
    }
}
