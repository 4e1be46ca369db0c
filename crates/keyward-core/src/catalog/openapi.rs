//! Reads the public routes and their required scopes from an OpenAPI 3.x document.
//!
//! Only the few members that matter are looked at. `security` is the standard one: alternatives in
//! the list, all scopes within one (OpenAPI 3.1 §4.8.30). An operation without a key requirement is
//! not public here; one that asks for something else, such as a session cookie, has none.

use serde_json::{Map, Value};

use crate::catalog::route::{Alternative, Method, Route};
use crate::catalog::{AreaSet, Catalog, Forwarding};
use crate::error::{Error, Result};
use crate::profile::AuthorityMode;
use crate::scope::ScopeSet;

// the most parameters in one path; the matcher panics at a few more
const MAX_PARAMETERS: usize = 16;

pub(super) fn read_routes(document: &Value, catalog: &mut Catalog) -> Result<()> {
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    if !version.starts_with("3.") {
        return Err(refuse("openapi", "the document must be OpenAPI 3.x"));
    }
    let paths = document
        .get("paths")
        .and_then(Value::as_object)
        .ok_or_else(|| refuse("paths", "the document has no paths"))?;
    for (template, item) in paths.iter().filter(|(name, _)| !name.starts_with("x-")) {
        if let Err(text) = check_template(template) {
            return Err(refuse(template, text));
        }
        let item = item
            .as_object()
            .ok_or_else(|| refuse(template, "a path item must be an object; $ref is not read"))?;
        for method in Method::ALL {
            if let Some(operation) = item.get(&method.as_str().to_ascii_lowercase()) {
                let operation = operation
                    .as_object()
                    .ok_or_else(|| refuse(template, "an operation must be an object"))?;
                read_operation(document, catalog, template, method, operation)?;
            }
        }
    }
    if catalog.routes.all().is_empty() {
        return Err(refuse(
            "paths",
            "no operation has a security requirement that a key meets, so none is public",
        ));
    }
    Ok(())
}

/// Whether the matcher reads a template as OpenAPI means it: one plain parameter in a segment.
fn check_template(template: &str) -> Result<(), &'static str> {
    let segments = template.strip_prefix('/').ok_or("a path begins with '/'")?;
    let mut parameters = 0;
    for segment in segments.split('/') {
        let Some((_, rest)) = segment.split_once('{') else {
            if segment.contains('}') {
                return Err("a '}' closes nothing");
            }
            continue;
        };
        let (name, after) = rest.split_once('}').ok_or("a '{' is not closed")?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err("a parameter's name has letters, digits, '_', '-' and '.' only");
        }
        if after.contains(['{', '}']) {
            return Err("a segment has one parameter at most");
        }
        parameters += 1;
    }
    if parameters > MAX_PARAMETERS {
        return Err("a path has 16 parameters at most");
    }
    Ok(())
}

fn read_operation(
    document: &Value,
    catalog: &mut Catalog,
    template: &str,
    method: Method,
    operation: &Map<String, Value>,
) -> Result<()> {
    let at = format!("{method} {template}");
    let security = operation.get("security").or_else(|| document.get("security"));
    let requirements = security.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let area = match operation.get("x-keyward-area").and_then(Value::as_str) {
        Some(name) => Some(catalog.intern_area(name)?),
        None => None,
    };
    let mut alternatives = Vec::new();
    let mut accepted = Vec::new();
    for requirement in requirements {
        let schemes = requirement
            .as_object()
            .ok_or_else(|| refuse(&at, "security must be a list of objects"))?;
        if schemes.is_empty() {
            let text = "security allows anonymous callers; keys are always required here";
            return Err(refuse(&at, text));
        }
        if !asks_for_a_key(document, schemes, &at)? {
            continue;
        }
        let names = scope_names(schemes, &at)?;
        alternatives.push(alternative(catalog, &names, area, &at)?);
        accepted.push(names.join(","));
    }
    if alternatives.is_empty() {
        catalog
            .warnings
            .push(format!("{at} has no security requirement that a key meets and is not public"));
        return Ok(());
    }
    let text = |member: &str| operation.get(member).and_then(Value::as_str).map(str::to_owned);
    catalog.routes.add(Route {
        operation_id: text("operationId").ok_or_else(|| refuse(&at, "operationId is missing"))?,
        method,
        template: template.to_owned(),
        summary: text("summary").unwrap_or_default(),
        alternatives: alternatives.into_boxed_slice(),
        accepted: accepted.join(";"),
        builtin: text("x-keyward-builtin"),
        strict: is_strict(catalog.mode, method, operation, &at)?,
        forwarding: Forwarding::read(method, operation).map_err(|text| refuse(&at, text))?,
    })
}

/// Whether a route asks the authority each time: as it says itself, else as the profile says.
fn is_strict(
    mode: AuthorityMode,
    method: Method,
    operation: &Map<String, Value>,
    at: &str,
) -> Result<bool> {
    match operation.get("x-keyward-authority").map(Value::as_str) {
        Some(Some("strict")) => Ok(true),
        Some(Some("lease")) => Ok(false),
        Some(_) => Err(refuse(at, "x-keyward-authority is \"strict\" or \"lease\"")),
        None => Ok(match mode {
            AuthorityMode::Lease => false,
            AuthorityMode::Strict => true,
            AuthorityMode::StrictWrites => !method.is_safe(),
        }),
    }
}

/// Whether a key is all that the requirement asks for: a header of its own, or `Authorization`.
fn asks_for_a_key(document: &Value, schemes: &Map<String, Value>, at: &str) -> Result<bool> {
    let declared = document.pointer("/components/securitySchemes");
    for name in schemes.keys() {
        let scheme = declared.and_then(|all| all.get(name)).ok_or_else(|| {
            let text = format!("components.securitySchemes does not declare {name}");
            refuse(at, &text)
        })?;
        let member = |member: &str| scheme.get(member).and_then(Value::as_str);
        let is_key = match member("type") {
            Some("apiKey") => member("in") == Some("header"),
            Some("http") => member("scheme").is_some_and(|word| {
                word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("apikey")
            }),
            _ => false,
        };
        if !is_key {
            return Ok(false);
        }
    }
    Ok(true)
}

fn scope_names(schemes: &Map<String, Value>, at: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for scopes in schemes.values() {
        let scopes = scopes.as_array().ok_or_else(|| refuse(at, "scopes must be a list"))?;
        for scope in scopes {
            let name = scope.as_str().ok_or_else(|| refuse(at, "a scope must be a string"))?;
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn alternative(
    catalog: &Catalog,
    names: &[String],
    area: Option<AreaSet>,
    at: &str,
) -> Result<Alternative> {
    let mut scopes = ScopeSet::EMPTY;
    for name in names {
        let position = catalog
            .scope_position(name)
            .ok_or_else(|| refuse(at, &format!("the profile has no scope {name}")))?;
        scopes = scopes.union(ScopeSet::of(position));
    }
    Ok(Alternative { scopes, areas: area.unwrap_or_else(|| catalog.areas_of(scopes)) })
}

fn refuse(at: &str, text: &str) -> Error {
    Error::validation(at, format!("OpenAPI document: {at}: {text}"))
}
