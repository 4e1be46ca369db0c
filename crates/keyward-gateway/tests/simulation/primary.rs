//! The machine of the primary: answers over TCP, as slowly as a database does on a bad day.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::RwLock;
use tokio::time::timeout;
use turmoil::net::{TcpListener, TcpStream};

use keyward_core::authority::{Answered, Fact, Found, Wanted};
use keyward_core::id::NodeId;
use keyward_core::lease::{Ask, Epoch, Incarnation, Listed, Reply, Roster};
use keyward_gateway::authority::Revocation;

use crate::chance::pass;
use crate::database::{Database, Write};
use crate::scene::{Defect, Scene};

pub(crate) const PRIMARY: &str = "primary";
pub(crate) const PORT: u16 = 5_432;
/// How long a writer waits for the lock of changes.
const LOCK_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(500);

/// What is asked of the primary.
pub(crate) enum Call {
    Ask(NodeId, Ask, u64),
    Load,
    Find(Wanted),
    Acknowledge(NodeId, Incarnation, Epoch),
    Roster,
    Deregister(NodeId),
    Forget(Vec<Listed>),
    BeginIncarnation(Incarnation),
    RevokeAnew(Vec<Revocation>),
    Write(Write),
}

/// What it answers.
pub(crate) enum Said {
    Answered(Answered),
    Loaded(Vec<Vec<Fact>>, Incarnation, Epoch),
    Found(Found),
    Roster(Roster),
    Written(Epoch, Incarnation, Vec<Listed>),
    Done,
    Refused(&'static str),
}

/// The software of the primary. What is committed outlives it; what is not does not.
pub(crate) async fn primary(scene: Arc<Scene>) -> turmoil::Result {
    pass(1).await;
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let changes = Arc::new(RwLock::new(()));
    loop {
        let (stream, _) = listener.accept().await?;
        let (scene, changes) = (Arc::clone(&scene), Arc::clone(&changes));
        drop(tokio::task::spawn_local(serve(scene, changes, stream)));
    }
}

async fn serve(scene: Arc<Scene>, changes: Arc<RwLock<()>>, mut stream: TcpStream) {
    let Ok(letter) = stream.read_u64().await else { return };
    let Some(call) = scene.calls.take(letter) else { return };
    let server = Server { scene: &scene, changes: &changes };
    let lost = (!scene.is_calm())
        .then(|| scene.chance(|chance| chance.one_in(40).then(|| chance.below(2_500))))
        .flatten();
    if let Some(late_ms) = lost {
        // the connection breaks; what was sent takes effect all the same, some time
        drop(stream);
        pass(late_ms).await;
        server.answer(call).await;
        return;
    }
    let said = server.answer(call).await;
    let _ = stream.write_u64(scene.answers.put(said)).await;
    // the other side closes, having read
    let _ = stream.read_u8().await;
}

struct Server<'s> {
    scene: &'s Scene,
    changes: &'s RwLock<()>,
}

