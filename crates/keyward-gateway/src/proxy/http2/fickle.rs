//! Tenants whose callers break off again and again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use keyward_core::id::TenantId;

/// A tenant is fickle when so many of its streams were taken back, each less than
/// [`REMEMBERED`] behind the last.
const FICKLE_AT: u32 = 4;
/// For how long a stream that was taken back is remembered.
const REMEMBERED: Duration = Duration::from_mins(1);
/// Tenants that are remembered; of more, nothing is.
const MAX_TENANTS: usize = 1024;

/// The fickle tenants at one address of an upstream. Their streams share connections with each
/// other only, so that others seldom have to wait for a new one.
pub(in crate::proxy) struct Fickle {
    address: Box<str>,
    /// Whether any tenant is remembered: mostly none is, and nothing is locked.
    any: AtomicBool,
    tenants: Mutex<HashMap<TenantId, Recent>>,
}

struct Recent {
    taken_back: u32,
    last: Instant,
}

impl Fickle {
    pub(in crate::proxy) fn at(address: &str) -> Self {
        Self { address: address.into(), any: AtomicBool::new(false), tenants: Mutex::default() }
    }

    /// Whether a tenant is one of them.
    pub(in crate::proxy) fn contains(&self, tenant: TenantId) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let now = Instant::now();
        let tenants = self.tenants.lock();
        tenants.get(&tenant).is_some_and(|it| it.taken_back >= FICKLE_AT && it.is_fresh(now))
    }

    /// Notes that a stream of a tenant was taken back.
    pub(super) fn note(&self, tenant: TenantId) {
        let now = Instant::now();
        let mut tenants = self.tenants.lock();
        if tenants.len() >= MAX_TENANTS {
            tenants.retain(|_, it| it.is_fresh(now));
        }
        if tenants.len() >= MAX_TENANTS && !tenants.contains_key(&tenant) {
            return;
        }
        let recent = tenants.entry(tenant).or_insert(Recent { taken_back: 0, last: now });
        let before = if recent.is_fresh(now) { recent.taken_back } else { 0 };
        *recent = Recent { taken_back: before.saturating_add(1), last: now };
        self.any.store(true, Ordering::Relaxed);
        if recent.taken_back == FICKLE_AT {
            let address = &*self.address;
            tracing::info!(%tenant, address, "many requests are broken off: connections apart");
        }
    }
}

impl Recent {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < REMEMBERED
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const TENANT: TenantId = TenantId::from_bits(1);

    #[tokio::test(start_paused = true)]
    async fn a_tenant_is_fickle_for_as_long_as_it_goes_on() {
        let fickle = Fickle::at("http://api.test");
        for _ in 1..FICKLE_AT {
            fickle.note(TENANT);
            advance(REMEMBERED / 2).await;
            assert!(!fickle.contains(TENANT));
        }
        fickle.note(TENANT);
        assert!(fickle.contains(TENANT) && !fickle.contains(TenantId::from_bits(2)));
        advance(REMEMBERED / 2).await;
        assert!(fickle.contains(TENANT));
        advance(REMEMBERED / 2).await;
        assert!(!fickle.contains(TENANT));
        fickle.note(TENANT);
        assert!(!fickle.contains(TENANT), "what was long ago does not count");
    }

    #[tokio::test(start_paused = true)]
    async fn a_bounded_number_is_remembered() {
        let fickle = Fickle::at("http://api.test");
        let all: Vec<_> = (0..=MAX_TENANTS as u128).map(TenantId::from_bits).collect();
        let note_all = || {
            for tenant in &all {
                (0..FICKLE_AT).for_each(|_| fickle.note(*tenant));
            }
            all.iter().filter(|tenant| fickle.contains(**tenant)).count()
        };
        assert_eq!(note_all(), MAX_TENANTS);
        advance(REMEMBERED).await;
        assert!(!fickle.contains(TENANT));
        let last = all.last().copied().unwrap_or(TENANT);
        (0..FICKLE_AT).for_each(|_| fickle.note(last));
        assert!(fickle.contains(last), "room was made for it");
    }
}
