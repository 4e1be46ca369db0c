//! The data of one tenant in one environment.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use keyward_core::time::DAY_MS;
use keyward_core::{Error, Timestamp};
use serde_json::{Map, Value};

use crate::declare::{Age, Collection, Later, Plan, Within};
use crate::evaluate::Scope;
use crate::{MAX_ROWS, MAX_SPACE_BYTES};

/// One row and what belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) fields: Map<String, Value>,
    /// When it entered the state it is in.
    pub(crate) since: Timestamp,
    /// The bytes of a row of a collection with `files`.
    pub(crate) content: Option<Bytes>,
}

impl Row {
    fn weight(&self) -> usize {
        let content = self.content.as_ref().map_or(0, Bytes::len);
        let fields = self.fields.iter().map(|(name, value)| name.len() + weight(value));
        fields.sum::<usize>() + content
    }

    /// A field as callers see it: stored, or worked out at this instant.
    pub(crate) fn field<'r>(
        &'r self,
        collection: &Collection,
        name: &str,
        now: Timestamp,
    ) -> Option<Cow<'r, Value>> {
        match collection.ages.get(name) {
            Some(age) => Some(Cow::Owned(Value::from(self.age(age, now)))),
            None => self.fields.get(name).map(Cow::Borrowed),
        }
    }

    fn age<'a>(&self, age: &'a Age, now: Timestamp) -> &'a str {
        let instant = self.fields.get(&age.of).and_then(Value::as_str);
        let Some(instant) = instant.and_then(|text| text.parse::<Timestamp>().ok()) else {
            return &age.otherwise;
        };
        let old_ms = now.since(instant);
        let fits = |within: &Within| match within {
            Within::Span(span) => old_ms <= span.ms,
            Within::Days(days) => {
                let days = self.fields.get(&days.days).and_then(Value::as_i64);
                days.is_some_and(|days| old_ms <= days.saturating_mul(DAY_MS))
            }
        };
        let step = age.steps.iter().find(|step| fits(&step.within));
        step.map_or(&age.otherwise, |step| &step.is)
    }

    /// The answer that shows this row: derived fields in, private fields out.
    pub(crate) fn shown(
        &self,
        collection: &Collection,
        fields: Option<&[String]>,
        now: Timestamp,
    ) -> Map<String, Value> {
        let wanted = |name: &str| {
            !collection.private.iter().any(|hidden| hidden == name)
                && fields.is_none_or(|fields| fields.iter().any(|field| field == name))
        };
        let stored = self.fields.iter().filter(|(name, _)| wanted(name));
        let mut shown: Map<_, _> = stored.map(|(n, v)| (n.clone(), v.clone())).collect();
        for (name, age) in collection.ages.iter().filter(|(name, _)| wanted(name)) {
            shown.insert(name.clone(), Value::from(self.age(age, now)));
        }
        shown
    }

    /// Makes every move that was due by now, each at its own instant.
    fn advance(&mut self, collection: &Collection, now: Timestamp) {
        let Some(state) = &collection.state else {
            return;
        };
        // a chain without a cycle has at most as many moves as there are entries
        for _ in 0..state.later.len() {
            let current = self.fields.get(&state.field).and_then(Value::as_str);
            let due = state.later.iter().find(|later| {
                Some(later.from.as_str()) == current && self.matches(collection, later)
            });
            let Some(later) = due else { return };
            let at = self.since.plus_ms(later.after.ms);
            if at > now {
                return;
            }
            let changes = Scope::of_row(collection, self, at).assign(&later.set);
            self.fields.extend(changes);
            self.fields.insert(state.field.clone(), Value::from(later.to.as_str()));
            self.since = at;
        }
    }

    fn matches(&self, collection: &Collection, later: &Later) -> bool {
        let scope = Scope::of_row(collection, self, self.since.plus_ms(later.after.ms));
        later.when.as_ref().is_none_or(|when| scope.holds(when))
    }
}

/// About how many bytes a value takes.
fn weight(value: &Value) -> usize {
    const EACH: usize = 16;
    EACH + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(members) => members.iter().map(|(n, v)| n.len() + weight(v)).sum(),
    }
}

