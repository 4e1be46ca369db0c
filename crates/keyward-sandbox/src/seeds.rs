//! The data that tenants begin with.

use std::collections::BTreeMap;

use bytes::Bytes;
use keyward_core::environment::Environment;
use keyward_core::{Clock, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::SandboxError;
use crate::declare::{Collection, Plan, Span, escaped};
use crate::operate::row;
use crate::space::{Change, Row, Space};

/// The member of a seeded row that is its bytes.
const CONTENT: &str = "@content";
/// The text that becomes the instant at which the data is made.
const NOW: &str = "@now";

type Rows = BTreeMap<String, Vec<Map<String, Value>>>;

/// The seeds of every tenant, checked.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seeds {
    #[serde(default)]
    tenants: BTreeMap<String, BTreeMap<Environment, Option<Rows>>>,
}

impl Seeds {
    /// Reads the seeds and makes each space once, so that a mistake is found at start.
    pub(crate) fn read(
        value: &Value,
        plan: &Plan,
        clock: &dyn Clock,
    ) -> Result<Self, SandboxError> {
        if value.is_null() {
            return Ok(Self::default());
        }
        let seeds: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            let pointer = format!("/{}", error.path().to_string().replace('.', "/"));
            SandboxError::seeds(pointer, error.into_inner().to_string())
        })?;
        let now = clock.now();
        for (slug, environments) in &seeds.tenants {
            for environment in environments.keys() {
                seeds.space(Some(slug), *environment, plan, now)?;
            }
        }
        Ok(seeds)
    }

    /// The first data of a tenant; empty when there are no seeds for it.
    pub(crate) fn space(
        &self,
        slug: Option<&str>,
        environment: Environment,
        plan: &Plan,
        now: Timestamp,
    ) -> Result<Space, SandboxError> {
        let mut space = Space::empty(plan);
        let tenant = slug.and_then(|slug| self.tenants.get(slug));
        let rows = tenant.and_then(|environments| environments.get(&environment)?.as_ref());
        for (name, rows) in rows.into_iter().flatten() {
            let slug = escaped(slug.unwrap_or_default());
            let pointer = format!("/tenants/{slug}/{environment}/{name}");
            let Some(collection) = plan.collections.get(name) else {
                return Err(SandboxError::seeds(pointer, "no such collection in the document"));
            };
            // the last row of the file is the oldest
            for (index, fields) in rows.iter().enumerate().rev() {
                let at = format!("{pointer}/{index}");
                let (id, row) = seeded(collection, fields, now, &at)?;
                row::unique(collection, &space, name, &id, &row.fields)
                    .and_then(|()| {
                        space.commit(vec![Change::Insert { collection: name.clone(), id, row }])
                    })
                    .map_err(|error| SandboxError::seeds(at, error.public()))?;
            }
        }
        Ok(space)
    }
}

fn seeded(
    collection: &Collection,
    fields: &Map<String, Value>,
    now: Timestamp,
    pointer: &str,
) -> Result<(String, Row), SandboxError> {
    let mut fields = fields.clone();
    for (name, value) in &mut fields {
        set_instants(value, now).map_err(|text| {
            let text = format!("`{text}` is not {NOW}, {NOW}-3d, {NOW}+12h");
            SandboxError::seeds(format!("{pointer}/{}", escaped(name)), text)
        })?;
    }
    let id = fields.get(&collection.id_field).and_then(Value::as_str).filter(|id| !id.is_empty());
    let Some(id) = id.map(str::to_owned) else {
        let text = format!("the row needs its `{}`", collection.id_field);
        return Err(SandboxError::seeds(pointer, text));
    };
    let refused = |error: keyward_core::Error| SandboxError::seeds(pointer, error.public());
    row::hash(collection, &mut fields).map_err(refused)?;
    let mut row = Row { fields, since: now, content: None };
    match (row.fields.remove(CONTENT), &collection.files) {
        (None, _) => {}
        (Some(Value::String(text)), Some(files)) => {
            let uploaded = row.fields.get(&files.uploaded_at_field).cloned();
            row::store(files, &mut row, Bytes::from(text), now).map_err(refused)?;
            if let Some(uploaded) = uploaded {
                row.fields.insert(files.uploaded_at_field.clone(), uploaded);
            }
        }
        _ => {
            let text = "is text, in a collection with `files`";
            return Err(SandboxError::seeds(format!("{pointer}/{CONTENT}"), text));
        }
    }
    Ok((id, row))
}

/// Puts instants in the place of `@now…`, or gives back the text that is not one.
fn set_instants(value: &mut Value, now: Timestamp) -> Result<(), String> {
    match value {
        Value::String(text) => {
            let Some(rest) = text.strip_prefix(NOW) else {
                return Ok(());
            };
            let offset_ms = match rest.split_at_checked(1) {
                None => Some(0),
                Some(("-", span)) => Span::parse(span).map(|span| -span.ms),
                Some(("+", span)) => Span::parse(span).map(|span| span.ms),
                Some(_) => None,
            };
            let offset_ms = offset_ms.ok_or_else(|| text.clone())?;
            *value = Value::from(now.plus_ms(offset_ms).to_string());
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| set_instants(item, now)),
        Value::Object(members) => members.values_mut().try_for_each(|v| set_instants(v, now)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}
