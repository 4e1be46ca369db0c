//! Who may open another connection, and begin another request over HTTP/2.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use keyward_core::ip::subscriber;

use crate::server::ConnectionLimits;

/// The connections of one listener, counted.
#[derive(Clone)]
pub(super) struct Connections {
    slots: Arc<Semaphore>,
    all: u32,
    by_address: Arc<ByAddress>,
    per_address: usize,
}

type ByAddress = Mutex<HashMap<IpAddr, Present>>;

/// An address with connections.
#[derive(Default)]
struct Present {
    connections: usize,
    load: Arc<Load>,
}

/// What the connections of one address keep busy over HTTP/2.
#[derive(Default)]
struct Load {
    /// Requests under way.
    requests: AtomicUsize,
    /// Answers that stand still because nobody takes them.
    untaken: AtomicUsize,
}

impl Connections {
    pub(super) fn new(limits: &ConnectionLimits) -> Self {
        let all = u32::try_from(limits.max_connections).unwrap_or(u32::MAX).max(1);
        Self {
            slots: Arc::new(Semaphore::new(all as usize)),
            all,
            by_address: Arc::default(),
            per_address: limits.max_connections_per_address,
        }
    }

    /// Room for a connection, once there is some.
    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    pub(super) async fn all_ended(&self) {
        // a closed semaphore would mean the same
        let _ = self.slots.acquire_many(self.all).await;
    }

    /// Counts a connection, unless its address has too many.
    pub(super) fn admit(&self, address: IpAddr, exempt: bool) -> Option<Counted> {
        if exempt {
            return Some(Counted(None));
        }
        let address = subscriber(address);
        let mut present = self.by_address.lock();
        let at = present.entry(address).or_default();
        if at.connections >= self.per_address {
            return None;
        }
        at.connections += 1;
        let load = Arc::clone(&at.load);
        Some(Counted(Some((Arc::clone(&self.by_address), address, load))))
    }
}

/// A counted connection of an address.
pub(super) struct Counted(Option<(Arc<ByAddress>, IpAddr, Arc<Load>)>);

impl Counted {
    /// Whose connection it is.
    pub(super) fn caller(&self) -> Caller {
        Caller(self.0.as_ref().map(|(.., load)| Arc::clone(load)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some((by_address, address, _)) = self.0.take() else {
            return;
        };
        let mut present = by_address.lock();
        if let Some(at) = present.get_mut(&address) {
            at.connections -= 1;
            if at.connections == 0 {
                present.remove(&address);
            }
        }
    }
}

/// Whoever calls from one address; nobody in particular, if that is a trusted proxy's.
#[derive(Clone)]
pub(super) struct Caller(Option<Arc<Load>>);

/// Why a request is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overload {
    /// As many are under way as may be.
    Requests,
    /// As many answers stand still as may be.
    Untaken,
}

impl Overload {
    pub(crate) const ALL: [Self; 2] = [Self::Requests, Self::Untaken];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Untaken => "untaken_answers",
        }
    }
}

impl Caller {
    /// Counts a request over HTTP/2, unless there is too much of its caller's already.
    pub(super) fn begin(&self, limits: &ConnectionLimits) -> Result<UnderWay, Overload> {
        let Some(load) = &self.0 else {
            return Ok(UnderWay(None));
        };
        if load.untaken.load(Ordering::Relaxed) >= limits.max_untaken_per_address {
            return Err(Overload::Untaken);
        }
        // counted first: two threads that look at once would both see the last place
        let under_way = UnderWay(Some(Arc::clone(load)));
        if load.requests.fetch_add(1, Ordering::Relaxed) >= limits.max_connections_per_address {
            return Err(Overload::Requests);
        }
        Ok(under_way)
    }
}

/// A counted request.
pub(super) struct UnderWay(Option<Arc<Load>>);

impl UnderWay {
    /// Counts its answer as one that nobody takes.
    pub(super) fn stand_still(&self) -> StandsStill {
        let load = self.0.clone();
        if let Some(load) = &load {
            load.untaken.fetch_add(1, Ordering::Relaxed);
        }
        StandsStill(load)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(load) = &self.0 {
            load.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A counted answer that nobody takes.
pub(super) struct StandsStill(Option<Arc<Load>>);

impl Drop for StandsStill {
    fn drop(&mut self) {
        if let Some(load) = &self.0 {
            load.untaken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_subscriber_holds_is_counted_together() {
        let limits = ConnectionLimits { max_connections_per_address: 2, ..Default::default() };
        let connections = Connections::new(&limits);
        let admit = |address: &str| connections.admit(address.parse().unwrap(), false);
        let held = [admit("2001:db8::1"), admit("2001:db8::2")];
        assert!(held.iter().all(Option::is_some));
        assert!(admit("2001:db8::3").is_none(), "the same network of 64 bits");
        assert!(admit("2001:db8:0:1::1").is_some());
        assert!(connections.admit("2001:db8::3".parse().unwrap(), true).is_some());
        drop(held);
        assert!(admit("2001:db8::3").is_some());
        assert!(connections.by_address.lock().is_empty());
    }

    #[test]
    fn requests_of_one_subscriber_are_counted_together() {
        let limits = ConnectionLimits { max_connections_per_address: 2, ..Default::default() };
        let connections = Connections::new(&limits);
        let [one, other] = ["2001:db8::1", "2001:db8::2"]
            .map(|address| connections.admit(address.parse().unwrap(), false).unwrap());
        let under_way = [one.caller().begin(&limits), other.caller().begin(&limits)];
        assert!(under_way.iter().all(Result::is_ok));
        assert_eq!(one.caller().begin(&limits).err(), Some(Overload::Requests));
        drop(under_way);
        assert!(one.caller().begin(&limits).is_ok());
    }
}
