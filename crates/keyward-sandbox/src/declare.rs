//! From the document to a plan: everything that can be wrong is found here.

mod check;
mod collection;
mod expression;
mod operation;

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

pub(crate) use collection::{Age, Collection, Files, Later, Within};
pub(crate) use expression::{
    Assignments, CallerFact, Condition, Expr, Match, Span, Subject, Test, Where,
};
pub(crate) use operation::{Action, Create, Link, List, OnRow, Operation, Presign};

use crate::parameters::Parameters;
use crate::schema::{self, BodySchema};
use crate::{MAX_COLLECTIONS, MAX_OPERATIONS, SandboxError};

const COLLECTIONS: &str = "x-sandbox-collections";
const OPERATION: &str = "x-sandbox";
const BUILTIN: &str = "x-keyward-builtin";
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "patch", "options", "head", "trace"];

/// What the document declares.
pub(crate) struct Plan {
    pub(crate) collections: BTreeMap<String, Collection>,
    routes: matchit::Router<BTreeMap<&'static str, Operation>>,
}

/// The operation of a request, or why there is none.
pub(crate) enum Found<'p> {
    Operation(&'p Operation, Vec<(String, String)>),
    OtherMethods(Vec<String>),
    Nothing,
}

impl Plan {
    /// The operation that a method and a raw path stand for, with its decoded parameters.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let Ok(matched) = self.routes.at(path) else {
            return Found::Nothing;
        };
        let operation =
            matched.value.iter().find(|(name, _)| name.eq_ignore_ascii_case(method.as_str()));
        let Some((_, operation)) = operation else {
            let methods = matched.value.keys().map(|name| name.to_ascii_uppercase()).collect();
            return Found::OtherMethods(methods);
        };
        let mut params = Vec::new();
        for (name, raw) in matched.params.iter() {
            let Ok(text) = percent_encoding::percent_decode_str(raw).decode_utf8() else {
                return Found::Nothing;
            };
            params.push((name.to_owned(), text.into_owned()));
        }
        Found::Operation(operation, params)
    }
}

/// Reads the whole document.
pub(crate) fn read(document: &Value) -> Result<Plan, SandboxError> {
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    if !version.starts_with("3.1") && !version.starts_with("3.2") {
        return Err(SandboxError::document("/openapi", "must be 3.1 or 3.2"));
    }
    let collections = collections(document)?;
    let base = base_path(document)?;
    let mut routes = matchit::Router::new();
    let mut count = 0;
    let paths = document.get("paths").and_then(Value::as_object);
    let paths = paths.into_iter().flatten();
    for (path, item) in paths.filter(|(path, _)| !path.starts_with("x-")) {
        let pointer = format!("/paths/{}", escaped(path));
        if !path.starts_with('/') || path.contains("{*") {
            let text = "a path starts with `/` and its parameters stand for one segment";
            return Err(SandboxError::document(pointer, text));
        }
        let item = schema::resolve(document, item, &pointer)?;
        let template = format!("{base}{path}");
        let operations = path_item(document, item, &pointer, &template)?;
        count += operations.len();
        if count > MAX_OPERATIONS {
            return Err(SandboxError::document(pointer, format!("more than {MAX_OPERATIONS}")));
        }
        for (method, operation) in &operations {
            let at = format!("{pointer}/{method}/{OPERATION}");
            check::operation(operation, &collections, &at)?;
        }
        if !operations.is_empty() {
            routes.insert(template, operations).map_err(|error| {
                SandboxError::document(&pointer, format!("not a path we can serve: {error}"))
            })?;
        }
    }
    Ok(Plan { collections, routes })
}

fn collections(document: &Value) -> Result<BTreeMap<String, Collection>, SandboxError> {
    let pointer = format!("/{COLLECTIONS}");
    let mut collections = BTreeMap::new();
    let Some(declared) = document.get(COLLECTIONS) else {
        return Ok(collections);
    };
    let Value::Object(members) = declared else {
        return Err(SandboxError::document(pointer, "must be a map of collections"));
    };
    if members.len() > MAX_COLLECTIONS {
        return Err(SandboxError::document(pointer, format!("more than {MAX_COLLECTIONS}")));
    }
    for (name, value) in members {
        let at = format!("{pointer}/{}", escaped(name));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(SandboxError::document(at, "names are made of a-z, 0-9 and -"));
        }
        let collection: Collection = read_part(value.clone(), &at)?;
        if let Some((place, text)) = collection.mistake() {
            return Err(SandboxError::document(format!("{at}{place}"), text));
        }
        collections.insert(name.clone(), collection);
    }
    for (name, collection) in &collections {
        check::collection(collection, &format!("{pointer}/{name}"))?;
    }
    Ok(collections)
}

