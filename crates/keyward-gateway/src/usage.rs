//! Last use and request counts of keys, gathered in memory until the store takes them.

use std::mem;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;
use parking_lot::Mutex;

use keyward_core::id::{KeyId, TenantId};
use keyward_core::time::Timestamp;

/// Keys whose use is kept between two drains; past that, use is counted as lost, not kept.
pub const MAX_USED_KEYS: usize = 1 << 20;
/// Keys of one part that are remembered as taken out; with more in use, all go in every turn.
const MAX_RESTING: usize = MAX_USED_KEYS / USAGE_PARTS / 2;
/// The most bytes of a user agent that are kept.
pub const MAX_AGENT_BYTES: usize = 200;

/// Parts that can be taken out one at a time, so that a store takes many keys in many small bites.
pub const USAGE_PARTS: usize = 64;
/// A part is taken out whole every so many of its turns, and in those between only keys that were
/// not used for a while: a store takes many rows that lie side by side for little more than a few.
pub const USAGE_TURNS: u8 = 6;

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
    shards: Box<[Mutex<Part>]>,
    lost: AtomicU64,
}

#[derive(Default)]
struct Part {
    rows: HashTable<Kept>,
    /// How many are over.
    turns: u8,
}

/// What a key did since it was last taken out.
struct Kept {
    row: UsageRow,
    /// Whether it waits for the turn in which the whole part goes.
    rests: bool,
}

impl Usage {
    pub(crate) fn new() -> Self {
        // not all whole in the same turn
        let part = |turns| Mutex::new(Part { turns, ..Part::default() });
        Self {
            shards: (0..USAGE_TURNS).cycle().take(USAGE_PARTS).map(part).collect(),
            lost: AtomicU64::new(0),
        }
    }

    pub(crate) fn note(&self, one: &Use<'_>) {
        let Some(shard) = self.shards.get((one.key.bits() >> 122) as usize % USAGE_PARTS) else {
            return;
        };
        let rows = &mut shard.lock().rows;
        let hash = hash_of(one.key);
        if let Some(kept) = rows.find_mut(hash, |kept| kept.row.key == one.key) {
            kept.row.add(one);
        } else if rows.len() < MAX_USED_KEYS / USAGE_PARTS {
            let mut row = UsageRow::new(one.tenant, one.key);
            row.add(one);
            rows.insert_unique(hash, Kept { row, rests: false }, |kept| hash_of(kept.row.key));
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes up to `max` rows out, those that rest as well.
    pub(crate) fn drain(&self, max: usize) -> Vec<UsageRow> {
        let mut drained = Vec::new();
        for shard in &self.shards {
            let wanted = max - drained.len();
            let rows = &mut shard.lock().rows;
            let news = rows.extract_if(|_| true).map(|kept| kept.row).filter(UsageRow::is_news);
            drained.extend(news.take(wanted));
        }
        drained
    }

    /// Takes out one of the [`USAGE_PARTS`] as [`USAGE_TURNS`] says; what other keys do adds up.
    pub(crate) fn drain_part(&self, part: usize) -> Vec<UsageRow> {
        let Some(shard) = self.shards.get(part % USAGE_PARTS) else { return Vec::new() };
        let Part { rows, turns } = &mut *shard.lock();
        *turns = (*turns + 1) % USAGE_TURNS;
        if rows.len() > MAX_RESTING {
            return rows.drain().map(|kept| kept.row).filter(UsageRow::is_news).collect();
        }
        let whole = *turns == 0;
        let mut drained = Vec::new();
        rows.retain(|kept| {
            if kept.rests && !whole {
                return true;
            }
            let news = kept.row.is_news();
            drained.extend(news.then(|| kept.take()));
            news
        });
        drained
    }

    /// Requests that were not counted because too many keys were in use.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Kept {
    fn take(&mut self) -> UsageRow {
        self.rests = true;
        let UsageRow { tenant, key, .. } = self.row;
        mem::replace(&mut self.row, UsageRow::new(tenant, key))
    }
}

impl UsageRow {
    const fn new(tenant: TenantId, key: KeyId) -> Self {
        Self { tenant, key, permitted: 0, refused: 0, last: None }
    }

    const fn is_news(&self) -> bool {
        self.permitted > 0 || self.refused > 0
    }

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

    /// How many keys come out in each of so many turns, all being used before every one.
    fn turns(usage: &Usage, keys: u128, turns: i64) -> Vec<usize> {
        let turn = |at| {
            (0..keys).for_each(|key| usage.note(&one(key, true, at)));
            usage.drain_part(0).len()
        };
        (0..turns).map(turn).collect()
    }

    #[test]
    fn a_key_in_constant_use_rests_and_loses_nothing() {
        let usage = Usage::new();
        let taken = turns(&usage, 600, 1 + 2 * i64::from(USAGE_TURNS));
        let expected = [600, 0, 0, 0, 0, 600, 0, 0, 0, 0, 0, 600, 0];
        assert_eq!(taken, expected, "a first use goes at once, then one in six turns");

        // what was noted while it rested comes out when it stopped, with its last instant
        let late: Vec<_> = (0..USAGE_TURNS).flat_map(|_| usage.drain_part(0)).collect();
        assert!(late.iter().all(|row| row.last.as_ref().unwrap().at.as_millis() == 12));
        assert!(late.iter().all(|row| row.permitted == 1), "one use since the last turn");
        assert_eq!(late.len(), 600);
        for _ in 0..USAGE_TURNS {
            assert!(usage.drain_part(0).is_empty());
        }
        let forgotten = usage.shards.iter().all(|it| it.lock().rows.is_empty());
        assert!(forgotten, "of quiet keys nothing is kept");
        assert_eq!(turns(&usage, 1, 1), [1], "and they go at once again");
    }

    #[test]
    fn parts_are_whole_in_different_turns() {
        let usage = Usage::new();
        let all = || {
            (0..USAGE_PARTS as u128).for_each(|part| usage.note(&one(part << 82, true, 10)));
            (0..USAGE_PARTS).map(|part| usage.drain_part(part).len()).sum::<usize>()
        };
        all();
        let turns: Vec<_> = (0..USAGE_TURNS).map(|_| all()).collect();
        assert_eq!(turns.iter().sum::<usize>(), USAGE_PARTS);
        assert!(turns.iter().all(|keys| (10..=11).contains(keys)), "{turns:?}");
    }

    #[test]
    fn a_full_drain_takes_what_rests() {
        let usage = Usage::new();
        assert_eq!(turns(&usage, 10, 1), [10]);
        assert!(usage.drain(100).is_empty(), "nothing is new");
        assert_eq!(turns(&usage, 10, 1), [10]);
        (0..10).for_each(|key| usage.note(&one(key, true, 7)));
        assert_eq!(usage.drain(4).len(), 4);
        assert_eq!(usage.drain(100).len(), 6);
    }

    #[test]
    fn so_many_keys_that_room_is_short_do_not_rest() {
        let usage = Usage::new();
        let keys = MAX_RESTING as u128 + 1;
        assert_eq!(turns(&usage, keys, 3), [MAX_RESTING + 1; 3]);
        assert_eq!(usage.lost(), 0);
    }
}
