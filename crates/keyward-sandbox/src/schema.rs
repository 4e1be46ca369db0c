//! Request bodies against the schemas of the document.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, Validator};
use keyward_core::{Error, ErrorCode};
use serde_json::{Map, Value, json};

use crate::SandboxError;
use crate::declare::escaped;

/// Issues that one answer lists.
const MAX_ISSUES: usize = 20;
/// References that are followed before a document is called circular.
const MAX_REFERENCES: usize = 32;

/// The body of one operation.
#[derive(Debug)]
pub(crate) struct BodySchema {
    required: bool,
    validator: Validator,
}

impl BodySchema {
    /// Compiles the `requestBody` at this pointer.
    pub(crate) fn read(
        document: &Value,
        body: &Value,
        pointer: &str,
    ) -> Result<Self, SandboxError> {
        let body = resolve(document, body, pointer)?;
        let at = format!("{pointer}/content/application~1json/schema");
        let schema = body
            .pointer("/content/application~1json/schema")
            .ok_or_else(|| SandboxError::document(&at, "a request body needs a JSON schema"))?;
        let validator = validator(document, schema, &at)?;
        let required = body.get("required").and_then(Value::as_bool).unwrap_or(false);
        Ok(Self { required, validator })
    }

    /// The members of a body that fits, or what does not fit.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<Map<String, Value>, Error> {
        if bytes.is_empty() && !self.required {
            return Ok(Map::new());
        }
        let body: Value = serde_json::from_slice(bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let text = format!("The body is not JSON (line {line}, column {column})");
            Error::new(ErrorCode::InvalidRequest, text)
        })?;
        let issues: Vec<Value> =
            self.validator.iter_errors(&body).flat_map(|e| issues(&e)).take(MAX_ISSUES).collect();
        if !issues.is_empty() {
            let text = "The body does not fit the schema; see details.issues";
            return Err(Error::new(ErrorCode::ValidationFailed, text).with("issues", issues));
        }
        match body {
            Value::Object(members) => Ok(members),
            _ => Err(Error::new(ErrorCode::ValidationFailed, "The body must be a JSON object")),
        }
    }
}

/// Compiles a schema that stands at this pointer. Its references are into the document.
pub(crate) fn validator(
    document: &Value,
    schema: &Value,
    at: &str,
) -> Result<Validator, SandboxError> {
    let mut root = Map::new();
    root.insert("allOf".to_owned(), json!([schema]));
    if let Some(components) = document.get("components") {
        root.insert("components".to_owned(), components.clone());
    }
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        // the linear engine: no pattern of a document can be made to hang by a caller
        .with_pattern_options(PatternOptions::regex())
        .offline()
        .build(&Value::Object(root))
        .map_err(|error| SandboxError::document(at, format!("not usable: {error}")))
}

/// What an error says, without the value it is about: bodies are not repeated.
fn issues(error: &jsonschema::ValidationError<'_>) -> Vec<Value> {
    let path = error.instance_path().to_string();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => unexpected
            .iter()
            .map(|name| format!("{path}/{}", escaped(name)))
            .map(|path| json!({"path": path, "message": "unknown field"}))
            .collect(),
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![json!({"path": format!("{path}/{name}"), "message": "required"})]
        }
        _ => vec![json!({"path": path, "message": error.masked().to_string()})],
    }
}

/// Follows `$ref`s inside the document.
pub(crate) fn resolve<'d>(
    document: &'d Value,
    value: &'d Value,
    pointer: &str,
) -> Result<&'d Value, SandboxError> {
    let mut current = value;
    for _ in 0..MAX_REFERENCES {
        let Some(reference) = current.get("$ref").and_then(Value::as_str) else {
            return Ok(current);
        };
        let target = reference.strip_prefix('#').and_then(|path| document.pointer(path));
        current = target.ok_or_else(|| {
            let text = format!("`{reference}` is not in this document");
            SandboxError::document(format!("{pointer}/$ref"), text)
        })?;
    }
    Err(SandboxError::document(pointer, "the references go in a circle"))
}
