//! The software of a node: the real follower, the real sets and the real decisions, behind
//! datagrams.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use turmoil::net::UdpSocket;

use keyward_core::clock::Clock as _;
use keyward_core::decision::{Credential, RequestFacts, TenantHeader, decide_scopes};
use keyward_core::environment::EnvironmentSet;
use keyward_core::id::NodeId;
use keyward_core::lease::{Epoch, Fenced, Reach, Terms};
use keyward_gateway::authority::{Follower, Following, Membership};
use keyward_gateway::{
    AdminTokens, Builtins, DataPlane, DataPlaneConfig, KeySet, KnownKey, PlanePolicy, ProductConfig,
};

use crate::chance::{now_ms, pass};
use crate::client::{Letter, Request};
use crate::ledger::{Outcome, Verdict};
use crate::primary::{Call, Said};
use crate::remote::Remote;
use crate::scene::{Defect, SCOPE, Scene};

pub(crate) const PORT: u16 = 7_000;

/// One process of a node.
struct Process {
    scene: Arc<Scene>,
    host: usize,
    plane: Arc<DataPlane>,
    follower: Arc<Follower>,
    remote: Arc<Remote>,
    socket: UdpSocket,
    turns: Turns,
}

/// Puts those in order whom one event woke at once: in which order a runtime does is random.
#[derive(Default)]
struct Turns(Rc<RefCell<BTreeMap<u64, oneshot::Sender<()>>>>);

impl Turns {
    async fn take(&self, number: u64) {
        let (sender, turn) = oneshot::channel();
        let is_first = {
            let mut waiting = self.0.borrow_mut();
            waiting.insert(number, sender);
            waiting.len() == 1
        };
        if is_first {
            let waiting = Rc::clone(&self.0);
            drop(tokio::task::spawn_local(async move {
                pass(1).await;
                for sender in std::mem::take(&mut *waiting.borrow_mut()).into_values() {
                    let _ = sender.send(());
                }
            }));
        }
        let _ = turn.await;
    }
}

/// Runs a node until its machine crashes.
pub(crate) async fn node(scene: Arc<Scene>, host: usize) -> turmoil::Result {
    pass(1).await;
    let machine = &scene.hosts[host];
    let node = NodeId::from_bits(scene.id());
    scene.note(format_args!("{} starts as {node}", machine.name));
    let terms = Terms::DEFAULT;
    let remote = Arc::new(Remote {
        scene: Arc::clone(&scene),
        host,
        node,
        terms,
        renewed_ms: AtomicU64::new(0),
        asked_ms: AtomicU64::new(0),
    });
    let plane = Arc::new(plane(&scene, host));
    *machine.plane.lock() = Arc::downgrade(&plane);
    let spread = scene.chance(crate::chance::Chance::next);
    let follower = plane.follow(Following {
        authority: Arc::clone(&remote) as Arc<_>,
        clock: Arc::clone(&machine.clock) as Arc<_>,
        terms: terms_counted_on(scene.defect),
        membership: Membership { node, spread, sole: false, janitor: true },
    });
    let mut tasks = JoinSet::new();
    follower.start(&mut tasks);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let turns = Turns::default();
    let scene = Arc::clone(&scene);
    let process = Rc::new(Process { scene, host, plane, follower, remote, socket, turns });
    let mut buffer = [0; 8];
    loop {
        let (_, from) = process.socket.recv_from(&mut buffer).await?;
        process.scene.hosts[host].gate.open().await;
        let number = u64::from_be_bytes(buffer);
        if let Some(letter) = process.scene.letters.take(number) {
            let process = Rc::clone(&process);
            drop(tokio::task::spawn_local(async move {
                process.receive(number, letter, from).await;
            }));
        }
    }
}

/// The terms that the follower goes by; the register is told the usual ones.
fn terms_counted_on(defect: Defect) -> Terms {
    match defect {
        Defect::LongLeases => Terms { lease_ms: 4 * Terms::DEFAULT.lease_ms, ..Terms::DEFAULT },
        Defect::None | Defect::RenewalsFromStandby | Defect::SlowClocks => Terms::DEFAULT,
    }
}

fn plane(scene: &Scene, host: usize) -> DataPlane {
    let keyring = Arc::clone(&scene.keyring);
    let config = DataPlaneConfig {
        clock: Arc::clone(&scene.hosts[host].clock) as Arc<_>,
        keys: Arc::new(KeySet::new(Arc::clone(&scene.catalog), Arc::clone(&keyring))),
        admin_tokens: Arc::new(AdminTokens::new(keyring)),
        product: ProductConfig {
            catalog: Arc::clone(&scene.catalog),
            carriers: Vec::new(),
            tenant_header: None,
            builtins: Builtins::default(),
            docs_base: "/docs".to_owned(),
        },
        upstreams: Vec::new(),
        policy: PlanePolicy::default(),
    };
    DataPlane::new(config).unwrap()
}

