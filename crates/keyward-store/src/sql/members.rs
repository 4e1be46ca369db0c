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
        "SELECT m.user_id, u.kind, u.email, u.name, m.role, m.created_at, m.offboarded_at,
           (SELECT COUNT(*) FROM api_keys k
            WHERE k.tenant_id = m.tenant_id AND k.owner_id = m.user_id
              AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $2))
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
    FIND = tenant concat!(select!(), " AND m.user_id = $3");
    PAGE = tenant concat!(select!(), " AND m.offboarded_at IS NULL
         AND (CAST($3 AS TEXT) IS NULL OR m.user_id > $3)
         AND (CAST($4 AS TEXT) IS NULL OR u.kind = $4) ORDER BY m.user_id LIMIT $5");
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
    /// How many active keys they own.
    pub active_keys: i64,
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
        active_keys: row.int(7)?,
    })
}

impl TenantTx {
    /// The role of a user who has not left.
    pub async fn role_of(&mut self, user: UserId) -> Result<Option<String>, StoreError> {
        let row = self
            .query_opt(&ROLE, [Value::from(user.to_string())])
            .await?;
        row.map(|row| row.text(0).map(str::to_owned)).transpose()
    }

    /// A member, also one who has left.
    pub async fn find_member(
        &mut self,
        user: UserId,
        now: Timestamp,
    ) -> Result<Option<Member>, StoreError> {
        let values = [Value::from(now.as_millis()), Value::from(user.to_string())];
        self.query_opt(&FIND, values)
            .await?
            .as_ref()
            .map(member_of)
            .transpose()
    }

    /// A page of the members who have not left; of one kind, if one is named.
    pub async fn members(
        &mut self,
        kind: Option<UserKind>,
        after: Option<UserId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Member>, StoreError> {
        let values = [
            Value::from(now.as_millis()),
            Value::from(after.map(|id| id.to_string())),
            Value::from(kind.map(UserKind::as_str)),
            Value::from(limit),
        ];
        self.query(&PAGE, values)
            .await?
            .iter()
            .map(member_of)
            .collect()
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
