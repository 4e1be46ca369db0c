//! The register of nodes, and what they read to decide from memory.

use std::collections::BTreeMap;

use keyward_core::Timestamp;
use keyward_core::authority::{Answered, Changed, Fact, Found, Invalidation, KeyAuthority, Wanted};
use keyward_core::id::{KeyId, NodeId};
use keyward_core::lease::{Ask, Epoch, Incarnation, Listed, NodeProfile, Reply, Roster};

use crate::engine::{Row, Sent, StoreError, Value, postgres, sqlite};
use crate::sql::changes::{self, MAX_TOUCHED};
use crate::sql::read::parsed;
use crate::sql::statements;
use crate::store::Store;
use crate::tx::SystemTx;
use crate::tx::sealed::Connected as _;

/// The most rows of the change log that one ask reads; more than any one change has.
const MAX_READ: usize = 4 * MAX_TOUCHED;

/// Why nothing is said before the history of a promoted standby is entered.
pub(crate) const PROMOTED: &str = "a standby was promoted, and its history is not entered yet";

statements! {
    RENEW = system
        "UPDATE nodes SET renewals = $2, applied_epoch = $3, hold_ms = $4, renewed_at = $5
         WHERE node_id = $1 AND renewals < $2";
    // does nothing behind a renewal; fails when a later one is on the register
    REGISTER = system
        "INSERT INTO nodes
           (node_id, renewals, applied_epoch, hold_ms, renewed_at, roles, version, started_at)
         SELECT CAST($1 AS TEXT), CAST($2 AS BIGINT), CAST($3 AS BIGINT), CAST($4 AS BIGINT),
           CAST($5 AS BIGINT), CAST($6 AS TEXT), CAST($7 AS TEXT), CAST($8 AS BIGINT)
         WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE node_id = $1 AND renewals = $2)";
    ACKNOWLEDGE = system
        "UPDATE nodes SET applied_epoch = $2 WHERE node_id = $1 AND applied_epoch < $2
           AND $3 = (SELECT incarnation FROM authority WHERE singleton = 1)";
    LIST = shared "SELECT node_id, applied_epoch, renewals, hold_ms FROM nodes ORDER BY node_id";
    SHOW = system
        "SELECT node_id, roles, version, applied_epoch, started_at, renewed_at
         FROM nodes ORDER BY started_at, node_id";
    DEREGISTER = system "DELETE FROM nodes WHERE node_id = $1";
    FORGET = system "DELETE FROM nodes WHERE node_id = $1 AND renewals = $2";
    SHARE_CHANGES = system_by_engine (sqlite::SHARE_CHANGES, postgres::SHARE_CHANGES);
    COMMIT_DURABLY = system_by_engine (sqlite::COMMIT_DURABLY, postgres::COMMIT_DURABLY);
    READ_HISTORY = system_by_engine (sqlite::READ_HISTORY, postgres::READ_HISTORY);
}

/// A node as people look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Which node.
    pub node: NodeId,
    /// What it does.
    pub roles: String,
    /// The version of its binary.
    pub version: String,
    /// The last change it said it applied.
    pub applied: Epoch,
    /// When it started, on its own clock.
    pub started_at: Timestamp,
    /// When it last renewed, on its own clock.
    pub renewed_at: Timestamp,
}

fn listed_of(row: &Row) -> Result<Listed, StoreError> {
    Ok(Listed {
        node: parsed(row, 0)?,
        applied: Epoch(count(row.int(1)?)),
        renewals: count(row.int(2)?),
        hold_ms: count(row.int(3)?),
    })
}

/// A number that is never negative.
fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

fn whole(value: u64) -> Value {
    Value::from(i64::try_from(value).unwrap_or(i64::MAX))
}

/// What reads every node on the register, in any context.
pub(crate) const fn listing() -> Sent {
    (&LIST, Vec::new())
}

