//! What a restore from a backup needs: the log of what changed, and the taking away by it.

use keyward_core::Timestamp;
use keyward_core::authority::Invalidation;
use keyward_core::id::{AdminTokenId, KeyId, TenantId};
use keyward_core::key::ApiKey;

use crate::engine::{Row, StoreError, Value};
use crate::sql::changes;
use crate::sql::read::{hash, json_list, parsed};
use crate::sql::statements;
use crate::store::Store;
use crate::tx::SystemTx;
use crate::tx::sealed::Connected as _;

statements! {
    // whole epochs: a part that ended within one could not be gone on from
    CHANGES = system "SELECT tenant_id, kind, subject, epoch FROM changes WHERE epoch > $1
           AND epoch <= (SELECT MAX(epoch) FROM (
             SELECT epoch FROM changes WHERE epoch > $1 ORDER BY epoch LIMIT $2) AS part)
         ORDER BY epoch, position";
    RESTORE_AUTHORITY = shared "UPDATE authority
         SET epoch = CASE WHEN epoch < $1 THEN $1 ELSE epoch END,
             incarnation = CASE WHEN incarnation < $2 THEN $2 ELSE incarnation + 1 END,
             timeline = NULL
         WHERE singleton = 1 RETURNING epoch, incarnation";
    END_OF_BATCH = system "SELECT MAX(key_id) FROM (
           SELECT key_id FROM api_keys WHERE key_id > $1 ORDER BY key_id LIMIT $2) AS part";
    SUSPECT = system "UPDATE api_keys SET suspect_since = $1
         WHERE key_id > $2 AND key_id <= $3 AND suspect_since IS NULL AND revoked_at IS NULL
           AND (expires_at IS NULL OR expires_at > $1)";
    REVOKE_ADMIN_TOKENS = system "UPDATE admin_tokens SET revoked_at = $1
         WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)";
    LOWER_ADMIN_TOKEN = system "UPDATE admin_tokens SET expires_at = $2, scopes = $3
         WHERE admin_token_id = $1";
    CHAINS = system "SELECT tenant_id, sequence, hash FROM audit_heads WHERE tenant_id > $1
         ORDER BY tenant_id LIMIT $2";
    HEADLESS = system "SELECT tenant_id FROM audit_events AS event
         WHERE NOT EXISTS (SELECT 1 FROM audit_heads AS head
                           WHERE head.tenant_id = event.tenant_id)
         UNION SELECT tenant_id FROM tenants
         WHERE NOT EXISTS (SELECT 1 FROM audit_heads AS head
                           WHERE head.tenant_id = tenants.tenant_id)
         LIMIT 1";
}

/// Keys that are made suspect with one statement.
const BATCH: u32 = 5_000;

/// One entry of the change log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedChange {
    /// The number of the change.
    pub epoch: i64,
    /// What it touched.
    pub touched: Invalidation,
}

/// The newest event of an audit chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// The name of the chain: a tenant's id, or `operator`.
    pub chain: String,
    /// The place of the event.
    pub sequence: i64,
    /// The hash of the event.
    pub hash: [u8; 32],
}

fn change_of(row: &Row) -> Result<LoggedChange, StoreError> {
    let touched = match row.text(1)? {
        "key" => Invalidation::Key(parsed(row, 0)?, parsed(row, 2)?),
        "member" => Invalidation::Member(parsed(row, 0)?, parsed(row, 2)?),
        "tenant" => Invalidation::Tenant(parsed::<TenantId>(row, 2)?),
        "admin_token" => Invalidation::AdminToken(parsed(row, 2)?),
        _ => return Err(row.corrupt(1, "not a kind of change")),
    };
    Ok(LoggedChange { epoch: row.int(3)?, touched })
}

impl SystemTx {
    /// What was touched behind an epoch, in commit order: at least `limit` entries if there are
    /// so many, and the rest of the last one's epoch.
    pub async fn changes_behind(
        &mut self,
        epoch: i64,
        limit: u32,
    ) -> Result<Vec<LoggedChange>, StoreError> {
        let values = [Value::from(epoch), Value::from(limit)];
        self.query(&CHANGES, values).await?.iter().map(change_of).collect()
    }

