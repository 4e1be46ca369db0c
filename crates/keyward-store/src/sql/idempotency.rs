//! Idempotency records of Keyward's own operations: at most one effect per key.

use keyward_core::Timestamp;
use keyward_core::time::DAY_MS;

use crate::engine::{Conn, Sent, StoreError, Value};
use crate::sql::statements;
use crate::tx::SystemTx;

/// Milliseconds for which a key is remembered.
pub const IDEMPOTENCY_LIFETIME_MS: i64 = DAY_MS;
/// Records removed at a time.
const PURGE_BATCH: i64 = 1_000;

/// A request that carries an idempotency key.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// Who sent it.
    pub principal: String,
    /// The operation's id.
    pub operation: &'static str,
    /// The key.
    pub key: String,
    /// SHA-256 over method, path, query and body.
    pub fingerprint: [u8; 32],
}

/// What came of taking an idempotency key.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is new: the work goes on.
    Fresh,
    /// The same request was done; answer this body.
    Replay(String),
    /// The key was used for another request.
    Reused,
}

statements! {
    // an expired record is taken over as if it were not there
    CLAIM = tenant
        "INSERT INTO idempotency_records (tenant_id, principal, operation, idempotency_key,
           fingerprint, body, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, NULL, $6, $7)
         ON CONFLICT (tenant_id, principal, operation, idempotency_key) DO UPDATE
           SET fingerprint = excluded.fingerprint, body = NULL,
               created_at = excluded.created_at, expires_at = excluded.expires_at
           WHERE idempotency_records.expires_at <= excluded.created_at";
    FIND = tenant
        "SELECT fingerprint, body FROM idempotency_records
         WHERE tenant_id = $1 AND principal = $2 AND operation = $3 AND idempotency_key = $4";
    COMPLETE = tenant
        "UPDATE idempotency_records SET body = $5
         WHERE tenant_id = $1 AND principal = $2 AND operation = $3 AND idempotency_key = $4";
    PURGE = system
        "DELETE FROM idempotency_records WHERE (tenant_id, principal, operation, idempotency_key) IN
           (SELECT tenant_id, principal, operation, idempotency_key FROM idempotency_records
            WHERE expires_at <= $1 LIMIT $2)";
}

fn identity(chain: &str, idempotency: &Idempotency) -> [Value; 4] {
    [
        Value::from(chain),
        Value::from(idempotency.principal.as_str()),
        Value::from(idempotency.operation),
        Value::from(idempotency.key.as_str()),
    ]
}

pub(crate) async fn claim(
    conn: &mut Conn,
    chain: &str,
    idempotency: &Idempotency,
    now: Timestamp,
) -> Result<Claim, StoreError> {
    let mut row = identity(chain, idempotency).to_vec();
    row.push(Value::from(&idempotency.fingerprint[..]));
    row.push(Value::from(now.as_millis()));
    row.push(Value::from(now.plus_ms(IDEMPOTENCY_LIFETIME_MS).as_millis()));
    if conn.execute(&CLAIM, &row).await? == 1 {
        return Ok(Claim::Fresh);
    }
    let found = conn.query_one(&FIND, &identity(chain, idempotency)).await?;
    if found.blob(0)? != idempotency.fingerprint {
        return Ok(Claim::Reused);
    }
    let body = found.opt_text(1)?.unwrap_or("null");
    Ok(Claim::Replay(body.to_owned()))
}

/// What keeps the body that is answered when the key comes again.
pub(crate) fn completing(chain: &str, idempotency: &Idempotency, body: &str) -> Sent {
    let mut row = identity(chain, idempotency).to_vec();
    row.push(Value::from(body));
    (&COMPLETE, row)
}

impl SystemTx {
    /// Forgets keys whose time is over, some at a time; answers how many.
    pub(crate) async fn purge_idempotency(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        self.execute(&PURGE, [Value::from(now.as_millis()), Value::from(PURGE_BATCH)]).await
    }
}
