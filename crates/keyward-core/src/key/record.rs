//! The record of a key and its states.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::id::{KeyId, TenantId, UserId};
use crate::ip::IpAllowlist;
use crate::key::Exposed;
use crate::time::{HOUR_MS, Timestamp};

/// The most characters in the name of a key.
pub const MAX_KEY_NAME_CHARS: usize = 64;
/// Milliseconds after creation in which a never-used key may get a new secret.
pub const REISSUE_WINDOW_MS: i64 = HOUR_MS;

/// Whether a key works, computed from its instants. There is no pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// It works.
    Active,
    /// Its time ran out, or the overlap of its rotation did.
    Expired,
    /// It was stopped by somebody, for ever.
    Revoked,
}

impl KeyState {
    /// The state at `now` of a key with these instants.
    pub fn at(now: Timestamp, expires: Option<Timestamp>, revoked: Option<Timestamp>) -> Self {
        if revoked.is_some() {
            Self::Revoked
        } else if expires.is_some_and(|expires| now >= expires) {
            Self::Expired
        } else {
            Self::Active
        }
    }

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// Why a key was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeReason {
    /// It was seen where it should not be.
    Leaked,
    /// Its owner left.
    Offboarding,
    /// Nothing uses it.
    Unused,
    /// Another key took its place.
    Rotated,
    /// It was deleted while active.
    Deleted,
    /// The comment says.
    Other,
}

impl RevokeReason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Leaked, Self::Offboarding, Self::Unused, Self::Rotated, Self::Deleted, Self::Other];

    /// The word on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leaked => "leaked",
            Self::Offboarding => "offboarding",
            Self::Unused => "unused",
            Self::Rotated => "rotated",
            Self::Deleted => "deleted",
            Self::Other => "other",
        }
    }

    /// The reason of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// The last four characters of a token, for masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHint([u8; 4]);

impl KeyHint {
    /// A hint from the last four characters, which are letters and digits.
    pub fn new(bytes: [u8; 4]) -> Option<Self> {
        bytes.iter().all(u8::is_ascii_alphanumeric).then_some(Self(bytes))
    }
}

impl fmt::Display for KeyHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| fmt::Write::write_char(f, char::from(*byte)))
    }
}

/// How many requests a key may make in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Requests per window, at least 1.
    pub limit: u32,
    /// Length of the window in seconds, at least 1.
    pub window_seconds: u32,
    /// Requests that may come at once; `limit` when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub burst: Option<u32>,
}

/// The record of an API key. It holds no secret and no hash.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiKey {
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// Its id, which also stands in the token.
    pub id: KeyId,
    /// Where it is valid.
    pub environment: Environment,
    /// The service that uses it.
    pub name: String,
    /// Free text, may be empty.
    pub description: String,
    /// The last four characters of the token.
    pub hint: KeyHint,
    /// The names of its scopes, as the catalogue wrote them, sorted.
    pub scopes: Vec<String>,
    /// Whose role is its ceiling.
    pub owner: UserId,
    /// Who made it, as the audit trail names them.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Why it was revoked.
    pub revoke_reason: Option<RevokeReason>,
    /// Since when it waits to be confirmed: the instant of a restore from a backup that cannot
    /// tell what became of it. Its state does not change by that.
    pub suspect_since: Option<Timestamp>,
    /// When and how it was exposed, if it ever was.
    pub exposed: Option<Exposed>,
    /// Where it may be used from.
    pub ip_allowlist: IpAllowlist,
    /// Its own rate limit.
    pub rate_limit: Option<RateLimit>,
    /// The first key of its line of rotations; its own id when it was never rotated.
    pub lineage: KeyId,
    /// The key it took over from.
    pub rotated_from: Option<KeyId>,
    /// The key that took over from it.
    pub replaced_by: Option<KeyId>,
    /// When it was hidden from lists.
    pub deleted_at: Option<Timestamp>,
    /// When it last passed all checks.
    pub last_used_at: Option<Timestamp>,
    /// The address of that call.
    pub last_used_ip: Option<String>,
    /// The user agent of that call.
    pub last_used_agent: Option<String>,
}

impl ApiKey {
    /// Whether it works at `now`.
    pub fn state(&self, now: Timestamp) -> KeyState {
        KeyState::at(now, self.expires_at, self.revoked_at)
    }

    /// Revokes it. A key that is revoked already keeps its first instant and reason.
    pub fn revoke(&mut self, reason: RevokeReason, now: Timestamp) {
        if self.revoked_at.is_none() {
            self.revoked_at = Some(now);
            self.revoke_reason = Some(reason);
        }
    }

    /// Confirms it after a restore: it works again.
    pub fn confirm(&mut self, now: Timestamp) -> Result<()> {
        self.ensure_active(now)?;
        match self.suspect_since.take() {
            Some(_) => Ok(()),
            None => Err(Error::conflict("The key is not suspect; there is nothing to confirm")),
        }
    }

    /// Ends the overlap of the rotation that replaced this key.
    pub fn end_overlap(&mut self, now: Timestamp) -> Result<()> {
        if self.replaced_by.is_none() {
            return Err(Error::conflict("This key was not rotated; revoke it instead"));
        }
        self.ensure_active(now)?;
        self.revoke(RevokeReason::Rotated, now);
        Ok(())
    }

    /// Takes scopes away; at least one must stay.
    pub fn narrow(&mut self, remove: &[String], now: Timestamp) -> Result<()> {
        self.ensure_active(now)?;
        if let Some(absent) = remove.iter().find(|scope| !self.scopes.contains(scope)) {
            return Err(Error::validation("remove", format!("The key has no scope {absent}")));
        }
        if self.scopes.iter().all(|scope| remove.contains(scope)) {
            let text = "A key keeps at least one scope; revoke it to take away all";
            return Err(Error::validation("remove", text));
        }
        self.scopes.retain(|scope| !remove.contains(scope));
        Ok(())
    }

    /// Moves the expiry earlier.
    pub fn shorten(&mut self, expires_at: Timestamp, now: Timestamp) -> Result<()> {
        self.ensure_active(now)?;
        if expires_at <= now {
            let text = "The expiry must lie in the future; revoke the key to stop it now";
            return Err(Error::validation("expiresAt", text));
        }
        if self.expires_at.is_some_and(|current| expires_at > current) {
            let text = "An expiry can only move earlier; rotate the key to go on for longer";
            return Err(Error::validation("expiresAt", text));
        }
        self.expires_at = Some(expires_at);
        Ok(())
    }

    /// Whether a lost secret may be replaced: never used, and made within the last hour.
    pub fn ensure_reissuable(&self, now: Timestamp) -> Result<()> {
        self.ensure_active(now)?;
        if self.last_used_at.is_some() {
            return Err(Error::conflict("The key was used already; rotate it instead"));
        }
        if now.since(self.created_at) > REISSUE_WINDOW_MS {
            return Err(Error::conflict(
                "A secret can be issued again within one hour of creation; rotate the key instead",
            ));
        }
        Ok(())
    }

    /// Refuses a change to a key that no longer works.
    pub fn ensure_active(&self, now: Timestamp) -> Result<()> {
        match self.state(now) {
            KeyState::Active => Ok(()),
            KeyState::Expired => Err(Error::conflict("The key has expired; make a new one")),
            KeyState::Revoked => {
                Err(Error::conflict("The key is revoked, for ever; make a new one"))
            }
        }
    }
}
