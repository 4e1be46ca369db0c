//! Memberships: which role a user has in a tenant.

use keyward_core::Timestamp;
use keyward_core::id::{TenantId, UserId};

use crate::engine::{Row, StoreError, Value};
use crate::sql::read::{instant, opt_instant, parsed};
use crate::sql::statements;
use crate::sql::users::UserKind;
use crate::tx::{SystemTx, TenantTx};

macro_rules! select {
    () => {
        "SELECT m.user_id, u.kind, u.email, u.name, m.role, m.created_at, m.offboarded_at
         FROM memberships m JOIN users u ON u.user_id = m.user_id WHERE m.tenant_id = $1"
    };
}

statements! {
    // somebody who left and comes back takes the old row over
    INSERT = tenant
        "INSERT INTO memberships (tenant_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id, user_id) DO UPDATE
           SET role = excluded.role, created_at = excluded.created_at, offboarded_at = NULL
           WHERE memberships.offboarded_at IS NOT NULL";
    SET_ROLE = tenant "UPDATE memberships SET role = $3
         WHERE tenant_id = $1 AND user_id = $2 AND offboarded_at IS NULL";
    OFFBOARD = tenant "UPDATE memberships SET offboarded_at = $3
         WHERE tenant_id = $1 AND user_id = $2 AND offboarded_at IS NULL";
    ROLE = tenant "SELECT role FROM memberships
         WHERE tenant_id = $1 AND user_id = $2 AND offboarded_at IS NULL";
    FIND = tenant concat!(select!(), " AND m.user_id = $2");
    PAGE = tenant concat!(select!(), "
         AND (CAST($2 AS BIGINT) IS NULL OR (m.created_at, m.user_id) < ($2, $3))
         AND (CAST($4 AS TEXT) IS NULL OR u.kind = $4)
         ORDER BY m.created_at DESC, m.user_id DESC LIMIT $5");
    OWNED_KEYS = tenant
        "SELECT COUNT(*) FILTER (WHERE revoked_at IS NULL
                  AND (expires_at IS NULL OR expires_at > $3)),
                COUNT(*) FILTER (WHERE revoked_at IS NULL
                  AND (expires_at IS NULL OR expires_at > $3) AND last_used_at >= $4),
                COUNT(*) FILTER (WHERE revoked_at IS NULL AND expires_at <= $3),
                COUNT(*) FILTER (WHERE revoked_at IS NOT NULL)
         FROM api_keys WHERE tenant_id = $1 AND owner_id = $2 AND deleted_at IS NULL";
}

/// A user in a tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The user.
    pub user: UserId,
    /// Person or service account.
    pub kind: UserKind,
    /// The address of a person.
    pub email: Option<String>,
    /// The name for people.
    pub name: String,
    /// A role of the profile.
    pub role: String,
    /// Since when.
    pub created_at: Timestamp,
    /// When they left.
    pub offboarded_at: Option<Timestamp>,
}

/// How many keys a member owns. Deleted ones do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnedKeys {
    /// Keys that work.
    pub active: i64,
    /// Those of them that were used since the instant asked about.
    pub used: i64,
    /// Keys whose time has run out.
    pub expired: i64,
    /// Keys that were revoked.
    pub revoked: i64,
}

fn member_of(row: &Row) -> Result<Member, StoreError> {
    Ok(Member {
        user: parsed(row, 0)?,
        kind: UserKind::from_word(row.text(1)?)
            .ok_or_else(|| row.corrupt(1, "not a kind of user"))?,
        email: row.opt_text(2)?.map(str::to_owned),
        name: row.text(3)?.to_owned(),
        role: row.text(4)?.to_owned(),
        created_at: instant(row, 5)?,
        offboarded_at: opt_instant(row, 6)?,
    })
}

impl TenantTx {
    /// The role of a user who has not left.
    pub async fn role_of(&mut self, user: UserId) -> Result<Option<String>, StoreError> {
        let row = self.query_opt(&ROLE, [Value::from(user.to_string())]).await?;
        row.map(|row| row.text(0).map(str::to_owned)).transpose()
    }

    /// A member, also one who has left.
    pub async fn find_member(&mut self, user: UserId) -> Result<Option<Member>, StoreError> {
        let row = self.query_opt(&FIND, [Value::from(user.to_string())]).await?;
        row.as_ref().map(member_of).transpose()
    }

    /// A page of the members, also those who have left, newest first and behind `before` (when it
    /// began, and whose it is); of one kind, if one is named.
    pub async fn members(
        &mut self,
        kind: Option<UserKind>,
        before: Option<(Timestamp, UserId)>,
        limit: u32,
    ) -> Result<Vec<Member>, StoreError> {
        let values = [
            Value::from(before.map(|(at, _)| at.as_millis())),
            Value::from(before.map(|(_, user)| user.to_string())),
            Value::from(kind.map(UserKind::as_str)),
            Value::from(limit),
        ];
        self.query(&PAGE, values).await?.iter().map(member_of).collect()
    }

    /// How many keys a member owns at `now`, and how many of them were used since `used_since`.
    pub async fn owned_keys(
        &mut self,
        user: UserId,
        now: Timestamp,
        used_since: Timestamp,
    ) -> Result<OwnedKeys, StoreError> {
        let values = [
            Value::from(user.to_string()),
            Value::from(now.as_millis()),
            Value::from(used_since.as_millis()),
        ];
        let row = self.query_opt(&OWNED_KEYS, values).await?;
        let Some(row) = row else {
            return Ok(OwnedKeys::default());
        };
        Ok(OwnedKeys {
            active: row.int(0)?,
            used: row.int(1)?,
            expired: row.int(2)?,
            revoked: row.int(3)?,
        })
    }

    /// Changes the role of a member; `false` when there is no such member.
    pub async fn set_role(&mut self, user: UserId, role: &str) -> Result<bool, StoreError> {
        let values = [Value::from(user.to_string()), Value::from(role)];
        Ok(self.execute(&SET_ROLE, values).await? == 1)
    }

    /// Marks a member as gone; `false` when there is no such member.
    pub async fn offboard(&mut self, user: UserId, at: Timestamp) -> Result<bool, StoreError> {
        let values = [Value::from(user.to_string()), Value::from(at.as_millis())];
        Ok(self.execute(&OFFBOARD, values).await? == 1)
    }
}

impl SystemTx {
    /// A member of a tenant, also one who has left.
    pub async fn find_member(
        &mut self,
        tenant: TenantId,
        user: UserId,
    ) -> Result<Option<Member>, StoreError> {
        let values = [Value::from(tenant.to_string()), Value::from(user.to_string())];
        self.query_opt(&FIND, values).await?.as_ref().map(member_of).transpose()
    }

    /// Adds a user to a tenant; `false` when they are in it already.
    pub async fn insert_member(
        &mut self,
        tenant: TenantId,
        user: UserId,
        role: &str,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let values = [
            Value::from(tenant.to_string()),
            Value::from(user.to_string()),
            Value::from(role),
            Value::from(at.as_millis()),
        ];
        Ok(self.execute(&INSERT, values).await? == 1)
    }
}
