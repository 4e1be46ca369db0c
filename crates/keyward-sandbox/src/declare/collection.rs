//! `x-sandbox-collections`: what the rows of each collection are.

use std::collections::BTreeMap;

use keyward_core::time::HOUR_MS;
use serde::Deserialize;

use super::expression::{Assignments, Condition, Expr, Span};
use crate::MAX_FILE_BYTES;

/// How long a signed URL may live at most, in milliseconds.
const MAX_URL_TTL_MS: i64 = HOUR_MS;

/// The rows of one kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Collection {
    #[serde(default = "id_field")]
    pub(crate) id_field: String,
    #[serde(default)]
    pub(crate) id_prefix: String,
    pub(crate) state: Option<StateField>,
    #[serde(default)]
    pub(crate) hashes: BTreeMap<String, Hash>,
    #[serde(default)]
    pub(crate) ages: BTreeMap<String, Age>,
    #[serde(default)]
    pub(crate) unique: Vec<String>,
    #[serde(default)]
    pub(crate) private: Vec<String>,
    pub(crate) files: Option<Files>,
}

fn id_field() -> String {
    "id".to_owned()
}

/// The field that holds the state of a row, and how it moves by itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateField {
    pub(crate) field: String,
    pub(crate) initial: Option<Expr>,
    #[serde(default)]
    pub(crate) later: Vec<Later>,
}

/// A move that happens when a row has been in `from` for `after`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Later {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) after: Span,
    pub(crate) when: Option<Condition>,
    #[serde(default)]
    pub(crate) set: Assignments,
}

/// A field that is the SHA-256 of another.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hash {
    pub(crate) of: String,
    #[serde(default)]
    pub(crate) prefix: String,
}

/// A word for the age of a row, worked out at each read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Age {
    pub(crate) of: String,
    pub(crate) steps: Vec<AgeStep>,
    #[serde(rename = "else")]
    pub(crate) otherwise: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgeStep {
    pub(crate) within: Within,
    pub(crate) is: String,
}

/// How old a row may be for one step of an [`Age`].
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a duration such as 90d, or { days: <field> }")]
pub(crate) enum Within {
    Span(Span),
    Days(Days),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Days {
    pub(crate) days: String,
}

/// Rows that carry bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Files {
    pub(crate) max_bytes: usize,
    pub(crate) url_ttl: Span,
    pub(crate) size_field: String,
    pub(crate) hash_field: String,
    pub(crate) uploaded_at_field: String,
    pub(crate) type_field: String,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            max_bytes: MAX_FILE_BYTES,
            url_ttl: Span { ms: 300_000 },
            size_field: "sizeBytes".to_owned(),
            hash_field: "sha256".to_owned(),
            uploaded_at_field: "uploadedAt".to_owned(),
            type_field: "contentType".to_owned(),
        }
    }
}

impl Collection {
    /// The name of the state field, if there is a state machine.
    pub(crate) fn state_field(&self) -> Option<&str> {
        self.state.as_ref().map(|state| state.field.as_str())
    }

    /// Whether a field is kept by the sandbox itself: clients cannot patch it.
    pub(crate) fn keeps(&self, field: &str) -> bool {
        field == self.id_field
            || self.state_field() == Some(field)
            || self.hashes.contains_key(field)
            || self.ages.contains_key(field)
            || self.files.as_ref().is_some_and(|files| files.keeps(field))
    }

    /// What is wrong with the declaration beyond its form: a relative pointer and a message.
    pub(crate) fn mistake(&self) -> Option<(String, String)> {
        if let Some(files) = &self.files {
            if files.max_bytes > MAX_FILE_BYTES {
                let text = format!("at most {MAX_FILE_BYTES} bytes");
                return Some(("/files/maxBytes".to_owned(), text));
            }
            if files.url_ttl.ms > MAX_URL_TTL_MS || files.url_ttl.ms == 0 {
                return Some((
                    "/files/urlTtl".to_owned(),
                    "more than nothing, at most 1h".to_owned(),
                ));
            }
        }
        let later = self.state.as_ref().map_or(&[][..], |state| &state.later);
        for (index, entry) in later.iter().enumerate() {
            if reaches(later, &entry.to, &entry.from, later.len()) {
                let text = format!("`{}` would come back to itself", entry.from);
                return Some((format!("/state/later/{index}"), text));
            }
        }
        None
    }
}

impl Files {
    fn keeps(&self, field: &str) -> bool {
        [&self.size_field, &self.hash_field, &self.uploaded_at_field, &self.type_field]
            .iter()
            .any(|name| *name == field)
    }
}

/// Whether `to` can be reached from `from` in at most `steps` moves after this one.
fn reaches(later: &[Later], from: &str, to: &str, steps: usize) -> bool {
    let mut seen = vec![from];
    for _ in 0..=steps {
        if seen.contains(&to) {
            return true;
        }
        let next: Vec<&str> = later
            .iter()
            .filter(|entry| seen.contains(&entry.from.as_str()))
            .map(|entry| entry.to.as_str())
            .filter(|state| !seen.contains(state))
            .collect();
        seen.extend(next);
    }
    false
}
