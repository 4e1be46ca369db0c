//! The catalogue of the product, as configured.

mod list_roles;
mod list_routes;
mod list_scopes;
mod suggest;

use keyward_api::operation;

use super::mount::Mounts;

pub(super) fn mount(mounts: Mounts) -> Mounts {
    mounts
        .mount(&operation::LIST_SCOPES, list_scopes::handle)
        .mount(&operation::LIST_ROUTES, list_routes::handle)
        .mount(&operation::LIST_ROLES, list_roles::handle)
        .mount(&operation::SUGGEST_SCOPES, suggest::handle)
}
