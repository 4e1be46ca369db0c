//! Operations on one row that the path names.

use keyward_core::{Error, ErrorCode};
use serde_json::{Map, Value, json};

use super::{Work, no_row, row};
use crate::declare::{Collection, OnRow};
use crate::evaluate::{Linked, Scope, has_text, text};
use crate::reply::Answer;
use crate::space::{Change, Row, Space};

/// A row, its id, and the rows the request refers to: found and allowed.
struct Subject<'s> {
    collection: &'s Collection,
    id: String,
    row: &'s Row,
    linked: Vec<Linked>,
}

impl Work<'_> {
    pub(super) fn get(&self, on: &OnRow, space: &Space) -> Result<Answer, Error> {
        let subject = self.subject(on, space)?;
        self.shown(&on.collection, subject.row, on.fields.as_deref(), on.presign)
    }

    pub(super) fn delete(&self, on: &OnRow, space: &mut Space) -> Result<Answer, Error> {
        let subject = self.subject(on, space)?;
        let answer = self.shown(&on.collection, subject.row, None, None)?;
        let (collection, id) = (on.collection.clone(), subject.id);
        space.commit(vec![Change::Remove { collection, id }])?;
        Ok(answer)
    }

    pub(super) fn patch(&self, on: &OnRow, space: &mut Space) -> Result<Answer, Error> {
        let subject = self.subject(on, space)?;
        let collection = subject.collection;
        let body = self.request.body;
        if let Some(kept) = body.keys().find(|name| collection.keeps(name)) {
            return Err(Error::validation(kept, format!("`{kept}` cannot be changed by a patch")));
        }
        let mut after = subject.row.clone();
        merge(&mut after.fields, body);
        for (name, hash) in &collection.hashes {
            if body.contains_key(&hash.of) {
                after.fields.remove(name);
            }
        }
        let (answer, changes) = self.finish(on, space, &subject, after, None)?;
        space.commit(changes)?;
        Ok(answer)
    }

    pub(super) fn act(&self, on: &OnRow, space: &mut Space) -> Result<Answer, Error> {
        let subject = self.subject(on, space)?;
        let state = subject.collection.state_field();
        let current = state.and_then(|field| subject.row.fields.get(field)).map(text);
        if let Some(from) = &on.from
            && !current.as_ref().is_some_and(|current| from.contains(current))
        {
            let current = current.unwrap_or_else(|| "none".to_owned());
            let message = format!("This needs the state {}; it is `{current}`", quoted(from));
            return Err(Error::conflict(message)
                .with("state", current)
                .with("allowed", json!(from)));
        }
        let scope = Scope::of_request(self.request, space, &subject.linked)
            .with_row(subject.collection, subject.row);
        let to = match &on.to {
            None => None,
            Some(to) => Some(scope.value(to).ok_or_else(|| {
                let message = "The request does not say which state comes next";
                Error::new(ErrorCode::ValidationFailed, message)
            })?),
        };
        let after = subject.row.clone();
        let (answer, changes) = self.finish(on, space, &subject, after, to)?;
        space.commit(changes)?;
        Ok(answer)
    }

    /// Finds the row and checks what the operation demands of it and of its links.
    fn subject<'s>(&'s self, on: &OnRow, space: &'s Space) -> Result<Subject<'s>, Error> {
        let collection = self.collection(&on.collection)?;
        let name = on.param.as_ref().or(self.operation.params.last());
        let wanted = name.and_then(|name| self.request.param(name)).unwrap_or_default();
        let table = space.table(&on.collection)?;
        let now = self.request.now;
        let row = match &on.by {
            None => table.get(wanted),
            Some(by) => table.rows().find(|row| {
                row.field(collection, by, now).is_some_and(|value| has_text(&value, wanted))
            }),
        };
        let scope = Scope::of_request(self.request, space, &[]);
        let row = row.filter(|row| scope.selects(collection, row, &on.only));
        let row = row.ok_or_else(|| no_row(&on.collection))?;
        scope.with_row(collection, row).require(&on.require)?;
        let id = row.fields.get(&collection.id_field).and_then(Value::as_str).unwrap_or_default();
        Ok(Subject { collection, id: id.to_owned(), row, linked: self.links(space)? })
    }

    /// The answer and the changes once `set`, the next state and the links are written. `row` is
    /// the subject after the operation's own change.
    fn finish(
        &self,
        on: &OnRow,
        space: &Space,
        subject: &Subject<'_>,
        mut row: Row,
        to: Option<Value>,
    ) -> Result<(Answer, Vec<Change>), Error> {
        let collection = subject.collection;
        let scope = Scope::of_request(self.request, space, &subject.linked);
        let mut set = scope.with_row(collection, subject.row).assign(&on.set);
        if let (Some(to), Some(field)) = (to, collection.state_field()) {
            set.insert(field.to_owned(), to);
        }
        row::write(collection, &mut row, set, self.request.now);
        row::hash(collection, &mut row.fields)?;
        let own = Some((on.collection.as_str(), subject.id.as_str(), &mut row));
        let mut changes = self.link_changes(space, &subject.linked, own)?;
        row::unique(collection, space, &on.collection, &subject.id, &row.fields)?;
        let answer = self.shown(&on.collection, &row, on.fields.as_deref(), on.presign)?;
        let id = subject.id.clone();
        changes.push(Change::Replace { collection: on.collection.clone(), id, row });
        Ok((answer, changes))
    }
}

/// JSON merge patch (RFC 7386).
fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(name);
            }
            Value::Object(inner) => {
                let slot = target.entry(name.clone()).or_insert_with(|| json!({}));
                if !slot.is_object() {
                    *slot = json!({});
                }
                if let Value::Object(members) = slot {
                    merge(members, inner);
                }
            }
            other => {
                target.insert(name.clone(), other.clone());
            }
        }
    }
}

fn quoted(states: &[String]) -> String {
    let quoted: Vec<_> = states.iter().map(|state| format!("`{state}`")).collect();
    quoted.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_follows_rfc_7386() {
        let mut target = json!({"a": "b", "c": {"d": "e", "f": "g"}, "h": [1]});
        let patch = json!({"a": "z", "c": {"f": null}, "h": [2], "i": {"j": null}});
        merge(target.as_object_mut().unwrap(), patch.as_object().unwrap());
        assert_eq!(target, json!({"a": "z", "c": {"d": "e"}, "h": [2], "i": {}}));
    }
}
