//! Admin tokens: credentials for this API.

mod create;
mod list;
mod revoke;

use keyward_api::admin_tokens::AdminToken;
use keyward_api::operation;
use keyward_core::Timestamp;
use keyward_core::key::KeyState;

use super::mount::Mounts;

pub(super) fn mount(mounts: Mounts) -> Mounts {
    mounts
        .mount(&operation::CREATE_ADMIN_TOKEN, create::handle)
        .mount(&operation::LIST_ADMIN_TOKENS, list::handle)
        .mount(&operation::REVOKE_ADMIN_TOKEN, revoke::handle)
}

/// The token as callers see it.
pub(super) fn shown(token: &keyward_store::AdminToken, now: Timestamp) -> AdminToken {
    AdminToken {
        id: token.id,
        name: token.name.clone(),
        tenant_id: token.tenant,
        role: token.role.clone(),
        // a scope that this version does not know opens nothing here
        scopes: token.scopes.iter().filter_map(|scope| scope.parse().ok()).collect(),
        hint: token.hint.to_string(),
        state: KeyState::at(now, token.expires_at, token.revoked_at),
        created_by: token.created_by.clone(),
        created_at: token.created_at,
        expires_at: token.expires_at,
        revoked_at: token.revoked_at,
    }
}
