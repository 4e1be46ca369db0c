//! List the product's roles.

use keyward_api::catalog::CatalogRole;
use keyward_api::page::Listing;
use keyward_core::Result;

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let catalog = ctx.catalog();
    let data = catalog.roles().iter().map(|role| CatalogRole::new(role, catalog)).collect();
    Answer::json(&Listing { data })
}
