//! Keys that were seen where others may have seen them too, gathered until the store takes them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

use keyward_core::id::{KeyId, RequestId, TenantId};
use keyward_core::key::{Exposed, Exposure};

use crate::keyset::KnownKey;

/// Keys that are kept between two drains; past that, an exposure is only counted.
pub const MAX_EXPOSED_KEYS: usize = 1 << 16;

/// A key that was exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExposedRow {
    /// The tenant of the key.
    pub tenant: TenantId,
    /// The key.
    pub key: KeyId,
    /// When that was first noticed since the last drain, and how it happened.
    pub exposed: Exposed,
}

#[derive(Debug, Default)]
pub(crate) struct Exposures {
    rows: Mutex<HashMap<KeyId, ExposedRow>>,
    counts: [AtomicU64; Exposure::ALL.len()],
}

impl Exposures {
    /// Keeps that a key was exposed. True when that is news since the last drain, and was kept.
    fn note(&self, row: ExposedRow) -> bool {
        if let Some(count) = self.counts.get(row.exposed.by as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut rows = self.rows.lock();
        let is_news = rows.len() < MAX_EXPOSED_KEYS && !rows.contains_key(&row.key);
        if is_news {
            rows.insert(row.key, row);
        }
        is_news
    }

    /// Keeps that a key was exposed by a request, of `client` where that is known. The log says so
    /// once in a while, and names the key by its id.
    pub(crate) fn expose(
        &self,
        key: &KnownKey,
        exposed: Exposed,
        request_id: RequestId,
        client: Option<IpAddr>,
    ) {
        if self.note(ExposedRow { tenant: key.tenant.id, key: key.id, exposed }) {
            tracing::warn!(
                key_id = %key.id,
                tenant = %key.tenant.id,
                by = exposed.by.as_str(),
                %request_id,
                ip = client.map(tracing::field::display),
                "a key was exposed"
            );
        }
    }

    /// Takes everything out.
    pub(crate) fn drain(&self) -> Vec<ExposedRow> {
        std::mem::take(&mut *self.rows.lock()).into_values().collect()
    }

    /// How many requests exposed a key, by how.
    pub(crate) fn counts(&self) -> [(Exposure, u64); Exposure::ALL.len()] {
        let count = |by: Exposure| {
            let count = self.counts.get(by as usize);
            (by, count.map_or(0, |count| count.load(Ordering::Relaxed)))
        };
        Exposure::ALL.map(count)
    }
}

#[cfg(test)]
mod tests {
    use keyward_core::time::Timestamp;

    use super::*;

    #[test]
    fn the_first_time_of_each_key_is_kept_and_every_time_is_counted() {
        let exposures = Exposures::default();
        let row = |key: u128, at: i64, by: Exposure| ExposedRow {
            tenant: TenantId::from_bits(1),
            key: KeyId::from_bits(key),
            exposed: Exposed { at: Timestamp::from_millis(at), by },
        };
        assert!(exposures.note(row(1, 10, Exposure::Url)));
        assert!(!exposures.note(row(1, 20, Exposure::Browser)));
        assert!(exposures.note(row(2, 20, Exposure::Url)));
        let mut drained = exposures.drain();
        drained.sort_by_key(|row| row.key);
        assert_eq!(drained, [row(1, 10, Exposure::Url), row(2, 20, Exposure::Url)]);
        assert!(exposures.drain().is_empty());
        assert!(exposures.note(row(1, 30, Exposure::Url)), "news again: nobody holds it any more");
        let counts = exposures.counts();
        assert_eq!(counts.map(|(_, count)| count), [0, 3, 1]);
    }

    #[test]
    fn a_flood_of_keys_is_counted_and_kept_up_to_the_bound() {
        let exposures = Exposures::default();
        let row = |key: usize| ExposedRow {
            tenant: TenantId::from_bits(1),
            key: KeyId::from_bits(key as u128),
            exposed: Exposed { at: Timestamp::from_millis(1), by: Exposure::ClearText },
        };
        assert!((0..MAX_EXPOSED_KEYS).all(|key| exposures.note(row(key))));
        assert!(!exposures.note(row(MAX_EXPOSED_KEYS)), "what is not kept is no news");
        assert_eq!(exposures.counts()[0].1, MAX_EXPOSED_KEYS as u64 + 1);
        assert_eq!(exposures.drain().len(), MAX_EXPOSED_KEYS);
        assert!(exposures.note(row(MAX_EXPOSED_KEYS)));
    }
}
