//! Create a tenant.

use keyward_api::tenants::CreateTenant;
use keyward_core::authority::Invalidation;
use keyward_core::id::TenantId;
use keyward_core::{Error, Result};
use keyward_store::{Chain, Change, StoreError, Tenant};
use serde_json::json;

use super::shown;
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<CreateTenant>) -> Result<Answer> {
    let mut tx = ctx.write_system("make a tenant", Chain::Operator).await?;
    if let Some(replay) = ctx.claim(&mut tx).await? {
        return Ok(replay);
    }
    let tenant = Tenant {
        id: TenantId::generate(ctx.clock()),
        slug: body.slug,
        name: body.name,
        created_at: tx.at(),
        suspended_at: None,
        suspend_reason: None,
    };
    tx.insert_tenant(&tenant).await.map_err(|e| taken(e, &tenant.slug))?;
    // the tenant's own audit trail begins with its creation
    tx.enter_in(Chain::Tenant(tenant.id));
    let shown = shown(&tenant);
    let change = Change::new((), ctx.audit(&tenant.id, json!({ "after": shown })))
        .introducing(Invalidation::Tenant(tenant.id))
        .replayed_as(Answer::kept(&shown)?);
    tx.finish(change).await?;
    Answer::json(&shown)
}

fn taken(error: StoreError, slug: &str) -> Error {
    match error {
        StoreError::UniqueViolation { .. } => {
            let text = format!("The slug {slug} is taken; choose another one");
            Error::conflict(text).with("field", "slug")
        }
        other => other.into(),
    }
}
