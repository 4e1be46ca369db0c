//! The audit trail: who did what, each entry carrying the hash of the one before it in its chain.

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;

use crate::id::{AuditEventId, RequestId};
use crate::time::Timestamp;

/// The chain of events that belong to no tenant.
pub const OPERATOR_CHAIN: &str = "operator";
/// The `previous` hash of the first event of a chain.
pub const GENESIS: [u8; 32] = [0; 32];

/// What kind of caller acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl ActorKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::User, Self::AdminToken, Self::ApiKey, Self::System];

    /// The word on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::AdminToken => "admin_token",
            Self::ApiKey => "api_key",
            Self::System => "system",
        }
    }

    /// The kind of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Whom the audit trail names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// What kind of caller it was.
    pub kind: ActorKind,
    /// Its id, `-` for Keyward itself.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The role it acted with, if it had one.
    pub role: Option<String>,
}

/// Where an action came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The request that carried it.
    pub request_id: Option<RequestId>,
    /// The caller's address.
    pub ip: Option<String>,
    /// The caller's user agent.
    pub user_agent: Option<String>,
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOutcome {
    /// It was done.
    Succeeded,
    /// It was refused.
    Denied,
}

impl AuditOutcome {
    /// The word on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Denied => "denied",
        }
    }

    /// The outcome of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Succeeded, Self::Denied].into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// What was done, before it has its place in the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// A dotted name such as `api_key.revoked`.
    pub action: &'static str,
    /// The kind of the record it was done to.
    pub target_kind: &'static str,
    /// The id of that record.
    pub target_id: String,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// What changed: an object, usually with `before` and `after`. Never a secret.
    pub details: Value,
}

/// One entry of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEvent {
    /// Its place in the chain, from 1 without gaps.
    pub sequence: i64,
    /// Its id.
    pub id: AuditEventId,
    /// When it happened.
    pub at: Timestamp,
    /// Who did it.
    pub actor: Actor,
    /// Where it came from.
    pub origin: Origin,
    /// A dotted name such as `api_key.revoked`.
    pub action: String,
    /// The kind of the record it was done to.
    pub target_kind: String,
    /// The id of that record.
    pub target_id: String,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// What changed, as it was written.
    pub details: String,
    /// The hash of the event before it.
    pub previous: [u8; 32],
    /// Its own hash.
    pub hash: [u8; 32],
}

impl AuditEvent {
    /// The hash this event must have in the chain of that name: SHA-256 over a version byte, the
    /// previous hash and every field with its length before it, so that no two events read alike.
    pub fn compute_hash(&self, chain: &str) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        context.update(&[1]);
        context.update(&self.previous);
        let mut field = |text: Option<&str>| {
            // an absent field differs from an empty one
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            context.update(&length.to_be_bytes());
            context.update(text.unwrap_or_default().as_bytes());
        };
        field(Some(chain));
        field(Some(&self.sequence.to_string()));
        field(Some(&self.id.to_string()));
        field(Some(&self.at.as_millis().to_string()));
        field(Some(self.actor.kind.as_str()));
        field(Some(&self.actor.id));
        field(Some(&self.actor.name));
        field(self.actor.role.as_deref());
        field(self.origin.request_id.map(|id| id.to_string()).as_deref());
        field(self.origin.ip.as_deref());
        field(self.origin.user_agent.as_deref());
        field(Some(&self.action));
        field(Some(&self.target_kind));
        field(Some(&self.target_id));
        field(Some(self.outcome.as_str()));
        field(Some(&self.details));
        let digest = context.finish();
        let mut hash = [0; 32];
        for (slot, byte) in hash.iter_mut().zip(digest.as_ref()) {
            *slot = *byte;
        }
        hash
    }

    /// Whether this event follows one with that hash and sequence and was not changed since.
    pub fn follows(&self, chain: &str, sequence: i64, previous: &[u8; 32]) -> bool {
        self.sequence == sequence + 1
            && self.previous == *previous
            && self.compute_hash(chain) == self.hash
    }
}

