//! The log of lowered authority.

mod export;

use keyward_api::operation;

use super::mount::Mounts;

pub(super) fn mount(mounts: Mounts) -> Mounts {
    mounts.mount(&operation::EXPORT_REVOCATIONS, export::handle)
}
