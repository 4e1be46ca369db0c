//! Those who call the nodes: requests all the time, and changes of authority in between.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use turmoil::net::UdpSocket;

use keyward_core::authority::{KeyAuthority, MemberAuthority, TenantAuthority};
use keyward_core::clock::Clock as _;
use keyward_core::environment::Environment;
use keyward_core::id::{AdminTokenId, KeyId, TenantId, UserId};
use keyward_core::ip::IpAllowlist;
use keyward_core::key::SecretKind;
use keyward_core::lease::{Epoch, Terms};
use keyward_core::time::Timestamp;
use keyward_testkit::admin_token;

use crate::chance::{Chance, now_ms, pass};
use crate::database::Write;
use crate::ledger::{Life, Must, Outcome, Subject, Verdict};
use crate::node;
use crate::run::{CHECK_MS, CRASH_MS, HEAL_MS};
use crate::scene::{POWERFUL, SCOPE, Scene};

pub(crate) const CLIENTS: &str = "clients";
const PORT: u16 = 7_001;
/// Subjects there are at most.
const MAX_SUBJECTS: usize = 48;
/// How much longer than a change may take its caller waits.
const GRACE_MS: u64 = 1_500;

/// A request of the product's API.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) subject: usize,
    pub(crate) strict: bool,
    pub(crate) must: Must,
    pub(crate) sent_ms: u64,
}

/// What goes over the network between callers and nodes.
pub(crate) enum Letter {
    Use(Request),
    Used(Request, Verdict),
    Make { ticket: u64, subject: usize },
    Lower { ticket: u64, subject: usize, patience_ms: u64 },
    Poll { ticket: u64, epoch: Epoch },
    Changed { ticket: u64, outcome: Outcome },
}

struct Callers {
    scene: Arc<Scene>,
    socket: UdpSocket,
    chance: RefCell<Chance>,
    waiting: RefCell<BTreeMap<u64, oneshot::Sender<Outcome>>>,
    tickets: Cell<u64>,
    /// Requests sent and accepted while nothing is wrong any more.
    calm: Cell<(u64, u64)>,
}

/// Runs all callers.
pub(crate) async fn clients(scene: Arc<Scene>, chance: Chance) -> turmoil::Result {
    pass(1).await;
    let callers = Rc::new(Callers {
        socket: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?,
        scene,
        chance: RefCell::new(chance),
        waiting: RefCell::default(),
        tickets: Cell::new(0),
        calm: Cell::default(),
    });
    for software in 0..3 {
        let callers = Rc::clone(&callers);
        drop(tokio::task::spawn_local(async move {
            match software {
                0 => callers.request_always().await,
                1 => callers.change_always().await,
                _ => callers.look_at_the_end().await,
            }
        }));
    }
    let mut buffer = [0; 8];
    loop {
        callers.socket.recv_from(&mut buffer).await?;
        match callers.scene.letters.take(u64::from_be_bytes(buffer)) {
            Some(Letter::Changed { ticket, outcome }) => {
                if let Some(waiting) = callers.waiting.borrow_mut().remove(&ticket) {
                    let _ = waiting.send(outcome);
                }
            }
            Some(Letter::Used(request, verdict)) => {
                let (sent, good) = callers.calm.get();
                let meant = request.must == Must::Accept && verdict == Verdict::Accepted
                    || request.must == Must::Refuse && verdict == Verdict::Refused;
                if request.sent_ms >= CHECK_MS && request.sent_ms < CRASH_MS && meant {
                    callers.calm.set((sent, good + 1));
                }
            }
            _ => {}
        }
    }
}

impl Callers {
    fn draw<T>(&self, draw: impl FnOnce(&mut Chance) -> T) -> T {
        draw(&mut self.chance.borrow_mut())
    }

    fn any_host(&self) -> usize {
        self.draw(|chance| chance.index(self.scene.hosts.len()))
    }

    async fn send(&self, host: usize, letter: Letter) {
        let number = self.scene.letters.put(letter);
        let name = self.scene.hosts[host].name.as_str();
        let _ = self.socket.send_to(&number.to_be_bytes(), (name, node::PORT)).await;
    }

    async fn call(&self, host: usize, subject: usize, strict: bool) -> Must {
        let sent_ms = now_ms();
        let must = {
            let mut ledger = self.scene.ledger.lock();
            ledger.requests += 1;
            ledger.must(subject, sent_ms)
        };
        self.send(host, Letter::Use(Request { subject, strict, must, sent_ms })).await;
        must
    }

