//! Admin tokens as a node knows them.

use keyward_core::authority::AdminTokenAuthority;
use keyward_core::id::AdminTokenId;
use keyward_core::key::Minted;

/// What a node knows of a token that was minted just now: it asks verify about every tenant.
pub fn admin_token(minted: &Minted) -> AdminTokenAuthority {
    AdminTokenAuthority {
        id: AdminTokenId::from_bits(minted.id_bits),
        name: "verifier".to_owned(),
        hash: minted.hash,
        pepper_version: minted.pepper_version,
        tenant: None,
        role: None,
        scopes: vec!["verify".to_owned()],
        expires_at: None,
        revoked_at: None,
    }
}
