//! All data of the sandbox, behind one lock that is held for one operation at a time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use keyward_core::environment::Environment;
use keyward_core::id::TenantId;
use keyward_core::{Error, ErrorCode, Timestamp};
use parking_lot::Mutex;

use crate::declare::Plan;
use crate::seeds::Seeds;
use crate::space::Space;
use crate::{MAX_SPACES, MAX_TENANTS};

/// Whose data, and of which environment.
pub(crate) type SpaceKey = (TenantId, Environment);

pub(crate) struct State {
    seeds: Seeds,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    slugs: HashMap<TenantId, String>,
    spaces: HashMap<SpaceKey, Space>,
}

impl State {
    pub(crate) fn new(seeds: Seeds) -> Self {
        Self { seeds, inner: Mutex::default() }
    }

    /// False when there are too many tenants.
    pub(crate) fn add_tenant(&self, slug: &str, tenant: TenantId) -> bool {
        let mut inner = self.inner.lock();
        let fits = inner.slugs.len() < MAX_TENANTS || inner.slugs.contains_key(&tenant);
        if fits {
            inner.slugs.insert(tenant, slug.to_owned());
        }
        fits
    }

    /// Runs an operation on the data of one tenant and environment as it is at this instant.
    pub(crate) fn with<T>(
        &self,
        plan: &Plan,
        key: SpaceKey,
        now: Timestamp,
        operation: impl FnOnce(&mut Space) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut inner = self.inner.lock();
        let Inner { slugs, spaces } = &mut *inner;
        let count = spaces.len();
        let space = match spaces.entry(key) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(_) if count >= MAX_SPACES => {
                let text = "The sandbox holds no more tenants; start it again";
                return Err(Error::new(ErrorCode::Unavailable, text));
            }
            Entry::Vacant(free) => {
                let slug = slugs.get(&key.0).map(String::as_str);
                let space = self.seeds.space(slug, key.1, plan, now);
                free.insert(space.map_err(|error| Error::internal(error.to_string()))?)
            }
        };
        space.advance(plan, now);
        operation(space)
    }
}
