//! Create an API key. Its secret is in the answer and nowhere else.

use keyward_api::keys::{CreateKey, Key, KeyWithSecret};
use keyward_api::secret::ShownOnce;
use keyward_core::id::KeyId;
use keyward_core::key::{ApiKey, KeyHint, Minted, SecretKind};
use keyward_core::{Error, Result};
use keyward_store::{Change, TenantTx, WriteTx};
use serde_json::json;

use super::{policy, touched};
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<CreateKey>) -> Result<Answer> {
    let mut tx = ctx.write().await?;
    if let Some(replay) = ctx.claim(&mut tx).await? {
        return Ok(replay);
    }
    offered(&ctx, &body)?;
    let minted = ctx.state().keyring.mint(SecretKind::Api(body.environment), ctx.clock());
    let key = record(&ctx, &mut tx, body, &minted).await?;
    tx.insert_key(&key, &minted.hash, minted.pepper_version).await?;
    let shown = Key::new(&key, tx.at());
    let replay = serde_json::to_string(&KeyWithSecret::replay(shown.clone()))
        .map_err(|e| Error::internal(e.to_string()))?;
    let audit = ctx.audit(&key.id, json!({ "after": shown }));
    let change = Change::new((), audit).introducing(touched(&key)).replayed_as(replay);
    tx.finish(change).await?;
    let secret = ShownOnce::new(minted.secret.expose());
    Answer::json(&KeyWithSecret::first(shown, secret))
}

/// Refuses an environment that the product has no word for.
fn offered(ctx: &Ctx, body: &CreateKey) -> Result<()> {
    let offered = &ctx.state().product.profile.keys.environments;
    if offered.contains_key(&body.environment) {
        return Ok(());
    }
    let names: Vec<&str> = offered.keys().map(|environment| environment.as_str()).collect();
    let text = format!("This product has the environments {}", names.join(", "));
    Err(Error::validation("environment", text))
}

async fn record(
    ctx: &Ctx,
    tx: &mut WriteTx<TenantTx>,
    body: CreateKey,
    minted: &Minted,
) -> Result<ApiKey> {
    let now = tx.at();
    let expires_at = policy::expiry(ctx, &body, now)?;
    let (owner, role) = policy::owner(ctx, tx, body.owner_id).await?;
    let scopes = policy::scopes(ctx, &body.scopes, &role)?;
    let id = KeyId::from_bits(minted.id_bits);
    Ok(ApiKey {
        tenant: tx.tenant(),
        id,
        environment: body.environment,
        name: body.name,
        description: body.description.unwrap_or_default(),
        hint: KeyHint::new(minted.hint).ok_or_else(|| Error::internal("a hint with signs"))?,
        scopes,
        owner,
        created_by: ctx.caller().actor().name,
        created_at: now,
        expires_at,
        revoked_at: None,
        revoke_reason: None,
        suspect_since: None,
        exposed: None,
        ip_allowlist: policy::networks(&body.ip_allowlist.unwrap_or_default())?,
        rate_limit: body.rate_limit,
        lineage: id,
        rotated_from: None,
        replaced_by: None,
        deleted_at: None,
        last_used_at: None,
        last_used_ip: None,
        last_used_agent: None,
    })
}
