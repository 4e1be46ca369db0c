//! Fixed entries of keys and the index that finds them.

use std::sync::Arc;

use hashbrown::HashTable;

use keyward_core::authority::KeyAuthority;
use keyward_core::environment::Environment;
use keyward_core::id::KeyId;
use keyward_core::ip::IpAllowlist;
use keyward_core::key::KeyHash;
use keyward_core::scope::ScopeSet;
use keyward_core::time::Timestamp;

/// Entries in one allocation: small enough for an empty node, large enough to be rare.
const CHUNK: usize = 256;
/// An instant that never comes.
const NEVER: i64 = i64::MAX;

/// All a decision reads of one key, within two cache lines.
#[derive(Clone, Copy)]
pub(super) struct KeyEntry {
    pub(super) hash: KeyHash,
    pub(super) id: KeyId,
    pub(super) scopes: ScopeSet,
    expires_ms: i64,
    revoked_ms: i64,
    pub(super) tenant: u32,
    pub(super) member: u32,
    pub(super) pepper_version: u16,
    pub(super) environment: Environment,
    pub(super) suspect: bool,
}

/// What a key has of its own on the heap.
#[derive(Clone)]
pub(super) struct KeyLabel {
    pub(super) name: Arc<str>,
    pub(super) ip_allowlist: Option<Arc<IpAllowlist>>,
}

impl KeyEntry {
    pub(super) fn new(key: &KeyAuthority, scopes: ScopeSet, tenant: u32, member: u32) -> Self {
        let millis = |at: Option<Timestamp>| at.map_or(NEVER, Timestamp::as_millis);
        Self {
            hash: key.hash,
            id: key.id,
            scopes,
            expires_ms: millis(key.expires_at),
            revoked_ms: millis(key.revoked_at),
            tenant,
            member,
            pepper_version: key.pepper_version,
            environment: key.environment,
            suspect: key.suspect_since.is_some(),
        }
    }

    pub(super) fn expires_at(&self) -> Option<Timestamp> {
        (self.expires_ms != NEVER).then(|| Timestamp::from_millis(self.expires_ms))
    }

    pub(super) fn revoked_at(&self) -> Option<Timestamp> {
        (self.revoked_ms != NEVER).then(|| Timestamp::from_millis(self.revoked_ms))
    }
}

#[derive(Default)]
struct Chunk {
    entries: Vec<KeyEntry>,
    labels: Vec<KeyLabel>,
}

/// One part of the key set.
#[derive(Default)]
pub(super) struct Shard {
    index: HashTable<u32>,
    chunks: Vec<Chunk>,
    free: Vec<u32>,
}

impl Shard {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn revocations(&self) -> Vec<(KeyId, Timestamp)> {
        let entries = self.chunks.iter().flat_map(|chunk| &chunk.entries);
        let known = |entry: &&KeyEntry| {
            self.index.find(index_hash(entry.id), |slot| self.is_at(*slot, entry.id)).is_some()
        };
        let revoked = entries.filter(|entry| entry.revoked_ms != NEVER).filter(known);
        revoked.map(|entry| (entry.id, Timestamp::from_millis(entry.revoked_ms))).collect()
    }

    pub(super) fn find(&self, id: KeyId) -> Option<(KeyEntry, KeyLabel)> {
        let slot = *self.index.find(index_hash(id), |slot| self.is_at(*slot, id))?;
        let (chunk, at) = place(slot);
        let chunk = self.chunks.get(chunk)?;
        Some((*chunk.entries.get(at)?, chunk.labels.get(at)?.clone()))
    }

    pub(super) fn replace(&mut self, entry: KeyEntry, label: KeyLabel) {
        let known =
            self.index.find(index_hash(entry.id), |slot| self.is_at(*slot, entry.id)).copied();
        if let Some(slot) = known.or_else(|| self.reuse(&entry)) {
            let (chunk, at) = place(slot);
            if let Some(chunk) = self.chunks.get_mut(chunk) {
                if let Some(old) = chunk.entries.get_mut(at) {
                    *old = entry;
                }
                if let Some(old) = chunk.labels.get_mut(at) {
                    *old = label;
                }
            }
        } else {
            self.append(entry, label);
        }
    }

    pub(super) fn remove(&mut self, id: KeyId) {
        let chunks = &self.chunks;
        let is_it = |slot: &u32| entry_id(chunks, *slot) == Some(id);
        let Ok(found) = self.index.find_entry(index_hash(id), is_it) else {
            return;
        };
        let (slot, _) = found.remove();
        let (chunk, at) = place(slot);
        if let Some(label) = self.chunks.get_mut(chunk).and_then(|chunk| chunk.labels.get_mut(at)) {
            label.name = Arc::from("");
            label.ip_allowlist = None;
        }
        self.free.push(slot);
    }

    /// Puts a slot that a removed key left behind into the index, under the new key's id.
    fn reuse(&mut self, entry: &KeyEntry) -> Option<u32> {
        let slot = self.free.pop()?;
        let (chunk, at) = place(slot);
        *self.chunks.get_mut(chunk)?.entries.get_mut(at)? = *entry;
        self.insert(slot, entry.id);
        Some(slot)
    }

    fn append(&mut self, entry: KeyEntry, label: KeyLabel) {
        if self.chunks.last().is_none_or(|chunk| chunk.entries.len() == CHUNK) {
            self.chunks.push(Chunk {
                entries: Vec::with_capacity(CHUNK),
                labels: Vec::with_capacity(CHUNK),
            });
        }
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        let Some(chunk) = self.chunks.last_mut() else {
            return;
        };
        // a shard of four thousand million keys does not fit into any machine's memory
        let Ok(slot) = u32::try_from(full + chunk.entries.len()) else {
            return;
        };
        let id = entry.id;
        chunk.entries.push(entry);
        chunk.labels.push(label);
        self.insert(slot, id);
    }

    fn insert(&mut self, slot: u32, id: KeyId) {
        let chunks = &self.chunks;
        let rehash = |slot: &u32| entry_id(chunks, *slot).map_or(0, index_hash);
        self.index.insert_unique(index_hash(id), slot, rehash);
    }

    fn is_at(&self, slot: u32, id: KeyId) -> bool {
        entry_id(&self.chunks, slot) == Some(id)
    }
}

const fn place(slot: u32) -> (usize, usize) {
    (slot as usize / CHUNK, slot as usize % CHUNK)
}

fn entry_id(chunks: &[Chunk], slot: u32) -> Option<KeyId> {
    let (chunk, at) = place(slot);
    Some(chunks.get(chunk)?.entries.get(at)?.id)
}

/// Ids are random already; the tag in the low half and the bits of the shard are left out.
const fn index_hash(id: KeyId) -> u64 {
    ((id.bits() >> 32) & 0xffff_ffff_ffff_ffff) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `u32` and a control byte for each bucket, of which hashbrown keeps an eighth free and
    /// doubles: at worst 16/7 buckets for each key.
    const INDEX_BYTES: usize = (4 + 1) * 16 / 7 + 1;

    #[test]
    fn a_key_costs_at_most_150_bytes() {
        let fixed = size_of::<KeyEntry>() + size_of::<KeyLabel>();
        assert!(size_of::<KeyEntry>() <= 128);
        assert!(fixed + INDEX_BYTES <= 150, "{fixed} + {INDEX_BYTES}");
    }
}