    /// A key of any tenant.
    pub async fn find_any_key(&mut self, key: KeyId) -> Result<Option<ApiKey>, StoreError> {
        Ok(self.find_stored_key(key).await?.map(|stored| stored.key))
    }

    /// Begins another history of the authority, as every restore must: no node goes on with what it
    /// knows from the one before. The epoch rises to `least_epoch` at least, so that it goes back
    /// for nobody, and the incarnation to `at` in milliseconds, so that two restores of the same
    /// backup differ. Answers both.
    pub async fn begin_incarnation(
        &mut self,
        least_epoch: i64,
        at: Timestamp,
    ) -> Result<(i64, i64), StoreError> {
        changes::exclude(self.conn()).await?;
        let values = [Value::from(least_epoch), Value::from(at.as_millis())];
        let row = self.query_one(&RESTORE_AUTHORITY, values).await?;
        Ok((row.int(0)?, row.int(1)?))
    }

    /// Makes every active key suspect that is not yet; answers how many.
    pub async fn suspect_all_keys(&mut self, at: Timestamp) -> Result<u64, StoreError> {
        let (mut begin, mut suspected) = (String::new(), 0);
        loop {
            let values = [Value::from(begin.as_str()), Value::from(BATCH)];
            let row = self.query_one(&END_OF_BATCH, values).await?;
            let Some(end) = row.opt_text(0)? else { return Ok(suspected) };
            let values = [at.as_millis().into(), begin.as_str().into(), Value::from(end)];
            suspected += self.execute(&SUSPECT, values).await?;
            end.clone_into(&mut begin);
        }
    }

    /// Revokes every admin token that works; answers how many.
    pub async fn revoke_admin_tokens(&mut self, at: Timestamp) -> Result<u64, StoreError> {
        self.execute(&REVOKE_ADMIN_TOKENS, [Value::from(at.as_millis())]).await
    }

    /// Gives an admin token another end and other scopes.
    pub async fn lower_admin_token(
        &mut self,
        id: AdminTokenId,
        expires_at: Option<Timestamp>,
        scopes: &[String],
    ) -> Result<(), StoreError> {
        let values = [
            Value::from(id.to_string()),
            Value::from(expires_at.map(Timestamp::as_millis)),
            Value::from(json_list(scopes)),
        ];
        self.execute(&LOWER_ADMIN_TOKEN, values).await.map(drop)
    }

    /// A page of the audit chains, in the order of their names and behind `after`.
    pub async fn audit_chains(
        &mut self,
        after: &str,
        limit: u32,
    ) -> Result<Vec<ChainHead>, StoreError> {
        let rows = self.query(&CHAINS, [Value::from(after), Value::from(limit)]).await?;
        let head = |row: &Row| {
            let (chain, sequence) = (row.text(0)?.to_owned(), row.int(1)?);
            Ok(ChainHead { chain, sequence, hash: hash(row, 2)? })
        };
        rows.iter().map(head).collect()
    }

    /// A chain that has lost its head, if there is one.
    pub async fn headless_chain(&mut self) -> Result<Option<String>, StoreError> {
        let row = self.query_opt(&HEADLESS, []).await?;
        row.map(|row| row.text(0).map(str::to_owned)).transpose()
    }
}

impl Store {
    /// Enters the history of a server that was recovered or promoted, as the first node to start
    /// on it would; before that nothing can be changed.
    pub async fn enter_history(&self) -> Result<(), StoreError> {
        let mut tx = self.read_system("compare the history of the server").await?;
        let history = tx.history().await?;
        drop(tx);
        match history {
            Ok(_) => Ok(()),
            Err(timeline) => self.adopt(timeline).await,
        }
    }

    /// Closes every connection and returns when the database is free for another process, or at
    /// once when the store is still held elsewhere.
    pub async fn close(self) {
        if let Some(engine) = self.into_engine() {
            engine.close().await;
        }
    }
}
