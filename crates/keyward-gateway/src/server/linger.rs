//! The end of a connection whose caller may still be sending.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};

use crate::proxy::body::IdleTimer;

/// Bytes that are thrown away, so that the caller can read the last answer.
const MAX_LINGER_BYTES: usize = 1024 * 1024;
/// For how long a closing connection waits for the caller to read it.
const LINGER: Duration = Duration::from_secs(2);

/// Reads what nobody wants: closing with unread bytes resets the connection, and the caller loses
/// the last answer.
pub(super) struct Linger {
    bytes: usize,
    stall: IdleTimer,
}

impl Linger {
    pub(super) const fn new() -> Self {
        Self { bytes: 0, stall: IdleTimer::new(LINGER) }
    }

    /// Ready when the caller has ended too, or has had its time.
    pub(super) fn poll(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<()> {
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
