//! The audit trail of a tenant.

mod get;
mod list;
mod verify;

use keyward_api::operation;

pub(crate) use list::page;

use super::mount::Mounts;

pub(super) fn mount(mounts: Mounts) -> Mounts {
    mounts
        .mount(&operation::LIST_AUDIT_EVENTS, list::handle)
        .mount(&operation::GET_AUDIT_EVENT, get::handle)
        .mount(&operation::VERIFY_AUDIT_CHAIN, verify::handle)
}