impl Server<'_> {
    /// Reads what is committed, at one instant.
    fn committed<T>(&self, read: impl FnOnce(&Database) -> T) -> T {
        read(&self.scene.database.lock())
    }

    /// What a node is told: the truth, unless the test is about a primary that tells none.
    fn told<T>(&self, read: impl FnOnce(&Database) -> T) -> T {
        if self.scene.defect == Defect::RenewalsFromStandby {
            return read(&self.scene.standby.lock());
        }
        self.committed(read)
    }

    fn delay_ms(&self, seldom: u64, most: u64) -> u64 {
        let factor = self.scene.slowness.load(Ordering::Relaxed);
        self.scene.chance(|chance| chance.delay_ms(seldom, most)) * factor
    }

    async fn answer(&self, call: Call) -> Said {
        match call {
            Call::Ask(node, ask, hold_ms) if ask.renew => self.renew(node, ask, hold_ms).await,
            Call::Ask(_, ask, _) => self.read(ask).await,
            Call::Load => self.load().await,
            Call::Find(wanted) => {
                let found = self.committed(|now| now.find(wanted));
                pass(self.delay_ms(4, 300)).await;
                Said::Found(found)
            }
            Call::Roster => {
                let roster = self.committed(|now| {
                    let (incarnation, epoch, listed) = (now.incarnation, now.epoch, now.listed());
                    Roster { incarnation, epoch, listed }
                });
                pass(self.delay_ms(20, 100)).await;
                Said::Roster(roster)
            }
            Call::Write(write) => self.write(write).await,
            Call::RevokeAnew(revoked) => {
                for Revocation { key, revoked_at, .. } in revoked {
                    self.write(Write::RevokeKey(key, revoked_at)).await;
                }
                Said::Done
            }
            other => self.note(other).await,
        }
    }

    /// Changes of the register that no change of authority waits for.
    async fn note(&self, call: Call) -> Said {
        pass(self.delay_ms(10, 200)).await;
        let mut database = self.scene.database.lock();
        match call {
            Call::Acknowledge(node, history, applied) if history == database.incarnation => {
                if let Some(row) = database.nodes.get_mut(&node) {
                    row.applied = row.applied.max(applied);
                }
            }
            Call::Deregister(node) => drop(database.nodes.remove(&node)),
            Call::Forget(silent) => {
                let is_silent = |row: &Listed| {
                    silent.iter().any(|it| it.node == row.node && it.renewals == row.renewals)
                };
                database.nodes.retain(|_, row| !is_silent(row));
            }
            Call::BeginIncarnation(seen) if seen == database.incarnation => {
                database.incarnation = Incarnation(seen.0 + 1);
            }
            _ => {}
        }
        Said::Done
    }

    /// A renewal: one transaction under the shared side of the lock of changes.
    async fn renew(&self, node: NodeId, ask: Ask, hold_ms: u64) -> Said {
        let _shared = self.changes.read().await;
        pass(self.delay_ms(20, 60)).await;
        let (is_same, mut answer) = self.told(|now| {
            let is_same = now.incarnation == ask.incarnation;
            (is_same, Self::answered(now, ask, is_same))
        });
        if !is_same {
            return answer;
        }
        let Some(row) = self.committed(|now| now.renewed(node, ask, hold_ms)) else {
            return Said::Refused("a later renewal came before");
        };
        pass(self.delay_ms(20, 80)).await;
        self.scene.database.lock().nodes.insert(node, row);
        if let Said::Answered(answered) = &mut answer {
            answered.listed.retain(|it| it.node != node);
            answered.listed.push(row);
        }
        answer
    }

    async fn read(&self, ask: Ask) -> Said {
        let answer = self.told(|now| Self::answered(now, ask, false));
        pass(self.delay_ms(20, 100)).await;
        answer
    }

    fn answered(told: &Database, ask: Ask, renewed: bool) -> Said {
        let (incarnation, epoch) = (told.incarnation, told.epoch);
        let same = incarnation == ask.incarnation && ask.applied <= epoch;
        let (changed, through) =
            if same { told.changed_since(ask.applied) } else { (Vec::new(), epoch) };
        let listed = if renewed { told.listed() } else { Vec::new() };
        let reply = Reply { incarnation, epoch, through };
        Said::Answered(Answered { reply, changed, listed })
    }

    async fn load(&self) -> Said {
        let loaded = self.told(|now| Said::Loaded(now.pages(), now.incarnation, now.epoch));
        pass(self.delay_ms(4, 300)).await;
        loaded
    }

    /// A change of authority: it excludes renewals from its last statements on to its commit.
    async fn write(&self, write: Write) -> Said {
        pass(self.delay_ms(8, 150)).await;
        let Ok(_exclusive) = timeout(LOCK_TIMEOUT, self.changes.write()).await else {
            return Said::Refused("the lock of changes was not free in time");
        };
        pass(self.delay_ms(8, 30)).await;
        let listed = self.committed(Database::listed);
        pass(self.delay_ms(8, 200)).await;
        let (epoch, incarnation) = {
            let mut database = self.scene.database.lock();
            database.write(write);
            (database.epoch, database.incarnation)
        };
        self.scene.note(format_args!("committed {epoch} of history {}", incarnation.0));
        Said::Written(epoch, incarnation, listed)
    }
}
