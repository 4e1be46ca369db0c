//! The nodes of the deployment, and how far changes have reached them.

mod change;
mod list;

use keyward_api::operation;

use super::mount::Mounts;

pub(super) fn mount(mounts: Mounts) -> Mounts {
    mounts
        .mount(&operation::LIST_NODES, list::handle)
        .mount(&operation::GET_CHANGE, change::of_anybody)
        .mount(&operation::GET_TENANT_CHANGE, change::of_tenant)
}
