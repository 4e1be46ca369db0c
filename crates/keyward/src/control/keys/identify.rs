//! Whose key is this? For a pasted or leaked secret.

use keyward_api::keys::{IdentifiedKey, IdentifyKey, Key};
use keyward_core::Result;
use keyward_core::id::KeyId;
use keyward_core::key::SecretKind;
use keyward_core::{Error, ErrorCode};

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<IdentifyKey>) -> Result<Answer> {
    let keyring = &ctx.state().keyring;
    let malformed = |e: keyward_core::key::TokenError| {
        Error::validation("secret", format!("This is not a key of this product: {e}"))
    };
    let presented = keyring.format().parse(body.secret.expose()).map_err(malformed)?;
    if presented.kind == SecretKind::Admin {
        let text = "This is an admin token, not an API key; revoke it under admin tokens";
        return Err(Error::validation("secret", text));
    }
    // another tenant's key is not told apart from one that does not exist
    let unknown = || Error::new(ErrorCode::NotFound, "No key of yours has this secret");
    let mut tx = ctx.read_system("identify a pasted secret").await?;
    let stored = tx.find_stored_key(KeyId::from_bits(presented.id_bits)).await?;
    let stored = stored
        .filter(|stored| keyring.verify(&presented, &stored.hash, stored.pepper_version))
        .filter(|stored| ctx.caller().tenant().is_none_or(|own| own == stored.key.tenant))
        .ok_or_else(unknown)?;
    let tenant = tx.find_tenant(stored.key.tenant).await?.ok_or_else(unknown)?;
    let owner = tx.find_user(stored.key.owner).await?.ok_or_else(unknown)?;
    Answer::json(&IdentifiedKey {
        key: Key::new(&stored.key, ctx.now()),
        tenant_slug: tenant.slug,
        owner_name: owner.name,
    })
}
