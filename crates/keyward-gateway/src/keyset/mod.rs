//! Every key of the deployment in memory: what a decision needs, found without waiting for anyone.
//!
//! Fixed entries live in slabs behind a sharded index; tenants and members are interned once and
//! named by position. Expired and revoked keys stay, so that their callers are told why.
//!
//! A look-up takes the lock of one shard and counts no reference: what a key has of its own stands
//! in its entry, what it shares with others is read where it stands for as long as the set lives.
//!
//! A set keeps so many keys and no more, [`DEFAULT_MAX_KEYS`] unless it is told otherwise. Past
//! that the set is a cache: a key that nobody used for longest makes room, and is looked up in the
//! store when it is used again.

mod interned;
mod ladder;
mod shard;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use smol_str::SmolStr;

use keyward_core::authority::{KeyAuthority, MemberAuthority, TenantAuthority};
use keyward_core::catalog::{AreaSet, Catalog};
use keyward_core::decision::KeyFacts;
use keyward_core::environment::Environment;
use keyward_core::id::{KeyId, TenantId, UserId};
use keyward_core::ip::IpAllowlist;
use keyward_core::key::{KeyHash, Keyring, Presented, SecretKind};
use keyward_core::scope::ScopeSet;
use keyward_core::time::Timestamp;

use interned::{Members, Tenants};
use shard::{KeyEntry, Shard};

use crate::primitives::RwLock;

pub use interned::TenantFacts;

/// Parts of the index that are locked one at a time.
const SHARDS: usize = 64;

/// The most keys that a set keeps, those that are revoked left out. With their names they take some
/// four GiB.
pub const DEFAULT_MAX_KEYS: usize = 16 * 1024 * 1024;

/// The key set of a node.
pub struct KeySet {
    catalog: Arc<Catalog>,
    keyring: Arc<Keyring>,
    shards: Box<[RwLock<Shard>]>,
    /// Whether keys may soon have to make room, so that what is in use is noted from now on.
    crowded: AtomicBool,
    /// Whether a key ever had to.
    evicts: AtomicBool,
    tenants: Tenants,
    members: Members,
}

/// A key whose secret was right, copied out of the set.
#[derive(Clone)]
pub struct KnownKey<'k> {
    /// Its id.
    pub id: KeyId,
    /// Its name.
    pub name: SmolStr,
    /// Its tenant.
    pub tenant: &'k TenantFacts,
    /// Whether its tenant was suspended, or not known.
    pub tenant_suspended: bool,
    /// Where it is valid.
    pub environment: Environment,
    /// Its scopes.
    pub scopes: ScopeSet,
    /// When it stops by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Whether it waits to be confirmed after a restore.
    pub suspect: bool,
    /// Where it may be used from, when that is restricted.
    pub ip_allowlist: Option<Arc<IpAllowlist>>,
    /// Whose role is its ceiling.
    pub owner: UserId,
    /// The position of the owner's role in the catalogue; `None` when the owner has left.
    pub role: Option<usize>,
}

/// What a key set says of a token.
pub enum Recognized<'k> {
    /// An id that this deployment did not make, or not one of a key.
    Forged,
    /// An id of this deployment that is not in memory.
    Unknown(KeyId),
    /// The secret or the environment is not that of the id.
    Wrong,
    /// The secret is right.
    Known(KnownKey<'k>),
}

impl<'k> Recognized<'k> {
    /// Whether this was answered from what is in memory, which may be out of date.
    pub const fn is_remembered(&self) -> bool {
        !matches!(self, Self::Forged)
    }

    /// The key, if its secret is right.
    pub fn known(self) -> Option<KnownKey<'k>> {
        match self {
            Self::Known(key) => Some(key),
            _ => None,
        }
    }
}

/// The list of a key that may be used from everywhere.
static EVERYWHERE: std::sync::LazyLock<IpAllowlist> =
    std::sync::LazyLock::new(IpAllowlist::default);

impl KnownKey<'_> {
    /// What `decide` reads.
    pub fn facts(&self, catalog: &Catalog) -> KeyFacts<'_> {
        KeyFacts {
            environment: self.environment,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            suspect: self.suspect,
            tenant_suspended: self.tenant_suspended,
            scopes: self.scopes,
            ceiling: self.ceiling(catalog),
            ip_allowlist: self.ip_allowlist.as_deref().unwrap_or(&EVERYWHERE),
        }
    }

    fn ceiling(&self, catalog: &Catalog) -> Option<AreaSet> {
        catalog.roles().get(self.role?).map(|role| role.areas)
    }

    /// The name of the owner's role, `-` when the owner has left.
    pub fn role_name<'c>(&self, catalog: &'c Catalog) -> &'c str {
        let role = self.role.and_then(|position| catalog.roles().get(position));
        role.map_or("-", |role| role.name.as_str())
    }
}

impl KeySet {
    /// An empty set for a product.
    pub fn new(catalog: Arc<Catalog>, keyring: Arc<Keyring>) -> Self {
        Self::keeping(DEFAULT_MAX_KEYS, catalog, keyring)
    }

    /// An empty set that keeps so many keys, and those that are revoked besides.
    pub fn keeping(max_keys: usize, catalog: Arc<Catalog>, keyring: Arc<Keyring>) -> Self {
        let most = max_keys.div_ceil(SHARDS).max(1);
        Self {
            catalog,
            keyring,
            shards: (0..SHARDS).map(|_| RwLock::new(Shard::keeping(most))).collect(),
            crowded: AtomicBool::new(false),
            evicts: AtomicBool::new(false),
            tenants: Tenants::default(),
            members: Members::default(),
        }
    }

