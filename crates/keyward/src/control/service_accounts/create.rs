//! Create a service account: a user without a person and its membership.

use keyward_api::service_accounts::{CreateServiceAccount, ServiceAccount};
use keyward_core::authority::Invalidation;
use keyward_core::id::UserId;
use keyward_core::{Error, Result};
use keyward_store::{Chain, Change, User, UserKind};
use serde_json::json;

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;
use crate::control::members;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<CreateServiceAccount>) -> Result<Answer> {
    let tenant = ctx.tenant()?;
    members::grantable(&ctx, &body.role)?;
    let mut tx = ctx.write_system("make a service account", Chain::Tenant(tenant)).await?;
    if let Some(replay) = ctx.claim(&mut tx).await? {
        return Ok(replay);
    }
    let user = User {
        id: UserId::generate(ctx.clock()),
        kind: UserKind::Service,
        email: None,
        name: body.name,
        administrator: false,
        created_at: tx.at(),
    };
    tx.insert_user(&user, None).await?;
    if !tx.insert_member(tenant, user.id, &body.role, user.created_at).await? {
        return Err(Error::internal("a new user was a member already"));
    }
    let account = ServiceAccount {
        id: user.id,
        tenant_id: tenant,
        name: user.name,
        role: body.role,
        created_at: user.created_at,
        offboarded_at: None,
    };
    let change = Change::new((), ctx.audit(&account.id, json!({ "after": account })))
        .introducing(Invalidation::Member(tenant, account.id))
        .replayed_as(Answer::kept(&account)?);
    tx.finish(change).await?;
    Answer::json(&account)
}
