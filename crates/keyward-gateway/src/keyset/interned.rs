//! Tenants and members, each kept once and named by position.
//!
//! A position means the same tenant or member for as long as the set lives, whatever is forgotten
//! meanwhile. Changes take a lock; decisions read without one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use http::HeaderValue;

use keyward_core::authority::TenantAuthority;
use keyward_core::id::{TenantId, UserId};

use super::ladder::Ladder;
use crate::primitives::{AtomicBool, AtomicU32, AtomicU64, Mutex, RwLock};

/// A tenant as the data plane sees it.
#[derive(Debug)]
pub struct TenantFacts {
    /// Its id.
    pub id: TenantId,
    /// The id as a header value.
    pub(crate) header: HeaderValue,
    /// Whether it is suspended, or not known.
    suspended: AtomicBool,
    /// Its short name; empty while nothing but its id was ever known.
    slug: RwLock<Box<str>>,
}

impl TenantFacts {
    /// A tenant of which only the id is known: nothing of it works.
    fn unknown(id: TenantId) -> Self {
        let header = HeaderValue::try_from(id.to_string());
        Self {
            id,
            header: header.unwrap_or_else(|_| HeaderValue::from_static("-")),
            suspended: AtomicBool::new(true),
            slug: RwLock::new(Box::default()),
        }
    }

    /// Whether it is suspended now, or not known.
    pub(super) fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Acquire)
    }

    /// Whether the text is its id or its short name.
    pub fn is_named(&self, text: &[u8]) -> bool {
        text == self.header.as_bytes() || (!text.is_empty() && text == self.slug.read().as_bytes())
    }
}

/// Every tenant that was ever heard of.
#[derive(Default)]
pub(super) struct Tenants {
    facts: Ladder<OnceLock<TenantFacts>>,
    positions: Mutex<HashMap<TenantId, u32>>,
}

impl Tenants {
    pub(super) fn get(&self, position: u32) -> Option<&TenantFacts> {
        self.facts.get(position)?.get()
    }

    pub(super) fn intern(&self, id: TenantId) -> u32 {
        self.position(&mut self.positions.lock(), id)
    }

    pub(super) fn replace(&self, tenant: TenantAuthority) {
        let mut positions = self.positions.lock();
        if let Some(facts) = self.get(self.position(&mut positions, tenant.id)) {
            let known = **facts.slug.read() == *tenant.slug;
            if !known {
                *facts.slug.write() = tenant.slug.into();
            }
            facts.suspended.store(tenant.suspended, Ordering::Release);
        }
    }

    pub(super) fn remove(&self, id: TenantId) {
        let positions = self.positions.lock();
        if let Some(position) = positions.get(&id) {
            self.suspend(*position);
        }
    }

    /// Lets nothing of any tenant work until it is put here again.
    pub(super) fn clear(&self) {
        let positions = self.positions.lock();
        positions.values().for_each(|position| self.suspend(*position));
    }

    fn suspend(&self, position: u32) {
        if let Some(facts) = self.get(position) {
            facts.suspended.store(true, Ordering::Release);
        }
    }

    fn position(&self, positions: &mut HashMap<TenantId, u32>, id: TenantId) -> u32 {
        let next = next_position(positions.len());
        match positions.entry(id) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(slot) => {
                if let Some(facts) = self.facts.make(next) {
                    facts.get_or_init(|| TenantFacts::unknown(id));
                }
                *slot.insert(next)
            }
        }
    }
}

/// The role of a user who does not belong to the tenant.
const NO_ROLE: u32 = u32::MAX;

/// A user in a tenant. The id is written once, before anybody knows the position.
struct Member {
    user: [AtomicU64; 2],
    /// The position of the role in the catalogue, or [`NO_ROLE`].
    role: AtomicU32,
}

impl Default for Member {
    fn default() -> Self {
        Self { user: Default::default(), role: AtomicU32::new(NO_ROLE) }
    }
}

impl Member {
    fn name(&self, user: UserId) {
        let [high, low] = &self.user;
        let bits = user.bits();
        high.store((bits >> 64) as u64, Ordering::Release);
        low.store((bits & 0xffff_ffff_ffff_ffff) as u64, Ordering::Release);
    }

    fn user(&self) -> UserId {
        let [high, low] = self.user.each_ref().map(|half| half.load(Ordering::Acquire));
        UserId::from_bits((u128::from(high) << 64) | u128::from(low))
    }
}

/// Every member that was ever heard of.
#[derive(Default)]
pub(super) struct Members {
    members: Ladder<Member>,
    positions: Mutex<HashMap<(u32, UserId), u32>>,
}

impl Members {
    /// The user at a position, and the position of the user's role in the catalogue.
    pub(super) fn get(&self, position: u32) -> Option<(UserId, Option<usize>)> {
        let member = self.members.get(position)?;
        let role = member.role.load(Ordering::Acquire);
        Some((member.user(), (role != NO_ROLE).then_some(role as usize)))
    }

    pub(super) fn intern(&self, tenant: u32, user: UserId) -> u32 {
        self.position(&mut self.positions.lock(), tenant, user)
    }

    pub(super) fn set_role(&self, tenant: u32, user: UserId, role: Option<usize>) {
        let mut positions = self.positions.lock();
        if let Some(member) = self.members.get(self.position(&mut positions, tenant, user)) {
            let role = role.and_then(|role| u32::try_from(role).ok());
            member.role.store(role.unwrap_or(NO_ROLE), Ordering::Release);
        }
    }

    /// Takes every role away until it is put here again.
    pub(super) fn clear(&self) {
        let positions = self.positions.lock();
        for member in positions.values().filter_map(|position| self.members.get(*position)) {
            member.role.store(NO_ROLE, Ordering::Release);
        }
    }

    fn position(
        &self,
        positions: &mut HashMap<(u32, UserId), u32>,
        tenant: u32,
        user: UserId,
    ) -> u32 {
        let next = next_position(positions.len());
        match positions.entry((tenant, user)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(slot) => {
                if let Some(member) = self.members.make(next) {
                    member.name(user);
                }
                *slot.insert(next)
            }
        }
    }
}

/// Past four thousand million records the last position is shared, and [`u32::MAX`] finds nothing.
fn next_position(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
