//! The OpenAPI 3.1 document of the management API, made from the table of operations.

use std::collections::{BTreeMap, BTreeSet};

use keyward_core::ErrorCode;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::error::{Envelope, ErrorInfo};
use crate::operation::{Access, OPERATIONS, Operation, QuerySchema, Tag};
use crate::schema;

/// The longest idempotency key, in bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

const DESCRIPTION: &str = "Manage tenants, members and API keys, read the audit trail, and verify \
presented keys.

Send an admin token as `Authorization: Bearer …`. Each operation names the scope the token needs \
(`security`, `x-required-scopes`) and who may hold it (`x-required-access`): `tenant` means the \
operator, or a token of the tenant in the path whose role grants the scope; for everybody else the \
tenant does not exist.

Every answer carries `x-request-id`, and every error the same body. A write that takes authority \
away answers with a `fence`: 200 once every node refuses what was taken, 202 while it propagates.";

/// The document. Equal tables give equal documents, byte for byte.
pub fn document() -> Value {
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Keyward API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The control listener of this deployment."}],
        "tags": Tag::ALL
            .map(|tag| json!({"name": tag.as_str(), "description": tag.description()})),
        "paths": paths(),
        "components": {
            "securitySchemes": {
                "adminToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An admin token of the operator or of one tenant.",
                },
            },
            "schemas": schemas(),
            "responses": error_responses(),
            "headers": headers(),
            "parameters": {"IdempotencyKey": idempotency_key(), "Prefer": prefer()},
        },
    });
    sorted(document)
}

/// The document as it is served and committed, with a newline at the end.
pub fn document_text() -> String {
    format!("{:#}\n", document())
}

/// Members in the order of their names, whatever map the JSON library was built with.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<String, Value> = members.into_iter().collect();
            members.into_iter().map(|(name, member)| (name, sorted(member))).collect()
        }
        Value::Array(entries) => entries.into_iter().map(sorted).collect(),
        other => other,
    }
}

fn paths() -> Map<String, Value> {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in OPERATIONS {
        let method = operation.method.as_str().to_ascii_lowercase();
        paths.entry(operation.path).or_default().insert(method, describe(operation));
    }
    paths.into_iter().map(|(path, item)| (path.to_owned(), Value::Object(item))).collect()
}

fn describe(operation: &Operation) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "description": description(operation),
        "tags": [operation.tag.as_str()],
        "security": security(operation),
        "responses": responses(operation),
        "x-required-access": operation.access.as_str(),
        "x-required-scopes": operation.scope.into_iter().collect::<Vec<_>>(),
        "x-idempotent": operation.idempotent,
        "x-fenced": operation.fenced,
        "x-paged": operation.paged,
        "x-plane": operation.plane.as_str(),
    });
    let parameters = parameters(operation);
    if !parameters.is_empty() {
        add(&mut described, "parameters", Value::Array(parameters));
    }
    if let Some(body) = operation.request {
        let content = json!({"application/json": {"schema": reference("schemas", &body.name())}});
        add(&mut described, "requestBody", json!({"required": true, "content": content}));
    }
    if let Some(action) = operation.audit {
        add(&mut described, "x-audit-action", json!(action.as_str()));
    }
    described
}

fn add(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(members) = object {
        members.insert(name.to_owned(), value);
    }
}

/// The lines of the table's doc comment, and what it takes to be allowed.
fn description(operation: &Operation) -> String {
    let text = operation.description.trim();
    let scope = operation.scope.map_or("", |scope| scope.as_str());
    let needs = match operation.access {
        Access::Public => "Needs no credential.".to_owned(),
        Access::Authenticated if scope.is_empty() => "Needs any valid admin token.".to_owned(),
        Access::Authenticated => format!("Needs the scope `{scope}`."),
        Access::Tenant => format!("Needs the scope `{scope}` and a role that grants it."),
        Access::Operator => format!("Needs the scope `{scope}` and a token of the operator."),
    };
    format!("{text}\n\n{needs}")
}

fn security(operation: &Operation) -> Value {
    match operation.access {
        Access::Public => json!([]),
        _ => json!([{"adminToken": operation.scope.into_iter().collect::<Vec<_>>()}]),
    }
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let path = operation.path_parameters().map(path_parameter);
    let query = operation.query.into_iter().flat_map(QuerySchema::parameters);
    // a parameter is made of strings, numbers and schemas, which always serialise
    let query = query.filter_map(|parameter| serde_json::to_value(parameter).ok());
    let key = operation.idempotent.then(|| reference("parameters", "IdempotencyKey"));
    let wait = operation.fenced.then(|| reference("parameters", "Prefer"));
    path.chain(query).chain(key).chain(wait).collect()
}

fn prefer() -> Value {
    // any text: a preference that is not known is passed over
    let about = "`wait=SECONDS`, 0 to 30: how long to wait for every node before the answer is \
                 202; 5 when absent (RFC 7240).";
    json!({
        "name": "Prefer",
        "in": "header",
        "required": false,
        "description": about,
        "schema": {"type": "string"},
        "example": "wait=10",
    })
}

fn path_parameter(name: &'static str) -> Value {
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "schema": reference("schemas", &type_of(name)),
    })
}