    /// Calls every node at once.
    async fn call_all(&self, subject: usize) {
        for host in 0..self.scene.hosts.len() {
            self.call(host, subject, self.scene.wild).await;
        }
    }

    async fn request_always(&self) {
        while now_ms() < HEAL_MS {
            pass(self.draw(|chance| chance.between(2, 24))).await;
            let known = self.known();
            if known.is_empty() {
                continue;
            }
            // what is new is looked at most often
            let back = self.draw(|chance| chance.index(16) * chance.index(16) / 16);
            let subject = known[known.len() - 1 - back.min(known.len() - 1)];
            let strict = self.scene.wild || self.draw(|chance| chance.one_in(5));
            self.call(self.any_host(), subject, strict).await;
        }
    }

    async fn change_always(self: Rc<Self>) {
        pass(300).await;
        while now_ms() < HEAL_MS {
            let makes = self.draw(|chance| chance.one_in(2));
            if makes && self.scene.ledger.lock().subjects.len() < MAX_SUBJECTS {
                let this = Rc::clone(&self);
                drop(tokio::task::spawn_local(async move { this.make(this.any_host()).await }));
            } else if let Some(subject) = self.pick() {
                let this = Rc::clone(&self);
                let patience_ms = self.draw(|chance| match chance.below(3) {
                    0 => 0,
                    1 => chance.below(1_500),
                    _ => 5_000,
                });
                drop(tokio::task::spawn_local(async move {
                    this.lower(this.any_host(), subject, patience_ms).await;
                }));
            }
            pass(self.draw(|chance| chance.between(20, 320))).await;
        }
    }

    /// Subjects whose secret anybody has: it is in the answer to their making.
    fn known(&self) -> Vec<usize> {
        let ledger = self.scene.ledger.lock();
        let known = |it: &usize| ledger.life(*it) != Life::Making;
        (0..ledger.subjects.len()).filter(known).collect()
    }

    /// A subject that is good as far as anybody knows.
    fn pick(&self) -> Option<usize> {
        let good: Vec<usize> = {
            let ledger = self.scene.ledger.lock();
            (0..ledger.subjects.len()).filter(|it| ledger.life(*it) == Life::Valid).collect()
        };
        (!good.is_empty()).then(|| good[self.draw(|chance| chance.index(good.len()))])
    }

    async fn change(
        &self,
        host: usize,
        letter: impl FnOnce(u64) -> Letter,
        wait_ms: u64,
    ) -> Outcome {
        let ticket = self.tickets.get() + 1;
        self.tickets.set(ticket);
        let (sender, answer) = oneshot::channel();
        self.waiting.borrow_mut().insert(ticket, sender);
        self.send(host, letter(ticket)).await;
        match timeout(Duration::from_millis(wait_ms + GRACE_MS), answer).await {
            Ok(Ok(outcome)) => outcome,
            _ => Outcome::Unknown,
        }
    }

    async fn make(&self, host: usize) -> usize {
        let subject = {
            let made = self.subject(host);
            let mut ledger = self.scene.ledger.lock();
            ledger.subjects.push(made);
            ledger.subjects.len() - 1
        };
        self.scene.note(format_args!("making {subject}"));
        let outcome = self.change(host, |ticket| Letter::Make { ticket, subject }, 1_500).await;
        if let Outcome::Effective(_) = outcome {
            self.scene.ledger.lock().set(subject, Life::Valid);
            self.call_all(subject).await;
        }
        subject
    }

    fn subject(&self, host: usize) -> Subject {
        let scene = &self.scene;
        let clock = scene.hosts[host].clock.as_ref();
        let is_token = !scene.wild && self.draw(|chance| chance.one_in(4));
        let kind = if is_token { SecretKind::Admin } else { SecretKind::Api(Environment::Live) };
        let minted = scene.keyring.mint(kind, clock);
        let secret = minted.secret.expose().to_owned();
        let at = clock.now();
        if is_token {
            let id = AdminTokenId::from_bits(minted.id_bits);
            let make = Write::MakeToken(Box::new(admin_token(&minted)));
            let lower = Write::RevokeToken(id, at);
            return Subject { secret, is_token, make, lower, life: Life::Making };
        }
        let (tenant, owner) = (TenantId::from_bits(scene.id()), UserId::from_bits(scene.id()));
        let key = KeyAuthority {
            tenant,
            id: KeyId::from_bits(minted.id_bits),
            environment: Environment::Live,
            hash: minted.hash,
            pepper_version: minted.pepper_version,
            scopes: vec![SCOPE.to_owned()],
            owner,
            name: "nightly".to_owned(),
            expires_at: None,
            revoked_at: None,
            suspect_since: None,
            ip_allowlist: IpAllowlist::default(),
        };
        let lower = self.lowering(&key, at);
        let in_tenant = TenantAuthority { id: tenant, slug: "acme".to_owned(), suspended: false };
        let member = MemberAuthority { tenant, user: owner, role: POWERFUL.to_owned() };
        let make = Write::MakeKey(Box::new(key), in_tenant, member);
        Subject { secret, is_token, make, lower, life: Life::Making }
    }

