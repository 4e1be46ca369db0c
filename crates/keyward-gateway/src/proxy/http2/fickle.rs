//! Tenants whose exchanges are broken off again and again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use keyward_core::id::TenantId;

/// A tenant is fickle when so many of its exchanges were broken off,
const FICKLE_AT: u32 = 4;
/// and at least one in so many.
const ONE_IN: u32 = 10;
/// After this long, what was counted counts half.
const HALVED_EVERY: Duration = Duration::from_secs(30);
/// Tenants that are remembered; of more, nothing is.
const MAX_TENANTS: usize = 1024;

/// The fickle tenants at one address of an upstream. Their streams share connections with each
/// other only, so that others seldom have to wait for a new one.
pub(in crate::proxy) struct Fickle {
    address: Box<str>,
    since: Instant,
    /// Until when any tenant is remembered, in milliseconds: mostly none is, and nothing is locked.
    until_ms: AtomicU64,
    tenants: Mutex<HashMap<TenantId, Recent>>,
    held: Arc<AtomicUsize>,
}

struct Recent {
    broken_off: u32,
    /// All that were begun since the first of them.
    begun: u32,
    halved: Instant,
}

impl Fickle {
    pub(in crate::proxy) fn at(address: &str) -> Self {
        Self {
            address: address.into(),
            since: Instant::now(),
            until_ms: AtomicU64::new(0),
            tenants: Mutex::default(),
            held: Arc::default(),
        }
    }

    /// How many of their exchanges are held.
    pub(super) fn held(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.held)
    }

    /// Whether a tenant is one of them.
    pub(in crate::proxy) fn contains(&self, tenant: TenantId) -> bool {
        let Some(now) = self.remembers_at() else {
            return false;
        };
        let mut tenants = self.tenants.lock();
        tenants.get_mut(&tenant).is_some_and(|it| {
            it.halve(now);
            it.is_fickle()
        })
    }

    /// Notes that a stream was begun for a tenant.
    pub(super) fn begun(&self, tenant: TenantId) {
        if let Some(now) = self.remembers_at()
            && let Some(it) = self.tenants.lock().get_mut(&tenant)
            && it.halve(now)
        {
            it.begun = it.begun.saturating_add(1);
        }
    }

    /// Notes that an exchange of a tenant was broken off.
    pub(super) fn broken_off(&self, tenant: TenantId) {
        let now = Instant::now();
        let mut tenants = self.tenants.lock();
        if tenants.len() >= MAX_TENANTS {
            tenants.retain(|_, it| it.halve(now));
        }
        if tenants.len() >= MAX_TENANTS && !tenants.contains_key(&tenant) {
            return;
        }
        let new = Recent { broken_off: 0, begun: 1, halved: now };
        let recent = tenants.entry(tenant).or_insert(new);
        recent.halve(now);
        let before = recent.is_fickle();
        recent.broken_off = recent.broken_off.saturating_add(1);
        // by then this one counts for nothing, unless there are many
        let until = now + HALVED_EVERY * (u32::BITS - recent.broken_off.leading_zeros());
        self.until_ms.fetch_max(self.millis(until), Ordering::Relaxed);
        if recent.is_fickle() && !before {
            let address = &*self.address;
            tracing::info!(%tenant, address, "many requests are broken off: connections apart");
        }
    }

    /// The time, if any tenant is remembered; mostly it is not even asked for.
    fn remembers_at(&self) -> Option<Instant> {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        let now = (until_ms > 0).then(Instant::now)?;
        if self.millis(now) < until_ms {
            return Some(now);
        }
        // unless it was moved meanwhile
        let relaxed = Ordering::Relaxed;
        let _ = self.until_ms.compare_exchange(until_ms, 0, relaxed, relaxed);
        None
    }

    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.since);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Recent {
    /// Lets it fade; false when nothing is left.
    fn halve(&mut self, now: Instant) -> bool {
        while self.broken_off > 0 && now.saturating_duration_since(self.halved) >= HALVED_EVERY {
            self.broken_off /= 2;
            self.begun /= 2;
            self.halved += HALVED_EVERY;
        }
        if self.broken_off == 0 {
            (self.begun, self.halved) = (1, now);
        }
        self.broken_off > 0
    }

    const fn is_fickle(&self) -> bool {
        self.broken_off >= FICKLE_AT && self.broken_off.saturating_mul(ONE_IN) >= self.begun
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const TENANT: TenantId = TenantId::from_bits(1);

    fn break_off(fickle: &Fickle, tenant: TenantId, times: u32) {
        for _ in 0..times {
            fickle.begun(tenant);
            fickle.broken_off(tenant);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_is_fickle_for_as_long_as_it_goes_on() {
        let fickle = Fickle::at("http://api.test");
        break_off(&fickle, TENANT, FICKLE_AT - 1);
        assert!(!fickle.contains(TENANT));
        break_off(&fickle, TENANT, 1);
        assert!(fickle.contains(TENANT) && !fickle.contains(TenantId::from_bits(2)));
        for _ in 0..5 {
            advance(HALVED_EVERY).await;
            assert!(!fickle.contains(TENANT));
            break_off(&fickle, TENANT, FICKLE_AT / 2);
            assert!(fickle.contains(TENANT));
        }
        advance(HALVED_EVERY * 3).await;
        break_off(&fickle, TENANT, FICKLE_AT - 1);
        assert!(!fickle.contains(TENANT), "what was long ago does not count");
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_among_many_are_nothing() {
        let fickle = Fickle::at("http://api.test");
        for _ in 0..100 {
            break_off(&fickle, TENANT, 1);
            (0..ONE_IN).for_each(|_| fickle.begun(TENANT));
        }
        assert!(!fickle.contains(TENANT));
        break_off(&fickle, TENANT, 2 * ONE_IN);
        assert!(fickle.contains(TENANT));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_begun_long_ago_excuses_nothing() {
        let fickle = Fickle::at("http://api.test");
        break_off(&fickle, TenantId::from_bits(2), 1_000);
        break_off(&fickle, TENANT, 1);
        advance(HALVED_EVERY * 2).await;
        (0..1_000).for_each(|_| fickle.begun(TENANT));
        break_off(&fickle, TENANT, FICKLE_AT);
        assert!(fickle.contains(TENANT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bounded_number_is_remembered_and_for_a_bounded_time() {
        let fickle = Fickle::at("http://api.test");
        let all: Vec<_> = (0..=MAX_TENANTS as u128).map(TenantId::from_bits).collect();
        for tenant in &all {
            break_off(&fickle, *tenant, FICKLE_AT);
        }
        assert_eq!(all.iter().filter(|tenant| fickle.contains(**tenant)).count(), MAX_TENANTS);
        advance(HALVED_EVERY * 3).await;
        assert!(fickle.remembers_at().is_none());
        assert_eq!(fickle.until_ms.load(Ordering::Relaxed), 0);
        let last = all.last().copied().unwrap_or(TENANT);
        break_off(&fickle, last, FICKLE_AT);
        assert!(fickle.contains(last), "room was made for it");
        assert_eq!(fickle.tenants.lock().len(), 1);
    }
}
