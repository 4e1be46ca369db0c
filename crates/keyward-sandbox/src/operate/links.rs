//! The rows a request refers to: found, checked, and written to.

use keyward_core::{Error, ErrorCode};
use serde_json::{Map, Value};

use super::{Work, no_row, row};
use crate::MAX_LINKED;
use crate::declare::{Expr, Link};
use crate::evaluate::{Linked, Scope};
use crate::space::{Change, Row, Space};

impl Work<'_> {
    /// Finds and checks every row the request refers to.
    pub(super) fn links(&self, space: &Space) -> Result<Vec<Linked>, Error> {
        let links = self.operation.action.links();
        let found = links.iter().map(|link| self.link(link, space));
        found.collect()
    }

    fn link(&self, link: &Link, space: &Space) -> Result<Linked, Error> {
        let collection = self.collection(&link.collection)?;
        let scope = Scope::of_request(self.request, space, &[]);
        let field = match &link.id {
            Expr::Body(name) => name.as_str(),
            _ => "id",
        };
        let value = scope.value(&link.id).filter(|value| !value.is_null());
        let many = matches!(value, Some(Value::Array(_)));
        let mut ids = Vec::new();
        for value in value.map(values).into_iter().flatten() {
            let Value::String(id) = value else {
                return Err(Error::validation(field, format!("`{field}` must hold ids")));
            };
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        if ids.len() > MAX_LINKED {
            let text = format!("`{field}` names more than {MAX_LINKED} rows");
            return Err(Error::validation(field, text));
        }
        for id in &ids {
            let Some(row) = space.table(&link.collection)?.get(id) else {
                if matches!(link.id, Expr::Param(_)) {
                    return Err(no_row(&link.collection));
                }
                let text = format!("No row `{id}` in `{}`", link.collection);
                return Err(Error::new(ErrorCode::ValidationFailed, text).with("field", field));
            };
            let scope = scope.with_row(collection, row);
            scope.require(&link.require).map_err(|error| error.with("id", id.as_str()))?;
        }
        Ok(Linked { collection: link.collection.clone(), many, ids })
    }

    /// The changes that `set` of the links makes. `subject` is the row of the operation itself: a
    /// link to it is written into it, so that no row is changed twice.
    pub(super) fn link_changes(
        &self,
        space: &Space,
        linked: &[Linked],
        mut subject: Option<(&str, &str, &mut Row)>,
    ) -> Result<Vec<Change>, Error> {
        let mut changes: Vec<Change> = Vec::new();
        for (link, found) in self.operation.action.links().iter().zip(linked) {
            if link.set.is_empty() {
                continue;
            }
            let name = &link.collection;
            let collection = self.collection(name)?;
            for id in &found.ids {
                let Some(before) = space.table(name)?.get(id) else {
                    continue;
                };
                let scope = Scope::of_request(self.request, space, linked);
                let set: Map<_, _> = scope.with_row(collection, before).assign(&link.set);
                let now = self.request.now;
                if let Some((of, its, target)) = &mut subject
                    && of == name
                    && its == id
                {
                    row::write(collection, target, set, now);
                } else if let Some(target) = pending(&mut changes, name, id) {
                    row::write(collection, target, set, now);
                } else {
                    let mut after = before.clone();
                    row::write(collection, &mut after, set, now);
                    let (collection, id) = (name.clone(), id.clone());
                    changes.push(Change::Replace { collection, id, row: after });
                }
            }
        }
        Ok(changes)
    }
}

fn values(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        single => vec![single],
    }
}

fn pending<'c>(changes: &'c mut [Change], name: &str, id: &str) -> Option<&'c mut Row> {
    changes.iter_mut().find_map(|change| match change {
        Change::Replace { collection, id: its, row } if collection == name && its == id => {
            Some(row)
        }
        _ => None,
    })
}
