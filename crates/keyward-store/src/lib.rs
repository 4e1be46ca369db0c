//! Everything of Keyward that outlives a request: SQL, the change log, leases.

mod engine;
mod sql;
mod store;
mod tx;
mod write;

pub use engine::{
    BackupReport, Conn, Context, ContextKey, DatabaseRole, Engine, Hints, Listen, MAX_ROWS,
    Migration, Pooler, Reached, Restored, RoleCheck, Row, SchemaStatus, Staged, Statement,
    StatementKind, StoreConfig, StoreError, StoreLimits, StoreRoles, Value, back_up, check_role,
    migrations, schema_status, snapshot, unpack_backup, verify_backup,
};
pub use sql::admin_tokens::AdminToken;
pub use sql::all_statements;
pub use sql::audit::AuditFilter;
pub use sql::idempotency::{Claim, IDEMPOTENCY_LIFETIME_MS, Idempotency};
pub use sql::keys::{ExposedKey, KeyFilter, LastUse, StoredKey};
pub use sql::members::{Member, OwnedKeys};
pub use sql::nodes::NodeRow;
pub use sql::read::LoadPage;
pub use sql::restore::{ChainHead, LoggedChange};
pub use sql::tenants::Tenant;
pub use sql::users::{User, UserKind};
pub use store::{Chain, CommitHook, Store};
pub use tx::{SystemTx, TenantTx, Transaction};
pub use write::{Author, Change, Committed, DEFAULT_PATIENCE, WriteTx};

impl From<StoreError> for keyward_core::Error {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::Unavailable(_)
            | StoreError::Busy(_)
            | StoreError::Timeout { .. }
            | StoreError::Conflict(_)
            | StoreError::StorageFull(_) => Self::new(
                keyward_core::ErrorCode::Unavailable,
                "The store cannot take this now; nothing was changed, try again shortly",
            )
            .because(text),
            StoreError::CommitUnknown(_) => Self::new(
                keyward_core::ErrorCode::Unavailable,
                "The connection to the store broke while saving; look whether it was done before \
                 you try again",
            )
            .because(text),
            _ => Self::internal(text),
        }
    }
}