/// `tenantId` is a `TenantId`.
fn type_of(parameter: &str) -> String {
    let mut letters = parameter.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

fn responses(operation: &Operation) -> Map<String, Value> {
    let mut responses = Map::new();
    responses.insert(operation.status.to_string(), success(operation, "Done."));
    if operation.fenced {
        let text = "Stored, and some node may still decide from memory until `effectiveBy`.";
        responses.insert("202".to_owned(), success(operation, text));
    }
    let statuses: BTreeSet<u16> =
        operation.errors().into_iter().map(|code| ErrorInfo::of(code).status).collect();
    for status in statuses {
        responses.insert(status.to_string(), reference("responses", &response_name(status)));
    }
    responses
}

fn success(operation: &Operation, text: &str) -> Value {
    let schema = operation
        .response
        .map_or_else(|| json!({"type": "object"}), |body| reference("schemas", &body.name()));
    let mut headers = json!({"x-request-id": reference("headers", "RequestId")});
    if operation.idempotent {
        add(&mut headers, "Idempotency-Replayed", reference("headers", "IdempotencyReplayed"));
    }
    json!({
        "description": text,
        "headers": headers,
        "content": {"application/json": {"schema": schema}},
    })
}

/// `Error404` and so on: one shared response per status.
fn response_name(status: u16) -> String {
    format!("Error{status}")
}

fn error_responses() -> Map<String, Value> {
    let codes: BTreeSet<ErrorCode> = OPERATIONS.iter().flat_map(Operation::errors).collect();
    let mut by_status: BTreeMap<u16, Vec<&ErrorInfo>> = BTreeMap::new();
    for info in codes.into_iter().map(ErrorInfo::of) {
        by_status.entry(info.status).or_default().push(info);
    }
    by_status
        .into_iter()
        .map(|(status, infos)| (response_name(status), error_response(status, &infos)))
        .collect()
}

fn error_response(status: u16, infos: &[&ErrorInfo]) -> Value {
    let lines: Vec<String> =
        infos.iter().map(|info| format!("`{}`: {}.", info.code.as_str(), info.title)).collect();
    let mut headers = json!({"x-request-id": reference("headers", "RequestId")});
    if status == 401 {
        add(&mut headers, "WWW-Authenticate", reference("headers", "WwwAuthenticate"));
    }
    if infos.iter().any(|info| info.retryable && info.status != 500) {
        add(&mut headers, "Retry-After", reference("headers", "RetryAfter"));
    }
    json!({
        "description": lines.join("\n\n"),
        "headers": headers,
        "content": {"application/json": {"schema": reference("schemas", &Envelope::name())}},
        "x-error-codes": infos.iter().map(|info| info.code.as_str()).collect::<Vec<_>>(),
    })
}

fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "The id of the request; it finds the request in the logs.",
            "schema": {"type": "string"},
        },
        "IdempotencyReplayed": {
            "description": "`true` when this is the kept answer to an earlier request.",
            "schema": {"type": "string", "enum": ["true"]},
        },
        "WwwAuthenticate": {
            "description": "How to authenticate.",
            "schema": {"type": "string"},
        },
        "RetryAfter": {
            "description": "Seconds to wait before the request may be sent again.",
            "schema": {"type": "integer", "minimum": 0},
        },
    })
}

fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "required": false,
        "description": "A value of the caller's choice, the same for a request and its retries. \
                        The work is done once; retries get the first answer, without its secret.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_IDEMPOTENCY_KEY_BYTES,
        },
    })
}

fn reference(section: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{section}/{name}")})
}

fn schemas() -> Map<String, Value> {
    let mut collected = Vec::new();
    schema::path_ids(&mut collected);
    collected.push((Envelope::name().into_owned(), <Envelope as utoipa::PartialSchema>::schema()));
    Envelope::schemas(&mut collected);
    for operation in OPERATIONS {
        for body in operation.request.iter().chain(operation.response.iter()) {
            body.collect(&mut collected);
        }
    }
    collected
        .into_iter()
        .filter_map(|(name, schema)| Some((name, serde_json::to_value(schema).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(target)) = members.get("$ref") {
                    found.push(target);
                }
                members.values().for_each(|member| visit(member, found));
            }
            Value::Array(entries) => entries.iter().for_each(|entry| visit(entry, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_resolves_and_every_schema_is_used() {
        let document = document();
        let mut found = Vec::new();
        visit(&document, &mut found);
        for target in &found {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{target} is missing");
        }
        for name in document["components"]["schemas"].as_object().unwrap().keys() {
            let target = format!("#/components/schemas/{name}");
            assert!(found.contains(&target.as_str()), "{target} is not used");
        }
    }

    #[test]
    fn a_name_means_one_schema() {
        let mut collected = Vec::new();
        for operation in OPERATIONS {
            for body in operation.request.iter().chain(operation.response.iter()) {
                body.collect(&mut collected);
            }
        }
        let mut seen = BTreeMap::new();
        for (name, schema) in collected {
            let schema = serde_json::to_value(schema).unwrap();
            let known = seen.entry(name.clone()).or_insert_with(|| schema.clone());
            assert_eq!(*known, schema, "{name} stands for two schemas");
        }
    }

    #[test]
    fn every_operation_says_what_it_needs() {
        let document = document();
        for operation in OPERATIONS {
            let method = operation.method.as_str().to_ascii_lowercase();
            let described = &document["paths"][operation.path][&method];
            assert_eq!(described["operationId"], operation.id);
            let scopes: Vec<&str> = operation.scope.iter().map(|scope| scope.as_str()).collect();
            assert_eq!(described["x-required-scopes"], json!(scopes), "{}", operation.id);
            match operation.access {
                Access::Public => assert_eq!(described["security"], json!([])),
                _ => assert_eq!(described["security"][0]["adminToken"], json!(scopes)),
            }
        }
    }

    #[test]
    fn unknown_members_of_requests_are_refused_in_the_document_too() {
        let document = document();
        for body in OPERATIONS.iter().filter_map(|operation| operation.request) {
            let schema = &document["components"]["schemas"][body.name().as_ref()];
            assert_eq!(schema["additionalProperties"], json!(false), "{}", body.name());
        }
    }
}
