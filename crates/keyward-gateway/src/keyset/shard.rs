//! Fixed entries of keys and the index that finds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;
use smol_str::SmolStr;

use keyward_core::authority::KeyAuthority;
use keyward_core::environment::Environment;
use keyward_core::id::KeyId;
use keyward_core::ip::IpAllowlist;
use keyward_core::key::KeyHash;
use keyward_core::scope::ScopeSet;
use keyward_core::time::Timestamp;

use super::ladder::{len_of, place};

/// Bits of a word that notes which entries were read.
const WORD: usize = u64::BITS as usize;
/// Entries that are looked at to find one that may go.
const MAX_SWEEP: usize = 1024;
/// An instant that never comes.
const NEVER: i64 = i64::MAX;

/// All that is known of one key: two cache lines that are fetched as a pair, and nothing elsewhere
/// unless its name is long or it may only be used from some addresses.
#[repr(align(128))]
pub(super) struct KeyEntry {
    pub(super) id: KeyId,
    pub(super) hash: KeyHash,
    pub(super) scopes: ScopeSet,
    pub(super) name: SmolStr,
    pub(super) ip_allowlist: Option<Arc<IpAllowlist>>,
    expires_ms: i64,
    revoked_ms: i64,
    pub(super) tenant: u32,
    pub(super) member: u32,
    pub(super) pepper_version: u16,
    pub(super) environment: Environment,
    pub(super) suspect: bool,
}

impl KeyEntry {
    pub(super) fn new(key: KeyAuthority, scopes: ScopeSet, tenant: u32, member: u32) -> Self {
        let millis = |at: Option<Timestamp>| at.map_or(NEVER, Timestamp::as_millis);
        let restricted = !key.ip_allowlist.is_open();
        Self {
            id: key.id,
            hash: key.hash,
            scopes,
            name: key.name.into(),
            ip_allowlist: restricted.then(|| Arc::new(key.ip_allowlist)),
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

/// Entries of one step, which never move.
struct Step {
    entries: Vec<KeyEntry>,
    /// Which entries were read since the hand passed; kept only where room may be needed.
    read: Box<[AtomicU64]>,
}

impl Step {
    fn empty(len: usize) -> Self {
        let words = len.div_ceil(WORD);
        let read = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { entries: Vec::with_capacity(len), read }
    }

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
    steps: Vec<Step>,
    /// Positions that were ever taken.
    taken: u32,
    free: Vec<u32>,
    /// The most keys that are not revoked.
    most: usize,
    revoked: usize,
    /// Where the search for a key that may go goes on.
    hand: u32,
    evicted: u64,
}

impl Shard {
    /// An empty part that keeps so many keys, and those that are revoked besides.
    pub(super) fn keeping(most: usize) -> Self {
        Self {
            index: HashTable::new(),
            steps: Vec::new(),
            taken: 0,
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

    /// The entry of a key, which is noted to be in use where that matters.
    pub(super) fn find(&self, id: KeyId, noted: bool) -> Option<&KeyEntry> {
        let (step, at) = place(self.position(id)?);
        let step = self.steps.get(step)?;
        if noted {
            step.note_read(at);
        }
        step.entries.get(at)
    }

    pub(super) fn revocations(&self) -> Vec<(KeyId, Timestamp)> {
        let entries = self.steps.iter().flat_map(|step| &step.entries);
        let revoked = entries.filter(|entry| entry.is_revoked());
        let revoked = revoked.filter(|entry| self.position(entry.id).is_some());
        revoked.map(|entry| (entry.id, Timestamp::from_millis(entry.revoked_ms))).collect()
    }

    pub(super) fn replace(&mut self, entry: KeyEntry) {
        let known = self.position(entry.id);
        match known {
            Some(position) => self.revoked -= usize::from(self.is_revoked(position)),
            None if !entry.is_revoked() => self.make_room(),
            None => {}
        }
        self.revoked += usize::from(entry.is_revoked());
        let id = entry.id;
        if let Some(position) = known {
            self.put(position, entry);
        } else if let Some(position) = self.free.pop() {
            self.put(position, entry);
            self.insert(position, id);
        } else if let Some(position) = self.append(entry) {
            self.insert(position, id);
        }
    }

    pub(super) fn remove(&mut self, id: KeyId) {
        let steps = &self.steps;
        let is_it = |position: &u32| entry(steps, *position).is_some_and(|entry| entry.id == id);
        let Ok(found) = self.index.find_entry(index_hash(id), is_it) else {
            return;
        };
        let (position, _) = found.remove();
        self.revoked -= usize::from(self.is_revoked(position));
        if let Some(entry) = self.entry_mut(position) {
            entry.name = SmolStr::default();
            entry.ip_allowlist = None;
        }
        self.free.push(position);
    }

    /// Lets a key go when there are as many as are kept: one that nobody used since the last time,
    /// and never one that is revoked, because what was revoked must be known in every history.
    fn make_room(&mut self) {
        if self.index.len() - self.revoked < self.most {
            return;
        }
        let mut fallback = None;
        for _ in 0..MAX_SWEEP.min(2 * self.taken as usize) {
            self.hand = (self.hand + 1) % self.taken;
            let (step, at) = place(self.hand);
            let Some(step) = self.steps.get(step) else { continue };
            let Some(entry) = step.entries.get(at) else { continue };
            if entry.is_revoked() || self.position(entry.id) != Some(self.hand) {
                continue;
            }
            fallback = Some(entry.id);
            if !step.take_read(at) {
                break;
            }
        }
        if let Some(id) = fallback {
            self.remove(id);
            self.evicted += 1;
        }
    }

    fn is_revoked(&self, position: u32) -> bool {
        entry(&self.steps, position).is_some_and(KeyEntry::is_revoked)
    }

    fn entry_mut(&mut self, position: u32) -> Option<&mut KeyEntry> {
        let (step, at) = place(position);
        self.steps.get_mut(step)?.entries.get_mut(at)
    }

    fn put(&mut self, position: u32, entry: KeyEntry) {
        if let Some(old) = self.entry_mut(position) {
            *old = entry;
        }
    }

    /// Puts an entry behind all others. A shard of four thousand million keys does not fit into
    /// any machine's memory.
    fn append(&mut self, entry: KeyEntry) -> Option<u32> {
        let position = self.taken;
        let (step, _) = place(position);
        if step == self.steps.len() {
            self.steps.push(Step::empty(len_of(step)));
        }
        self.taken = position.checked_add(1)?;
        self.steps.get_mut(step)?.entries.push(entry);
        Some(position)
    }

    fn insert(&mut self, position: u32, id: KeyId) {
        let steps = &self.steps;
        let rehash = |position: &u32| entry(steps, *position).map_or(0, |it| index_hash(it.id));
        self.index.insert_unique(index_hash(id), position, rehash);
    }

    /// Where a key is.
    fn position(&self, id: KeyId) -> Option<u32> {
        let is_it = |position: &u32| entry(&self.steps, *position).is_some_and(|it| it.id == id);
        self.index.find(index_hash(id), is_it).copied()
    }
}

fn entry(steps: &[Step], position: u32) -> Option<&KeyEntry> {
    let (step, at) = place(position);
    steps.get(step)?.entries.get(at)
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
        let fixed = size_of::<KeyEntry>();
        assert!(fixed <= 128, "{fixed}");
        assert!(fixed + INDEX_BYTES <= 150, "{fixed} + {INDEX_BYTES}");
    }
}
