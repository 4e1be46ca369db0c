//! Users: people, who are global, and service accounts, which belong to one tenant.

use keyward_core::Timestamp;
use keyward_core::id::UserId;

use crate::engine::{Row, StoreError, Value};
use crate::sql::read::{instant, parsed};
use crate::sql::statements;
use crate::tx::SystemTx;

macro_rules! columns {
    () => {
        "user_id, kind, email, name, administrator, created_at"
    };
}

statements! {
    INSERT = system
        "INSERT INTO users (user_id, kind, email, name, administrator, password_hash, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)";
    FIND = system concat!("SELECT ", columns!(), " FROM users WHERE user_id = $1");
    FIND_BY_EMAIL = system concat!("SELECT ", columns!(), " FROM users WHERE email = $1");
    PAGE = system concat!("SELECT ", columns!(), " FROM users
         WHERE kind = 'person' AND (CAST($1 AS TEXT) IS NULL OR user_id < $1)
         ORDER BY user_id DESC LIMIT $2");
    COUNT_ADMINISTRATORS = system "SELECT COUNT(*) FROM users WHERE administrator = 1";
    PROMOTE = system "UPDATE users SET administrator = 1, password_hash = $2 WHERE user_id = $1";
}

/// Person or service account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserKind {
    /// Somebody who can sign in.
    Person,
    /// An owner of keys without sign-in.
    Service,
}

impl UserKind {
    /// The word on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Service => "service",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Person, Self::Service].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// A person or a service account.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Person or service account.
    pub kind: UserKind,
    /// The address of a person, lower case.
    pub email: Option<String>,
    /// The name for people.
    pub name: String,
    /// Whether it administers the deployment.
    pub administrator: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

fn user_of(row: &Row) -> Result<User, StoreError> {
    Ok(User {
        id: parsed(row, 0)?,
        kind: UserKind::from_word(row.text(1)?)
            .ok_or_else(|| row.corrupt(1, "not a kind of user"))?,
        email: row.opt_text(2)?.map(str::to_owned),
        name: row.text(3)?.to_owned(),
        administrator: row.bool(4)?,
        created_at: instant(row, 5)?,
    })
}

impl SystemTx {
    /// Adds a user. An address that is taken is [`StoreError::UniqueViolation`].
    pub async fn insert_user(
        &mut self,
        user: &User,
        password_hash: Option<&str>,
    ) -> Result<(), StoreError> {
        let values = [
            Value::from(user.id.to_string()),
            Value::from(user.kind.as_str()),
            Value::from(user.email.as_deref()),
            Value::from(user.name.as_str()),
            Value::from(user.administrator),
            Value::from(password_hash),
            Value::from(user.created_at.as_millis()),
        ];
        self.execute(&INSERT, values).await.map(drop)
    }

    /// Makes a person an administrator of the deployment, with a new password.
    pub async fn promote_user(
        &mut self,
        id: UserId,
        password_hash: &str,
    ) -> Result<(), StoreError> {
        let values = [Value::from(id.to_string()), Value::from(password_hash)];
        self.execute(&PROMOTE, values).await.map(drop)
    }

    /// The user with this id.
    pub async fn find_user(&mut self, id: UserId) -> Result<Option<User>, StoreError> {
        let row = self.query_opt(&FIND, [Value::from(id.to_string())]).await?;
        row.as_ref().map(user_of).transpose()
    }

    /// The person with this address, lower case.
    pub async fn find_user_by_email(&mut self, email: &str) -> Result<Option<User>, StoreError> {
        let row = self.query_opt(&FIND_BY_EMAIL, [Value::from(email)]).await?;
        row.as_ref().map(user_of).transpose()
    }

    /// A page of all people, newest first.
    pub async fn users(
        &mut self,
        before: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<User>, StoreError> {
        let values = [Value::from(before.map(|id| id.to_string())), Value::from(limit)];
        self.query(&PAGE, values).await?.iter().map(user_of).collect()
    }

    /// How many people administer the deployment.
    pub async fn count_administrators(&mut self) -> Result<i64, StoreError> {
        self.query_one(&COUNT_ADMINISTRATORS, []).await?.int(0)
    }
}
