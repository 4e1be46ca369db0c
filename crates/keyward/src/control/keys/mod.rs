//! API keys.

mod confirm;
mod confirm_all;
mod create;
mod delete;
mod end_overlap;
mod explain;
mod get;
mod identify;
mod list;
mod narrow_scopes;
mod policy;
mod reissue;
mod revoke;
mod rotate;
mod update;

use keyward_api::operation;
use keyward_core::authority::Invalidation;
use keyward_core::id::KeyId;
use keyward_core::key::ApiKey;
use keyward_core::{Error, Result};
use keyward_store::{TenantTx, WriteTx};

use super::context::Ctx;
use super::mount::Mounts;

pub(super) fn mount(mounts: Mounts) -> Mounts {
    mounts
        .mount(&operation::CREATE_KEY, create::handle)
        .mount(&operation::LIST_KEYS, list::handle)
        .mount(&operation::GET_KEY, get::handle)
        .mount(&operation::UPDATE_KEY, update::handle)
        .mount(&operation::DELETE_KEY, delete::handle)
        .mount(&operation::NARROW_KEY_SCOPES, narrow_scopes::handle)
        .mount(&operation::ROTATE_KEY, rotate::handle)
        .mount(&operation::END_KEY_OVERLAP, end_overlap::handle)
        .mount(&operation::REVOKE_KEY, revoke::handle)
        .mount(&operation::REISSUE_KEY, reissue::handle)
        .mount(&operation::CONFIRM_KEY, confirm::handle)
        .mount(&operation::CONFIRM_KEYS, confirm_all::handle)
        .mount(&operation::EXPLAIN_KEY, explain::handle)
        .mount(&operation::IDENTIFY_KEY, identify::handle)
}

/// The key in the path, for a change.
async fn find(ctx: &Ctx, tx: &mut WriteTx<TenantTx>) -> Result<ApiKey> {
    let id: KeyId = ctx.parameter("keyId", "key")?;
    let key = tx.find_key(id).await?;
    // a deleted key is only there to be looked at
    key.filter(|key| key.deleted_at.is_none()).ok_or_else(|| Error::not_found("key"))
}

const fn touched(key: &ApiKey) -> Invalidation {
    Invalidation::Key(key.tenant, key.id)
}