    fn lowering(&self, key: &KeyAuthority, at: Timestamp) -> Write {
        match self.draw(|chance| chance.below(6)) {
            0 => Write::Suspend(key.tenant),
            1 => Write::Demote(key.tenant, key.owner),
            2 => Write::Offboard(key.tenant, key.owner),
            _ => Write::RevokeKey(key.id, at),
        }
    }

    async fn lower(&self, host: usize, subject: usize, patience_ms: u64) -> Outcome {
        self.scene.ledger.lock().set(subject, Life::Lowering);
        self.scene.note(format_args!("lowering {subject}"));
        let letter = |ticket| Letter::Lower { ticket, subject, patience_ms };
        let outcome = self.change(host, letter, patience_ms).await;
        match outcome {
            Outcome::Effective(_) => {
                self.took_effect(subject);
                self.call_all(subject).await;
            }
            Outcome::Promised(epoch, by_ms) => {
                {
                    let mut ledger = self.scene.ledger.lock();
                    ledger.promised += 1;
                    ledger.set(subject, Life::Promised(by_ms));
                }
                self.poll(subject, epoch, by_ms).await;
            }
            Outcome::Unknown => {}
        }
        outcome
    }

    fn took_effect(&self, subject: usize) {
        self.scene.note(format_args!("{subject} is effective"));
        let mut ledger = self.scene.ledger.lock();
        ledger.lowered += 1;
        ledger.set(subject, Life::Refused);
    }

    /// Asks any node again how far the change has reached, and looks when the time has come.
    async fn poll(&self, subject: usize, epoch: Epoch, by_ms: u64) {
        while now_ms() < by_ms {
            pass(self.draw(|chance| chance.between(20, 400)).min(by_ms - now_ms())).await;
            if now_ms() >= by_ms {
                break;
            }
            let letter = |ticket| Letter::Poll { ticket, epoch };
            let answer = self.change(self.any_host(), letter, 0).await;
            if let Outcome::Effective(_) = answer {
                self.took_effect(subject);
                break;
            }
        }
        self.call_all(subject).await;
    }

    /// Once all is well again: everything is decided, everywhere, and a dead node costs no more
    /// than its lease.
    async fn look_at_the_end(&self) {
        pass(CHECK_MS - now_ms()).await;
        let fresh = self.make(0).await;
        for subject in self.known() {
            for host in 0..self.scene.hosts.len() {
                let (sent, good) = self.calm.get();
                if self.call(host, subject, self.scene.wild).await != Must::Either {
                    self.calm.set((sent + 1, good));
                }
            }
        }
        pass(CRASH_MS.saturating_sub(now_ms())).await;
        let (sent, good) = self.calm.get();
        // those that were sent to look at the new key are answered as well
        if good < sent || self.scene.ledger.lock().life(fresh) != Life::Valid {
            self.scene.violated(&format!("R2: {good} of {sent} decided after all was well again"));
        }
        pass(100).await;
        let terms = Terms::DEFAULT;
        let bound_ms = terms.certainly_over_ns(terms.hold_ms()) / 1_000_000 + 1_000;
        let begun_ms = now_ms();
        let host = self.scene.hosts.len() - 1;
        let outcome = self.lower(host, fresh, 5_000).await;
        let took_ms = now_ms() - begun_ms;
        self.scene.note(format_args!("with a dead node {outcome:?} after {took_ms} ms"));
        if !matches!(outcome, Outcome::Effective(_)) || took_ms > bound_ms {
            self.scene.violated(&format!("R5: {outcome:?} after {took_ms} ms with a dead node"));
        }
        self.scene.ledger.lock().is_complete = true;
    }
}
