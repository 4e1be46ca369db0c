//! Tenants and members, each kept once and named by position.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use http::HeaderValue;

use keyward_core::authority::TenantAuthority;
use keyward_core::id::{TenantId, UserId};

/// A tenant as the data plane sees it.
#[derive(Debug)]
pub struct TenantFacts {
    /// Its id.
    pub id: TenantId,
    /// Its short name; empty while nothing but its id is known.
    pub slug: Box<str>,
    /// Whether it is suspended, or not known yet.
    pub suspended: bool,
    /// The id as a header value.
    pub(crate) header: HeaderValue,
}

impl TenantFacts {
    fn new(id: TenantId, slug: Box<str>, suspended: bool) -> Self {
        let header = HeaderValue::try_from(id.to_string());
        Self {
            id,
            slug,
            suspended,
            header: header.unwrap_or_else(|_| HeaderValue::from_static("-")),
        }
    }

    /// A tenant of which only the id is known: nothing of it works.
    fn unknown(id: TenantId) -> Self {
        Self::new(id, Box::default(), true)
    }

    /// Whether the text is its id or its short name.
    pub fn is_named(&self, text: &[u8]) -> bool {
        text == self.header.as_bytes() || (!self.slug.is_empty() && text == self.slug.as_bytes())
    }
}

#[derive(Default)]
pub(super) struct Tenants {
    positions: HashMap<TenantId, u32>,
    facts: Vec<Arc<TenantFacts>>,
}

impl Tenants {
    pub(super) fn get(&self, position: u32) -> Option<Arc<TenantFacts>> {
        self.facts.get(position as usize).cloned()
    }

    pub(super) fn intern(&mut self, id: TenantId) -> u32 {
        match self.positions.entry(id) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(slot) => {
                let position = next_position(self.facts.len());
                self.facts.push(Arc::new(TenantFacts::unknown(id)));
                *slot.insert(position)
            }
        }
    }

    pub(super) fn replace(&mut self, tenant: TenantAuthority) {
        let position = self.intern(tenant.id);
        let facts = TenantFacts::new(tenant.id, tenant.slug.into(), tenant.suspended);
        self.set(position, facts);
    }

    pub(super) fn remove(&mut self, id: TenantId) {
        if let Some(position) = self.positions.get(&id).copied() {
            self.set(position, TenantFacts::unknown(id));
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn set(&mut self, position: u32, facts: TenantFacts) {
        if let Some(slot) = self.facts.get_mut(position as usize) {
            *slot = Arc::new(facts);
        }
    }
}

#[derive(Clone, Copy)]
struct Member {
    user: UserId,
    role: Option<u16>,
}

#[derive(Default)]
pub(super) struct Members {
    positions: HashMap<(u32, UserId), u32>,
    members: Vec<Member>,
}

impl Members {
    pub(super) fn get(&self, position: u32) -> Option<(UserId, Option<usize>)> {
        let member = self.members.get(position as usize)?;
        Some((member.user, member.role.map(usize::from)))
    }

    pub(super) fn intern(&mut self, tenant: u32, user: UserId) -> u32 {
        match self.positions.entry((tenant, user)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(slot) => {
                let position = next_position(self.members.len());
                self.members.push(Member { user, role: None });
                *slot.insert(position)
            }
        }
    }

    pub(super) fn set_role(&mut self, tenant: u32, user: UserId, role: Option<usize>) {
        let position = self.intern(tenant, user);
        if let Some(member) = self.members.get_mut(position as usize) {
            member.role = role.and_then(|role| u16::try_from(role).ok());
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Past four thousand million records the last position is shared, and [`u32::MAX`] finds nothing.
fn next_position(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
