//! Members: users with a role in a tenant.

mod add;
mod change_role;
mod get;
mod list;
mod offboard;
pub(in crate::control) mod roles;

use keyward_api::members::Member;
use keyward_api::operation;
use keyward_core::id::UserId;
use keyward_core::{Error, Result};
use keyward_store::{TenantTx, WriteTx};

pub(super) use roles::grantable;

use super::context::Ctx;
use super::mount::Mounts;
use super::users;

pub(super) fn mount(mounts: Mounts) -> Mounts {
    mounts
        .mount(&operation::ADD_MEMBER, add::handle)
        .mount(&operation::LIST_MEMBERS, list::handle)
        .mount(&operation::GET_MEMBER, get::handle)
        .mount(&operation::CHANGE_MEMBER_ROLE, change_role::handle)
        .mount(&operation::OFFBOARD_MEMBER, offboard::handle)
}

/// The membership as callers see it.
fn shown(member: &keyward_store::Member) -> Member {
    Member {
        user_id: member.user,
        kind: users::kind(member.kind),
        email: member.email.clone(),
        name: member.name.clone(),
        role: member.role.clone(),
        added_at: member.created_at,
        offboarded_at: member.offboarded_at,
    }
}

/// The member in the path, for a change: one who has not left and whose role is not beyond the
/// caller's.
async fn find(ctx: &Ctx, tx: &mut WriteTx<TenantTx>) -> Result<keyward_store::Member> {
    let id: UserId = ctx.parameter("userId", "member")?;
    let member = tx.find_member(id).await?.filter(|member| member.offboarded_at.is_none());
    let member = member.ok_or_else(|| Error::not_found("member"))?;
    roles::reachable(ctx, &member.role)?;
    Ok(member)
}
