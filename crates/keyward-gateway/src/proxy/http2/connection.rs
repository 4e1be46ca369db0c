//! Connections that carry many exchanges at once.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Request;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, yield_now};

use keyward_core::id::TenantId;

use crate::proxy::alarm::Alarm;
use crate::proxy::body::ForwardBody;
use crate::proxy::http2::exchange::Exchange;
use crate::proxy::http2::fickle::Fickle;
use crate::proxy::http2::resets::Resets;
use crate::proxy::http2::upload::StreamBody;

/// Streams of one connection at a time; fewer where the upstream says so. More take another
/// connection.
const MAX_STREAMS: u32 = 64;
/// Bytes of an answer that wait for a caller who reads slowly.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same for all streams together: more than they can take, so that one that stands still cannot
/// hold up the others. The library also ends a connection when what its frames waste of 256 bytes
/// each comes to half of this. The windows of all streams may be full of frames of 16 bytes.
const CONNECTION_WINDOW_BYTES: u32 = 2 * (256 / 16) * STREAM_WINDOW_BYTES * MAX_STREAMS;
/// Bytes of the request bodies of one stream that wait to be sent.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Bytes of the head of an answer.
const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
/// How often a connection with requests under way is asked whether it is alive.
const PING_EVERY: Duration = Duration::from_secs(20);
/// For how long it may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection, as the thread that opened it keeps it.
pub(in crate::proxy) struct Multiplexed {
    sender: SendRequest<StreamBody>,
    shared: Arc<Shared>,
    /// Whether it is for fickle tenants.
    is_apart: bool,
}

struct Shared {
    under_way: AtomicUsize,
    /// What the upstream allows, as far as it has said.
    allowed: Arc<AtomicUsize>,
    used_ns: AtomicU64,
    /// Alarms of exchanges that are over.
    alarms: Mutex<Vec<Alarm>>,
    resets: Resets,
    fickle: Arc<Fickle>,
    /// Ended with the connection.
    tasks: [Option<AbortHandle>; 2],
}

impl Shared {
    /// Ends an exchange, and the connection behind the last one when it begins no more.
    fn end(&self, exchange: Exchange, tenant: TenantId) {
        let Self { resets, fickle, .. } = self;
        if exchange.is_stuck() {
            fickle.broken_off(tenant);
            resets.retire();
        }
        if exchange.is_reset() {
            fickle.broken_off(tenant);
            resets.spend();
        } else if !exchange.is_complete() {
            if !exchange.only_ends() {
                fickle.broken_off(tenant);
            }
            resets.end(exchange);
        }
        if self.under_way.fetch_sub(1, Ordering::Relaxed) == 1 && resets.are_spent() {
            self.close();
        }
    }

    /// Left alone it would first send what is buffered, to an upstream that may take nothing for a
    /// long time.
    fn close(&self) {
        for task in self.tasks.iter().flatten() {
            task.abort();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

/// Runs the tasks of a connection, and keeps hold of the first: it owns the socket. The library
/// begins it before there are any exchanges, whose tasks end with it.
#[derive(Clone, Default)]
struct Tasks {
    first: Arc<OnceLock<AbortHandle>>,
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let handle = tokio::spawn(task).abort_handle();
        self.first.get_or_init(|| handle);
    }
}

/// Room for one exchange on such a connection. Dropped before the exchange is complete, it
/// resets its stream and no other.
pub(in crate::proxy) struct Stream {
    pub(in crate::proxy) exchange: Exchange,
    pub(in crate::proxy) alarm: Alarm,
    sender: SendRequest<StreamBody>,
    shared: Arc<Shared>,
    tenant: TenantId,
}

impl Multiplexed {
    /// Begins to speak HTTP/2.
    pub(in crate::proxy) async fn begin<S>(
        socket: S,
        fickle: Arc<Fickle>,
        is_apart: bool,
    ) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tasks = Tasks::default();
        let (sender, mut connection) = Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(socket))
            .await?;
        let allowed = Arc::new(AtomicUsize::new(MAX_STREAMS as usize));
        let said = Arc::clone(&allowed);
        let driving = poll_fn(move |cx| {
            let ended = Pin::new(&mut connection).poll(cx);
            said.store(connection.current_max_send_streams(), Ordering::Relaxed);
            // what went wrong is told to whoever waits for an answer
            ended.map(drop)
        });
        let driver = tokio::spawn(driving).abort_handle();
        let shared = Shared {
            under_way: AtomicUsize::new(0),
            allowed,
            used_ns: AtomicU64::new(0),
            alarms: Mutex::default(),
            resets: Resets::new(is_apart.then(|| fickle.held())),
            fickle,
            tasks: [Some(driver), tasks.first.get().cloned()],
        };
        Ok(Self { sender, shared: Arc::new(shared), is_apart })
    }

    /// Whether it is open, may reset more streams, and is not unused for too long.
    pub(in crate::proxy) fn is_usable(&self, limit_ns: u64) -> bool {
        let shared = &self.shared;
        let in_use = shared.under_way.load(Ordering::Relaxed) > 0;
        let is_open = !self.sender.is_closed() && !shared.resets.are_spent();
        is_open && (in_use || shared.used_ns.load(Ordering::Relaxed) >= limit_ns)
    }

    /// Whether it is for fickle tenants.
    pub(in crate::proxy) const fn is_apart(&self) -> bool {
        self.is_apart
    }

    /// Room for an exchange, unless there are as many as there may be.
    pub(in crate::proxy) fn stream(&self, tenant: TenantId, now_ns: u64) -> Option<Box<Stream>> {
        let shared = &self.shared;
        let most = shared.allowed.load(Ordering::Relaxed).clamp(1, MAX_STREAMS as usize);
        if shared.under_way.fetch_add(1, Ordering::Relaxed) >= most {
            shared.under_way.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        shared.used_ns.store(now_ns, Ordering::Relaxed);
        shared.fickle.begun(tenant);
        shared.resets.begun();
        Some(Box::new(Stream {
            exchange: Exchange::default(),
            alarm: shared.alarms.lock().pop().unwrap_or_default(),
            sender: self.sender.clone(),
            shared: Arc::clone(shared),
            tenant,
        }))
    }
}

impl Stream {
    /// Begins its exchange.
    pub(in crate::proxy) fn begin(&mut self, request: Request<ForwardBody>) {
        self.exchange = Exchange::begin(&mut self.sender, request);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        shared.alarms.lock().push(std::mem::take(&mut self.alarm));
        let (exchange, tenant) = (std::mem::take(&mut self.exchange), self.tenant);
        if exchange.may_still_send()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                yield_now().await;
                shared.end(exchange, tenant);
            });
        } else {
            shared.end(exchange, tenant);
        }
    }
}
