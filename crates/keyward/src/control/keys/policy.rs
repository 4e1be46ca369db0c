//! What a new key may be: its owner, its scopes, its end.

use keyward_api::keys::CreateKey;
use keyward_core::id::UserId;
use keyward_core::ip::IpAllowlist;
use keyward_core::key::ApiKey;
use keyward_core::time::DAY_MS;
use keyward_core::{Error, ErrorCode, Result, Timestamp};
use keyward_store::{TenantTx, WriteTx};

use crate::control::context::Ctx;
use crate::control::members::roles;

/// The owner of a new key and their role, which must be a current member.
pub(super) async fn owner(
    ctx: &Ctx,
    tx: &mut WriteTx<TenantTx>,
    requested: Option<UserId>,
) -> Result<(UserId, String)> {
    let text = "An admin token owns no keys; name the member or service account in ownerId";
    let owner = requested.ok_or_else(|| Error::validation("ownerId", text))?;
    let text = "ownerId names nobody who is a member of this tenant now";
    let role = tx.role_of(owner).await?.ok_or_else(|| Error::validation("ownerId", text))?;
    roles::reachable(ctx, &role)?;
    Ok((owner, role))
}

/// The role of the owner of a key that is about to get a secret or more freedom. Whoever asks may
/// not act through a role that allows more than their own.
pub(super) async fn owner_role(
    ctx: &Ctx,
    tx: &mut WriteTx<TenantTx>,
    key: &ApiKey,
) -> Result<String> {
    let text = "The owner of this key has left the tenant; make a new key for a current member";
    let role = tx.role_of(key.owner).await?.ok_or_else(|| Error::conflict(text))?;
    roles::reachable(ctx, &role)?;
    Ok(role)
}

/// The sorted scopes of a new key, within the role of its owner and that of the caller.
pub(super) fn scopes(ctx: &Ctx, requested: &[String], owner_role: &str) -> Result<Vec<String>> {
    let catalog = ctx.catalog();
    let roles = [Some(owner_role), ctx.caller().role()];
    let mut names = Vec::new();
    for role in roles.into_iter().flatten() {
        let role = catalog.role(role).ok_or_else(|| {
            let text = format!("The profile has no role {role} any more; change the member's role");
            Error::new(ErrorCode::RbacDenied, text).with("failed", "role")
        })?;
        names = catalog.scopes_for_new_key(requested, role)?;
    }
    Ok(names)
}

/// When a new key stops by itself.
pub(super) fn expiry(ctx: &Ctx, body: &CreateKey, now: Timestamp) -> Result<Option<Timestamp>> {
    let in_days = body.expires_in_days.map(|days| now.plus_ms(i64::from(days) * DAY_MS));
    let expires_at = body.expires_at.or(in_days);
    if expires_at.is_some_and(|at| at <= now) {
        return Err(Error::validation("expiresAt", "The expiry must lie in the future"));
    }
    let Some(days) = ctx.state().product.profile.keys.max_lifetime_days else {
        return Ok(expires_at);
    };
    let latest = now.plus_ms(i64::from(days) * DAY_MS);
    match expires_at {
        None => Ok(Some(latest)),
        Some(at) if at <= latest => Ok(Some(at)),
        Some(_) => {
            let text = format!("A key of this product lives at most {days} days");
            Err(Error::validation("expiresAt", text).with("maxDays", days))
        }
    }
}

/// The networks a key may be used from.
pub(super) fn networks(entries: &[String]) -> Result<IpAllowlist> {
    IpAllowlist::parse(entries).map_err(|e| Error::validation("ipAllowlist", e.to_string()))
}
