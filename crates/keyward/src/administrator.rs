//! Administrators of the deployment: people who may do everything.

use keyward_core::id::UserId;
use keyward_core::{Clock, Error, Result};
use keyward_store::{StoreError, SystemTx, User, UserKind, WriteTx};

/// Makes the person with this address an administrator, and the person if there is none yet.
pub(crate) async fn enter(
    tx: &mut WriteTx<SystemTx>,
    clock: &dyn Clock,
    email: &str,
    name: &str,
    password_hash: &str,
) -> Result<User> {
    let email = email.to_lowercase();
    if let Some(known) = tx.find_user_by_email(&email).await? {
        if known.administrator {
            return Err(Error::conflict(format!("{email} is an administrator already")));
        }
        tx.promote_user(known.id, password_hash).await?;
        return Ok(User { administrator: true, ..known });
    }
    let user = User {
        id: UserId::generate(clock),
        kind: UserKind::Person,
        email: Some(email),
        name: name.to_owned(),
        administrator: true,
        created_at: tx.at(),
    };
    tx.insert_user(&user, Some(password_hash)).await.map_err(taken)?;
    Ok(user)
}

/// Somebody got the address between the look and the insert.
fn taken(error: StoreError) -> Error {
    match error {
        StoreError::UniqueViolation { .. } => Error::conflict("The address is taken; try again"),
        other => other.into(),
    }
}
