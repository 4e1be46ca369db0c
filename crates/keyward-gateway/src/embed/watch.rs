//! Looks after a request that lasts, whose key may lose its authority meanwhile.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use crate::plane::DataPlane;
use crate::proxy::{Alarm, Loss, Standing, Vigil};
use crate::record;

/// One permitted request, asked about for as long as it lasts.
pub(super) struct Watch {
    plane: Arc<DataPlane>,
    vigil: Vigil,
    alarm: Alarm,
    armed_for_ns: u64,
}

impl Watch {
    pub(super) fn new(plane: Arc<DataPlane>, standing: Standing) -> Self {
        Self { plane, vigil: Vigil::of(standing), alarm: Alarm::default(), armed_for_ns: 0 }
    }

    pub(super) const fn standing(&self) -> &Standing {
        self.vigil.standing()
    }

    /// Ready when the request has lost its authority; that is recorded then.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Loss> {
        loop {
            match self.vigil.look(&self.plane) {
                Ok(left) if self.armed_for_ns != self.vigil.due_ns() => {
                    self.alarm.set(Instant::now() + left);
                    self.armed_for_ns = self.vigil.due_ns();
                }
                Ok(_) => {}
                Err(loss) => {
                    record::stream_cut(&self.plane, self.vigil.standing(), loss);
                    return Poll::Ready(loss);
                }
            }
            ready!(self.alarm.poll(cx));
            self.armed_for_ns = 0;
        }
    }
}