/// The path of `servers[0].url`, without a slash at its end.
fn base_path(document: &Value) -> Result<String, SandboxError> {
    let url = document.pointer("/servers/0/url").and_then(Value::as_str).unwrap_or_default();
    if url.contains('{') {
        return Err(SandboxError::document("/servers/0/url", "write it without variables"));
    }
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default(),
        None => url,
    };
    Ok(path.trim_end_matches('/').to_owned())
}

fn path_item(
    document: &Value,
    item: &Value,
    pointer: &str,
    template: &str,
) -> Result<BTreeMap<&'static str, Operation>, SandboxError> {
    let mut operations = BTreeMap::new();
    for method in METHODS {
        let Some(declared) = item.get(method) else {
            continue;
        };
        let at = format!("{pointer}/{method}");
        if declared.get(BUILTIN).is_some() {
            continue;
        }
        let Some(sandbox) = declared.get(OPERATION) else {
            let text = format!("the operation has neither `{OPERATION}` nor `{BUILTIN}`");
            return Err(SandboxError::document(at, text));
        };
        let action = Action::read(sandbox, &format!("{at}/{OPERATION}"))?;
        queries_are_known(document, [item, declared], &action, &at)?;
        let body = declared
            .get("requestBody")
            .map(|body| BodySchema::read(document, body, &format!("{at}/requestBody")))
            .transpose()?;
        let (status, bare) = success(document, declared, &at)?;
        let parameters = Parameters::read(document, [item, declared], &at)?;
        let name = format!("{} {template}", method.to_ascii_uppercase());
        let params = template_params(template);
        let operation = Operation { name, params, parameters, status, body, bare, action };
        operations.insert(method, operation);
    }
    Ok(operations)
}

fn template_params(template: &str) -> Vec<String> {
    let parts = template.split('{').skip(1);
    parts.filter_map(|part| part.split_once('}')).map(|(name, _)| name.to_owned()).collect()
}

/// A query parameter that would be ignored is a promise the sandbox does not keep.
fn queries_are_known(
    document: &Value,
    holders: [&Value; 2],
    action: &Action,
    pointer: &str,
) -> Result<(), SandboxError> {
    let declared = holders.iter().filter_map(|holder| holder.get("parameters"));
    for parameter in declared.filter_map(Value::as_array).flatten() {
        let parameter = schema::resolve(document, parameter, pointer)?;
        let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
        if parameter.get("in").and_then(Value::as_str) != Some("query") {
            continue;
        }
        let known = match action {
            Action::List(list) => {
                ["limit", "cursor"].contains(&name) || list.filter.iter().any(|f| f == name)
            }
            _ => false,
        };
        if !known {
            let text = format!("the query parameter `{name}` is not in `filter` of `{OPERATION}`");
            return Err(SandboxError::document(format!("{pointer}/parameters"), text));
        }
    }
    Ok(())
}

/// The lowest success status, and whether its body is a bare array.
fn success(
    document: &Value,
    operation: &Value,
    pointer: &str,
) -> Result<(StatusCode, bool), SandboxError> {
    let at = format!("{pointer}/responses");
    let responses = operation.get("responses").and_then(Value::as_object);
    let lowest = responses
        .into_iter()
        .flatten()
        .filter_map(|(code, response)| Some((code.parse::<StatusCode>().ok()?, response)))
        .filter(|(code, _)| code.is_success())
        .min_by_key(|(code, _)| code.as_u16());
    let Some((status, response)) = lowest else {
        return Err(SandboxError::document(at, "no 2xx response is declared"));
    };
    let response = schema::resolve(document, response, &at)?;
    let bare = match response.pointer("/content/application~1json/schema") {
        Some(schema) => {
            schema::resolve(document, schema, &at)?.get("type").and_then(Value::as_str)
                == Some("array")
        }
        None => false,
    };
    Ok((status, bare))
}

/// Reads a declaration and says where a mistake is.
pub(crate) fn read_part<T: DeserializeOwned>(
    value: Value,
    pointer: &str,
) -> Result<T, SandboxError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let mut at = pointer.to_owned();
        for segment in error.path() {
            match segment {
                Segment::Seq { index } => at.extend(["/", &index.to_string()]),
                Segment::Map { key } => at.extend(["/", &escaped(key)]),
                Segment::Enum { .. } | Segment::Unknown => {}
            }
        }
        SandboxError::document(at, error.into_inner().to_string())
    })
}

/// A name as a part of a JSON pointer.
pub(crate) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
