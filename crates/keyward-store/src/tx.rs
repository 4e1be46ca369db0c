//! Transactions with the tenant bound once. The statements stand in `sql/`.

use keyward_core::id::TenantId;

use crate::engine::{Conn, Row, Statement, StoreError, Value};

/// A transaction on the rows of one tenant.
///
/// Every statement run through it gets the tenant's id as `$1`; no caller can leave it out.
pub struct TenantTx {
    conn: Conn,
    tenant: TenantId,
    name: String,
}

/// A transaction over tenants.
pub struct SystemTx {
    conn: Conn,
}

/// What a change can be made through: [`TenantTx`] or [`SystemTx`].
pub trait Transaction: sealed::Connected + Send + 'static {}

impl Transaction for TenantTx {}
impl Transaction for SystemTx {}

pub(crate) mod sealed {
    use crate::engine::Conn;

    /// Access to the connection, for the parts that every change has. Sealed, so that nothing
    /// outside can commit past the one write path.
    pub trait Connected {
        fn into_conn(self) -> Conn;
        fn conn(&mut self) -> &mut Conn;
    }

    impl Connected for super::TenantTx {
        fn into_conn(self) -> Conn {
            self.conn
        }
        fn conn(&mut self) -> &mut Conn {
            &mut self.conn
        }
    }

    impl Connected for super::SystemTx {
        fn into_conn(self) -> Conn {
            self.conn
        }
        fn conn(&mut self) -> &mut Conn {
            &mut self.conn
        }
    }
}

impl TenantTx {
    pub(crate) const fn new(conn: Conn, tenant: TenantId, name: String) -> Self {
        Self { conn, tenant, name }
    }

    /// The tenant this transaction is bound to.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    pub(crate) async fn query<const N: usize>(
        &mut self,
        statement: &'static Statement,
        values: [Value; N],
    ) -> Result<Vec<Row>, StoreError> {
        let bound = self.bind(values);
        self.conn.query(statement, &bound).await
    }

    pub(crate) async fn query_opt<const N: usize>(
        &mut self,
        statement: &'static Statement,
        values: [Value; N],
    ) -> Result<Option<Row>, StoreError> {
        let bound = self.bind(values);
        self.conn.query_opt(statement, &bound).await
    }

    pub(crate) async fn execute<const N: usize>(
        &mut self,
        statement: &'static Statement,
        values: [Value; N],
    ) -> Result<u64, StoreError> {
        let bound = self.bind(values);
        self.conn.execute(statement, &bound).await
    }

    fn bind<const N: usize>(&self, values: [Value; N]) -> Vec<Value> {
        std::iter::once(Value::from(self.name.as_str())).chain(values).collect()
    }
}

impl SystemTx {
    pub(crate) const fn new(conn: Conn) -> Self {
        Self { conn }
    }

    pub(crate) async fn query<const N: usize>(
        &mut self,
        statement: &'static Statement,
        values: [Value; N],
    ) -> Result<Vec<Row>, StoreError> {
        self.conn.query(statement, &values).await
    }

    pub(crate) async fn query_opt<const N: usize>(
        &mut self,
        statement: &'static Statement,
        values: [Value; N],
    ) -> Result<Option<Row>, StoreError> {
        self.conn.query_opt(statement, &values).await
    }

    pub(crate) async fn query_one<const N: usize>(
        &mut self,
        statement: &'static Statement,
        values: [Value; N],
    ) -> Result<Row, StoreError> {
        self.conn.query_one(statement, &values).await
    }

    pub(crate) async fn execute<const N: usize>(
        &mut self,
        statement: &'static Statement,
        values: [Value; N],
    ) -> Result<u64, StoreError> {
        self.conn.execute(statement, &values).await
    }
}
