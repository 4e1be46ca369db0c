//! Tenants.

mod create;
mod get;
mod list;
mod resume;
mod suspend;

use keyward_api::operation;
use keyward_api::tenants::{Tenant, TenantState};

use super::mount::Mounts;

pub(super) fn mount(mounts: Mounts) -> Mounts {
    mounts
        .mount(&operation::CREATE_TENANT, create::handle)
        .mount(&operation::LIST_TENANTS, list::handle)
        .mount(&operation::GET_TENANT, get::handle)
        .mount(&operation::SUSPEND_TENANT, suspend::handle)
        .mount(&operation::RESUME_TENANT, resume::handle)
}

/// The tenant as callers see it.
fn shown(tenant: &keyward_store::Tenant) -> Tenant {
    let state = match tenant.suspended_at {
        None => TenantState::Active,
        Some(_) => TenantState::Suspended,
    };
    Tenant {
        id: tenant.id,
        slug: tenant.slug.clone(),
        name: tenant.name.clone(),
        state,
        created_at: tenant.created_at,
        suspended_at: tenant.suspended_at,
        suspend_reason: tenant.suspend_reason.clone(),
    }
}
