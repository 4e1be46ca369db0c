//! Connections to one listener, kept open between requests.
//!
//! The rule of what counts as a failed request: a connection that the server has closed between two
//! requests is noticed before the next one is written, and another is made, as every client does. A
//! request that was written and not answered has failed, whether the connection was new or kept
//! open; nothing is sent twice behind the back of the counts. A server that wants no more requests
//! on a connection says `connection: close` with the answer before, and gets none.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use parking_lot::Mutex;

use crate::chance::Chance;
use crate::moment;
use crate::wire::{Answer, Failure, Wire};

/// Connections that are kept without work.
const IDLE_KEPT: usize = 128;

/// What was sent, when, and what came of it.
pub(crate) struct Exchange {
    pub(crate) sent: u64,
    pub(crate) done: u64,
    pub(crate) result: Result<Answer, Failure>,
}

/// Connections to one address.
pub(crate) struct Pool {
    address: SocketAddr,
    /// Callers come from this part of the loopback network. Nodes hold back addresses that present
    /// unknown keys too often; keys that stopped come from many addresses, so that this does not
    /// hide whether they still work.
    network: u8,
    callers: usize,
    idle: Mutex<Vec<Wire>>,
    chance: Chance,
}

impl Pool {
    pub(crate) const fn new(
        address: SocketAddr,
        network: u8,
        callers: usize,
        chance: Chance,
    ) -> Self {
        Self { address, network, callers, idle: Mutex::new(Vec::new()), chance }
    }

    /// Sends what `request` writes for the instant of sending.
    pub(crate) async fn ask(
        &self,
        request: impl FnOnce(u64) -> Vec<u8>,
        within: Duration,
    ) -> Exchange {
        let wire = match self.kept() {
            Some(wire) => Ok(wire),
            None => Wire::connect(self.address, self.source()).await,
        };
        let sent = moment::now_ns();
        let result = match wire {
            Ok(wire) => wire.ask(&request(sent), within).await,
            Err(failure) => Err(failure),
        };
        let done = moment::now_ns();
        let result = result.map(|(answer, wire)| {
            self.idle.lock().extend(wire);
            answer
        });
        Exchange { sent, done, result }
    }

    fn kept(&self) -> Option<Wire> {
        let mut idle = self.idle.lock();
        idle.truncate(IDLE_KEPT);
        while let Some(wire) = idle.pop() {
            if wire.is_open() {
                return Some(wire);
            }
        }
        None
    }

    fn source(&self) -> Ipv4Addr {
        let number = self.chance.below(self.callers) + 1;
        let [.., high, low] = u32::try_from(number).unwrap_or(1).to_be_bytes();
        Ipv4Addr::new(127, self.network, high, low)
    }
}