impl Process {
    async fn receive(&self, number: u64, letter: Letter, from: SocketAddr) {
        let answer = match letter {
            Letter::Use(request) => Letter::Used(request, self.decide(number, request).await),
            Letter::Make { ticket, subject } => {
                let write = self.scene.ledger.lock().subjects[subject].make.clone();
                Letter::Changed { ticket, outcome: self.change(number, write, true, 0).await }
            }
            Letter::Lower { ticket, subject, patience_ms } => {
                let write = self.scene.ledger.lock().subjects[subject].lower.clone();
                let outcome = self.change(number, write, false, patience_ms).await;
                Letter::Changed { ticket, outcome }
            }
            Letter::Poll { ticket, epoch } => {
                let reach = self.follower.reach(epoch).await;
                self.turns.take(number).await;
                let outcome = match reach {
                    Ok(Some(reach)) => self.outcome(epoch, reach),
                    _ => Outcome::Unknown,
                };
                Letter::Changed { ticket, outcome }
            }
            Letter::Used(..) | Letter::Changed { .. } => return,
        };
        self.scene.hosts[self.host].gate.open().await;
        let reply = self.scene.letters.put(answer);
        let _ = self.socket.send_to(&reply.to_be_bytes(), from).await;
    }

    /// Decides about one request, and holds the verdict against what was promised.
    async fn decide(&self, number: u64, request: Request) -> Verdict {
        let arrived_ms = now_ms();
        let (secret, is_token) = {
            let ledger = self.scene.ledger.lock();
            let subject = &ledger.subjects[request.subject];
            (subject.secret.clone(), subject.is_token)
        };
        let verdict = if is_token {
            match self.plane.admit(&secret).await {
                Ok(_) => Verdict::Accepted,
                Err(error) => refusal(&error),
            }
        } else {
            match self.plane.known_key(&secret, request.strict).await {
                Ok(key) => self.authorize(key.as_ref()),
                Err(error) => refusal(&error),
            }
        };
        let may_decide = if self.scene.wild {
            self.remote.asked_ms.load(std::sync::atomic::Ordering::SeqCst) > arrived_ms
        } else {
            self.remote.may_decide(arrived_ms, self.scene.slowest_ppm())
        };
        self.turns.take(number).await;
        let name = &self.scene.hosts[self.host].name;
        let Request { subject, must, strict, .. } = request;
        self.scene.note(format_args!(
            "{name} {verdict:?} request {number} with {subject} (strict {strict}, {must:?})"
        ));
        let broken = {
            let mut ledger = self.scene.ledger.lock();
            ledger.accepted += u64::from(verdict == Verdict::Accepted);
            ledger.broken(subject, must, verdict)
        };
        if let Some(promise) = broken {
            let sent_ms = request.sent_ms;
            self.scene.violated(&format!("{promise}: request {number} of {sent_ms} ms on {name}"));
        }
        if verdict == Verdict::Accepted && !may_decide {
            self.scene.violated(&format!("R4: accepted without a lease on {name}: {number}"));
        }
        verdict
    }

    fn authorize(&self, key: Option<&KnownKey>) -> Verdict {
        let Some(key) = key else { return Verdict::Refused };
        let facts = RequestFacts {
            environments: EnvironmentSet::ALL,
            ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            from_browser: false,
            tenant: TenantHeader::NotRequired,
        };
        let credential = Credential::Known(key.facts(&self.scene.catalog));
        let needed = self.scene.catalog.requirement(&[SCOPE]).unwrap();
        let now = self.scene.hosts[self.host].clock.now();
        match decide_scopes(&credential, needed, &facts, now) {
            Ok(()) => Verdict::Accepted,
            Err(_) => Verdict::Refused,
        }
    }

    /// Commits a change on the primary and waits until it has reached every node.
    async fn change(
        &self,
        number: u64,
        write: crate::database::Write,
        introduces: bool,
        patience_ms: u64,
    ) -> Outcome {
        let said = self.remote.call(Call::Write(write)).await;
        let Ok(Said::Written(epoch, incarnation, listed)) = said else { return Outcome::Unknown };
        let committed_ns = self.scene.hosts[self.host].clock.monotonic_ns();
        let patience = Duration::from_millis(patience_ms);
        let change = Fenced { epoch, incarnation, listed, committed_ns, introduces, patience };
        let reach = self.follower.fence(change).await;
        self.turns.take(number).await;
        self.outcome(epoch, reach)
    }

    fn outcome(&self, epoch: Epoch, reach: Reach) -> Outcome {
        let Some(by) = reach.effective_by else { return Outcome::Effective(epoch) };
        // the node's clock may be slow, and a turn may have been waited for
        let left_ms = by.as_millis() - self.scene.hosts[self.host].clock.now().as_millis();
        let left_ms = u64::try_from(left_ms.max(0)).unwrap();
        Outcome::Promised(epoch, now_ms() + left_ms + left_ms * 500 / 1_000_000 + 2)
    }
}

fn refusal(error: &keyward_core::error::Error) -> Verdict {
    match error.code() {
        keyward_core::error::ErrorCode::Unavailable => Verdict::Unavailable,
        _ => Verdict::Refused,
    }
}
