//! Who calls, from memory where a lease vouches for it, and with the authority's help where not.

use keyward_core::authority::Wanted;
use keyward_core::decision::Credential;
use keyward_core::error::Result;
use keyward_core::id::KeyId;

use crate::authority::unavailable;
use crate::keyset::{KnownKey, Recognized};
use crate::plane::DataPlane;

/// What memory says of a key.
pub(crate) struct Found<'p> {
    pub(crate) key: Option<KnownKey<'p>>,
    /// What to say when there is none.
    pub(crate) failed: Credential<'static>,
    /// An id that this deployment made and memory does not know.
    absent: Option<KeyId>,
    /// Whether any of this comes from memory.
    remembered: bool,
}

impl DataPlane {
    /// What memory says, and whether the lease vouches for it: the lease is read first, memory next
    /// and the clock last. Whatever was changed with effect before this call is in the memory that
    /// such a lease vouches for.
    pub(crate) fn recall<T>(&self, read: impl FnOnce() -> T) -> (T, bool) {
        self.authority.lease.vouch(self.clock.as_ref(), read)
    }

    /// The key behind a secret as every change before this call has left it; `None` when no key of
    /// this deployment has that secret. A `strict` caller never decides from memory alone.
    ///
    /// # Errors
    /// `unavailable` when this node cannot tell.
    pub async fn known_key(&self, text: &str, strict: bool) -> Result<Option<KnownKey<'_>>> {
        recognize(self, text, || strict).await.map(|found| found.key)
    }
}

/// The key behind a secret, with the authority's help where memory is not enough.
pub(crate) async fn recognize<'p>(
    plane: &'p DataPlane,
    text: &str,
    strict: impl Fn() -> bool,
) -> Result<Found<'p>> {
    match from_memory(plane, text, &strict) {
        Some(found) => Ok(found),
        // rare: this node must ask the authority first
        None => Box::pin(with_authority(plane, text, &strict)).await,
    }
}

/// The key behind a secret from memory; `None` when memory is not enough.
fn from_memory<'p>(
    plane: &'p DataPlane,
    text: &str,
    strict: &impl Fn() -> bool,
) -> Option<Found<'p>> {
    let (found, vouched) = plane.recall(|| find(plane, text));
    let is_absent = || found.absent.is_none_or(|key| plane.is_absent(key));
    let enough = !found.remembered || (is_absent() && !strict() && vouched);
    enough.then_some(found)
}

/// The key behind a secret once everything is in memory that was committed before now.
async fn with_authority<'p>(
    plane: &'p DataPlane,
    text: &str,
    strict: &impl Fn() -> bool,
) -> Result<Found<'p>> {
    if let Some(key) = find(plane, text).absent {
        plane.look_up(Wanted::Key(key)).await?;
        if let Some(found) = from_memory(plane, text, strict) {
            return Ok(found);
        }
    }
    let withdrawals = plane.authority.lease.withdrawals();
    plane.catch_up().await?;
    let found = find(plane, text);
    plane.unless_emptied(withdrawals)?;
    if found.absent.is_some_and(|key| !plane.is_absent(key)) {
        // it was found, and has made room for others since
        return Err(unavailable());
    }
    Ok(found)
}

fn find<'p>(plane: &'p DataPlane, text: &str) -> Found<'p> {
    let keys = &plane.authority.keys;
    let Ok(presented) = keys.keyring().format().parse(text) else {
        let failed = Credential::Malformed;
        return Found { key: None, failed, absent: None, remembered: false };
    };
    let recognized = keys.recognize(&presented);
    let remembered = recognized.is_remembered();
    let absent = match &recognized {
        Recognized::Unknown(key) => Some(*key),
        _ => None,
    };
    Found { key: recognized.known(), failed: Credential::Unknown, absent, remembered }
}
