//! What a node knows, and the one way anything gets into it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use keyward_core::authority::{Changed, Fact, Found, Invalidation, KeyAuthority, Wanted};
use keyward_core::id::{KeyId, TenantId};
use keyward_core::lease::{Epoch, Fills, Incarnation, Stamp};
use keyward_core::time::Timestamp;

use crate::admin_tokens::AdminTokens;
use crate::keyset::KeySet;
use crate::primitives::Mutex;

/// Ids remembered as unknown, in each of two generations.
const MAX_ABSENT: usize = 16_384;

/// A revocation that this node knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The key's tenant.
    pub tenant: TenantId,
    /// The key.
    pub key: KeyId,
    /// When it was revoked.
    pub revoked_at: Timestamp,
}

/// Keys, tenants, members and admin tokens in memory.
pub(super) struct Memory {
    keys: Arc<KeySet>,
    admin_tokens: Arc<AdminTokens>,
    /// Held while anything is put into memory, so that two readings of a fact have an order.
    order: Mutex<Order>,
}

#[derive(Default)]
struct Order {
    fills: Fills,
    absent: Absences,
    /// The history that memory is of; `None` while everything is loaded anew, when single facts
    /// are of no use.
    history: Option<Incarnation>,
    /// What an earlier history revoked, and the present one may not know.
    revoked: HashMap<KeyId, Timestamp>,
    /// Those it did not know.
    unknown: Vec<Revocation>,
}

/// Ids that nobody has, two generations of them: the older one goes when the younger is full.
#[derive(Default)]
struct Absences {
    young: HashSet<Wanted>,
    old: HashSet<Wanted>,
}

impl Absences {
    fn contains(&self, wanted: &Wanted) -> bool {
        self.young.contains(wanted) || self.old.contains(wanted)
    }

    fn insert(&mut self, wanted: Wanted) {
        if self.young.len() >= MAX_ABSENT {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(wanted);
    }

    fn remove(&mut self, wanted: &Wanted) {
        self.young.remove(wanted);
        self.old.remove(wanted);
    }
}

/// What came of putting a reading into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is there, or known not to exist.
    Known,
    /// Something in it changed meanwhile: it must be read again.
    Outdated,
}

impl Memory {
    pub(super) fn new(keys: Arc<KeySet>, admin_tokens: Arc<AdminTokens>) -> Self {
        Self { keys, admin_tokens, order: Mutex::default() }
    }

    pub(super) fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// Puts everything that changed into memory; `read` is the change as of which it was read.
    pub(super) fn apply(&self, changed: Vec<Changed>, read: Epoch, through: Epoch) {
        let mut order = self.order.lock();
        for Changed { epoch, subject, fact } in changed {
            if let Some(wanted) = wanted(subject) {
                order.absent.remove(&wanted);
            }
            if order.fills.overwrites(subject, epoch, read) {
                self.put(&order, subject, fact);
            }
        }
        order.fills.applied(through);
    }

    /// Whether this is known not to exist.
    pub(super) fn is_absent(&self, wanted: &Wanted) -> bool {
        self.order.lock().absent.contains(wanted)
    }

    /// A single reading begins; `None` while everything is loaded anew.
    pub(super) fn begin_fill(&self) -> Option<Stamp> {
        let mut order = self.order.lock();
        order.history.is_some().then(|| order.fills.begin())
    }

    /// Puts a single reading into memory, unless something in it changed since it was read.
    pub(super) fn settle(&self, stamp: Stamp, wanted: Wanted, found: Found) -> Settled {
        let mut order = self.order.lock();
        let subjects: Vec<Invalidation> = found.facts.iter().map(|(it, _)| *it).collect();
        let same_history = order.history == Some(found.incarnation);
        if !same_history || !order.fills.admits(stamp, found.epoch, &subjects) {
            return Settled::Outdated;
        }
        if found.facts.is_empty() {
            order.absent.insert(wanted);
        }
        for (subject, fact) in found.facts {
            self.put(&order, subject, fact);
        }
        Settled::Known
    }

    pub(super) fn end_fill(&self, stamp: Stamp) {
        self.order.lock().fills.end(stamp);
    }

    /// Forgets everything, but for what is revoked.
    pub(super) fn begin_load(&self) {
        let mut order = self.order.lock();
        order.history = None;
        order.absent = Absences::default();
        order.unknown.clear();
        // a load that failed half-way must not forget what the one before it kept
        order.revoked.extend(self.keys.revocations());
        self.keys.clear();
        self.admin_tokens.load([]);
    }

    /// A page of everything.
    pub(super) fn load(&self, page: Vec<Fact>) {
        let mut order = self.order.lock();
        for fact in page {
            match fact {
                Fact::Key(mut key) => {
                    let unknown = order.keep_revoked(&mut key);
                    order.unknown.extend(unknown);
                    self.keys.replace_key(*key);
                }
                Fact::Member(member) => self.keys.replace_member(&member),
                Fact::Tenant(tenant) => self.keys.replace_tenant(tenant),
                Fact::AdminToken(token) => self.admin_tokens.replace(*token),
                Fact::Gone => {}
            }
        }
    }

    /// Everything is there as of this change. Answers the revocations that it did not know.
    pub(super) fn end_load(&self, history: Incarnation, epoch: Epoch) -> Vec<Revocation> {
        let mut order = self.order.lock();
        order.fills.reload(epoch);
        order.history = Some(history);
        std::mem::take(&mut order.unknown)
    }

    fn put(&self, order: &Order, subject: Invalidation, fact: Fact) {
        match (subject, fact) {
            (_, Fact::Key(mut key)) => {
                order.keep_revoked(&mut key);
                self.keys.replace_key(*key);
            }
            (_, Fact::Member(member)) => self.keys.replace_member(&member),
            (_, Fact::Tenant(tenant)) => self.keys.replace_tenant(tenant),
            (_, Fact::AdminToken(token)) => self.admin_tokens.replace(*token),
            (Invalidation::Key(_, key), Fact::Gone) => self.keys.remove_key(key),
            (Invalidation::Member(tenant, user), Fact::Gone) => {
                self.keys.remove_member(tenant, user);
            }
            (Invalidation::Tenant(tenant), Fact::Gone) => self.keys.remove_tenant(tenant),
            (Invalidation::AdminToken(token), Fact::Gone) => self.admin_tokens.remove(token),
        }
    }
}

impl Order {
    /// What was revoked in any history stays revoked here. Answers what this one did not know.
    fn keep_revoked(&self, key: &mut KeyAuthority) -> Option<Revocation> {
        let revoked_at = self.revoked.get(&key.id).copied()?;
        if key.revoked_at.is_some() {
            return None;
        }
        key.revoked_at = Some(revoked_at);
        Some(Revocation { tenant: key.tenant, key: key.id, revoked_at })
    }
}

fn wanted(subject: Invalidation) -> Option<Wanted> {
    match subject {
        Invalidation::Key(_, key) => Some(Wanted::Key(key)),
        Invalidation::AdminToken(token) => Some(Wanted::AdminToken(token)),
        Invalidation::Member(..) | Invalidation::Tenant(_) => None,
    }
}