/// What [`listing`] has read.
pub(crate) fn listed(rows: Option<&Vec<Row>>) -> Result<Vec<Listed>, StoreError> {
    rows.into_iter().flatten().map(listed_of).collect()
}

impl Store {
    /// Whether other processes can use this database too.
    pub fn is_shared(&self) -> bool {
        self.engine_name() == "postgres"
    }

    /// Answers an ask: what changed after what the node has applied, and with a renewal under the
    /// shared side of the lock that changes are committed under.
    pub async fn answer(&self, me: &NodeProfile, ask: Ask) -> Result<Answered, StoreError> {
        match self.answer_once(me, ask).await? {
            Ok(answered) => return Ok(answered),
            Err(timeline) => self.adopt(timeline).await?,
        }
        let answered = self.answer_once(me, ask).await?;
        answered.map_err(|_| StoreError::Unavailable(PROMOTED.to_owned()))
    }

    /// The answer, or the server's own history when it has to be entered first.
    async fn answer_once(
        &self,
        me: &NodeProfile,
        ask: Ask,
    ) -> Result<Result<Answered, i64>, StoreError> {
        if ask.renew && self.is_shared() {
            return self.renew(me, ask).await;
        }
        let mut tx = self.read_authority("tell what changed").await?;
        let sent = vec![reading_history(), changes::reading_after(ask.applied, MAX_READ)];
        let answers = tx.conn().flight(sent).await?;
        match history_of(answers.first())? {
            Ok(history) => tx.facts_of(ask.applied, history, answers.last()).await.map(Ok),
            Err(timeline) => Ok(Err(timeline)),
        }
    }

    /// Enters the server's own history: a standby was promoted, so that commits may be lost that
    /// nodes have in memory.
    pub(super) async fn adopt(&self, timeline: i64) -> Result<(), StoreError> {
        let mut tx = self.write_authority("enter the timeline of the server").await?;
        changes::exclude(tx.conn()).await?;
        changes::adopt_timeline(tx.conn(), timeline, self.clock().now()).await?;
        tx.into_conn().commit().await
    }

    async fn renew(&self, me: &NodeProfile, ask: Ask) -> Result<Result<Answered, i64>, StoreError> {
        let mut tx = self.note_authority("renew the lease of a node").await?;
        // every statement after the first sees what was committed before the lock was given, and a
        // renewal that a crash of the server could lose is a lease that nobody knows of
        let begun =
            vec![(&SHARE_CHANGES, Vec::new()), (&COMMIT_DURABLY, Vec::new()), reading_history()];
        let history = match history_of(tx.conn().flight(begun).await?.last())? {
            Ok(history) => history,
            Err(timeline) => return Ok(Err(timeline)),
        };
        if history.1 != ask.incarnation || history.0 < ask.applied {
            // what the node has applied is of another history, and may not be entered in this one
            return tx.facts_of(history.0, history, None).await.map(Ok);
        }
        let mut row = vec![
            Value::from(me.node.to_string()),
            whole(ask.ticket.0),
            whole(ask.applied.0),
            whole(me.hold_ms),
            Value::from(self.clock().now().as_millis()),
        ];
        let renewed = (&RENEW, row.clone());
        row.extend([me.roles.as_str().into(), me.version.as_str().into()]);
        row.push(Value::from(me.started_at.as_millis()));
        let changed = changes::reading_after(ask.applied, MAX_READ);
        let sent = vec![renewed, (&REGISTER, row), changed, listing()];
        let answers = tx.conn().flight(sent).await?;
        let mut answered = tx.facts_of(ask.applied, history, answers.get(2)).await?;
        answered.listed = listed(answers.last())?;
        tx.into_conn().commit().await?;
        Ok(Ok(answered))
    }

