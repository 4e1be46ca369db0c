//! The audit trail: appended in the transaction of the change, read by chain.

use keyward_core::audit::{
    Actor, ActorKind, AuditEntry, AuditEvent, AuditOutcome, GENESIS, Origin,
};
use keyward_core::id::{AuditEventId, KeyId};
use keyward_core::{Clock, Timestamp};

use crate::engine::{Conn, Row, Sent, StoreError, Value};
use crate::sql::read::{hash, instant, opt_parsed, parsed};
use crate::sql::statements;
use crate::store::Chain;
use crate::tx::{SystemTx, TenantTx};
use crate::write::Author;

macro_rules! columns {
    () => {
        "sequence, audit_event_id, at, actor_kind, actor_id, actor_name, actor_role, request_id, ip,
         user_agent, action, target_kind, target_id, outcome, details, previous_hash, hash"
    };
}

macro_rules! page {
    () => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM audit_events WHERE tenant_id = $1
               AND (CAST($2 AS BIGINT) IS NULL OR sequence < $2)
               AND (CAST($3 AS TEXT) IS NULL OR actor_id = $3)
               AND (CAST($4 AS TEXT) IS NULL OR action = $4)
               AND (CAST($5 AS TEXT) IS NULL OR target_id = $5)
               AND (CAST($6 AS TEXT) IS NULL OR outcome = $6)
               AND (CAST($7 AS BIGINT) IS NULL OR at >= $7)
               AND (CAST($8 AS BIGINT) IS NULL OR at < $8)
               AND (CAST($9 AS TEXT) IS NULL OR actor_id = $9 OR target_id = $9)
             ORDER BY sequence DESC LIMIT $10"
        )
    };
}

statements! {
    // takes the head's lock, which orders the writers of one chain until they commit
    TAKE_HEAD = tenant
        "INSERT INTO audit_heads (tenant_id, sequence, hash) VALUES ($1, 0, $2)
         ON CONFLICT (tenant_id) DO UPDATE SET sequence = audit_heads.sequence
         RETURNING sequence, hash";
    MOVE_HEAD = tenant "UPDATE audit_heads SET sequence = $2, hash = $3 WHERE tenant_id = $1";
    APPEND = tenant concat!("INSERT INTO audit_events (tenant_id, ", columns!(), ")
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)");
    PAGE = tenant page!();
    FIND = tenant concat!("SELECT ", columns!(),
        " FROM audit_events WHERE tenant_id = $1 AND audit_event_id = $2");
    FOLLOWING = tenant concat!("SELECT ", columns!(),
        " FROM audit_events WHERE tenant_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3");
    HEAD = tenant "SELECT sequence, hash FROM audit_heads WHERE tenant_id = $1";
}

/// Which events a page holds. The newest come first.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only events before this place in the chain.
    pub before: Option<i64>,
    /// Only those of this actor.
    pub actor: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// Only those done to this record.
    pub target: Option<String>,
    /// Only those that ended so.
    pub outcome: Option<AuditOutcome>,
    /// Only those at or after this instant.
    pub from: Option<Timestamp>,
    /// Only those before this instant.
    pub to: Option<Timestamp>,
    /// Only those with this key as actor or as target.
    pub key: Option<KeyId>,
    /// How many at most.
    pub limit: u32,
}

impl AuditFilter {
    fn values(&self) -> [Value; 9] {
        [
            Value::from(self.before),
            Value::from(self.actor.as_deref()),
            Value::from(self.action.as_deref()),
            Value::from(self.target.as_deref()),
            Value::from(self.outcome.map(AuditOutcome::as_str)),
            Value::from(self.from.map(Timestamp::as_millis)),
            Value::from(self.to.map(Timestamp::as_millis)),
            Value::from(self.key.map(|id| id.to_string())),
            Value::from(self.limit),
        ]
    }
}

/// The newest event of a chain, taken: no other writer moves it before this one has ended.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    sequence: i64,
    hash: [u8; 32],
}

/// Takes a chain for one change, and waits for the change that has it now.
pub(crate) async fn take_head(conn: &mut Conn, chain: &str) -> Result<Head, StoreError> {
    let genesis = Value::from(&GENESIS[..]);
    let row = conn.query_one(&TAKE_HEAD, &[Value::from(chain), genesis]).await?;
    Ok(Head { sequence: row.int(0)?, hash: hash(&row, 1)? })
}

