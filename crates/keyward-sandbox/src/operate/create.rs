//! New rows.

use bytes::Bytes;
use keyward_core::{Error, ErrorCode};
use serde_json::Value;

use super::{Work, row};
use crate::declare::Create;
use crate::evaluate::{Scope, new_id};
use crate::reply::Answer;
use crate::space::{Change, Row, Space};

impl Work<'_> {
    pub(super) fn create(&self, create: &Create, space: &mut Space) -> Result<Answer, Error> {
        let collection = self.collection(&create.collection)?;
        let linked = self.links(space)?;
        let scope = Scope::of_request(self.request, space, &linked);
        scope.require(&create.require)?;
        let mut new = self.row(create, &scope)?;
        let id = new_id(&collection.id_prefix, self.request.clock);
        new.fields.insert(collection.id_field.clone(), Value::from(id.as_str()));
        row::unique(collection, space, &create.collection, &id, &new.fields)?;
        let answer =
            self.shown(&create.collection, &new, create.fields.as_deref(), create.presign)?;
        let mut changes = self.link_changes(space, &linked, None)?;
        changes.push(Change::Insert { collection: create.collection.clone(), id, row: new });
        space.commit(changes)?;
        Ok(answer)
    }

    /// The row without its id: what the body says, then what the document says.
    fn row(&self, create: &Create, scope: &Scope<'_>) -> Result<Row, Error> {
        let collection = self.collection(&create.collection)?;
        let mut fields = self.request.body.clone();
        fields.retain(|name, _| !collection.ages.contains_key(name));
        if let Some(state) = &collection.state
            && let Some(initial) = &state.initial
        {
            match scope.value(initial) {
                Some(value) => fields.insert(state.field.clone(), value),
                None => fields.remove(&state.field),
            };
        }
        if let Some(files) = &collection.files {
            fields.remove(&files.uploaded_at_field);
            let declared = fields.get(&files.size_field).and_then(Value::as_u64).unwrap_or(0);
            if usize::try_from(declared).map_or(true, |size| size > files.max_bytes) {
                let text = format!("A file has at most {} bytes", files.max_bytes);
                return Err(Error::validation(&files.size_field, text));
            }
        }
        fields.extend(scope.assign(&create.set));
        row::hash(collection, &mut fields)?;
        let mut new = Row { fields, since: self.request.now, content: None };
        if let (Some(content), Some(files)) = (&create.content, &collection.files) {
            let bytes = match scope.value(content).unwrap_or(Value::Null) {
                Value::String(text) => Bytes::from(text),
                other => Bytes::from(other.to_string()),
            };
            if bytes.len() > files.max_bytes {
                let text = format!("A file has at most {} bytes", files.max_bytes);
                return Err(Error::new(ErrorCode::PayloadTooLarge, text));
            }
            row::store(files, &mut new, bytes, self.request.now)?;
        }
        Ok(new)
    }
}
