//! The answer of a fenced write: from when on every node refuses what was taken away.

use keyward_core::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema;

/// How far a fenced write has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum FenceStatus {
    /// Every node applies it: no request whose first byte is sent from now on gets through.
    Effective,
    /// It is stored, and some node may still decide from memory until `effectiveBy`.
    Propagating,
}

/// What a write that lowers authority reports besides the record.
///
/// `effective` comes with status 200, `propagating` with 202.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fence {
    /// How far it has reached.
    pub status: FenceStatus,
    /// When the key was revoked, for writes that revoke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Instant>)]
    pub revoked_at: Option<Timestamp>,
    /// From when on every node applies it; absent while it propagates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Instant>)]
    pub effective_at: Option<Timestamp>,
    /// When it will be effective at the latest, while it propagates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Instant>)]
    pub effective_by: Option<Timestamp>,
    /// The number of this change of authority.
    pub epoch: u64,
    /// How many nodes have applied it.
    pub nodes: u32,
    /// How long the answer waited for them, in milliseconds.
    pub waited_ms: u64,
}
