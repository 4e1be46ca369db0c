//! Create an admin token. Its secret is in the answer and nowhere else.

use keyward_api::admin_tokens::{AdminTokenWithSecret, CreateAdminToken};
use keyward_api::scope::ManagementScope;
use keyward_api::secret::ShownOnce;
use keyward_core::authority::Invalidation;
use keyward_core::id::AdminTokenId;
use keyward_core::key::{KeyHint, Minted, SecretKind};
use keyward_core::time::DAY_MS;
use keyward_core::{Error, ErrorCode, Result, Timestamp};
use keyward_store::{AdminToken, Chain, Change, SystemTx, WriteTx};
use serde_json::json;

use super::shown;
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;
use crate::control::members;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<CreateAdminToken>) -> Result<Answer> {
    let mut tx = ctx.write_system("make an admin token", Chain::Operator).await?;
    if let Some(replay) = ctx.claim(&mut tx).await? {
        return Ok(replay);
    }
    within_caller(&ctx, &body.scopes)?;
    confined(&ctx, &mut tx, &body).await?;
    let minted = ctx.state().keyring.mint(SecretKind::Admin, ctx.clock());
    let token = record(&ctx, body, &minted, tx.at())?;
    tx.insert_admin_token(&token, &minted.hash, minted.pepper_version).await?;
    let shown = shown(&token, tx.at());
    let replay = Answer::kept(&AdminTokenWithSecret::replay(shown.clone()))?;
    let change = Change::new((), ctx.audit(&token.id, json!({ "after": shown })))
        .introducing(Invalidation::AdminToken(token.id))
        .replayed_as(replay);
    tx.finish(change).await?;
    let secret = ShownOnce::new(minted.secret.expose());
    Answer::json(&AdminTokenWithSecret::first(shown, secret))
}

/// Refuses scopes that the caller has not got.
fn within_caller(ctx: &Ctx, scopes: &[ManagementScope]) -> Result<()> {
    let lacking = scopes.iter().find(|scope| !ctx.caller().may(**scope, ctx.catalog()));
    let Some(scope) = lacking else { return Ok(()) };
    let text = format!("You cannot give {scope}, which your own admin token lacks");
    let error = Error::new(ErrorCode::Forbidden, text).with("failed", "scope");
    Err(error.with("scope", scope.as_str()))
}

/// Checks the tenant and the role of a token for one tenant.
async fn confined(ctx: &Ctx, tx: &mut WriteTx<SystemTx>, body: &CreateAdminToken) -> Result<()> {
    if let Some(role) = &body.role {
        members::grantable(ctx, role)?;
    }
    let Some(tenant) = body.tenant_id else { return Ok(()) };
    let missing = || Error::validation("tenantId", "There is no tenant with this id");
    tx.find_tenant(tenant).await?.map(|_| ()).ok_or_else(missing)
}

fn record(
    ctx: &Ctx,
    body: CreateAdminToken,
    minted: &Minted,
    now: Timestamp,
) -> Result<AdminToken> {
    let mut scopes = body.scopes.clone();
    scopes.sort_unstable();
    scopes.dedup();
    Ok(AdminToken {
        id: AdminTokenId::from_bits(minted.id_bits),
        hint: KeyHint::new(minted.hint).ok_or_else(|| Error::internal("a hint with signs"))?,
        tenant: body.tenant_id,
        role: body.role.clone(),
        scopes: scopes.iter().map(ToString::to_string).collect(),
        created_by: ctx.caller().actor().name,
        created_at: now,
        expires_at: Some(now.plus_ms(i64::from(body.days()) * DAY_MS)),
        revoked_at: None,
        name: body.name,
    })
}
