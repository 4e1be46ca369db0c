//! The change log: what was touched in the authority to call, numbered in commit order.

use std::collections::BTreeMap;

use keyward_core::Timestamp;
use keyward_core::authority::Invalidation;
use keyward_core::lease::{Epoch, Incarnation, Listed, Roster};

use serde_json::json;

use crate::engine::{Conn, Row, Sent, StoreError, Value, postgres, sqlite};
use crate::sql::read::parsed;
use crate::sql::{nodes, statements};
use crate::tx::sealed::Connected as _;
use crate::tx::{SystemTx, TenantTx};

/// The most things one change may touch: a thousand keys, and the member they belong to. What one
/// ask reads has room for it.
pub(crate) const MAX_TOUCHED: usize = 1_001;

statements! {
    // held to the commit: no node renews between the numbering of a change and its being visible,
    // and none is registered between the list of nodes and the commit
    EXCLUDE_RENEWALS = shared_by_engine (sqlite::EXCLUDE_RENEWALS, postgres::EXCLUDE_RENEWALS);
    // the row stays locked until the commit, so epochs have no gaps and follow commit order
    ADVANCE_EPOCH = shared_by_engine (sqlite::ADVANCE_EPOCH, postgres::ADVANCE_EPOCH);
    APPEND_CHANGES = tenant_by_engine (sqlite::APPEND_CHANGES, postgres::APPEND_CHANGES);
    HINT = shared_by_engine (sqlite::HINT, postgres::HINT);
    READ_EPOCH = shared "SELECT epoch, incarnation FROM authority WHERE singleton = 1";
    READ_CHANGES = system
        "SELECT epoch, kind, tenant_id, subject FROM changes WHERE epoch > $1
         ORDER BY epoch, position LIMIT $2";
    FIND_CHANGE = tenant
        "SELECT at FROM changes WHERE tenant_id = $1 AND epoch = $2 ORDER BY position LIMIT 1";
    FIND_ANY_CHANGE = system
        "SELECT at FROM changes WHERE epoch = $1 ORDER BY tenant_id, position LIMIT 1";
    BEGIN_INCARNATION = shared
        "UPDATE authority SET incarnation = incarnation + 1
         WHERE singleton = 1 AND incarnation = $1";
    ADOPT_TIMELINE = shared
        "UPDATE authority
         SET incarnation = CASE
               WHEN timeline IS NULL THEN incarnation
               WHEN incarnation < CAST($2 AS BIGINT) THEN CAST($2 AS BIGINT)
               ELSE incarnation + 1 END,
             timeline = $1
         WHERE singleton = 1 AND (timeline IS NULL OR timeline <> $1)";
}

/// A change with its number, and who must hear of it.
pub(crate) struct Numbered {
    pub(crate) epoch: Epoch,
    pub(crate) incarnation: Incarnation,
    pub(crate) listed: Vec<Listed>,
}

/// Waits until no node renews, and lets none renew before the end of the transaction, which from
/// now on may not pause for long.
pub(crate) async fn exclude(conn: &mut Conn) -> Result<(), StoreError> {
    conn.query(&EXCLUDE_RENEWALS, &[]).await.map(drop)
}

/// Numbers a change, appends what it touched and lists all nodes, behind what else is to be done.
/// The last statements of a transaction.
pub(crate) async fn append(
    conn: &mut Conn,
    mut last: Vec<Sent>,
    chain: &str,
    invalidations: &[Invalidation],
    at: Timestamp,
) -> Result<Numbered, StoreError> {
    if invalidations.len() > MAX_TOUCHED {
        let text = format!("a change touches {} things at once", invalidations.len());
        return Err(StoreError::Internal(text));
    }
    last.push((&EXCLUDE_RENEWALS, Vec::new()));
    let advances_at = last.len();
    last.push((&ADVANCE_EPOCH, Vec::new()));
    // one statement however many there are: nobody renews meanwhile
    let mut by_tenant: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
    for (position, invalidation) in (0_i64..).zip(invalidations) {
        let (kind, tenant, subject) = words(invalidation);
        let rows = by_tenant.entry(tenant.unwrap_or_else(|| chain.to_owned())).or_default();
        rows.push(json!([position, kind, subject]));
    }
    for (tenant, rows) in by_tenant {
        let rows = serde_json::Value::Array(rows).to_string();
        last.push((&APPEND_CHANGES, vec![tenant.into(), at.as_millis().into(), rows.into()]));
    }
    last.push((&HINT, Vec::new()));
    last.push(nodes::listing());
    let answers = conn.flight(last).await?;
    let Some(advanced) = answers.get(advances_at).and_then(|rows| rows.first()) else {
        return Err(StoreError::Unavailable(nodes::PROMOTED.to_owned()));
    };
    let number = |value: i64| u64::try_from(value).unwrap_or_default();
    Ok(Numbered {
        epoch: Epoch(number(advanced.int(0)?)),
        incarnation: Incarnation(number(advanced.int(1)?)),
        listed: nodes::listed(answers.last())?,
    })
}

