//! For how long a connection may take with its next head.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::server::ConnectionLimits;
use crate::stall::IdleTimer;

/// Parts of the header timeout in which a waiting connection is looked at.
const LOOKS: u32 = 2;

/// Looks at a connection from time to time, so that a request costs no timer.
pub(super) struct Patience {
    timer: IdleTimer,
    idle_looks: u32,
    heads_seen: u64,
    partial_seen: bool,
    quiet: u32,
    old_at: Option<Instant>,
    is_old: bool,
}

impl Patience {
    pub(super) fn new(limits: &ConnectionLimits) -> Self {
        let look = (limits.header_timeout / LOOKS).max(Duration::from_millis(1));
        let idle_looks = limits.idle_timeout.as_millis().div_ceil(look.as_millis());
        Self {
            timer: IdleTimer::new(look),
            idle_looks: u32::try_from(idle_looks).unwrap_or(u32::MAX),
            heads_seen: 0,
            partial_seen: false,
            quiet: 0,
            old_at: limits.max_connection_age.and_then(|age| Instant::now().checked_add(age)),
            is_old: false,
        }
    }

    /// Whether the connection should end with its next answer, as far as the last look has shown.
    pub(super) const fn is_old(&self) -> bool {
        self.is_old
    }

    /// Ready when no whole head came for too long behind so many others, whether or not a part of
    /// one is there.
    pub(super) fn poll_lost(
        &mut self,
        heads: u64,
        partial: bool,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            ready!(self.timer.poll_expired(cx));
            self.timer.rest();
            self.is_old = self.old_at.is_some_and(|old_at| old_at <= Instant::now());
            if self.heads_seen != heads {
                self.heads_seen = heads;
                self.partial_seen = partial;
                self.quiet = 0;
                continue;
            }
            let new_partial = partial && !self.partial_seen;
            self.partial_seen = partial;
            self.quiet = if new_partial { 0 } else { self.quiet + 1 };
            let patience = if partial || heads == 0 { LOOKS } else { self.idle_looks };
            if self.quiet >= patience {
                return Poll::Ready(());
            }
        }
    }
}
