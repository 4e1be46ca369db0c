//! What every row obeys, however it was made.

use bytes::Bytes;
use keyward_core::{Error, Timestamp};
use serde_json::{Map, Value};

use crate::canonical;
use crate::declare::{Collection, Files};
use crate::space::{Row, Space};

/// The type of bytes whose row does not say.
pub(crate) const DEFAULT_TYPE: &str = "application/octet-stream";

/// Computes the hash fields; one that is there already must be equal.
pub(crate) fn hash(collection: &Collection, fields: &mut Map<String, Value>) -> Result<(), Error> {
    for (name, hash) in &collection.hashes {
        let Some(source) = fields.get(&hash.of) else {
            continue;
        };
        let computed = Value::from(format!("{}{}", hash.prefix, canonical::sha256(source)));
        if fields.get(name).is_some_and(|given| *given != computed) {
            let text = format!("`{name}` is not the hash of `{}`", hash.of);
            return Err(Error::validation(name, text).with("computed", computed));
        }
        fields.insert(name.clone(), computed);
    }
    Ok(())
}

/// Refuses a value that another row has in a unique field.
pub(crate) fn unique(
    collection: &Collection,
    space: &Space,
    name: &str,
    id: &str,
    fields: &Map<String, Value>,
) -> Result<(), Error> {
    if collection.unique.is_empty() {
        return Ok(());
    }
    for other in space.table(name)?.rows() {
        if other.fields.get(&collection.id_field).and_then(Value::as_str) == Some(id) {
            continue;
        }
        for field in &collection.unique {
            let value = fields.get(field).filter(|value| !value.is_null());
            if value.is_some() && value == other.fields.get(field) {
                let text = format!("Another row has this `{field}` already");
                return Err(Error::conflict(text).with("field", field.as_str()));
            }
        }
    }
    Ok(())
}

/// Gives a row its bytes, if they are what the row said they would be.
pub(crate) fn store(
    files: &Files,
    row: &mut Row,
    content: Bytes,
    now: Timestamp,
) -> Result<(), Error> {
    let facts = [
        (&files.size_field, Value::from(content.len())),
        (&files.hash_field, Value::from(canonical::sha256_bytes(&content))),
    ];
    for (name, found) in facts {
        if row.fields.get(name).is_some_and(|said| !said.is_null() && *said != found) {
            let text = format!("The bytes do not match `{name}`");
            return Err(Error::validation(name, text).with("found", found));
        }
        row.fields.insert(name.clone(), found);
    }
    row.fields.insert(files.uploaded_at_field.clone(), Value::from(now.to_string()));
    row.content = Some(content);
    Ok(())
}

/// Writes fields over a row. A changed state begins now.
pub(crate) fn write(
    collection: &Collection,
    row: &mut Row,
    fields: Map<String, Value>,
    now: Timestamp,
) {
    if let Some(state) = collection.state_field()
        && let Some(to) = fields.get(state)
        && row.fields.get(state) != Some(to)
    {
        row.since = now;
    }
    row.fields.extend(fields);
}
