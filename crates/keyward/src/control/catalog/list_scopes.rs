//! List the product's scopes.

use keyward_api::catalog::{CatalogScope, CatalogScopes};
use keyward_core::Result;

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let data = ctx.catalog().scopes().iter().map(CatalogScope::new).collect();
    let demo_scopes = ctx.state().product.profile.keys.demo_scopes.clone();
    Answer::json(&CatalogScopes { data, demo_scopes })
}
