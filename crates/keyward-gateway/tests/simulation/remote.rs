//! A node's authority: the simulated primary, over the simulated network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use turmoil::net::TcpStream;

use keyward_core::authority::{Answered, Fact, Found, Wanted};
use keyward_core::id::NodeId;
use keyward_core::lease::{Ask, Epoch, Incarnation, Listed, Roster, Terms};
use keyward_gateway::authority::{Authority, Away, Replied, Revocation};

use crate::chance::now_ms;
use crate::primary::{Call, PORT, PRIMARY, Said};
use crate::scene::Scene;

/// A connection that is silent for longer than this is given up.
const CALL_TIMEOUT: Duration = Duration::from_millis(1_200);

/// What the network carries only the number of.
pub(crate) struct Post<T>(Mutex<(u64, BTreeMap<u64, T>)>);

impl<T> Default for Post<T> {
    fn default() -> Self {
        Self(Mutex::new((0, BTreeMap::new())))
    }
}

impl<T> Post<T> {
    pub(crate) fn put(&self, letter: T) -> u64 {
        let mut post = self.0.lock();
        post.0 += 1;
        let number = post.0;
        post.1.insert(number, letter);
        number
    }

    pub(crate) fn take(&self, number: u64) -> Option<T> {
        self.0.lock().1.remove(&number)
    }
}

/// The primary as one process of a node sees it.
pub(crate) struct Remote {
    pub(crate) scene: Arc<Scene>,
    pub(crate) host: usize,
    pub(crate) node: NodeId,
    pub(crate) terms: Terms,
    /// When the last renewal was sent that was answered, and the last ask of any kind; plus one.
    pub(crate) renewed_ms: AtomicU64,
    pub(crate) asked_ms: AtomicU64,
}

impl Remote {
    pub(crate) async fn call(&self, call: Call) -> Result<Said, Away> {
        let gate = &self.scene.hosts[self.host].gate;
        gate.open().await;
        let said = timeout(CALL_TIMEOUT, self.exchange(call)).await;
        gate.open().await;
        match said {
            Ok(Ok(Said::Refused(why))) => Err(Away(why.to_owned())),
            Ok(Ok(said)) => Ok(said),
            Ok(Err(error)) => Err(Away(error.to_string())),
            Err(_) => Err(Away("silence".to_owned())),
        }
    }

    async fn exchange(&self, call: Call) -> std::io::Result<Said> {
        let mut stream = TcpStream::connect((PRIMARY, PORT)).await?;
        stream.write_u64(self.scene.calls.put(call)).await?;
        let letter = stream.read_u64().await?;
        let said = self.scene.answers.take(letter);
        said.ok_or_else(|| std::io::Error::other("an answer that was read before"))
    }

    async fn done(&self, call: Call) -> Result<(), Away> {
        self.call(call).await.map(drop)
    }

    async fn ask_primary(&self, ask: Ask) -> Result<Answered, Away> {
        let sent_ms = now_ms() + 1;
        match self.call(Call::Ask(self.node, ask, self.terms.hold_ms())).await? {
            Said::Answered(answered) => {
                self.asked_ms.fetch_max(sent_ms, Ordering::SeqCst);
                if ask.renew {
                    self.renewed_ms.fetch_max(sent_ms, Ordering::SeqCst);
                }
                Ok(answered)
            }
            _ => Err(strange()),
        }
    }

    /// Whether anything at all lets this process decide about a request that arrived at this time:
    /// a renewal sent not longer ago than a lease lasts, or a question sent since it arrived.
    pub(crate) fn may_decide(&self, arrived_ms: u64, slowest_ppm: u64) -> bool {
        let lease_ms = self.terms.lease_ms - self.terms.margin_ms;
        let lasts_ms = lease_ms + lease_ms * slowest_ppm / 1_000_000 + 2;
        let renewed = self.renewed_ms.load(Ordering::SeqCst);
        let leased = renewed > 0 && now_ms() < renewed + lasts_ms;
        leased || self.asked_ms.load(Ordering::SeqCst) > arrived_ms
    }
}

fn strange() -> Away {
    Away("an answer to another question".to_owned())
}

impl Authority for Remote {
    fn ask(&self, ask: Ask) -> Replied<'_, Answered> {
        Box::pin(self.ask_primary(ask))
    }

    fn load(&self, sender: mpsc::Sender<Vec<Fact>>) -> Replied<'_, (Incarnation, Epoch)> {
        Box::pin(async move {
            let Said::Loaded(pages, incarnation, epoch) = self.call(Call::Load).await? else {
                return Err(strange());
            };
            for page in pages {
                sender.send(page).await.map_err(|_| strange())?;
                self.scene.hosts[self.host].gate.open().await;
            }
            Ok((incarnation, epoch))
        })
    }

    fn find(&self, wanted: Wanted) -> Replied<'_, Found> {
        Box::pin(async move {
            match self.call(Call::Find(wanted)).await? {
                Said::Found(found) => Ok(found),
                _ => Err(strange()),
            }
        })
    }

    fn acknowledge(&self, history: Incarnation, applied: Epoch) -> Replied<'_, ()> {
        Box::pin(self.done(Call::Acknowledge(self.node, history, applied)))
    }

    fn roster(&self) -> Replied<'_, Roster> {
        Box::pin(async move {
            match self.call(Call::Roster).await? {
                Said::Roster(roster) => Ok(roster),
                _ => Err(strange()),
            }
        })
    }

    fn deregister(&self) -> Replied<'_, ()> {
        Box::pin(self.done(Call::Deregister(self.node)))
    }

    fn forget(&self, silent: Vec<Listed>) -> Replied<'_, ()> {
        Box::pin(self.done(Call::Forget(silent)))
    }

    fn begin_incarnation(&self, seen: Incarnation) -> Replied<'_, ()> {
        Box::pin(self.done(Call::BeginIncarnation(seen)))
    }

    fn revoke_anew(&self, revoked: Vec<Revocation>) -> Replied<'_, ()> {
        Box::pin(self.done(Call::RevokeAnew(revoked)))
    }
}
