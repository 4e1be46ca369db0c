//! Administrators of the deployment: people who may do everything.

use keyward_api::audit::AuditAction;
use keyward_core::audit::{Actor, ActorKind, AuditEntry, AuditOutcome, Origin};
use keyward_core::id::UserId;
use keyward_core::{Clock, Result};
use keyward_store::{Author, Chain, Change, Store, SystemTx, User, UserKind, WriteTx};
use serde_json::json;

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
    tx.insert_user(&user, Some(password_hash)).await?;
    Ok(user)
}

/// The same as a change of its own, made by a command or at start.
pub(crate) async fn create(
    store: &Store,
    by: &str,
    email: &str,
    name: &str,
    password_hash: &str,
) -> Result<User> {
    let reason = "make an administrator";
    let mut tx = store.write_system(reason, Chain::Operator, system_author(by)).await?;
    let clock = std::sync::Arc::clone(store.clock());
    let user = enter(&mut tx, &*clock, email, name, password_hash).await?;
    let action = AuditAction::AdministratorCreated;
    let entry = AuditEntry {
        action: action.as_str(),
        target_kind: action.target_kind(),
        target_id: user.id.to_string(),
        outcome: AuditOutcome::Succeeded,
        details: json!({ "after": { "email": user.email, "name": user.name } }),
    };
    tx.finish(Change::new((), entry)).await?;
    Ok(user)
}

/// The author of what Keyward does by itself or for a command on the data directory.
pub(crate) fn system_author(name: &str) -> Author {
    let name = name.to_owned();
    let actor = Actor { kind: ActorKind::System, id: "-".to_owned(), name, role: None };
    Author { actor, origin: Origin::default() }
}
