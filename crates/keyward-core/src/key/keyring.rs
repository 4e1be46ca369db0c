//! The secrets behind all keys of a deployment. They live outside the database.

use crate::clock::Clock;
use crate::key::token::{KeyHash, Minted, Pepper, Presented, SecretKind, TagKey, TokenFormat};

/// The token format, the tag key and every version of the pepper.
pub struct Keyring {
    format: TokenFormat,
    tags: TagKey,
    current: Pepper,
    earlier: Vec<Pepper>,
}

impl Keyring {
    /// A keyring that mints with `current` and still verifies what `earlier` peppers made.
    pub const fn new(
        format: TokenFormat,
        tags: TagKey,
        current: Pepper,
        earlier: Vec<Pepper>,
    ) -> Self {
        Self { format, tags, current, earlier }
    }

    /// The token format of the product.
    pub const fn format(&self) -> &TokenFormat {
        &self.format
    }

    /// Whether an id was made by this deployment; forged ids need no look-up.
    pub fn made(&self, id_bits: u128) -> bool {
        self.tags.made(id_bits)
    }

    /// Makes a new secret with a new id.
    pub fn mint(&self, kind: SecretKind, clock: &dyn Clock) -> Minted {
        self.format.mint(kind, &self.tags, &self.current, clock)
    }

    /// Makes a new secret for an id that has one already.
    pub fn mint_for(&self, id_bits: u128, kind: SecretKind, clock: &dyn Clock) -> Minted {
        self.format.mint_for(id_bits, kind, &self.current, clock)
    }

    /// Whether a presented key is the one whose hash was stored with this version of the pepper.
    /// An unknown version costs the same work and never matches.
    pub fn verify(&self, presented: &Presented<'_>, stored: &KeyHash, version: u16) -> bool {
        let known = std::iter::once(&self.current)
            .chain(&self.earlier)
            .find(|pepper| pepper.version() == version);
        let hash = known.unwrap_or(&self.current).hash(presented);
        hash.matches(stored) && known.is_some()
    }
}
