//! Verify the audit trail: every hash of the chain is computed anew.

use keyward_api::audit::{AuditChain, hexadecimal};
use keyward_core::audit::ChainWalk;
use keyward_core::{Error, Result};
use tokio::sync::Semaphore;

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

/// Events read at a time. Each batch is a transaction of its own, so that a long chain holds no
/// connection; events are never changed, so the batches fit together.
const BATCH: u32 = 500;
/// Chains walked at a time on this node.
const MAX_CONCURRENT: usize = 2;

static PERMITS: Semaphore = Semaphore::const_new(MAX_CONCURRENT);

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let head = ctx.read().await?.audit_head().await?;
    let _permit = PERMITS.acquire().await.map_err(|e| Error::internal(e.to_string()))?;
    let chain = ctx.tenant()?.to_string();
    let mut walk = ChainWalk::new(&chain);
    while walk.sequence() < head.0 {
        let events = ctx.read().await?.audit_events_after(walk.sequence(), BATCH).await?;
        // what is written during the walk is for the next one
        let asked = events.iter().take_while(|event| event.sequence <= head.0);
        if !walk.follow(asked) {
            break;
        }
    }
    Answer::json(&AuditChain {
        valid: walk.ends_at(head),
        events: u64::try_from(walk.sequence()).unwrap_or_default(),
        head_hash: hexadecimal(&head.1),
        first_broken: walk.broken(),
    })
}
