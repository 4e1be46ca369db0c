//! Setup links: the single-use way to the first administrator.

use keyward_core::Timestamp;
use keyward_core::id::SetupLinkId;

use crate::engine::{StoreError, Value};
use crate::sql::{read::parsed, statements};
use crate::tx::SystemTx;

statements! {
    INSERT = system "INSERT INTO setup_links (setup_link_id, hash, created_at, expires_at)
         VALUES ($1, $2, $3, $4)";
    // the condition makes the link single-use also between two callers at once
    USE = system "UPDATE setup_links SET used_at = $2
         WHERE hash = $1 AND used_at IS NULL AND expires_at > $2";
    FIND = system "SELECT setup_link_id FROM setup_links
         WHERE hash = $1 AND used_at IS NULL AND expires_at > $2";
    VOID = system "UPDATE setup_links SET used_at = $1 WHERE used_at IS NULL";
}

impl SystemTx {
    /// Adds a link; earlier ones become void.
    pub async fn insert_setup_link(
        &mut self,
        id: SetupLinkId,
        hash: &[u8; 32],
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.execute(&VOID, [Value::from(now.as_millis())]).await?;
        let values = [
            Value::from(id.to_string()),
            Value::from(&hash[..]),
            Value::from(now.as_millis()),
            Value::from(expires_at.as_millis()),
        ];
        self.execute(&INSERT, values).await.map(drop)
    }

    /// The link that could be used now, without using it up.
    pub async fn find_setup_link(
        &mut self,
        hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<SetupLinkId>, StoreError> {
        let values = [Value::from(&hash[..]), Value::from(now.as_millis())];
        let row = self.query_opt(&FIND, values).await?;
        row.as_ref().map(|row| parsed(row, 0)).transpose()
    }

    /// Uses up a link; `false` when it is unknown, used or too old.
    pub async fn use_setup_link(
        &mut self,
        hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let values = [Value::from(&hash[..]), Value::from(now.as_millis())];
        Ok(self.execute(&USE, values).await? == 1)
    }
}
