//! Looks after the stream of a connection, whether it moves or stands still.
//!
//! It sits beside the connection and not in a body, because nobody asks for the body of an answer
//! that its caller does not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::plane::DataPlane;
use crate::proxy::{Alarm, Standing, Vigil};
use crate::record;

/// The stream that a connection carries, once its body lasts.
#[derive(Default)]
pub(super) struct Stream {
    lasts: AtomicBool,
    cut: AtomicBool,
    vigil: Mutex<Option<Vigil>>,
}

impl Stream {
    /// Has a body looked after from now on.
    pub(super) fn begin(&self, standing: Standing) {
        *self.vigil.lock() = Some(Vigil::of(standing));
        self.lasts.store(true, Ordering::Relaxed);
    }

    /// The body is over.
    pub(super) fn end(&self) {
        self.lasts.store(false, Ordering::Relaxed);
    }

    /// Has the connection end in a reset.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Whether the connection ends because its stream was cut.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }
}

/// Looks after the streams of one connection, one after the other.
pub(super) struct Lookout {
    stream: Arc<Stream>,
    /// Made for the first body that lasts, and kept for those that follow.
    alarm: Alarm,
    armed_for_ns: u64,
}

impl Lookout {
    pub(super) fn new(stream: Arc<Stream>) -> Self {
        Self { stream, alarm: Alarm::default(), armed_for_ns: 0 }
    }

    /// Ready when the stream under way has lost its authority; that is recorded then.
    pub(super) fn poll_lost(&mut self, plane: &DataPlane, cx: &mut Context<'_>) -> Poll<()> {
        let stream = &self.stream;
        if !stream.lasts.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let mut slot = stream.vigil.lock();
        let Some(vigil) = slot.as_mut() else {
            return Poll::Pending;
        };
        loop {
            match vigil.look(plane) {
                Ok(left) if self.armed_for_ns != vigil.due_ns() => {
                    self.alarm.set(Instant::now() + left);
                    self.armed_for_ns = vigil.due_ns();
                }
                Ok(_) => {}
                Err(loss) => {
                    record::stream_cut(plane, vigil.standing(), loss);
                    stream.cut();
                    return Poll::Ready(());
                }
            }
            ready!(self.alarm.poll(cx));
            self.armed_for_ns = 0;
        }
    }
}
