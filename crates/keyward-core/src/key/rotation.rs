//! Rotation: a replacement, and the end of the time in which both work.

use crate::error::{Error, Result};
use crate::key::record::{ApiKey, RevokeReason};
use crate::time::{DAY_MS, Timestamp};

/// Milliseconds of overlap when the caller names none.
pub const DEFAULT_OVERLAP_MS: i64 = DAY_MS;
/// The longest overlap in milliseconds.
pub const MAX_OVERLAP_MS: i64 = 30 * DAY_MS;

/// What a rotation does to the key it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Until when both keys work; `now` when there is no overlap.
    pub overlap_ends_at: Timestamp,
}

impl Rotation {
    /// Starts the overlap on `old`. It never extends the life of the old key, and an overlap of 0
    /// revokes it at once.
    pub fn begin(
        old: &mut ApiKey,
        replacement: crate::id::KeyId,
        overlap_ms: i64,
        now: Timestamp,
    ) -> Result<Self> {
        old.ensure_active(now)?;
        if let Some(next) = old.replaced_by {
            let text =
                "The key is being rotated already; end that overlap or rotate the replacement";
            return Err(Error::conflict(text).with("replacedBy", next.to_string()));
        }
        if !(0..=MAX_OVERLAP_MS).contains(&overlap_ms) {
            return Err(Error::validation(
                "overlapSeconds",
                "An overlap lasts 0 seconds to 30 days",
            ));
        }
        old.replaced_by = Some(replacement);
        if overlap_ms == 0 {
            old.revoke(RevokeReason::Rotated, now);
            return Ok(Self { overlap_ends_at: now });
        }
        let wanted = now.plus_ms(overlap_ms);
        let ends = old.expires_at.map_or(wanted, |expiry| expiry.min(wanted));
        old.expires_at = Some(ends);
        Ok(Self { overlap_ends_at: ends })
    }
}
