//! Users: people, known to the whole deployment.

mod create;
mod get;
mod list;

use keyward_api::operation;
use keyward_api::users::{User, UserKind};
use keyward_core::Error;
use keyward_store::StoreError;

use super::mount::Mounts;

pub(super) fn mount(mounts: Mounts) -> Mounts {
    mounts
        .mount(&operation::CREATE_USER, create::handle)
        .mount(&operation::LIST_USERS, list::handle)
        .mount(&operation::GET_USER, get::handle)
}

/// The user as callers see it.
pub(super) fn shown(user: &keyward_store::User) -> User {
    User {
        id: user.id,
        kind: kind(user.kind),
        email: user.email.clone(),
        name: user.name.clone(),
        created_at: user.created_at,
    }
}

/// The kind of user as callers see it.
pub(super) const fn kind(kind: keyward_store::UserKind) -> UserKind {
    match kind {
        keyward_store::UserKind::Person => UserKind::Person,
        keyward_store::UserKind::Service => UserKind::Service,
    }
}

/// An address as it is stored: people write their own in more than one way.
pub(super) fn address(email: &str) -> String {
    email.to_lowercase()
}

/// The refusal of an address that somebody has.
pub(super) fn taken(error: StoreError) -> Error {
    match error {
        StoreError::UniqueViolation { .. } => {
            Error::conflict("There is a user with this address").with("field", "email")
        }
        other => other.into(),
    }
}