    /// The keyring behind the set.
    pub const fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// How many keys there are, in every state.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// How many keys had to make room for others so far.
    pub fn evicted(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().evicted()).sum()
    }

    /// Whether a key that is not here may be in the store although it was here before.
    pub(crate) fn evicts(&self) -> bool {
        self.evicts.load(Ordering::Relaxed)
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a tenant in place of what was known of it. Keys of a tenant that was never put here
    /// are refused as if it were suspended.
    pub fn replace_tenant(&self, tenant: TenantAuthority) {
        self.tenants.replace(tenant);
    }

    /// Forgets a tenant; its keys are refused from now on.
    pub fn remove_tenant(&self, tenant: TenantId) {
        self.tenants.remove(tenant);
    }

    /// Puts a member's role in place of the one before.
    pub fn replace_member(&self, member: &MemberAuthority) {
        let role = self.catalog.role_position(&member.role);
        let tenant = self.tenants.intern(member.tenant);
        self.members.set_role(tenant, member.user, role);
    }

    /// Forgets that a user belongs to a tenant; the keys the user owns there are refused.
    pub fn remove_member(&self, tenant: TenantId, user: UserId) {
        let tenant = self.tenants.intern(tenant);
        self.members.set_role(tenant, user, None);
    }

    /// Puts a key in place of what was known of it.
    pub fn replace_key(&self, key: KeyAuthority) {
        let tenant = self.tenants.intern(key.tenant);
        let member = self.members.intern(tenant, key.owner);
        let scopes = self.catalog.scope_set(&key.scopes);
        if let Some(shard) = self.shard(key.id) {
            let mut shard = shard.write();
            shard.replace(KeyEntry::new(key, scopes, tenant, member));
            if shard.is_crowded() {
                self.crowded.store(true, Ordering::Relaxed);
            }
            if shard.evicted() > 0 {
                self.evicts.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Forgets a key, as if it had never been made.
    pub fn remove_key(&self, key: KeyId) {
        if let Some(shard) = self.shard(key) {
            shard.write().remove(key);
        }
    }

    /// Puts many keys, as at start-up.
    pub fn load(&self, keys: impl IntoIterator<Item = KeyAuthority>) {
        keys.into_iter().for_each(|key| self.replace_key(key));
    }

    /// Forgets everything, before a load from scratch.
    pub fn clear(&self) {
        for shard in &self.shards {
            shard.write().clear();
        }
        self.members.clear();
        self.tenants.clear();
    }

    /// What this set says of a well-formed token. When it is unknown the store may still know it.
    pub fn recognize(&self, presented: &Presented<'_>) -> Recognized<'_> {
        let SecretKind::Api(claimed) = presented.kind else {
            return Recognized::Forged;
        };
        let id = KeyId::from_bits(presented.id_bits);
        // the lock is not held while the secret is hashed
        let found = self.find(id, |entry, key| (entry.hash, entry.pepper_version, key));
        let Some((hash, version, key)) = found else {
            disprove(&self.keyring, presented);
            let made = self.keyring.made(presented.id_bits);
            return if made { Recognized::Unknown(id) } else { Recognized::Forged };
        };
        let proven = self.keyring.verify(presented, &hash, version);
        // the environment stands outside the hashed text, so the record has the last word
        if !proven || claimed != key.environment {
            // an id that is not in memory costs this as well
            std::hint::black_box(self.keyring.made(presented.id_bits));
            return Recognized::Wrong;
        }
        Recognized::Known(key)
    }

    /// Every key that is known to be revoked, and since when.
    pub fn revocations(&self) -> Vec<(KeyId, Timestamp)> {
        self.shards.iter().flat_map(|shard| shard.read().revocations()).collect()
    }

    /// What is known now of a key whose secret was proven before.
    pub fn present(&self, id: KeyId) -> Option<KnownKey<'_>> {
        self.find(id, |_, key| key)
    }

    fn find<'k, T>(
        &'k self,
        id: KeyId,
        read: impl FnOnce(&KeyEntry, KnownKey<'k>) -> T,
    ) -> Option<T> {
        let noted = self.crowded.load(Ordering::Relaxed);
        let shard = self.shard(id)?.read();
        let entry = shard.find(id, noted)?;
        Some(read(entry, self.complete(entry)?))
    }

    fn complete(&self, entry: &KeyEntry) -> Option<KnownKey<'_>> {
        let tenant = self.tenants.get(entry.tenant)?;
        let (owner, role) = self.members.get(entry.member)?;
        Some(KnownKey {
            id: entry.id,
            name: entry.name.clone(),
            tenant,
            tenant_suspended: tenant.is_suspended(),
            environment: entry.environment,
            scopes: entry.scopes,
            expires_at: entry.expires_at(),
            revoked_at: entry.revoked_at(),
            suspect: entry.suspect,
            ip_allowlist: entry.ip_allowlist.clone(),
            owner,
            role,
        })
    }

    fn shard(&self, key: KeyId) -> Option<&RwLock<Shard>> {
        // the top bits of an id are random and take no part in the index of a shard
        let position = (key.bits() >> 122) as usize;
        self.shards.get(position % SHARDS)
    }
}

/// The work of a comparison for an id that nobody has, so that its timing does not tell.
pub(crate) fn disprove(keyring: &Keyring, presented: &Presented<'_>) {
    let nobody = KeyHash::from_bytes([0; 32]);
    std::hint::black_box(keyring.verify(presented, &nobody, u16::MAX));
}

#[cfg(test)]
pub(crate) mod tests;
