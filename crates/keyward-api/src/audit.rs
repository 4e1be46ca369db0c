//! The audit trail: who did what, and the proof that nothing was changed since.

use std::fmt;
use std::str::FromStr;

use keyward_core::audit;
use keyward_core::id::{AuditEventId, KeyId, TenantId};
use keyward_core::{Result, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::bounds::{self, Bounded};
use crate::page::PageRequest;
use crate::schema;

macro_rules! actions {
    ($($name:ident = $text:literal, $description:literal;)*) => {
        /// What a write did, as the audit trail names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum AuditAction {
            $(#[doc = $description] $name,)*
        }

        impl AuditAction {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The dotted name on the wire and in the store. Names are never reused.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it means, in one sentence.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)* }
            }
        }
    };
}

actions! {
    TenantCreated = "tenant.created", "A tenant was created.";
    TenantSuspended = "tenant.suspended", "A tenant was suspended: its keys stopped.";
    TenantKeysConfirmed = "tenant.keys_confirmed", "Suspect API keys of a tenant were confirmed.";
    TenantResumed = "tenant.resumed", "A suspended tenant was resumed.";
    UserCreated = "user.created", "A user was created.";
    MemberAdded = "member.added", "A user became a member of the tenant.";
    MemberRoleChanged = "member.role_changed", "A member got another role.";
    MemberOffboarded = "member.offboarded", "A membership ended.";
    ServiceAccountCreated = "service_account.created", "A service account was created.";
    ApiKeyCreated = "api_key.created", "An API key was created.";
    ApiKeyUpdated = "api_key.updated", "An API key was edited.";
    ApiKeyScopesNarrowed = "api_key.scopes_narrowed", "An API key lost scopes.";
    ApiKeyRotated = "api_key.rotated", "An API key got a replacement.";
    ApiKeyOverlapEnded = "api_key.overlap_ended", "The overlap of a rotation was ended by hand.";
    ApiKeyRevoked = "api_key.revoked", "An API key was revoked.";
    ApiKeyDeleted = "api_key.deleted", "An API key was deleted.";
    ApiKeyConfirmed = "api_key.confirmed", "A suspect API key was confirmed after a restore.";
    ApiKeySuspected = "api_key.suspected", "A restore could not vouch for an API key.";
    ApiKeyReissued = "api_key.reissued", "A never-used API key got a new secret.";
    AdminTokenCreated = "admin_token.created", "An admin token was created.";
    AdminTokenRevoked = "admin_token.revoked", "An admin token was revoked.";
    SetupLinkCreated = "setup_link.created", "A link to set up the first administrator was made.";
    AdminTokenUpdated = "admin_token.updated", "An admin token lost scopes or time by a restore.";
    DeploymentRestored = "deployment.restored", "The deployment was restored from a backup.";
    AdministratorCreated = "administrator.created", "An administrator was created.";
}

impl AuditAction {
    /// The kind of record it is done to: what stands before the dot.
    pub fn target_kind(self) -> &'static str {
        self.as_str().split_once('.').map_or(self.as_str(), |(kind, _)| kind)
    }
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAction;

impl fmt::Display for UnknownAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the name of an audit action such as api_key.revoked")
    }
}

impl std::error::Error for UnknownAction {}

impl FromStr for AuditAction {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL.iter().copied().find(|action| action.as_str() == text).ok_or(UnknownAction)
    }
}

/// What kind of caller acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A person who signed in.
    User,
    /// An admin token.
    AdminToken,
    /// An API key of the product.
    ApiKey,
    /// Keyward itself, or a command on the data directory.
    System,
}

impl From<audit::ActorKind> for ActorKind {
    fn from(kind: audit::ActorKind) -> Self {
        match kind {
            audit::ActorKind::User => Self::User,
            audit::ActorKind::AdminToken => Self::AdminToken,
            audit::ActorKind::ApiKey => Self::ApiKey,
            audit::ActorKind::System => Self::System,
        }
    }
}

/// Whom the audit trail names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    /// What kind of caller it was.
    pub kind: ActorKind,
    /// Its id, `-` for Keyward itself.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The role it acted with.
    #[schema(required)]
    pub role: Option<String>,
}

impl Actor {
    /// The actor as callers see it.
    pub fn new(actor: &audit::Actor) -> Self {
        Self {
            kind: actor.kind.into(),
            id: actor.id.clone(),
            name: actor.name.clone(),
            role: actor.role.clone(),
        }
    }
}

/// The record an action was done to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditTarget {
    /// The kind of the record, such as `api_key`.
    pub kind: String,
    /// The id of the record.
    pub id: String,
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// It was done.
    Succeeded,
    /// It was refused.
    Denied,
}

impl From<audit::AuditOutcome> for AuditOutcome {
    fn from(outcome: audit::AuditOutcome) -> Self {
        match outcome {
            audit::AuditOutcome::Succeeded => Self::Succeeded,
            audit::AuditOutcome::Denied => Self::Denied,
        }
    }
}

