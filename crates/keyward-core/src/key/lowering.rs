//! What a log of lowered authority says of a key, and what a restored key loses by it.

use crate::id::UserId;
use crate::ip::IpAllowlist;
use crate::key::record::{ApiKey, KeyHint, RevokeReason};
use crate::time::Timestamp;

/// A key as it stood when the log was written, as far as that can take authority away.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyLowering {
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Why it was revoked.
    pub revoke_reason: Option<RevokeReason>,
    /// When it stops by itself.
    pub expires_at: Option<Timestamp>,
    /// The names of its scopes.
    pub scopes: Vec<String>,
    /// Where it may be used from.
    pub ip_allowlist: IpAllowlist,
    /// Whose role is its ceiling.
    pub owner: UserId,
    /// The last four characters of its token.
    pub hint: KeyHint,
    /// Since when it waits to be confirmed.
    pub suspect_since: Option<Timestamp>,
}

impl ApiKey {
    /// Takes from a restored key what the log says was taken from it; answers whether that was
    /// anything. Nothing is ever given back. A key whose owner or secret is another one since is
    /// made suspect: its log does not tell whether the restored form of it may still be used.
    pub fn lower(&mut self, log: &KeyLowering, now: Timestamp) -> bool {
        if self.revoked_at.is_some() {
            return false;
        }
        let before = self.clone();
        if let Some(at) = log.revoked_at {
            self.revoke(log.revoke_reason.unwrap_or(RevokeReason::Other), at);
            return true;
        }
        self.expires_at = [self.expires_at, log.expires_at].into_iter().flatten().min();
        self.scopes.retain(|scope| log.scopes.contains(scope));
        if self.scopes.is_empty() {
            self.revoke(RevokeReason::Other, now);
        }
        if !self.ip_allowlist.within(&log.ip_allowlist) {
            self.ip_allowlist = log.ip_allowlist.clone();
        }
        let vouched = self.owner == log.owner && self.hint == log.hint;
        if self.suspect_since.is_none() && (!vouched || log.suspect_since.is_some()) {
            self.suspect_since = Some(now);
        }
        *self != before
    }
}
