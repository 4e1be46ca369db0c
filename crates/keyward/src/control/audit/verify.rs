//! Verify the audit trail: every hash of the chain is computed anew.

use keyward_api::audit::{AuditChain, hexadecimal};
use keyward_core::audit::{AuditEvent, GENESIS};
use keyward_core::id::AuditEventId;
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
    let mut walk = Walk::new(&chain);
    while walk.sequence < head.0 {
        let events = ctx.read().await?.audit_events_after(walk.sequence, BATCH).await?;
        // what is written during the walk is for the next one
        let asked = events.iter().take_while(|event| event.sequence <= head.0);
        if !walk.follow(asked) {
            break;
        }
    }
    Answer::json(&AuditChain {
        valid: walk.ends_at(head),
        events: u64::try_from(walk.sequence).unwrap_or_default(),
        head_hash: hexadecimal(&head.1),
        first_broken: walk.broken,
    })
}

/// A walk along a chain, as far as it is whole.
struct Walk<'a> {
    chain: &'a str,
    sequence: i64,
    hash: [u8; 32],
    broken: Option<AuditEventId>,
}

impl<'a> Walk<'a> {
    const fn new(chain: &'a str) -> Self {
        Self { chain, sequence: 0, hash: GENESIS, broken: None }
    }

    /// Goes on over these events; `false` at one that does not fit, or when there are none.
    fn follow<'e>(&mut self, events: impl Iterator<Item = &'e AuditEvent>) -> bool {
        let begin = self.sequence;
        for event in events {
            if !event.follows(self.chain, self.sequence, &self.hash) {
                self.broken = Some(event.id);
                return false;
            }
            (self.sequence, self.hash) = (event.sequence, event.hash);
        }
        self.sequence > begin
    }

    /// Whether the chain is whole and its last event is the one the head names.
    fn ends_at(&self, head: (i64, [u8; 32])) -> bool {
        self.broken.is_none() && (self.sequence, self.hash) == head
    }
}

#[cfg(test)]
mod tests {
    use keyward_core::Timestamp;
    use keyward_core::audit::{Actor, ActorKind, AuditOutcome, Origin};

    use super::*;

    const CHAIN: &str = "ten_0000000000000000000007";

    fn chain(length: i64) -> Vec<AuditEvent> {
        let actor =
            Actor { kind: ActorKind::System, id: "-".into(), name: "test".into(), role: None };
        let mut previous = GENESIS;
        let mut events = Vec::new();
        for sequence in 1..=length {
            let mut event = AuditEvent {
                sequence,
                id: AuditEventId::from_bits(u128::try_from(sequence).unwrap()),
                at: Timestamp::from_millis(sequence),
                actor: actor.clone(),
                origin: Origin::default(),
                action: "tenant.created".into(),
                target_kind: "tenant".into(),
                target_id: CHAIN.into(),
                outcome: AuditOutcome::Succeeded,
                details: "{}".into(),
                previous,
                hash: GENESIS,
            };
            event.hash = event.compute_hash(CHAIN);
            previous = event.hash;
            events.push(event);
        }
        events
    }

    fn walked(events: &[AuditEvent]) -> Walk<'static> {
        let mut walk = Walk::new(CHAIN);
        for batch in events.chunks(2) {
            if !walk.follow(batch.iter()) {
                break;
            }
        }
        walk
    }

    #[test]
    fn a_whole_chain_ends_at_its_head() {
        let events = chain(5);
        assert!(walked(&events).ends_at((5, events[4].hash)));
        assert!(walked(&[]).ends_at((0, GENESIS)));
    }

    #[test]
    fn a_change_a_gap_and_a_cut_show() {
        let whole = chain(5);
        let head = (5, whole[4].hash);
        let mut changed = whole.clone();
        changed[2].details = "{\"by\":\"somebody else\"}".into();
        let walk = walked(&changed);
        assert_eq!((walk.broken, walk.sequence), (Some(whole[2].id), 2));
        let mut gap = whole.clone();
        gap.remove(1);
        assert_eq!(walked(&gap).broken, Some(whole[2].id));
        let cut = walked(&whole[..4]);
        assert!(cut.broken.is_none() && !cut.ends_at(head));
    }
}
