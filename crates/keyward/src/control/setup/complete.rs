//! Use up a setup link: make the first administrator and an admin token to go on with.

use keyward_api::bounds::DEFAULT_ADMIN_TOKEN_DAYS;
use keyward_api::scope::ManagementScope;
use keyward_api::secret::ShownOnce;
use keyward_api::setup::{CompleteSetup, CompletedSetup};
use keyward_core::authority::Invalidation;
use keyward_core::id::AdminTokenId;
use keyward_core::key::{KeyHint, Minted, SecretKind};
use keyward_core::time::DAY_MS;
use keyward_core::{Error, ErrorCode, Result, Timestamp};
use keyward_store::{AdminToken, Chain, Change, User};
use serde_json::json;
use zeroize::Zeroizing;

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;
use crate::control::{admin_tokens, users};
use crate::{administrator, password, setup_link};

pub(super) async fn handle(ctx: Ctx, Json(body): Json<CompleteSetup>) -> Result<Answer> {
    let link = setup_link::hash(body.token.expose());
    still_open(&ctx, &link).await?;
    // slow on purpose, so not while the store is held, and only for who has the link
    let password = Zeroizing::new(body.password.expose().to_owned());
    let password_hash = password::hash(password, ctx.clock()).await?;
    let mut tx = ctx.write_system("make the first administrator", Chain::Operator).await?;
    let now = tx.at();
    if tx.count_administrators().await? > 0 || !tx.use_setup_link(&link, now).await? {
        return Err(gone());
    }
    let administrator =
        administrator::enter(&mut tx, ctx.clock(), &body.email, &body.name, &password_hash).await?;
    let minted = ctx.state().keyring.mint(SecretKind::Admin, ctx.clock());
    let token = token(&administrator, &minted, now)?;
    tx.insert_admin_token(&token, &minted.hash, minted.pepper_version).await?;
    let admin_token = admin_tokens::shown(&token, now);
    let administrator = users::shown(&administrator);
    let details = json!({ "after": administrator, "adminToken": admin_token });
    let change = Change::new((), ctx.audit(&administrator.id, details))
        .introducing(Invalidation::AdminToken(token.id));
    tx.finish(change).await?;
    let secret = ShownOnce::new(minted.secret.expose());
    Answer::json(&CompletedSetup { administrator, admin_token, secret })
}

/// Refuses a link that could not be used, before any work is done for it.
async fn still_open(ctx: &Ctx, link: &[u8; 32]) -> Result<()> {
    let mut tx = ctx.read_system("look at a setup link").await?;
    let administrators = tx.count_administrators().await?;
    match tx.find_setup_link(link, ctx.now()).await? {
        Some(_) if administrators == 0 => Ok(()),
        _ => Err(gone()),
    }
}

/// One text for every reason: a guess learns nothing from it.
fn gone() -> Error {
    let text = "This setup link is used, too old or void, or there is an administrator already; \
                without one, run `keyward admin setup-link` for a new link";
    Error::new(ErrorCode::Gone, text)
}

/// The record of an operator's token with every scope.
fn token(administrator: &User, minted: &Minted, now: Timestamp) -> Result<AdminToken> {
    Ok(AdminToken {
        id: AdminTokenId::from_bits(minted.id_bits),
        name: "setup".to_owned(),
        hint: KeyHint::new(minted.hint).ok_or_else(|| Error::internal("a hint with signs"))?,
        tenant: None,
        role: None,
        scopes: ManagementScope::ALL.iter().map(ToString::to_string).collect(),
        created_by: administrator.name.clone(),
        created_at: now,
        expires_at: Some(now.plus_ms(i64::from(DEFAULT_ADMIN_TOKEN_DAYS) * DAY_MS)),
        revoked_at: None,
    })
}
