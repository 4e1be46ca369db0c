//! What can go wrong in the store, in words that name no engine.

/// A failure of the store. Texts are for the operator and the log, never for a caller of the API.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or the connection broke before the commit was sent.
    /// Nothing was written.
    #[error("the database cannot be reached: {0}")]
    Unavailable(String),

    /// No connection or lock came free within the wait limit. Nothing was written; a retry may
    /// succeed.
    #[error("the database is busy: {0}")]
    Busy(String),

    /// One statement ran longer than the statement limit and was stopped.
    #[error("statement `{statement}` was stopped at its time limit")]
    Timeout {
        /// The name of the statement.
        statement: &'static str,
    },

    /// A deadlock or serialization failure; the transaction may be run again from its start.
    #[error("the transaction collided with another one: {0}")]
    Conflict(String),

    /// A unique or primary key already holds the value.
    #[error("unique constraint `{constraint}` is violated")]
    UniqueViolation {
        /// `{table}_{columns joined by _}_key`, or `{table}_pkey`: the same on every engine when
        /// unique indexes are named so.
        constraint: String,
    },

    /// The row refers to one that is not there, or is still referred to.
    #[error("a foreign key is violated")]
    ForeignKeyViolation,

    /// A `NOT NULL` or `CHECK` rule refused the row.
    #[error("a column rule is violated: {0}")]
    RuleViolation(String),

    /// A newer binary has migrated this database; this one leaves it untouched.
    #[error(
        "the database has schema {found}, this binary knows schema {known}: start the newer \
         binary, or restore the backup made before the migration"
    )]
    NewerSchema {
        /// The version found in the database.
        found: u32,
        /// The newest version this binary knows.
        known: u32,
    },

    /// The disk or the database's quota is full. Nothing was written.
    #[error("the storage is full: {0}")]
    StorageFull(String),

    /// A stored value has not the shape its statement declares.
    #[error("statement `{statement}`, column {column}: {problem}")]
    Corrupt {
        /// The name of the statement.
        statement: &'static str,
        /// The column's index in the row, from 0.
        column: usize,
        /// What was found.
        problem: String,
    },

    /// Start-up is refused and the text names the fix; or, while running, the database refused
    /// the statement to this role or tenant context.
    #[error("{0}")]
    Refused(String),

    /// The connection broke while the commit was on its way: it may or may not have happened.
    #[error("the outcome of the commit is unknown: {0}")]
    CommitUnknown(String),

    /// A defect of the program or an unforeseen answer of the database.
    #[error("{0}")]
    Internal(String),
}

impl StoreError {
    /// Whether the same work may succeed when it is simply run again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy(_) | Self::Conflict(_))
    }
}
