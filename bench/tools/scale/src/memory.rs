//! The key set alone, beside a bare table of entries as large.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use keyward_core::id::KeyId;
use keyward_core::key::{KeySecret, Keyring};
use keyward_gateway::KeySet;
use serde_json::{Value, json};

use crate::machine::{Order, on_processor, resident_bytes};
use crate::product::{self, KEYS_PER_TENANT};

/// What a table needs at the least: an id, and as many bytes beside it as the key set keeps of a
/// key.
type Entry = (KeyId, [u64; 14]);

/// Tokens that are kept to be recognised.
const TOKENS: usize = 100_000;
/// Bytes of one of them, and of one id.
const TOKEN_BYTES: usize = 80 + size_of::<KeySecret>();
const ID_BYTES: usize = size_of::<KeyId>();
/// Keys that are made, and then put into the set while the time is taken.
const BATCH: usize = 1_000;
/// How often everything is timed, in turn; the middle counts.
const ROUNDS: usize = 7;

struct Filled {
    set: KeySet,
    ids: Vec<KeyId>,
    tokens: Vec<KeySecret>,
    bytes_per_key: usize,
    load_ms: u128,
}

pub(crate) fn measure(keys: usize, look_ups: usize) -> anyhow::Result<Value> {
    let keyring = Arc::new(product::keyring());
    let filled = fill(keys, &keyring)?;
    let bare = bare(&filled.ids);
    let mut rounds: [Vec<f64>; 5] = Default::default();
    for round in 0..ROUNDS {
        let subjects =
            [time_bare, time_find, time_bare_overlapped, time_find_overlapped, time_whole];
        for (times, time) in rounds.iter_mut().zip(subjects) {
            times.push(time(&filled, &bare, Order::of(round), look_ups)?);
        }
    }
    let [bare_ns, find_ns, bare_overlapped_ns, find_overlapped_ns, recognize_ns] =
        rounds.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times.get(ROUNDS / 2).copied().unwrap_or_default()
        });
    let tenths = |ns: f64| (ns * 10.0).round() / 10.0;
    let ratio = |ns: f64, of: f64| (ns / of * 100.0).round() / 100.0;
    Ok(json!({
        "what": "memory",
        "keys": keys,
        "bytesPerKey": filled.bytes_per_key,
        "loadMs": filled.load_ms,
        "bareTableNs": tenths(bare_ns),
        "findNs": tenths(find_ns),
        "timesTheBareTable": ratio(find_ns, bare_ns),
        "overlappedBareTableNs": tenths(bare_overlapped_ns),
        "overlappedFindNs": tenths(find_overlapped_ns),
        "overlappedTimesTheBareTable": ratio(find_overlapped_ns, bare_overlapped_ns),
        "recognizeNs": tenths(recognize_ns),
    }))
}

fn fill(keys: usize, keyring: &Arc<Keyring>) -> anyhow::Result<Filled> {
    let set = KeySet::keeping(usize::MAX / 2, product::catalog()?, Arc::clone(keyring));
    let mut ids: Vec<KeyId> = Vec::with_capacity(keys);
    let mut tokens = Vec::with_capacity(TOKENS.min(keys));
    let before = resident_bytes()?;
    let mut loading = Duration::ZERO;
    let mut batch = Vec::with_capacity(BATCH);
    for first in (0..keys).step_by(BATCH) {
        for position in first..keys.min(first + BATCH) {
            let (key, secret) = product::key(keyring, position);
            ids.push(key.id);
            if position % keys.div_ceil(TOKENS) == 0 {
                tokens.push(secret);
            }
            batch.push((position, key));
        }
        let begun = on_processor()?;
        for (position, key) in batch.drain(..) {
            if position % KEYS_PER_TENANT == 0 {
                let (tenant, member) = product::home(position);
                set.replace_tenant(tenant);
                set.replace_member(&member);
            }
            set.replace_key(key);
        }
        loading += on_processor()?.saturating_sub(begun);
    }
    let resident = usize::try_from(resident_bytes()?.saturating_sub(before))?;
    let bytes = resident.saturating_sub(ids.len() * ID_BYTES + tokens.len() * TOKEN_BYTES);
    let bytes_per_key = bytes / keys.max(1);
    Ok(Filled { set, ids, tokens, bytes_per_key, load_ms: loading.as_millis() })
}

/// Entries as large in one table, found by the same bits of their ids.
fn bare(ids: &[KeyId]) -> HashTable<Entry> {
    let mut table = HashTable::with_capacity(ids.len());
    for (position, id) in ids.iter().enumerate() {
        let owner = (product::owner(position).bits() & 0xffff_ffff_ffff_ffff) as u64;
        table.insert_unique(hash(*id), (*id, [owner; 14]), |(id, _)| hash(*id));
    }
    table
}

/// Ids are random, so a part of one is a hash of it.
fn hash(id: KeyId) -> u64 {
    ((id.bits() >> 32) & 0xffff_ffff_ffff_ffff) as u64
}

/// One look-up after the other, as a request waits for its own: which key comes next depends on
/// what was found.
fn time_bare(filled: &Filled, bare: &HashTable<Entry>, order: Order, count: usize) -> Timed {
    timed(&filled.ids, order, count, |id| {
        let found = black_box(bare.find(hash(*id), |(it, _)| it == id).copied());
        found.map_or(0, |(_, [.., owner])| owner)
    })
}

fn time_find(filled: &Filled, _: &HashTable<Entry>, order: Order, count: usize) -> Timed {
    timed(&filled.ids, order, count, |id| {
        let found = black_box(filled.set.present(*id));
        found.map_or(0, |key| (key.owner.bits() & 0xffff_ffff_ffff_ffff) as u64)
    })
}

/// Look-ups of which the processor may begin one before the last is done.
fn time_bare_overlapped(
    filled: &Filled,
    bare: &HashTable<Entry>,
    order: Order,
    count: usize,
) -> Timed {
    timed(&filled.ids, order, count, |id| {
        black_box(bare.find(hash(*id), |(it, _)| it == id).copied());
        0
    })
}

fn time_find_overlapped(
    filled: &Filled,
    _: &HashTable<Entry>,
    order: Order,
    count: usize,
) -> Timed {
    timed(&filled.ids, order, count, |id| {
        black_box(filled.set.present(*id));
        0
    })
}

/// All that a request pays for its key: the text is read, the key found, its secret hashed.
fn time_whole(filled: &Filled, _: &HashTable<Entry>, order: Order, count: usize) -> Timed {
    let format = filled.set.keyring().format();
    timed(&filled.tokens, order, count, |secret| {
        let presented = format.parse(secret.expose()).ok();
        black_box(presented.map(|presented| filled.set.recognize(&presented)));
        0
    })
}

type Timed = anyhow::Result<f64>;

/// Nanoseconds of each of so many, in no order.
fn timed<T>(of: &[T], mut order: Order, count: usize, mut look_up: impl FnMut(&T) -> u64) -> Timed {
    let begun = on_processor()?;
    let mut found = 0;
    for _ in 0..count {
        if let Some(it) = of.get(order.after(found, of.len())) {
            found = look_up(it);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of look-ups is far below 2^52")]
    let each = on_processor()?.saturating_sub(begun).as_secs_f64() * 1e9 / count as f64;
    Ok(each)
}