/// A walk along a chain from its beginning, as far as it is whole.
pub struct ChainWalk<'a> {
    chain: &'a str,
    sequence: i64,
    hash: [u8; 32],
    broken: Option<AuditEventId>,
}

impl<'a> ChainWalk<'a> {
    /// A walk that stands before the first event of the chain with this name.
    pub const fn new(chain: &'a str) -> Self {
        Self { chain, sequence: 0, hash: GENESIS, broken: None }
    }

    /// The place of the last event that fits; 0 before the first one.
    pub const fn sequence(&self) -> i64 {
        self.sequence
    }

    /// The first event that does not fit, once the walk has come to it.
    pub const fn broken(&self) -> Option<AuditEventId> {
        self.broken
    }

    /// Goes on over these events; `false` at one that does not fit, or when there are none.
    pub fn follow<'e>(&mut self, events: impl Iterator<Item = &'e AuditEvent>) -> bool {
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
    pub fn ends_at(&self, head: (i64, [u8; 32])) -> bool {
        self.broken.is_none() && (self.sequence, self.hash) == head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> AuditEvent {
        let mut event = AuditEvent {
            sequence: 1,
            id: AuditEventId::from_bits(1),
            at: Timestamp::from_millis(5),
            actor: Actor { kind: ActorKind::System, id: "-".into(), name: "x".into(), role: None },
            origin: Origin::default(),
            action: "tenant.created".into(),
            target_kind: "tenant".into(),
            target_id: "ten_1".into(),
            outcome: AuditOutcome::Succeeded,
            details: "{}".into(),
            previous: GENESIS,
            hash: [0; 32],
        };
        event.hash = event.compute_hash("operator");
        event
    }

    #[test]
    fn every_field_is_part_of_the_hash() {
        let alterations: [fn(&mut AuditEvent); 12] = [
            |e| e.sequence = 2,
            |e| e.id = AuditEventId::from_bits(2),
            |e| e.at = Timestamp::from_millis(6),
            |e| e.actor.kind = ActorKind::User,
            |e| e.actor.id = "y".into(),
            |e| e.actor.name = "y".into(),
            |e| e.actor.role = Some(String::new()),
            |e| e.origin.ip = Some("192.0.2.1".into()),
            |e| e.origin.user_agent = Some(String::new()),
            |e| e.action = "tenant.suspended".into(),
            |e| e.details = "{ }".into(),
            |e| e.previous = [1; 32],
        ];
        assert!(event().follows("operator", 0, &GENESIS));
        assert!(!event().follows("ten_1", 0, &GENESIS), "another chain");
        for alter in alterations {
            let mut altered = event();
            alter(&mut altered);
            assert!(!altered.follows("operator", 0, &GENESIS), "{altered:?}");
        }
    }

    #[test]
    fn text_cannot_move_between_fields() {
        let (mut a, mut b) = (event(), event());
        (a.target_kind, a.target_id) = ("ab".into(), "c".into());
        (b.target_kind, b.target_id) = ("a".into(), "bc".into());
        assert_ne!(a.compute_hash("operator"), b.compute_hash("operator"));
    }

    fn chain(length: i64) -> Vec<AuditEvent> {
        let mut previous = GENESIS;
        let mut events = Vec::new();
        for sequence in 1..=length {
            let id = AuditEventId::from_bits(u128::try_from(sequence).unwrap());
            let mut event = AuditEvent { sequence, id, previous, ..event() };
            event.hash = event.compute_hash("ten_1");
            previous = event.hash;
            events.push(event);
        }
        events
    }

    fn walked(events: &[AuditEvent]) -> ChainWalk<'static> {
        let mut walk = ChainWalk::new("ten_1");
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
        assert_eq!((walk.broken(), walk.sequence()), (Some(whole[2].id), 2));
        let mut gap = whole.clone();
        gap.remove(1);
        assert_eq!(walked(&gap).broken(), Some(whole[2].id));
        let cut = walked(&whole[..4]);
        assert!(cut.broken().is_none() && !cut.ends_at(head));
    }
}
