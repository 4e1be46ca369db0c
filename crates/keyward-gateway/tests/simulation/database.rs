//! The primary: transactions in commit order, a register of nodes, and a standby that lags behind.

use std::collections::BTreeMap;

use keyward_core::authority::{
    AdminTokenAuthority, Changed, Fact, Found, Invalidation, KeyAuthority, MemberAuthority,
    TenantAuthority, Wanted,
};
use keyward_core::id::{AdminTokenId, KeyId, NodeId, TenantId, UserId};
use keyward_core::lease::{Ask, Epoch, Incarnation, Listed};
use keyward_core::time::Timestamp;

/// The most changes that one answer holds.
const MAX_READ: usize = 12;

/// What is committed.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) incarnation: Incarnation,
    pub(crate) epoch: Epoch,
    pub(crate) nodes: BTreeMap<NodeId, Listed>,
    keys: BTreeMap<KeyId, KeyAuthority>,
    tokens: BTreeMap<AdminTokenId, AdminTokenAuthority>,
    members: BTreeMap<(TenantId, UserId), MemberAuthority>,
    tenants: BTreeMap<TenantId, TenantAuthority>,
    changes: Vec<(Epoch, Invalidation)>,
}

/// What a transaction of the control plane does.
#[derive(Clone)]
pub(crate) enum Write {
    MakeKey(Box<KeyAuthority>, TenantAuthority, MemberAuthority),
    MakeToken(Box<AdminTokenAuthority>),
    RevokeKey(KeyId, Timestamp),
    RevokeToken(AdminTokenId, Timestamp),
    Suspend(TenantId),
    Demote(TenantId, UserId),
    Offboard(TenantId, UserId),
}

impl Default for Database {
    fn default() -> Self {
        Self {
            incarnation: Incarnation::FIRST,
            epoch: Epoch(0),
            nodes: BTreeMap::new(),
            keys: BTreeMap::new(),
            tokens: BTreeMap::new(),
            members: BTreeMap::new(),
            tenants: BTreeMap::new(),
            changes: Vec::new(),
        }
    }
}

impl Database {
    /// Does what a write does, as the next change.
    pub(crate) fn write(&mut self, write: Write) {
        self.epoch = Epoch(self.epoch.0 + 1);
        for subject in self.apply(write) {
            self.changes.push((self.epoch, subject));
        }
    }

    fn apply(&mut self, write: Write) -> Vec<Invalidation> {
        match write {
            Write::MakeKey(key, tenant, member) => {
                let (in_tenant, user, id) = (key.tenant, key.owner, key.id);
                self.tenants.insert(in_tenant, tenant);
                self.members.insert((in_tenant, user), member);
                self.keys.insert(id, *key);
                vec![
                    Invalidation::Tenant(in_tenant),
                    Invalidation::Member(in_tenant, user),
                    Invalidation::Key(in_tenant, id),
                ]
            }
            Write::MakeToken(token) => {
                let id = token.id;
                self.tokens.insert(id, *token);
                vec![Invalidation::AdminToken(id)]
            }
            Write::RevokeKey(id, at) => self.keys.get_mut(&id).map_or_else(Vec::new, |key| {
                key.revoked_at = key.revoked_at.or(Some(at));
                vec![Invalidation::Key(key.tenant, id)]
            }),
            Write::RevokeToken(id, at) => self.tokens.get_mut(&id).map_or_else(Vec::new, |token| {
                token.revoked_at = token.revoked_at.or(Some(at));
                vec![Invalidation::AdminToken(id)]
            }),
            Write::Suspend(id) => self.tenants.get_mut(&id).map_or_else(Vec::new, |tenant| {
                tenant.suspended = true;
                vec![Invalidation::Tenant(id)]
            }),
            Write::Demote(tenant, user) => {
                let member = self.members.get_mut(&(tenant, user));
                member.map_or_else(Vec::new, |member| {
                    crate::scene::POWERLESS.clone_into(&mut member.role);
                    vec![Invalidation::Member(tenant, user)]
                })
            }
            Write::Offboard(tenant, user) => {
                self.members.remove(&(tenant, user));
                vec![Invalidation::Member(tenant, user)]
            }
        }
    }

