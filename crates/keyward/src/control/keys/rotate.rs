//! Rotate an API key: a replacement, and an overlap in which both work.

use keyward_api::fence::Fence;
use keyward_api::keys::{Key, RotateKey, RotatedKey};
use keyward_api::secret::ShownOnce;
use keyward_core::id::KeyId;
use keyward_core::key::{ApiKey, KeyHint, Minted, Rotation, SecretKind};
use keyward_core::{Error, Result, Timestamp};
use keyward_store::Change;
use serde_json::json;

use super::{find, policy, touched};
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<RotateKey>) -> Result<Answer> {
    let mut tx = ctx.write().await?;
    if let Some(replay) = ctx.claim(&mut tx).await? {
        // its wait takes no part of the chain
        drop(tx);
        return ctx.replay_fenced(replay).await;
    }
    let now = tx.at();
    let mut old = find(&ctx, &mut tx).await?;
    let role = policy::owner_role(&ctx, &mut tx, &old).await?;
    let minted = ctx.state().keyring.mint(SecretKind::Api(old.environment), ctx.clock());
    let new = replacement(&ctx, &old, &body, &role, &minted, now)?;
    let rotation = Rotation::begin(&mut old, new.id, body.overlap_ms(), now)?;
    tx.insert_key(&new, &minted.hash, minted.pepper_version).await?;
    tx.update_key(&old).await?;
    let details = json!({
        "replacement": Key::new(&new, now),
        "overlapEndsAt": rotation.overlap_ends_at,
        "before": { "scopes": old.scopes },
        "after": { "scopes": new.scopes },
    });
    let change = Change::new((), ctx.audit(&old.id, details))
        .invalidating([touched(&old), touched(&new)])
        .replayed_as(replay(&new, &old, rotation, now)?);
    let committed = tx.finish(change).await?;
    let secret = Some(ShownOnce::new(minted.secret.expose()));
    let fence = ctx.fence(&committed, old.revoked_at);
    Answer::fenced(&rotated(&new, &old, rotation, secret, fence, now))
}

fn replacement(
    ctx: &Ctx,
    old: &ApiKey,
    body: &RotateKey,
    role: &str,
    minted: &Minted,
    now: Timestamp,
) -> Result<ApiKey> {
    let wanted = body.scopes.as_ref().unwrap_or(&old.scopes);
    if let Some(added) = wanted.iter().find(|scope| !old.scopes.contains(scope)) {
        let text = format!("A rotation adds no scope; make a new key to get {added}");
        return Err(Error::validation("scopes", text));
    }
    Ok(ApiKey {
        id: KeyId::from_bits(minted.id_bits),
        name: body.name.clone().unwrap_or_else(|| old.name.clone()),
        hint: KeyHint::new(minted.hint).ok_or_else(|| Error::internal("a hint with signs"))?,
        scopes: policy::scopes(ctx, wanted, role)?,
        created_by: ctx.caller().actor().name,
        created_at: now,
        expires_at: new_expiry(ctx, old, now),
        rotated_from: Some(old.id),
        suspect_since: None,
        exposed: None,
        last_used_at: None,
        last_used_ip: None,
        last_used_agent: None,
        ..old.clone()
    })
}

/// The replacement lives as long as the old key was made to live, from now on.
fn new_expiry(ctx: &Ctx, old: &ApiKey, now: Timestamp) -> Option<Timestamp> {
    let lifetime = old.expires_at.map(|at| at.since(old.created_at));
    let days = ctx.state().product.profile.keys.max_lifetime_days;
    let most = days.map(|days| i64::from(days) * keyward_core::time::DAY_MS);
    let lifetime = [lifetime, most].into_iter().flatten().min();
    lifetime.map(|ms| now.plus_ms(ms))
}

fn rotated(
    new: &ApiKey,
    old: &ApiKey,
    rotation: Rotation,
    secret: Option<ShownOnce>,
    fence: Fence,
    now: Timestamp,
) -> RotatedKey {
    RotatedKey {
        key: Key::new(new, now),
        secret_not_replayable: secret.is_none(),
        secret,
        old: Key::new(old, now),
        overlap_ends_at: rotation.overlap_ends_at,
        fence,
    }
}

/// What a repeated request gets: everything but the secret. How far the write has reached by then
/// is told when it is read: see [`Ctx::replay_fenced`].
fn replay(new: &ApiKey, old: &ApiKey, rotation: Rotation, now: Timestamp) -> Result<String> {
    let fence = Fence::effective(old.revoked_at, now);
    let body = rotated(new, old, rotation, None, fence, now);
    serde_json::to_string(&body).map_err(|e| Error::internal(e.to_string()))
}
