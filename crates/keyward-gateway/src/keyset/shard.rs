//! Fixed entries of keys and the index that finds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
/// Bits of a word that notes which entries were read.
const WORD: usize = u64::BITS as usize;
/// Entries that are looked at to find one that may go.
const MAX_SWEEP: usize = 4 * CHUNK;
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

    const fn is_revoked(&self) -> bool {
        self.revoked_ms != NEVER
    }

    pub(super) fn revoked_at(&self) -> Option<Timestamp> {
        (self.revoked_ms != NEVER).then(|| Timestamp::from_millis(self.revoked_ms))
    }
}

#[derive(Default)]
struct Chunk {
    entries: Vec<KeyEntry>,
    labels: Vec<KeyLabel>,
    /// Which entries were read since the hand passed; kept only where room may be needed.
    read: [AtomicU64; CHUNK / WORD],
}

impl Chunk {
    fn note_read(&self, at: usize) {
        let bit = 1 << (at % WORD);
        if let Some(word) = self.read.get(at / WORD)
            && word.load(Ordering::Relaxed) & bit == 0
        {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether an entry was read since the last time this was asked.
    fn take_read(&self, at: usize) -> bool {
        let bit = 1 << (at % WORD);
        let word = self.read.get(at / WORD);
        word.is_some_and(|word| word.fetch_and(!bit, Ordering::Relaxed) & bit != 0)
    }
}

/// One part of the key set.
pub(super) struct Shard {
    index: HashTable<u32>,
    chunks: Vec<Chunk>,
    free: Vec<u32>,
    /// The most keys that are not revoked.
    most: usize,
    revoked: usize,
    /// Where the search for a key that may go goes on.
    hand: usize,
    evicted: u64,
}

impl Shard {
    /// An empty part that keeps so many keys, and those that are revoked besides.
    pub(super) fn keeping(most: usize) -> Self {
        Self {
            index: HashTable::new(),
            chunks: Vec::new(),
            free: Vec::new(),
            most,
            revoked: 0,
            hand: 0,
            evicted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether three quarters of the room are taken.
    pub(super) fn is_crowded(&self) -> bool {
        self.index.len() - self.revoked >= self.most - self.most / 4
    }

    /// How many keys had to make room for others.
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Forgets everything but its bounds.
    pub(super) fn clear(&mut self) {
        *self = Self { evicted: self.evicted, ..Self::keeping(self.most) };
    }

    /// Notes that a key is in use; only where it matters.
    pub(super) fn note_read(&self, id: KeyId) {
        let slot = self.index.find(index_hash(id), |slot| self.is_at(*slot, id));
        let place = slot.map(|slot| place(*slot));
        if let Some((chunk, at)) = place
            && let Some(chunk) = self.chunks.get(chunk)
        {
            chunk.note_read(at);
        }
    }

    pub(super) fn revocations(&self) -> Vec<(KeyId, Timestamp)> {
        let entries = self.chunks.iter().flat_map(|chunk| &chunk.entries);
        let known = |entry: &&KeyEntry| {
            self.index.find(index_hash(entry.id), |slot| self.is_at(*slot, entry.id)).is_some()
        };
        let revoked = entries.filter(|entry| entry.is_revoked()).filter(known);
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
        match known {
            Some(slot) => self.revoked -= usize::from(self.is_revoked(slot)),
            None if !entry.is_revoked() => self.make_room(),
            None => {}
        }
        self.revoked += usize::from(entry.is_revoked());
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
        self.revoked -= usize::from(self.is_revoked(slot));
        let (chunk, at) = place(slot);
        if let Some(label) = self.chunks.get_mut(chunk).and_then(|chunk| chunk.labels.get_mut(at)) {
            label.name = Arc::from("");
            label.ip_allowlist = None;
        }
        self.free.push(slot);
    }

    /// Lets a key go when there are as many as are kept: one that nobody used since the last time,
    /// and never one that is revoked, because what was revoked must be known in every history.
    fn make_room(&mut self) {
        if self.index.len() - self.revoked < self.most {
            return;
        }
        let slots: usize = self.chunks.iter().map(|chunk| chunk.entries.len()).sum();
        let mut fallback = None;
        for _ in 0..MAX_SWEEP.min(2 * slots) {
            self.hand = (self.hand + 1) % slots;
            let (chunk, at) = (self.hand / CHUNK, self.hand % CHUNK);
            let Some(chunk) = self.chunks.get(chunk) else { continue };
            let Some(entry) = chunk.entries.get(at) else { continue };
            if entry.is_revoked() || !self.is_known(entry.id, self.hand) {
                continue;
            }
            fallback = Some(entry.id);
            if !chunk.take_read(at) {
                break;
            }
        }
        if let Some(id) = fallback {
            self.remove(id);
            self.evicted += 1;
        }
    }

    /// Whether this key is in the index, and at this slot.
    fn is_known(&self, id: KeyId, slot: usize) -> bool {
        let found = self.index.find(index_hash(id), |slot| self.is_at(*slot, id));
        found.is_some_and(|found| *found as usize == slot)
    }

    fn is_revoked(&self, slot: u32) -> bool {
        let (chunk, at) = place(slot);
        let entry = self.chunks.get(chunk).and_then(|chunk| chunk.entries.get(at));
        entry.is_some_and(KeyEntry::is_revoked)
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
                read: Default::default(),
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
