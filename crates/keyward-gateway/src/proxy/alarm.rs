//! Deadlines that mostly move away before they are reached.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that mostly moves away before it is reached: the timer behind it stays where it is
/// until it rings.
#[derive(Default)]
pub(crate) struct Alarm {
    due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    pub(crate) const fn set(&mut self, due: Instant) {
        self.due = Some(due);
    }

    /// Ready when the deadline has passed; never, when none was set.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}
