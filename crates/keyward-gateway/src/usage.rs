//! Last use and request counts of keys, gathered in memory until the store takes them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;
use parking_lot::Mutex;

use keyward_core::id::{KeyId, TenantId};
use keyward_core::time::Timestamp;

/// Keys whose use is kept between two drains; past that, use is counted as lost, not kept.
pub const MAX_USED_KEYS: usize = 1 << 20;
/// The most bytes of a user agent that are kept.
pub const MAX_AGENT_BYTES: usize = 200;

/// Parts that can be taken out one at a time, so that a store takes many keys in many small bites.
pub const USAGE_PARTS: usize = 64;

/// What one key did since the last drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The tenant of the key.
    pub tenant: TenantId,
    /// The key.
    pub key: KeyId,
    /// Requests that passed all checks.
    pub permitted: u64,
    /// Requests with the right secret that were refused.
    pub refused: u64,
    /// The last request that passed all checks.
    pub last: Option<LastUse>,
}

/// The last request that passed all checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// When.
    pub at: Timestamp,
    /// From where.
    pub ip: IpAddr,
    /// With what, cut to [`MAX_AGENT_BYTES`].
    pub agent: Option<Box<str>>,
}

/// One request of a key.
#[derive(Clone, Copy)]
pub(crate) struct Use<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) key: KeyId,
    pub(crate) permitted: bool,
    pub(crate) at: Timestamp,
    pub(crate) ip: IpAddr,
    pub(crate) agent: Option<&'a [u8]>,
}

pub(crate) struct Usage {
    shards: Box<[Mutex<HashTable<UsageRow>>]>,
    lost: AtomicU64,
}

impl Usage {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..USAGE_PARTS).map(|_| Mutex::default()).collect(),
            lost: AtomicU64::new(0),
        }
    }

    pub(crate) fn note(&self, one: &Use<'_>) {
        let Some(shard) = self.shards.get((one.key.bits() >> 122) as usize % USAGE_PARTS) else {
            return;
        };
        let mut rows = shard.lock();
        let hash = hash_of(one.key);
        if let Some(row) = rows.find_mut(hash, |row| row.key == one.key) {
            row.add(one);
        } else if rows.len() < MAX_USED_KEYS / USAGE_PARTS {
            let mut row =
                UsageRow { tenant: one.tenant, key: one.key, permitted: 0, refused: 0, last: None };
            row.add(one);
            rows.insert_unique(hash, row, |row| hash_of(row.key));
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes up to `max` rows out.
    pub(crate) fn drain(&self, max: usize) -> Vec<UsageRow> {
        let mut drained = Vec::new();
        for shard in &self.shards {
            let wanted = max - drained.len();
            if wanted == 0 {
                break;
            }
            let mut rows = shard.lock();
            drained.extend(rows.extract_if(|_| true).take(wanted));
        }
        drained
    }

    /// Takes out all rows of one of the [`USAGE_PARTS`].
    pub(crate) fn drain_part(&self, part: usize) -> Vec<UsageRow> {
        let shard = self.shards.get(part % USAGE_PARTS);
        shard.map(|rows| rows.lock().drain().collect()).unwrap_or_default()
    }

    /// Requests that were not counted because too many keys were in use.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl UsageRow {
    fn add(&mut self, one: &Use<'_>) {
        if !one.permitted {
            self.refused += 1;
            return;
        }
        self.permitted += 1;
        match &mut self.last {
            Some(last) => {
                last.at = last.at.max(one.at);
                last.ip = one.ip;
                if !same_agent(last.agent.as_deref(), one.agent) {
                    last.agent = one.agent.map(bounded_agent);
                }
            }
            none => {
                *none =
                    Some(LastUse { at: one.at, ip: one.ip, agent: one.agent.map(bounded_agent) });
            }
        }
    }
}

/// Whether the agent is the one that is kept; a program sends the same one all its life.
fn same_agent(kept: Option<&str>, sent: Option<&[u8]>) -> bool {
    match (kept, sent) {
        (None, None) => true,
        (Some(kept), Some(sent)) => kept.as_bytes() == sent,
        _ => false,
    }
}

/// Printable ASCII only, cut: a user agent is a caller's text and ends up in lists and logs.
fn bounded_agent(agent: &[u8]) -> Box<str> {
    let shown = agent.iter().take(MAX_AGENT_BYTES).map(|byte| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '?',
    });
    shown.collect::<String>().into_boxed_str()
}

const fn hash_of(key: KeyId) -> u64 {
    ((key.bits() >> 32) & 0xffff_ffff_ffff_ffff) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: u128, permitted: bool, at: i64) -> Use<'static> {
        Use {
            tenant: TenantId::from_bits(1),
            key: KeyId::from_bits(key << 40),
            permitted,
            at: Timestamp::from_millis(at),
            ip: IpAddr::from([127, 0, 0, 1]),
            agent: Some(b"curl/8\x07"),
        }
    }

    #[test]
    fn counts_and_drains() {
        let usage = Usage::new();
        usage.note(&one(1, true, 10));
        usage.note(&one(1, true, 20));
        usage.note(&one(1, false, 30));
        usage.note(&one(2, false, 30));
        let mut rows = usage.drain(10);
        rows.sort_by_key(|row| row.key);
        assert_eq!((rows[0].permitted, rows[0].refused), (2, 1));
        let last = rows[0].last.as_ref().unwrap();
        assert_eq!((last.at.as_millis(), last.agent.as_deref()), (20, Some("curl/8?")));
        assert_eq!((rows[1].permitted, rows[1].refused, rows[1].last.is_none()), (0, 1, true));
        assert!(usage.drain(10).is_empty());
        usage.note(&one(1, true, 10));
        usage.note(&one(2, true, 10));
        assert_eq!(usage.drain(1).len(), 1);
        assert_eq!(usage.drain(10).len(), 1);
    }

    #[test]
    fn every_key_is_in_one_part() {
        let usage = Usage::new();
        // what tells parts apart are the highest bits of an id
        let spread = |key: u128| one((key << 82) | key, true, 10);
        (0..1_000).for_each(|key| usage.note(&spread(key)));
        let parts: Vec<_> = (0..USAGE_PARTS).map(|part| usage.drain_part(part).len()).collect();
        assert_eq!(parts.iter().sum::<usize>(), 1_000);
        assert!(parts.iter().all(|keys| (15..=16).contains(keys)), "{parts:?}");
        assert!(usage.drain(1_000).is_empty());
    }
}