/// The rows of one collection, in the order they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<u64, Row>,
    by_id: HashMap<String, u64>,
}

impl Table {
    pub(crate) fn get(&self, id: &str) -> Option<&Row> {
        self.rows.get(self.by_id.get(id)?)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// Rows older than this position, newest first.
    pub(crate) fn before(&self, position: u64) -> impl Iterator<Item = (u64, &Row)> {
        self.rows.range(..position).rev().map(|(at, row)| (*at, row))
    }
}

/// Everything of one tenant in one environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    tables: HashMap<String, Table>,
    weight: usize,
    next: u64,
}

impl Space {
    /// A space with an empty table for each collection.
    pub(crate) fn empty(plan: &Plan) -> Self {
        let tables = plan.collections.keys().map(|name| (name.clone(), Table::default()));
        Self { tables: tables.collect(), weight: 0, next: 0 }
    }

    pub(crate) fn table(&self, collection: &str) -> Result<&Table, Error> {
        self.tables.get(collection).ok_or_else(|| no_table(collection))
    }

    /// Makes every delayed move that was due by now.
    pub(crate) fn advance(&mut self, plan: &Plan, now: Timestamp) {
        for (name, collection) in &plan.collections {
            let moves = collection.state.as_ref().is_some_and(|state| !state.later.is_empty());
            if let Some(table) = self.tables.get_mut(name).filter(|_| moves) {
                for row in table.rows.values_mut() {
                    row.advance(collection, now);
                }
            }
        }
    }

    /// Makes these changes together, or none of them.
    pub(crate) fn commit(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        let (mut added, mut freed) = (0, 0);
        for change in &changes {
            let (new, old) = self.check(change)?;
            added += new;
            freed += old;
        }
        let weight = (self.weight + added).saturating_sub(freed);
        if added > freed && weight > MAX_SPACE_BYTES {
            let text = "The sandbox holds no more bytes for this tenant; delete something";
            return Err(Error::conflict(text).with("limitBytes", MAX_SPACE_BYTES));
        }
        self.weight = weight;
        for change in changes {
            self.apply(change);
        }
        Ok(())
    }

    /// The bytes a change adds and frees, if it can be made.
    fn check(&self, change: &Change) -> Result<(usize, usize), Error> {
        let (Change::Insert { collection, id, .. }
        | Change::Replace { collection, id, .. }
        | Change::Remove { collection, id }) = change;
        let table = self.table(collection)?;
        let old = table.get(id).map(Row::weight);
        match (change, old) {
            (Change::Insert { .. }, Some(_)) => {
                Err(Error::conflict("A row with this id exists already"))
            }
            (Change::Insert { .. }, None) if table.rows.len() >= MAX_ROWS => {
                let text = "The sandbox holds no more rows of this collection; delete some";
                Err(Error::conflict(text).with("limit", MAX_ROWS))
            }
            (Change::Insert { row, .. }, None) => Ok((row.weight(), 0)),
            (_, None) => Err(Error::not_found("row")),
            (Change::Replace { row, .. }, Some(old)) => Ok((row.weight(), old)),
            (Change::Remove { .. }, Some(old)) => Ok((0, old)),
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Insert { collection, id, row } => {
                if let Some(table) = self.tables.get_mut(&collection) {
                    table.by_id.insert(id, self.next);
                    table.rows.insert(self.next, row);
                    self.next += 1;
                }
            }
            Change::Replace { collection, id, row } => {
                let table = self.tables.get_mut(&collection);
                let slot = table.and_then(|t| t.rows.get_mut(t.by_id.get(&id)?));
                if let Some(slot) = slot {
                    *slot = row;
                }
            }
            Change::Remove { collection, id } => {
                if let Some(table) = self.tables.get_mut(&collection)
                    && let Some(at) = table.by_id.remove(&id)
                {
                    table.rows.remove(&at);
                }
            }
        }
    }
}

/// A change to one row. A list of changes names each row at most once.
#[derive(Debug)]
pub(crate) enum Change {
    Insert { collection: String, id: String, row: Row },
    Replace { collection: String, id: String, row: Row },
    Remove { collection: String, id: String },
}

fn no_table(collection: &str) -> Error {
    Error::internal(format!("no table for collection `{collection}`"))
}