/// One entry of the audit trail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// Its id.
    #[schema(value_type = schema::AuditEventId)]
    pub id: AuditEventId,
    /// Its place in the chain, from 1 without gaps.
    pub sequence: u64,
    /// The tenant whose chain it is part of; `null` in the operator's chain.
    #[schema(required, value_type = Option<schema::TenantId>)]
    pub tenant_id: Option<TenantId>,
    /// When it happened.
    #[schema(value_type = schema::Instant)]
    pub at: Timestamp,
    /// A dotted name such as `api_key.revoked`.
    pub action: String,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// Who did it.
    pub actor: Actor,
    /// What it was done to.
    pub target: AuditTarget,
    /// The request that carried it.
    #[schema(required)]
    pub request_id: Option<String>,
    /// The caller's address.
    #[schema(required)]
    pub ip: Option<String>,
    /// The caller's user agent.
    #[schema(required)]
    pub user_agent: Option<String>,
    /// What changed, usually as `before` and `after`. Never a secret.
    #[schema(value_type = Object)]
    pub details: Value,
    /// The hash of the event before it, in hexadecimal.
    pub previous_hash: String,
    /// Its own hash, in hexadecimal.
    pub hash: String,
}

impl AuditEvent {
    /// The event as callers see it, from the chain of `tenant`, or the operator's when there is
    /// none.
    pub fn new(event: &audit::AuditEvent, tenant: Option<TenantId>) -> Self {
        // what was written is hashed as text; should it not be JSON, it is shown as it stands
        let details = serde_json::from_str(&event.details)
            .unwrap_or_else(|_| Value::String(event.details.clone()));
        Self {
            id: event.id,
            sequence: u64::try_from(event.sequence).unwrap_or_default(),
            tenant_id: tenant,
            at: event.at,
            action: event.action.clone(),
            outcome: event.outcome.into(),
            actor: Actor::new(&event.actor),
            target: AuditTarget { kind: event.target_kind.clone(), id: event.target_id.clone() },
            request_id: event.origin.request_id.map(|id| id.to_string()),
            ip: event.origin.ip.clone(),
            user_agent: event.origin.user_agent.clone(),
            details,
            previous_hash: hexadecimal(&event.previous),
            hash: hexadecimal(&event.hash),
        }
    }
}

/// A hash as it stands on the wire: two lower-case digits a byte.
pub fn hexadecimal(hash: &[u8]) -> String {
    let digits = hash.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

/// Which audit events to list. All filters must hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListAuditEventsQuery {
    /// Events of this actor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(max_length = 64)]
    pub actor_id: Option<String>,
    /// Events with this action, such as `api_key.revoked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(max_length = 64)]
    pub action: Option<String>,
    /// Events of this record.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(max_length = 64)]
    pub target_id: Option<String>,
    /// Events of this key, as actor or as target.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<schema::KeyId>)]
    pub key_id: Option<KeyId>,
    /// Events at this instant or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<schema::Instant>)]
    pub from: Option<Timestamp>,
    /// Events before this instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<schema::Instant>)]
    pub to: Option<Timestamp>,
    /// Events that ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<AuditOutcome>,
    /// Entries per page, 1 to 200; 50 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// The `nextCursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(max_length = 512)]
    pub cursor: Option<String>,
}

/// The longest id or action to filter by, in bytes.
const MAX_FILTER_BYTES: usize = 64;

impl ListAuditEventsQuery {
    /// The page this asks for.
    pub fn page(&self) -> Result<PageRequest> {
        PageRequest::new(self.limit, self.cursor.as_deref())
    }
}

impl Bounded for ListAuditEventsQuery {
    fn check(&self) -> Result<()> {
        let fields =
            [("actorId", &self.actor_id), ("action", &self.action), ("targetId", &self.target_id)];
        for (field, value) in fields {
            bounds::optional(value.as_deref(), |v| bounds::bytes(field, v, MAX_FILTER_BYTES))?;
        }
        if self.from.zip(self.to).is_some_and(|(from, to)| from >= to) {
            let text = "to must be later than from";
            return Err(keyward_core::Error::validation("to", text));
        }
        self.page().map(|_| ())
    }
}

/// Whether the chain of a tenant is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditChain {
    /// Whether every event follows the one before and none was changed since.
    pub valid: bool,
    /// How many events were checked.
    pub events: u64,
    /// The hash of the last one, in hexadecimal; keep it to prove later that none was cut off.
    pub head_hash: String,
    /// The first event that does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::AuditEventId>)]
    pub first_broken: Option<AuditEventId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_have_two_halves() {
        let mut names: Vec<&str> = AuditAction::ALL.iter().map(|a| a.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), AuditAction::ALL.len());
        for action in AuditAction::ALL {
            assert_ne!(action.target_kind(), action.as_str());
            assert_eq!(action.as_str().parse(), Ok(*action));
        }
    }

    #[test]
    fn hashes_are_written_with_all_their_digits() {
        let mut hash = [0; 32];
        (hash[0], hash[31]) = (0x0a, 0xf0);
        let text = hexadecimal(&hash);
        assert_eq!((text.len(), &text[..2], &text[62..]), (64, "0a", "f0"));
    }

    #[test]
    fn wire_words_are_those_of_the_store() {
        for kind in audit::ActorKind::ALL {
            let word = serde_json::json!(kind.as_str());
            assert!(serde_json::from_value::<ActorKind>(word).is_ok(), "{kind:?}");
        }
        for outcome in [audit::AuditOutcome::Succeeded, audit::AuditOutcome::Denied] {
            let word = serde_json::json!(outcome.as_str());
            assert!(serde_json::from_value::<AuditOutcome>(word).is_ok(), "{outcome:?}");
        }
    }
}
