//! The first administrator.

mod complete;

use keyward_api::operation;

use super::mount::Mounts;

pub(super) fn mount(mounts: Mounts) -> Mounts {
    mounts.mount(&operation::COMPLETE_SETUP, complete::handle)
}
