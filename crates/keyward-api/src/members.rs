//! Members: users with a role in a tenant.

use keyward_core::id::{KeyId, UserId};
use keyward_core::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bounds::{self, Bounded};
use crate::fence::Fence;
use crate::schema;
use crate::users::UserKind;

/// A user's membership of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The user.
    #[schema(value_type = schema::UserId)]
    pub user_id: UserId,
    /// A person or a service account.
    pub kind: UserKind,
    /// The address of a person.
    #[schema(required, value_type = Option<schema::Email>)]
    pub email: Option<String>,
    /// The name people read.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// The role: the ceiling of every key the user owns.
    #[schema(value_type = schema::RoleName)]
    pub role: String,
    /// When the membership began.
    #[schema(value_type = schema::Instant)]
    pub added_at: Timestamp,
    /// When it ended.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub offboarded_at: Option<Timestamp>,
}

/// How many keys a member owns: what stops when they leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnedKeys {
    /// Keys that work.
    pub active: u32,
    /// Working keys that passed a check in the last 24 hours.
    pub used_last_day: u32,
    /// Keys whose time has run out.
    pub expired: u32,
    /// Keys that were revoked.
    pub revoked: u32,
}

/// A member with the reach of their keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberDetails {
    /// The membership.
    pub member: Member,
    /// The keys they own.
    pub owned_keys: OwnedKeys,
}

/// Asks for a new membership: of a known user by `userId`, or of a person by `email` and `name`,
/// who is created when the address is new.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.com", "name": "Ada Obi", "role": "admin"}))]
pub struct AddMember {
    /// A known user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::UserId>)]
    pub user_id: Option<UserId>,
    /// The address of a person; needs `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Email>)]
    pub email: Option<String>,
    /// The name of a person; needs `email`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Name>)]
    pub name: Option<String>,
    /// The role in this tenant.
    #[schema(value_type = schema::RoleName)]
    pub role: String,
}

/// Whom [`AddMember`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewMember<'a> {
    /// A user the deployment knows.
    Known(UserId),
    /// A person by address, created when it is new.
    Person {
        /// The address.
        email: &'a str,
        /// The name.
        name: &'a str,
    },
}

impl AddMember {
    /// Whom it means; `validation_failed` when it names both ways or neither.
    pub fn user(&self) -> Result<NewMember<'_>> {
        match (self.user_id, self.email.as_deref(), self.name.as_deref()) {
            (Some(id), None, None) => Ok(NewMember::Known(id)),
            (None, Some(email), Some(name)) => Ok(NewMember::Person { email, name }),
            (None, Some(_), None) => Err(Error::validation("name", "email needs a name with it")),
            _ => Err(Error::validation("userId", "Give either userId, or email and name")),
        }
    }
}

impl Bounded for AddMember {
    fn check(&self) -> Result<()> {
        bounds::optional(self.email.as_deref(), |email| bounds::email("email", email))?;
        bounds::optional(self.name.as_deref(), |name| bounds::name("name", name))?;
        bounds::bytes("role", &self.role, bounds::MAX_ROLE_BYTES)?;
        self.user().map(|_| ())
    }
}

/// Asks for another role.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"role": "auditor"}))]
pub struct ChangeMemberRole {
    /// The new role.
    #[schema(value_type = schema::RoleName)]
    pub role: String,
}

impl Bounded for ChangeMemberRole {
    fn check(&self) -> Result<()> {
        bounds::bytes("role", &self.role, bounds::MAX_ROLE_BYTES)
    }
}

/// A member whose role was just changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangedMember {
    /// The membership as it is now.
    pub member: Member,
    /// From when on the keys they own have the new ceiling everywhere.
    pub fence: Fence,
}

/// What becomes of the keys of a member who leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum OffboardKeys {
    /// They are revoked.
    Revoke,
    /// They get another owner, and with it that owner's role as their ceiling.
    Rehome,
}

/// Asks to end a membership.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"keys": "revoke"}))]
pub struct OffboardMember {
    /// What becomes of their keys.
    pub keys: OffboardKeys,
    /// The user or service account of this tenant who takes the keys over; with `rehome` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::UserId>)]
    pub rehome_to: Option<UserId>,
}

impl Bounded for OffboardMember {
    fn check(&self) -> Result<()> {
        match (self.keys, self.rehome_to) {
            (OffboardKeys::Revoke, None) | (OffboardKeys::Rehome, Some(_)) => Ok(()),
            (OffboardKeys::Rehome, None) => {
                Err(Error::validation("rehomeTo", "keys: \"rehome\" needs rehomeTo, a user id"))
            }
            (OffboardKeys::Revoke, Some(_)) => {
                Err(Error::validation("rehomeTo", "rehomeTo goes with keys: \"rehome\" only"))
            }
        }
    }
}

/// A key whose new owner's role does not cover all of its scopes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NarrowedKey {
    /// The key.
    #[schema(value_type = schema::KeyId)]
    pub key_id: KeyId,
    /// Its scopes that stop working; they stay in its record and return with a wider role.
    #[schema(value_type = Vec<schema::ScopeName>)]
    pub stopped_scopes: Vec<String>,
}

/// A membership that was just ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OffboardedMember {
    /// The membership as it is now.
    pub member: Member,
    /// How many keys were revoked.
    pub revoked_keys: u32,
    /// How many keys got another owner.
    pub rehomed_keys: u32,
    /// Those of them whose new owner's role is a narrower ceiling than their scopes.
    pub narrowed_keys: Vec<NarrowedKey>,
    /// From when on this holds everywhere.
    pub fence: Fence,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Bounded + serde::de::DeserializeOwned>(body: &str) -> Result<(), String> {
        let body: T = serde_json::from_str(body).map_err(|error| error.to_string())?;
        body.check().map_err(|error| error.public().to_owned())
    }

    #[test]
    fn a_new_member_is_named_one_way() {
        let id = "usr_0000000000000000000007";
        assert_eq!(check::<AddMember>(&format!(r#"{{"userId":"{id}","role":"owner"}}"#)), Ok(()));
        let person = r#"{"email":"ada@example.com","name":"Ada","role":"owner"}"#;
        assert_eq!(check::<AddMember>(person), Ok(()));
        assert!(check::<AddMember>(r#"{"role":"owner"}"#).is_err());
        assert!(check::<AddMember>(r#"{"email":"ada@example.com","role":"owner"}"#).is_err());
        let both = format!(r#"{{"userId":"{id}","email":"a@b.c","name":"A","role":"owner"}}"#);
        assert!(check::<AddMember>(&both).is_err());
    }

    #[test]
    fn rehoming_needs_an_owner() {
        assert_eq!(check::<OffboardMember>(r#"{"keys":"revoke"}"#), Ok(()));
        assert!(check::<OffboardMember>(r#"{"keys":"rehome"}"#).is_err());
        assert!(check::<OffboardMember>(r#"{"keys":"keep"}"#).unwrap_err().contains("rehome"));
    }
}
