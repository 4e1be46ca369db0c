//! Named SQL, the values it binds and the rows it answers.

use super::StoreError;

/// Whose rows a statement touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementKind {
    /// Rows of one tenant; the tenant's id is among the bound values.
    Tenant,
    /// Rows that belong to no tenant (the epoch, the change log's head); allowed in any context.
    Shared,
    /// Rows of any tenant; needs a system context.
    System,
}

/// One named SQL text. The dialect is the part both engines share: `$1`, `ON CONFLICT`,
/// `RETURNING`, CTEs and windows.
#[derive(Debug)]
pub struct Statement {
    name: &'static str,
    kind: StatementKind,
    sqlite: &'static str,
    postgres: &'static str,
}

impl Statement {
    /// A statement on the rows of one tenant. It must bind the tenant's id.
    pub const fn tenant(name: &'static str, sql: &'static str) -> Self {
        Self::by_engine(name, StatementKind::Tenant, sql, sql)
    }

    /// A statement on rows that belong to no tenant.
    pub const fn shared(name: &'static str, sql: &'static str) -> Self {
        Self::by_engine(name, StatementKind::Shared, sql, sql)
    }

    /// A statement over tenants; it runs in a system context only.
    pub const fn system(name: &'static str, sql: &'static str) -> Self {
        Self::by_engine(name, StatementKind::System, sql, sql)
    }

    /// A statement over tenants whose text differs: that for SQLite, then that for PostgreSQL.
    pub const fn system_by_engine(
        name: &'static str,
        (sqlite, postgres): (&'static str, &'static str),
    ) -> Self {
        Self::by_engine(name, StatementKind::System, sqlite, postgres)
    }

    /// A statement on the rows of one tenant whose text differs: that for SQLite, then that for
    /// PostgreSQL. It must bind the tenant's id.
    pub const fn tenant_by_engine(
        name: &'static str,
        (sqlite, postgres): (&'static str, &'static str),
    ) -> Self {
        Self::by_engine(name, StatementKind::Tenant, sqlite, postgres)
    }

    /// A statement on rows of no tenant whose text differs: that for SQLite, then that for
    /// PostgreSQL.
    pub const fn shared_by_engine(
        name: &'static str,
        (sqlite, postgres): (&'static str, &'static str),
    ) -> Self {
        Self::by_engine(name, StatementKind::Shared, sqlite, postgres)
    }

    /// One of the few statements whose text differs between the engines.
    pub const fn by_engine(
        name: &'static str,
        kind: StatementKind,
        sqlite: &'static str,
        postgres: &'static str,
    ) -> Self {
        Self { name, kind, sqlite, postgres }
    }

    /// The name used in errors, logs and plan snapshots.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whose rows it touches.
    pub const fn kind(&self) -> StatementKind {
        self.kind
    }

    /// The text for SQLite.
    pub const fn sqlite(&self) -> &'static str {
        self.sqlite
    }

    /// The text for PostgreSQL.
    pub const fn postgres(&self) -> &'static str {
        self.postgres
    }
}

/// A bound value. Times are integer milliseconds, booleans 0 or 1, JSON is text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// SQL `NULL`.
    Null,
    /// `BIGINT` or `INTEGER`.
    Int(i64),
    /// `TEXT`.
    Text(String),
    /// `BYTEA` or `BLOB`.
    Blob(Vec<u8>),
}

impl Value {
    /// The word for the value's kind in an error; the value itself may be confidential.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Int(_) => "an integer",
            Self::Text(_) => "text",
            Self::Blob(_) => "bytes",
        }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Blob(value.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Blob(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One answered row. Getters take the column's index from 0 and refuse another kind of value
/// with [`StoreError::Corrupt`].
#[derive(Debug)]
pub struct Row {
    statement: &'static str,
    values: Vec<Value>,
}

impl Row {
    pub(super) fn new(statement: &'static Statement, values: Vec<Value>) -> Self {
        Self { statement: statement.name, values }
    }

    /// The number of columns.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether the row has no column.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// An integer that is never null.
    pub fn int(&self, column: usize) -> Result<i64, StoreError> {
        match self.value(column)? {
            Value::Int(value) => Ok(*value),
            other => Err(self.mismatch(column, "an integer", other)),
        }
    }

    /// An integer or null.
    pub fn opt_int(&self, column: usize) -> Result<Option<i64>, StoreError> {
        match self.value(column)? {
            Value::Null => Ok(None),
            _ => self.int(column).map(Some),
        }
    }

    /// A boolean stored as 0 or 1.
    pub fn bool(&self, column: usize) -> Result<bool, StoreError> {
        match self.int(column)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.corrupt(column, format!("expected 0 or 1, found {other}"))),
        }
    }

    /// Text that is never null.
    pub fn text(&self, column: usize) -> Result<&str, StoreError> {
        match self.value(column)? {
            Value::Text(value) => Ok(value),
            other => Err(self.mismatch(column, "text", other)),
        }
    }

    /// Text or null.
    pub fn opt_text(&self, column: usize) -> Result<Option<&str>, StoreError> {
        match self.value(column)? {
            Value::Null => Ok(None),
            _ => self.text(column).map(Some),
        }
    }

    /// Bytes that are never null.
    pub fn blob(&self, column: usize) -> Result<&[u8], StoreError> {
        match self.value(column)? {
            Value::Blob(value) => Ok(value),
            other => Err(self.mismatch(column, "bytes", other)),
        }
    }

    /// Bytes or null.
    pub fn opt_blob(&self, column: usize) -> Result<Option<&[u8]>, StoreError> {
        match self.value(column)? {
            Value::Null => Ok(None),
            _ => self.blob(column).map(Some),
        }
    }

    /// The error of a caller that could not parse what the column holds.
    pub fn corrupt(&self, column: usize, problem: impl Into<String>) -> StoreError {
        StoreError::Corrupt { statement: self.statement, column, problem: problem.into() }
    }

    fn value(&self, column: usize) -> Result<&Value, StoreError> {
        self.values.get(column).ok_or_else(|| {
            self.corrupt(column, format!("the row has only {} columns", self.values.len()))
        })
    }

    fn mismatch(&self, column: usize, wanted: &str, found: &Value) -> StoreError {
        self.corrupt(column, format!("expected {wanted}, found {}", found.kind()))
    }
}