    /// Whether all of this was done.
    pub(crate) fn has(&self, write: &Write) -> bool {
        match write {
            Write::MakeKey(key, ..) => self.keys.contains_key(&key.id),
            Write::MakeToken(token) => self.tokens.contains_key(&token.id),
            Write::RevokeKey(id, _) => {
                self.keys.get(id).is_some_and(|key| key.revoked_at.is_some())
            }
            Write::RevokeToken(id, _) => {
                self.tokens.get(id).is_some_and(|token| token.revoked_at.is_some())
            }
            Write::Suspend(id) => self.tenants.get(id).is_some_and(|tenant| tenant.suspended),
            Write::Demote(tenant, user) => {
                let member = self.members.get(&(*tenant, *user));
                member.is_some_and(|member| member.role == crate::scene::POWERLESS)
            }
            Write::Offboard(tenant, user) => !self.members.contains_key(&(*tenant, *user)),
        }
    }

    /// The row of a node after a renewal; `None` when a later one is there already.
    pub(crate) fn renewed(&self, node: NodeId, ask: Ask, hold_ms: u64) -> Option<Listed> {
        let renewals = ask.ticket.0;
        let newest = self.nodes.get(&node).is_none_or(|row| row.renewals < renewals);
        newest.then_some(Listed { node, applied: ask.applied, renewals, hold_ms })
    }

    pub(crate) fn listed(&self) -> Vec<Listed> {
        self.nodes.values().copied().collect()
    }

    /// What changed after `applied`, with the facts of now, and up to which change that is.
    pub(crate) fn changed_since(&self, applied: Epoch) -> (Vec<Changed>, Epoch) {
        let missed: Vec<_> = self.changes.iter().filter(|(epoch, _)| *epoch > applied).collect();
        let last = missed.get(MAX_READ).map_or(self.epoch, |(epoch, _)| Epoch(epoch.0 - 1));
        let through = last.max(Epoch(applied.0 + 1)).min(self.epoch);
        let mut newest = BTreeMap::new();
        for (epoch, subject) in missed.into_iter().filter(|(epoch, _)| *epoch <= through) {
            newest.insert(*subject, *epoch);
        }
        let changed = newest.into_iter().map(|(subject, epoch)| {
            let fact = self.fact(subject);
            Changed { epoch, subject, fact }
        });
        (changed.collect(), through)
    }

    fn fact(&self, subject: Invalidation) -> Fact {
        match subject {
            Invalidation::Key(_, id) => {
                self.keys.get(&id).map_or(Fact::Gone, |key| Fact::Key(Box::new(key.clone())))
            }
            Invalidation::Member(tenant, user) => self
                .members
                .get(&(tenant, user))
                .map_or(Fact::Gone, |member| Fact::Member(member.clone())),
            Invalidation::Tenant(id) => {
                self.tenants.get(&id).map_or(Fact::Gone, |tenant| Fact::Tenant(tenant.clone()))
            }
            Invalidation::AdminToken(id) => self
                .tokens
                .get(&id)
                .map_or(Fact::Gone, |token| Fact::AdminToken(Box::new(token.clone()))),
        }
    }

    pub(crate) fn find(&self, wanted: Wanted) -> Found {
        let mut facts = Vec::new();
        match wanted {
            Wanted::Key(id) => {
                if let Some(key) = self.keys.get(&id) {
                    let subjects = [
                        Invalidation::Tenant(key.tenant),
                        Invalidation::Member(key.tenant, key.owner),
                        Invalidation::Key(key.tenant, id),
                    ];
                    facts.extend(subjects.map(|subject| (subject, self.fact(subject))));
                }
            }
            Wanted::AdminToken(id) => {
                if self.tokens.contains_key(&id) {
                    let subject = Invalidation::AdminToken(id);
                    facts.push((subject, self.fact(subject)));
                }
            }
        }
        Found { incarnation: self.incarnation, epoch: self.epoch, facts }
    }

    /// Everything, in pages.
    pub(crate) fn pages(&self) -> Vec<Vec<Fact>> {
        let tenants = self.tenants.values().cloned().map(Fact::Tenant).collect();
        let members = self.members.values().cloned().map(Fact::Member).collect();
        let keys = self.keys.values().cloned().map(|it| Fact::Key(Box::new(it))).collect();
        let tokens = self.tokens.values().cloned().map(|it| Fact::AdminToken(Box::new(it)));
        vec![tenants, members, keys, tokens.collect()]
    }
}