    /// The facts about one key or admin token, and about whatever it is decided with, as of one
    /// snapshot.
    pub async fn find(&self, wanted: Wanted) -> Result<Found, StoreError> {
        let mut tx = self.read_authority("look up what a node does not know").await?;
        let Ok((epoch, incarnation)) = tx.history().await? else {
            return Err(StoreError::Unavailable(PROMOTED.to_owned()));
        };
        let mut facts = Vec::new();
        match wanted {
            Wanted::Key(id) => {
                if let Some(key) = tx.key_authority(id).await? {
                    let tenant = Invalidation::Tenant(key.tenant);
                    let owner = Invalidation::Member(key.tenant, key.owner);
                    facts.push((tenant, tx.fact(tenant).await?));
                    facts.push((owner, tx.fact(owner).await?));
                    let subject = Invalidation::Key(key.tenant, id);
                    facts.push((subject, Fact::Key(Box::new(key))));
                }
            }
            Wanted::AdminToken(id) => {
                let subject = Invalidation::AdminToken(id);
                match tx.fact(subject).await? {
                    Fact::Gone => {}
                    fact => facts.push((subject, fact)),
                }
            }
        }
        Ok(Found { incarnation, epoch, facts })
    }

    /// Notes what a node has applied. Nothing is lost with it: a writer would only wait longer.
    pub async fn acknowledge(
        &self,
        node: NodeId,
        history: Incarnation,
        applied: Epoch,
    ) -> Result<(), StoreError> {
        if !self.is_shared() {
            return Ok(());
        }
        let tx = self.note_authority("note what a node has applied").await?;
        let values = vec![Value::from(node.to_string()), whole(applied.0), whole(history.0)];
        tx.into_conn().finish(vec![(&ACKNOWLEDGE, values)]).await
    }

    /// The register and the newest change.
    pub async fn roster(&self) -> Result<Roster, StoreError> {
        self.read_authority("tell what the nodes have applied").await?.standing().await
    }

    /// The register for people.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        // whoever asks for this must not take a connection that leases are renewed on
        let mut tx = self.read_system("show the nodes").await?;
        let rows = tx.query(&SHOW, []).await?;
        let node_of = |row: &Row| {
            Ok(NodeRow {
                node: parsed(row, 0)?,
                roles: row.text(1)?.to_owned(),
                version: row.text(2)?.to_owned(),
                applied: Epoch(count(row.int(3)?)),
                started_at: Timestamp::from_millis(row.int(4)?),
                renewed_at: Timestamp::from_millis(row.int(5)?),
            })
        };
        rows.iter().map(node_of).collect()
    }

    /// Takes a node off the register, so that no writer waits for it.
    pub async fn deregister(&self, node: NodeId) -> Result<(), StoreError> {
        if !self.is_shared() {
            return Ok(());
        }
        let tx = self.note_authority("take a node off the register").await?;
        let node = vec![Value::from(node.to_string())];
        tx.into_conn().finish(vec![(&DEREGISTER, node)]).await
    }

    /// Takes nodes off the register that were silent for long, unless they have renewed since.
    pub async fn forget_nodes(&self, silent: &[Listed]) -> Result<u64, StoreError> {
        let mut tx = self.note_authority("forget nodes that ended").await?;
        let mut forgotten = 0;
        for node in silent {
            let values = [Value::from(node.node.to_string()), whole(node.renewals)];
            forgotten += tx.execute(&FORGET, values).await?;
        }
        tx.into_conn().commit().await?;
        Ok(forgotten)
    }

    /// Begins another history, unless somebody has: what nodes have in memory may not be true.
    pub async fn begin_incarnation(&self, seen: Incarnation) -> Result<(), StoreError> {
        let mut tx = self.write_authority("begin another incarnation of the authority").await?;
        changes::exclude(tx.conn()).await?;
        changes::begin_incarnation(tx.conn(), seen).await?;
        tx.into_conn().commit().await
    }
}

