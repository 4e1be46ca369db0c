//! Who is calling, and what they may do now.

use keyward_api::audit::Actor;
use keyward_api::scope::ManagementScope;
use keyward_api::whoami::Whoami;
use keyward_core::Result;

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let caller = ctx.caller();
    let profile = &ctx.state().product.profile;
    let all = ManagementScope::ALL.iter().copied();
    Answer::json(&Whoami {
        actor: Actor::new(&caller.actor()),
        tenant_id: caller.tenant(),
        scopes: all.filter(|scope| caller.may(*scope, ctx.catalog())).collect(),
        expires_at: caller.expires_at(),
        product: profile.title.clone(),
        tenant_label: profile.tenant.label.clone(),
    })
}
