//! The nodes of a deployment.

use keyward_core::Timestamp;
use keyward_core::id::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema;

/// A process that may decide from memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its id, new with every start.
    #[schema(value_type = schema::NodeId)]
    pub id: NodeId,
    /// What it does: `gateway`, `control`, `worker`.
    pub roles: Vec<String>,
    /// The version of its binary.
    pub version: String,
    /// The newest change it said it applied.
    pub applied_epoch: u64,
    /// When it started, on its own clock.
    #[schema(value_type = schema::Instant)]
    pub started_at: Timestamp,
    /// When it last renewed its lease, on its own clock.
    #[schema(value_type = schema::Instant)]
    pub renewed_at: Timestamp,
}

/// All nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Nodes {
    /// Which node answers.
    #[schema(value_type = schema::NodeId)]
    pub answered_by: NodeId,
    /// The newest change in the memory of the node that answers.
    pub epoch: u64,
    /// Every node; with an embedded database there is one, which is not registered.
    pub nodes: Vec<Node>,
}