/// What reads what was touched after an epoch, in commit order, as far as the limit goes.
pub(crate) fn reading_after(applied: Epoch, limit: usize) -> Sent {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let applied = i64::try_from(applied.0).unwrap_or(i64::MAX);
    (&READ_CHANGES, vec![Value::from(applied), Value::from(limit)])
}

/// Begins another history, unless somebody has.
pub(crate) async fn begin_incarnation(
    conn: &mut Conn,
    seen: Incarnation,
) -> Result<(), StoreError> {
    let seen = i64::try_from(seen.0).unwrap_or(i64::MAX);
    conn.execute(&BEGIN_INCARNATION, &[Value::from(seen)]).await.map(drop)
}

/// Notes the server's own history; another one than before begins another of ours. Its number is
/// the present instant, so that two standbys promoted from one ancestor do not share it.
pub(crate) async fn adopt_timeline(
    conn: &mut Conn,
    timeline: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let values = [Value::from(timeline), Value::from(now.as_millis())];
    conn.execute(&ADOPT_TIMELINE, &values).await.map(drop)
}

pub(crate) fn touched_of(row: &Row) -> Result<(Epoch, Invalidation), StoreError> {
    let epoch = Epoch(u64::try_from(row.int(0)?).unwrap_or_default());
    let invalidation = match row.text(1)? {
        "key" => Invalidation::Key(parsed(row, 2)?, parsed(row, 3)?),
        "member" => Invalidation::Member(parsed(row, 2)?, parsed(row, 3)?),
        "tenant" => Invalidation::Tenant(parsed(row, 3)?),
        "admin_token" => Invalidation::AdminToken(parsed(row, 3)?),
        // written by a newer binary: what it narrowed cannot be known, so nothing is decided
        other => {
            let text = format!("the change log speaks of {other:?}: this binary is too old");
            return Err(StoreError::Internal(text));
        }
    };
    Ok((epoch, invalidation))
}

/// Kind, tenant and subject of what was touched; what has no tenant stands in the change's chain.
fn words(invalidation: &Invalidation) -> (&'static str, Option<String>, String) {
    match invalidation {
        Invalidation::Key(tenant, key) => ("key", Some(tenant.to_string()), key.to_string()),
        Invalidation::Member(tenant, user) => {
            ("member", Some(tenant.to_string()), user.to_string())
        }
        Invalidation::Tenant(tenant) => ("tenant", Some(tenant.to_string()), tenant.to_string()),
        Invalidation::AdminToken(token) => ("admin_token", None, token.to_string()),
    }
}

impl SystemTx {
    /// The epoch of the newest change and the incarnation of the authority.
    pub async fn epoch(&mut self) -> Result<(i64, i64), StoreError> {
        let row = self.query_one(&READ_EPOCH, []).await?;
        Ok((row.int(0)?, row.int(1)?))
    }

    /// The incarnation of the authority, the newest change, and every node on the register.
    pub(super) async fn standing(&mut self) -> Result<Roster, StoreError> {
        let answers = self.conn().flight(vec![(&READ_EPOCH, Vec::new()), nodes::listing()]).await?;
        let none = || StoreError::Internal("the authority has no row".to_owned());
        let row = answers.first().and_then(|rows| rows.first()).ok_or_else(none)?;
        let number = |value: i64| u64::try_from(value).unwrap_or_default();
        Ok(Roster {
            incarnation: Incarnation(number(row.int(1)?)),
            epoch: Epoch(number(row.int(0)?)),
            listed: nodes::listed(answers.last())?,
        })
    }

    /// When the change with this number was committed, whoever's it is.
    pub async fn find_change(&mut self, epoch: Epoch) -> Result<Option<Timestamp>, StoreError> {
        let epoch = Value::from(i64::try_from(epoch.0).unwrap_or(i64::MAX));
        let row = self.query_opt(&FIND_ANY_CHANGE, [epoch]).await?;
        row.map(|row| row.int(0).map(Timestamp::from_millis)).transpose()
    }
}

impl TenantTx {
    /// When the change with this number was committed, if it is the tenant's.
    pub async fn find_change(&mut self, epoch: Epoch) -> Result<Option<Timestamp>, StoreError> {
        let epoch = Value::from(i64::try_from(epoch.0).unwrap_or(i64::MAX));
        let row = self.query_opt(&FIND_CHANGE, [epoch]).await?;
        row.map(|row| row.int(0).map(Timestamp::from_millis)).transpose()
    }
}
