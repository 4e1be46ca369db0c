//! The answer of a fenced write: from when on every node refuses what was taken away.

use keyward_core::Timestamp;
use keyward_core::lease::Reach;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin_tokens::RevokedAdminToken;
use crate::keys::{ChangedKey, KeyWithSecret, RotatedKey, UpdatedKey};
use crate::members::{ChangedMember, OffboardedMember};
use crate::schema;
use crate::tenants::SuspendedTenant;

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
    /// How many nodes it has to reach.
    pub nodes: u32,
    /// How many of them have not said that they applied it; those whose lease is over count not.
    pub unconfirmed_nodes: u32,
    /// How long the answer waited for them, in milliseconds.
    pub waited_ms: u64,
    /// Where to ask again, while it propagates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<String>,
}

impl Fence {
    /// A fence that has long been passed, of a change whose number is not told.
    pub const fn effective(revoked_at: Option<Timestamp>, at: Timestamp) -> Self {
        Self {
            status: FenceStatus::Effective,
            revoked_at,
            effective_at: Some(at),
            effective_by: None,
            epoch: 0,
            nodes: 1,
            unconfirmed_nodes: 0,
            waited_ms: 0,
            poll: None,
        }
    }

    /// How far a change had reached at an instant, and where to ask again until it is
    /// everywhere.
    pub fn of(epoch: u64, reach: &Reach, at: Timestamp, poll: &str) -> Self {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let propagating = reach.effective_by.is_some();
        Self {
            status: if propagating { FenceStatus::Propagating } else { FenceStatus::Effective },
            effective_at: (!propagating).then_some(at),
            effective_by: reach.effective_by,
            epoch,
            nodes: number(reach.nodes),
            unconfirmed_nodes: number(reach.unconfirmed),
            poll: propagating.then(|| poll.to_owned()),
            ..Self::effective(None, at)
        }
    }
}

/// An answer that may report how far its write has reached.
pub trait HasFence {
    /// The fence, if the write took something away.
    fn fence(&self) -> Option<&Fence>;
}

macro_rules! fenced {
    ($($answer:ty),* $(,)?) => {
        $(impl HasFence for $answer {
            fn fence(&self) -> Option<&Fence> {
                Some(&self.fence)
            }
        })*
    };
}

fenced!(
    ChangedKey,
    RotatedKey,
    ChangedMember,
    OffboardedMember,
    SuspendedTenant,
    RevokedAdminToken
);

impl HasFence for UpdatedKey {
    fn fence(&self) -> Option<&Fence> {
        self.fence.as_ref()
    }
}

impl HasFence for KeyWithSecret {
    fn fence(&self) -> Option<&Fence> {
        self.fence.as_ref()
    }
}

impl HasFence for Fence {
    fn fence(&self) -> Option<&Fence> {
        Some(self)
    }
}
