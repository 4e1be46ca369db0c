//! The change log: what was touched in the authority to call, numbered in commit order.

use keyward_core::Timestamp;
use keyward_core::authority::Invalidation;

use crate::engine::{Conn, StoreError, Value};
use crate::sql::statements;
use crate::tx::SystemTx;

statements! {
    // the row stays locked until the commit, so epochs have no gaps and follow commit order
    ADVANCE_EPOCH = shared
        "UPDATE authority SET epoch = epoch + 1 WHERE singleton = 1 RETURNING epoch";
    APPEND_CHANGE = tenant
        "INSERT INTO changes (tenant_id, epoch, position, kind, subject, at)
         VALUES ($1, $2, $3, $4, $5, $6)";
    READ_EPOCH = shared "SELECT epoch, incarnation FROM authority WHERE singleton = 1";
}

/// Appends what a change touched and answers its epoch. The last statements of a transaction.
pub(crate) async fn append(
    conn: &mut Conn,
    chain: &str,
    invalidations: &[Invalidation],
    at: Timestamp,
) -> Result<i64, StoreError> {
    let epoch = conn.query_one(&ADVANCE_EPOCH, &[]).await?.int(0)?;
    for (position, invalidation) in (0_i64..).zip(invalidations) {
        let (kind, subject) = words(invalidation);
        let row = [
            Value::from(chain),
            Value::from(epoch),
            Value::from(position),
            Value::from(kind),
            Value::from(subject),
            Value::from(at.as_millis()),
        ];
        conn.execute(&APPEND_CHANGE, &row).await?;
    }
    Ok(epoch)
}

fn words(invalidation: &Invalidation) -> (&'static str, String) {
    match invalidation {
        Invalidation::Key(_, key) => ("key", key.to_string()),
        Invalidation::Member(_, user) => ("member", user.to_string()),
        Invalidation::Tenant(tenant) => ("tenant", tenant.to_string()),
        Invalidation::AdminToken(token) => ("admin_token", token.to_string()),
    }
}

impl SystemTx {
    /// The epoch of the newest change and the incarnation of the authority.
    pub async fn epoch(&mut self) -> Result<(i64, i64), StoreError> {
        let row = self.query_one(&READ_EPOCH, []).await?;
        Ok((row.int(0)?, row.int(1)?))
    }
}
