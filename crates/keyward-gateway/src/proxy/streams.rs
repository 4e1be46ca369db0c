//! Connections that carry many exchanges at once (HTTP/2).

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::proxy::alarm::Alarm;
use crate::proxy::body::ForwardBody;
use crate::proxy::pool::Driver;

/// Streams of one connection at a time; fewer where the upstream says so. More take another
/// connection.
const MAX_STREAMS: u32 = 64;
/// Bytes of an answer that wait for a caller who reads slowly.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// The same for all streams together: one that stands still cannot hold up the others.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * MAX_STREAMS;
/// Bytes of the request bodies of one stream that wait to be sent.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Bytes of the head of an answer.
const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
/// How often a connection with requests under way is asked whether it is alive.
const PING_EVERY: Duration = Duration::from_secs(20);
/// For how long it may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection, as the thread that opened it keeps it.
pub(super) struct Multiplexed {
    sender: SendRequest<ForwardBody>,
    shared: Arc<Shared>,
}

struct Shared {
    under_way: AtomicUsize,
    /// What the upstream allows, as far as it has said.
    allowed: Arc<AtomicUsize>,
    used_ns: AtomicU64,
    /// Alarms of exchanges that are over.
    alarms: Mutex<Vec<Alarm>>,
    _driver: Driver,
}

/// One exchange on such a connection. Dropped before its end, it resets its stream and no other.
pub(super) struct Stream {
    pub(super) sender: SendRequest<ForwardBody>,
    pub(super) alarm: Alarm,
    shared: Arc<Shared>,
}

impl Multiplexed {
    /// Begins to speak HTTP/2.
    pub(super) async fn begin<S>(socket: S) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, mut connection) = Builder::new(TokioExecutor::new())
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
        let shared = Shared {
            under_way: AtomicUsize::new(0),
            allowed,
            used_ns: AtomicU64::new(0),
            alarms: Mutex::default(),
            _driver: Driver::new(tokio::spawn(driving).abort_handle()),
        };
        Ok(Self { sender, shared: Arc::new(shared) })
    }

    /// Whether it is open, and not unused for too long.
    pub(super) fn is_usable(&self, limit_ns: u64) -> bool {
        let shared = &self.shared;
        let in_use = shared.under_way.load(Ordering::Relaxed) > 0;
        !self.sender.is_closed() && (in_use || shared.used_ns.load(Ordering::Relaxed) >= limit_ns)
    }

    /// A stream, unless there are as many as there may be.
    pub(super) fn stream(&self, now_ns: u64) -> Option<Stream> {
        let shared = &self.shared;
        let most = shared.allowed.load(Ordering::Relaxed).clamp(1, MAX_STREAMS as usize);
        if shared.under_way.fetch_add(1, Ordering::Relaxed) >= most {
            shared.under_way.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        shared.used_ns.store(now_ns, Ordering::Relaxed);
        let alarm = shared.alarms.lock().pop().unwrap_or_default();
        Some(Stream { sender: self.sender.clone(), alarm, shared: Arc::clone(shared) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.under_way.fetch_sub(1, Ordering::Relaxed);
        self.shared.alarms.lock().push(std::mem::take(&mut self.alarm));
    }
}