/// The event that follows `head`.
pub(crate) fn next(
    head: Head,
    chain: &str,
    clock: &dyn Clock,
    author: &Author,
    at: Timestamp,
    entry: AuditEntry,
) -> AuditEvent {
    let mut event = AuditEvent {
        sequence: head.sequence + 1,
        id: AuditEventId::generate(clock),
        at,
        actor: author.actor.clone(),
        origin: author.origin.clone(),
        action: entry.action.to_owned(),
        target_kind: entry.target_kind.to_owned(),
        target_id: entry.target_id,
        outcome: entry.outcome,
        details: entry.details.to_string(),
        previous: head.hash,
        hash: GENESIS,
    };
    event.hash = event.compute_hash(chain);
    event
}

/// What appends an event to its chain, which the transaction has taken.
pub(crate) fn appending(chain: &str, event: AuditEvent) -> Vec<Sent> {
    let moved = vec![chain.into(), event.sequence.into(), Value::from(&event.hash[..])];
    vec![(&APPEND, row_of(chain, event).to_vec()), (&MOVE_HEAD, moved)]
}

fn row_of(chain: &str, event: AuditEvent) -> [Value; 18] {
    [
        chain.into(),
        event.sequence.into(),
        event.id.to_string().into(),
        event.at.as_millis().into(),
        event.actor.kind.as_str().into(),
        event.actor.id.into(),
        event.actor.name.into(),
        event.actor.role.into(),
        event.origin.request_id.map(|id| id.to_string()).into(),
        event.origin.ip.into(),
        event.origin.user_agent.into(),
        event.action.into(),
        event.target_kind.into(),
        event.target_id.into(),
        event.outcome.as_str().into(),
        event.details.into(),
        Value::from(&event.previous[..]),
        Value::from(&event.hash[..]),
    ]
}

fn event_of(row: &Row) -> Result<AuditEvent, StoreError> {
    let optional = |column: usize| row.opt_text(column).map(|text| text.map(str::to_owned));
    Ok(AuditEvent {
        sequence: row.int(0)?,
        id: parsed(row, 1)?,
        at: instant(row, 2)?,
        actor: Actor {
            kind: ActorKind::from_word(row.text(3)?)
                .ok_or_else(|| row.corrupt(3, "not a kind of actor"))?,
            id: row.text(4)?.to_owned(),
            name: row.text(5)?.to_owned(),
            role: optional(6)?,
        },
        origin: Origin {
            request_id: opt_parsed(row, 7)?,
            ip: optional(8)?,
            user_agent: optional(9)?,
        },
        action: row.text(10)?.to_owned(),
        target_kind: row.text(11)?.to_owned(),
        target_id: row.text(12)?.to_owned(),
        outcome: AuditOutcome::from_word(row.text(13)?)
            .ok_or_else(|| row.corrupt(13, "not an outcome"))?,
        details: row.text(14)?.to_owned(),
        previous: hash(row, 15)?,
        hash: hash(row, 16)?,
    })
}

impl TenantTx {
    /// A page of the tenant's audit trail, newest first.
    pub async fn audit_events(
        &mut self,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.query(&PAGE, filter.values()).await?.iter().map(event_of).collect()
    }

    /// One event of the tenant's audit trail.
    pub async fn find_audit_event(
        &mut self,
        id: AuditEventId,
    ) -> Result<Option<AuditEvent>, StoreError> {
        let row = self.query_opt(&FIND, [Value::from(id.to_string())]).await?;
        row.as_ref().map(event_of).transpose()
    }

    /// The events behind a place in the chain, oldest first, for verification.
    pub async fn audit_events_after(
        &mut self,
        sequence: i64,
        limit: u32,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let values = [Value::from(sequence), Value::from(limit)];
        self.query(&FOLLOWING, values).await?.iter().map(event_of).collect()
    }

    /// The place and hash of the newest event; place 0 when there is none.
    pub async fn audit_head(&mut self) -> Result<(i64, [u8; 32]), StoreError> {
        match self.query_opt(&HEAD, []).await? {
            Some(row) => Ok((row.int(0)?, hash(&row, 1)?)),
            None => Ok((0, GENESIS)),
        }
    }
}

impl SystemTx {
    /// A page of any chain, newest first.
    pub async fn audit_events_of(
        &mut self,
        chain: Chain,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let bound = std::iter::once(Value::from(chain.name())).chain(filter.values());
        let mut values = [const { Value::Null }; 10];
        for (slot, value) in values.iter_mut().zip(bound) {
            *slot = value;
        }
        self.query(&PAGE, values).await?.iter().map(event_of).collect()
    }

    /// The events of any chain behind a place in it, oldest first.
    pub async fn chain_events_behind(
        &mut self,
        chain: &str,
        sequence: i64,
        limit: u32,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let values = [Value::from(chain), Value::from(sequence), Value::from(limit)];
        let rows = self.query(&FOLLOWING, values).await?;
        rows.iter().map(event_of).collect()
    }
}
