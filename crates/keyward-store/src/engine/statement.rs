//! Named SQL and the values it binds.

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
