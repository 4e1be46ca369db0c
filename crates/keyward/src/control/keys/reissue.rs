//! Issue a new secret for a key that was never used, within an hour of its creation.

use keyward_api::keys::{Key, KeyWithSecret};
use keyward_api::secret::ShownOnce;
use keyward_core::key::{KeyHint, SecretKind};
use keyward_core::{Error, Result};
use keyward_store::Change;
use serde_json::json;

use super::{find, policy, touched};
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;
use crate::usage;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    // a call of the last seconds may not be in the store yet, and the key was used then
    usage::note(&ctx.state().store, &ctx.state().plane).await;
    let mut tx = ctx.write().await?;
    if let Some(replay) = ctx.claim(&mut tx).await? {
        drop(tx);
        return ctx.replay_fenced(replay).await;
    }
    let now = tx.at();
    let mut key = find(&ctx, &mut tx).await?;
    key.ensure_reissuable(now)?;
    let role = policy::owner_role(&ctx, &mut tx, &key).await?;
    policy::scopes(&ctx, &key.scopes, &role)?;
    let kind = SecretKind::Api(key.environment);
    let minted = ctx.state().keyring.mint_for(key.id.bits(), kind, ctx.clock());
    let before = key.hint.to_string();
    key.hint = KeyHint::new(minted.hint).ok_or_else(|| Error::internal("a hint with signs"))?;
    tx.set_key_secret(key.id, &minted.hash, minted.pepper_version, key.hint).await?;
    let after = key.hint.to_string();
    let details = json!({ "before": { "hint": before }, "after": { "hint": after } });
    let shown = Key::new(&key, now);
    let replay = serde_json::to_string(&KeyWithSecret::replay(shown.clone()))
        .map_err(|e| Error::internal(e.to_string()))?;
    let change = Change::new((), ctx.audit(&key.id, details)).invalidating([touched(&key)]);
    let committed = tx.finish(change.replayed_as(replay)).await?;
    let secret = ShownOnce::new(minted.secret.expose());
    let fence = Some(ctx.fence(&committed, None));
    Answer::fenced(&KeyWithSecret { fence, ..KeyWithSecret::first(shown, secret) })
}