impl SystemTx {
    /// The facts, as they are now, of what was touched after an epoch.
    async fn facts_of(
        &mut self,
        applied: Epoch,
        (epoch, incarnation): (Epoch, Incarnation),
        rows: Option<&Vec<Row>>,
    ) -> Result<Answered, StoreError> {
        let (touched, through) = touched_after(applied, epoch, rows)?;
        // in the order of epochs, so that the newest stays
        let newest: BTreeMap<Invalidation, Epoch> =
            touched.into_iter().map(|(epoch, subject)| (subject, epoch)).collect();
        let id = |subject: &Invalidation| match subject {
            Invalidation::Key(_, id) => Some(*id),
            _ => None,
        };
        let ids: Vec<KeyId> = newest.keys().filter_map(id).collect();
        let keys = self.key_authorities_among(&ids).await?;
        let keys: BTreeMap<KeyId, KeyAuthority> =
            keys.into_iter().map(|key| (key.id, key)).collect();
        let mut changed = Vec::with_capacity(newest.len());
        for (subject, epoch) in newest {
            let fact = match id(&subject) {
                Some(id) => keys.get(&id).map_or(Fact::Gone, |key| Fact::Key(key.clone().into())),
                None => self.fact(subject).await?,
            };
            changed.push(Changed { epoch, subject, fact });
        }
        let reply = Reply { incarnation, epoch, through };
        Ok(Answered { reply, changed, listed: Vec::new() })
    }

    /// The present facts about a subject.
    pub async fn fact(&mut self, subject: Invalidation) -> Result<Fact, StoreError> {
        Ok(match subject {
            Invalidation::Key(_, id) => {
                self.key_authority(id).await?.map_or(Fact::Gone, |key| Fact::Key(Box::new(key)))
            }
            Invalidation::Member(tenant, user) => {
                self.member_authority(tenant, user).await?.map_or(Fact::Gone, Fact::Member)
            }
            Invalidation::Tenant(id) => {
                self.tenant_authority(id).await?.map_or(Fact::Gone, Fact::Tenant)
            }
            Invalidation::AdminToken(id) => self
                .admin_token_authority(id)
                .await?
                .map_or(Fact::Gone, |token| Fact::AdminToken(Box::new(token))),
        })
    }

    /// The newest change, and the incarnation; or, when the server's own history is another one
    /// than on record, which one that is.
    pub(super) async fn history(
        &mut self,
    ) -> Result<Result<(Epoch, Incarnation), i64>, StoreError> {
        history_of(self.conn().flight(vec![reading_history()]).await?.last())
    }
}

/// What was touched after an epoch, and the last epoch that is whole in the answer.
fn touched_after(
    applied: Epoch,
    newest: Epoch,
    rows: Option<&Vec<Row>>,
) -> Result<(Vec<(Epoch, Invalidation)>, Epoch), StoreError> {
    if newest <= applied {
        return Ok((Vec::new(), newest));
    }
    let rows = rows.into_iter().flatten();
    let mut touched = rows.map(changes::touched_of).collect::<Result<Vec<_>, _>>()?;
    if touched.len() < MAX_READ {
        return Ok((touched, newest));
    }
    // the last one may go on behind the limit
    let cut = touched.last().map_or(newest, |(epoch, _)| *epoch);
    touched.retain(|(epoch, _)| *epoch < cut);
    let through = touched.last().map_or(applied, |(epoch, _)| *epoch);
    Ok((touched, through))
}

const fn reading_history() -> Sent {
    (&READ_HISTORY, Vec::new())
}

/// What [`reading_history`] has read; see [`SystemTx::history`].
fn history_of(rows: Option<&Vec<Row>>) -> Result<Result<(Epoch, Incarnation), i64>, StoreError> {
    let none = || StoreError::Internal("the authority has no row".to_owned());
    let row = rows.and_then(|rows| rows.first()).ok_or_else(none)?;
    match (row.opt_int(2)?, row.opt_int(3)?) {
        (Some(now), recorded) if recorded != Some(now) => Ok(Err(now)),
        _ => Ok(Ok((Epoch(count(row.int(0)?)), Incarnation(count(row.int(1)?))))),
    }
}
