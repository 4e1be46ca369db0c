//! List nodes.

use keyward_api::nodes::{Node, Nodes};
use keyward_core::Result;
use keyward_store::NodeRow;

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let follower = &ctx.state().follower;
    let nodes = ctx.state().store.nodes().await?.into_iter().map(shown).collect();
    Answer::json(&Nodes { answered_by: follower.node(), epoch: follower.epoch().0, nodes })
}

fn shown(row: NodeRow) -> Node {
    Node {
        id: row.node,
        roles: row.roles.split(',').map(str::to_owned).collect(),
        version: row.version,
        applied_epoch: row.applied.0,
        started_at: row.started_at,
        renewed_at: row.renewed_at,
    }
}
