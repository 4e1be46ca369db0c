//! Add a member: a user who is known, or a person by address.

use keyward_api::members::{AddMember, Member, NewMember};
use keyward_core::authority::Invalidation;
use keyward_core::id::{TenantId, UserId};
use keyward_core::{Error, Result};
use keyward_store::{Chain, Change, SystemTx, User, UserKind, WriteTx};
use serde_json::json;

use super::roles;
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;
use crate::control::users;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<AddMember>) -> Result<Answer> {
    let tenant = ctx.tenant()?;
    roles::grantable(&ctx, &body.role)?;
    let mut tx = ctx.write_system("find or make the user to add", Chain::Tenant(tenant)).await?;
    if let Some(replay) = ctx.claim(&mut tx).await? {
        return Ok(replay);
    }
    let user = match body.user()? {
        NewMember::Known(id) => known(&ctx, &mut tx, tenant, id).await?,
        NewMember::Person { email, name } => person(&ctx, &mut tx, email, name).await?,
    };
    let at = tx.at();
    if !tx.insert_member(tenant, user.id, &body.role, at).await? {
        let text = "This user is a member already; change the role instead";
        return Err(Error::conflict(text).with("userId", user.id.to_string()));
    }
    let member = Member {
        user_id: user.id,
        kind: users::kind(user.kind),
        email: user.email,
        name: user.name,
        role: body.role,
        added_at: at,
        offboarded_at: None,
    };
    let change = Change::new((), ctx.audit(&user.id, json!({ "after": member })))
        .invalidating([Invalidation::Member(tenant, user.id)])
        .replayed_as(Answer::kept(&member)?);
    tx.finish(change).await?;
    Answer::json(&member)
}

/// A user by id. A service account stays in its tenant, and a caller who is confined to a tenant
/// is told of nobody outside it: both find only who has been in it before.
async fn known(
    ctx: &Ctx,
    tx: &mut WriteTx<SystemTx>,
    tenant: TenantId,
    id: UserId,
) -> Result<User> {
    let text = "There is no user with this id; name a person by email and name";
    let nobody = || Error::validation("userId", text);
    let user = tx.find_user(id).await?.ok_or_else(nobody)?;
    let confined = user.kind == UserKind::Service || ctx.caller().tenant().is_some();
    if confined && tx.find_member(tenant, id).await?.is_none() {
        return Err(nobody());
    }
    Ok(user)
}

/// The person with this address, made when it is new. Who is known keeps their name.
async fn person(ctx: &Ctx, tx: &mut WriteTx<SystemTx>, email: &str, name: &str) -> Result<User> {
    let email = users::address(email);
    if let Some(known) = tx.find_user_by_email(&email).await? {
        return Ok(known);
    }
    let user = User {
        id: UserId::generate(ctx.clock()),
        kind: UserKind::Person,
        email: Some(email),
        name: name.to_owned(),
        administrator: false,
        created_at: tx.at(),
    };
    tx.insert_user(&user, None).await.map_err(users::taken)?;
    Ok(user)
}
