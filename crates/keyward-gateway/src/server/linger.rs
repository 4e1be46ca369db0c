//! The end of a connection whose caller may still be sending.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stall::IdleTimer;

/// Bytes that are thrown away, so that the caller can read the last answer.
const MAX_LINGER_BYTES: usize = 1024 * 1024;
/// For how long a closing connection waits for the caller to read it.
const LINGER: Duration = Duration::from_secs(2);

/// Ends a connection on our side, and then lets its caller read what was said last.
pub(super) struct Ending {
    lingers: bool,
    linger: Option<Linger>,
}

impl Ending {
    /// Whether it `lingers`: the caller may still be sending.
    pub(super) const fn new(lingers: bool) -> Self {
        Self { lingers, linger: None }
    }

    pub(super) fn poll(
        &mut self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let linger = match &mut self.linger {
            Some(linger) => linger,
            none => {
                ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
                none.insert(Linger::new())
            }
        };
        if self.lingers { linger.poll(stream, cx).map(Ok) } else { Poll::Ready(Ok(())) }
    }
}

/// Reads what nobody wants: closing with unread bytes resets the connection, and the caller loses
/// the last answer.
struct Linger {
    bytes: usize,
    stall: IdleTimer,
}

impl Linger {
    const fn new() -> Self {
        Self { bytes: 0, stall: IdleTimer::new(LINGER) }
    }

    /// Ready when the caller has ended too, or has had its time.
    fn poll(&mut self, stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0_u8; 4096];
        loop {
            if self.bytes >= MAX_LINGER_BYTES {
                return Poll::Ready(());
            }
            let mut room = ReadBuf::new(&mut scrap);
            match Pin::new(&mut *stream).poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) if !room.filled().is_empty() => {
                    self.bytes += room.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.stall.poll_expired(cx),
            }
        }
    }
}
