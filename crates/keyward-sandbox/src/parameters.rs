//! Query and header parameters against the schemas of the document.

use http::HeaderMap;
use jsonschema::Validator;
use keyward_core::{Error, ErrorCode};
use serde_json::Value;

use crate::SandboxError;
use crate::schema::{resolve, validator};

/// Query parameters that lists read themselves.
const OF_LISTS: [&str; 2] = ["limit", "cursor"];

/// What an operation says about its query and headers.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<Parameter>);

#[derive(Debug)]
struct Parameter {
    name: String,
    place: Place,
    required: bool,
    /// Whether the schema wants something else than text.
    typed: bool,
    validator: Validator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Query,
    Header,
}

impl Parameters {
    /// Reads those of a path and of its operation.
    pub(crate) fn read(
        document: &Value,
        holders: [&Value; 2],
        pointer: &str,
    ) -> Result<Self, SandboxError> {
        let at = format!("{pointer}/parameters");
        let declared = holders.iter().filter_map(|holder| holder.get("parameters"));
        let mut parameters = Vec::new();
        for parameter in declared.filter_map(Value::as_array).flatten() {
            let parameter = resolve(document, parameter, &at)?;
            let text = |member: &str| parameter.get(member).and_then(Value::as_str);
            let name = text("name").unwrap_or_default();
            let place = match text("in") {
                Some("query") if !OF_LISTS.contains(&name) => Place::Query,
                Some("header") => Place::Header,
                _ => continue,
            };
            let Some(schema) = parameter.get("schema") else { continue };
            let kind = resolve(document, schema, &at)?.get("type").and_then(Value::as_str);
            parameters.push(Parameter {
                name: name.to_owned(),
                place,
                required: parameter.get("required").and_then(Value::as_bool).unwrap_or(false),
                typed: matches!(kind, Some("integer" | "number" | "boolean")),
                validator: validator(document, schema, &at)?,
            });
        }
        Ok(Self(parameters))
    }

    /// Refuses a value that does not fit, and the lack of one that is required. A query parameter
    /// may have several values with commas; each must fit.
    pub(crate) fn check(
        &self,
        query: &[(String, String)],
        headers: &HeaderMap,
    ) -> Result<(), Error> {
        for parameter in &self.0 {
            let name = parameter.name.as_str();
            let mut found = match parameter.place {
                Place::Query => {
                    let given = query.iter().filter(|(known, _)| known == name);
                    given.flat_map(|(_, value)| value.split(',')).collect::<Vec<_>>()
                }
                Place::Header => {
                    let lines = headers.get_all(name).iter();
                    lines.map(|line| line.to_str().unwrap_or("\u{fffd}")).collect()
                }
            };
            let lacks = parameter.required && found.is_empty();
            found.retain(|text| !parameter.fits(text));
            if lacks || !found.is_empty() {
                let what = if lacks { "is required" } else { "does not fit its schema" };
                let error = Error::new(ErrorCode::InvalidRequest, format!("`{name}` {what}"));
                return Err(error.with("parameter", name));
            }
        }
        Ok(())
    }
}

impl Parameter {
    fn fits(&self, text: &str) -> bool {
        let typed = if self.typed { serde_json::from_str(text).ok() } else { None };
        self.validator.is_valid(&typed.unwrap_or_else(|| Value::from(text)))
    }
}
