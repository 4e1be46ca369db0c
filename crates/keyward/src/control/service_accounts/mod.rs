//! Service accounts: users without a person, of one tenant.

mod create;
mod list;

use keyward_api::operation;

use super::mount::Mounts;

pub(super) fn mount(mounts: Mounts) -> Mounts {
    mounts
        .mount(&operation::CREATE_SERVICE_ACCOUNT, create::handle)
        .mount(&operation::LIST_SERVICE_ACCOUNTS, list::handle)
}
