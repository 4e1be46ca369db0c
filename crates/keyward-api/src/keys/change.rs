//! Changes to a key after it was made.

use keyward_core::key::{RateLimit, RevokeReason};
use keyward_core::{Error, Result, Timestamp};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{Key, Patch, check_description, check_networks, check_rate_limit};
use crate::bounds::{self, Bounded};
use crate::fence::Fence;
use crate::schema;
use crate::secret::ShownOnce;

/// Asks to edit a key. What is not mentioned stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "billing worker v2", "rateLimit": null}))]
pub struct UpdateKey {
    /// The service that uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Name>)]
    pub name: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Description>)]
    pub description: Option<String>,
    /// Where it may be used from; an empty list allows every address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Networks>)]
    pub ip_allowlist: Option<Vec<String>>,
    /// Its own rate limit; `null` takes it away.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    #[schema(value_type = Option<schema::RateLimit>)]
    pub rate_limit: Patch<RateLimit>,
    /// When it stops by itself; only earlier than now set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Instant>)]
    pub expires_at: Option<Timestamp>,
}

impl Bounded for UpdateKey {
    fn check(&self) -> Result<()> {
        if *self == Self::default() {
            let text = "Name at least one of name, description, ipAllowlist, rateLimit, expiresAt";
            return Err(Error::validation("body", text));
        }
        bounds::optional(self.name.as_deref(), |name| bounds::name("name", name))?;
        check_description(self.description.as_deref())?;
        bounds::optional(self.ip_allowlist.as_deref(), check_networks)?;
        bounds::optional(self.rate_limit.value(), check_rate_limit)
    }
}

/// A key that was just edited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdatedKey {
    /// The record as it is now.
    pub key: Key,
    /// From when on the edit holds everywhere, when it took authority away; else `null`.
    #[schema(required)]
    pub fence: Option<Fence>,
}

/// Asks to take scopes away from a key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"remove": ["audit:read"]}))]
pub struct NarrowKeyScopes {
    /// The scopes to take away; at least one of the key's scopes must stay.
    #[schema(value_type = schema::ScopeNames)]
    pub remove: Vec<String>,
}

impl Bounded for NarrowKeyScopes {
    fn check(&self) -> Result<()> {
        bounds::scopes("remove", &self.remove)
    }
}

/// A key that lost authority: scopes, the rest of its overlap, or itself by deletion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangedKey {
    /// The record as it is now.
    pub key: Key,
    /// From when on the change holds everywhere.
    pub fence: Fence,
}

/// Asks for a replacement of a key.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"overlapSeconds": 86400}))]
pub struct RotateKey {
    /// Seconds in which the old key keeps working, never beyond its expiry; a day when absent,
    /// and 0 revokes it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::OverlapSeconds>)]
    pub overlap_seconds: Option<u32>,
    /// Scopes of the new key, some or all of the old one's; the same when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::ScopeNames>)]
    pub scopes: Option<Vec<String>>,
    /// Name of the new key; the same when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Name>)]
    pub name: Option<String>,
}

impl RotateKey {
    /// The overlap in milliseconds, with the default where none is named.
    pub fn overlap_ms(&self) -> i64 {
        i64::from(self.overlap_seconds.unwrap_or(bounds::DEFAULT_OVERLAP_SECONDS)) * 1_000
    }
}

impl Bounded for RotateKey {
    fn check(&self) -> Result<()> {
        bounds::optional(self.overlap_seconds.as_ref(), |seconds| {
            bounds::number("overlapSeconds", *seconds, 0, bounds::MAX_OVERLAP_SECONDS)
        })?;
        bounds::optional(self.scopes.as_deref(), |scopes| bounds::scopes("scopes", scopes))?;
        bounds::optional(self.name.as_deref(), |name| bounds::name("name", name))
    }
}

/// The result of a rotation.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotatedKey {
    /// The new key.
    pub key: Key,
    /// The new token, once; `null` when an idempotent request is answered again.
    #[schema(required)]
    pub secret: Option<ShownOnce>,
    /// Whether this is such an answer again, which cannot show the secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret_not_replayable: bool,
    /// The old key as it is now.
    pub old: Key,
    /// Until when both work; the instant of the rotation when there is no overlap.
    #[schema(value_type = schema::Instant)]
    pub overlap_ends_at: Timestamp,
    /// From when on the earlier end of the old key holds everywhere.
    pub fence: Fence,
}

/// Whether a caller may give this reason. `deleted` is for deletions to set.
pub const fn may_be_chosen(reason: RevokeReason) -> bool {
    !matches!(reason, RevokeReason::Deleted)
}

fn chosen_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RevokeReason, D::Error> {
    let reason = RevokeReason::deserialize(deserializer)?;
    if may_be_chosen(reason) {
        return Ok(reason);
    }
    let text = "`deleted` is what deleting a key records; use leaked, offboarding, unused, rotated \
                or other";
    Err(D::Error::custom(text))
}

/// Asks to revoke a key, for ever.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"reason": "leaked", "comment": "Found in a public repository"}))]
pub struct RevokeKey {
    /// Why.
    #[serde(deserialize_with = "chosen_reason")]
    #[schema(value_type = schema::RevokeReasonChoice)]
    pub reason: RevokeReason,
    /// A remark for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Comment>)]
    pub comment: Option<String>,
}

impl Bounded for RevokeKey {
    fn check(&self) -> Result<()> {
        bounds::optional(self.comment.as_deref(), |comment| {
            bounds::text("comment", comment, bounds::MAX_COMMENT_CHARS)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_tells_absent_null_and_set_apart() {
        let parse = |body| serde_json::from_str::<UpdateKey>(body).unwrap();
        assert_eq!(parse("{}").rate_limit, Patch::Keep);
        assert_eq!(parse(r#"{"rateLimit":null}"#).rate_limit, Patch::Clear);
        let set = parse(r#"{"rateLimit":{"limit":5,"windowSeconds":60}}"#);
        assert_eq!(set.rate_limit.value().map(|limit| limit.limit), Some(5));
        assert_eq!(serde_json::to_string(&parse("{}")).unwrap(), "{}");
        assert!(parse("{}").check().is_err());
        assert!(parse(r#"{"rateLimit":null}"#).check().is_ok());
        assert!(parse(r#"{"rateLimit":{"limit":0,"windowSeconds":60}}"#).check().is_err());
    }

    #[test]
    fn deletion_is_not_a_reason_to_choose() {
        let parse = |body| serde_json::from_str::<RevokeKey>(body).map_err(|e| e.to_string());
        assert!(parse(r#"{"reason":"leaked"}"#).is_ok());
        assert!(parse(r#"{"reason":"deleted"}"#).unwrap_err().contains("use leaked"));
        assert!(parse(r#"{"reason":"paused"}"#).is_err());
    }

    #[test]
    fn overlaps_agree_with_the_rule() {
        assert_eq!(RotateKey::default().overlap_ms(), keyward_core::key::DEFAULT_OVERLAP_MS);
        let longest = i64::from(bounds::MAX_OVERLAP_SECONDS) * 1_000;
        assert_eq!(longest, keyward_core::key::MAX_OVERLAP_MS);
        assert_eq!(bounds::MAX_NAME_CHARS, keyward_core::key::MAX_KEY_NAME_CHARS);
    }
}
