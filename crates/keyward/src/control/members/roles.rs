//! Which roles a caller may give and take: those of the profile, within the caller's own.

use keyward_api::scope::ManagementScope;
use keyward_core::catalog::Role;
use keyward_core::{Error, ErrorCode, Result};

use crate::control::context::Ctx;

/// Refuses a role that the profile does not have, or that allows more than the caller may.
pub(in crate::control) fn grantable(ctx: &Ctx, name: &str) -> Result<()> {
    let catalog = ctx.catalog();
    let Some(role) = catalog.role(name) else {
        let names: Vec<&str> = catalog.roles().iter().map(|role| role.name.as_str()).collect();
        let text = format!("There is no role {name:?}; this product has {}", names.join(", "));
        return Err(Error::validation("role", text).with("roles", names));
    };
    within_caller(ctx, role)
}

/// Refuses to act on or through a member whose role allows more than the caller may. A role that
/// the profile has dropped allows nothing.
pub(in crate::control) fn reachable(ctx: &Ctx, name: &str) -> Result<()> {
    ctx.catalog().role(name).map_or(Ok(()), |role| within_caller(ctx, role))
}

fn within_caller(ctx: &Ctx, role: &Role) -> Result<()> {
    // the operator is confined to no role
    let Some(own) = ctx.caller().role() else { return Ok(()) };
    let covers = |own: &Role| {
        let mut operations = ManagementScope::ALL.iter().map(|scope| scope.as_str());
        own.areas.contains_all(role.areas)
            && operations.all(|scope| own.may_use(scope) || !role.may_use(scope))
    };
    if ctx.catalog().role(own).is_some_and(covers) {
        return Ok(());
    }
    let text = format!("The role {} allows more than the role {own} of the caller", role.name);
    let error = Error::new(ErrorCode::RbacDenied, text).with("failed", "role");
    Err(error.with("role", own))
}
