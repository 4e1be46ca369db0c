//! Everything of Keyward that outlives a request: SQL, the change log, leases.

mod engine;

pub use engine::{
    BackupReport, Conn, Context, ContextKey, Engine, MAX_ROWS, Migration, Row, Statement,
    StatementKind, StoreConfig, StoreError, StoreLimits, Value, migrations, verify_backup,
};
