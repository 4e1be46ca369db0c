//! The caller, and this API's own document.

mod openapi;
mod whoami;

use keyward_api::operation;

use super::mount::Mounts;

pub(super) fn mount(mounts: Mounts) -> Mounts {
    mounts.mount(&operation::WHOAMI, whoami::handle).mount(&operation::GET_OPENAPI, openapi::handle)
}
