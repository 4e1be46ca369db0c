//! The product's own OpenAPI document, read by the tests without the product's help.

use std::collections::BTreeSet;

use http::Method;
use keyward_sandbox::parse_yaml;
use serde_json::{Value, json};

use crate::harness::{Actor, Got};

const DOCUMENT: &str = include_str!("../../../../../profiles/asiri/openapi.yaml");

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// One public operation of the product.
#[derive(Debug)]
pub(crate) struct PublicRoute {
    pub(crate) id: String,
    pub(crate) method: Method,
    /// With the documented example in place of each parameter.
    pub(crate) target: String,
    /// As the document has it.
    pub(crate) template: String,
    pub(crate) body: Option<Value>,
    /// Accepted scopes: any one set, and within it all.
    pub(crate) required: Vec<BTreeSet<String>>,
}

impl PublicRoute {
    /// Calls it as somebody.
    pub(crate) async fn call(&self, who: &Actor) -> Got {
        who.send(self.method.clone(), &self.target, self.body.clone()).await
    }
}

/// Every public operation of the document.
pub(crate) fn routes() -> Vec<PublicRoute> {
    let document = parse_yaml(DOCUMENT).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            let operation = &item[method];
            if operation.is_null() {
                continue;
            }
            routes.push(PublicRoute {
                id: operation["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase().parse().unwrap(),
                target: example_path(&document, path, item),
                template: path.clone(),
                body: example_body(&document, operation),
                required: alternatives(&operation["security"]),
            });
        }
    }
    routes
}

/// The requirements of an operation: each an alternative, its scopes all needed.
pub(crate) fn alternatives(security: &Value) -> Vec<BTreeSet<String>> {
    let scopes = |requirement: &Value| {
        let lists = requirement.as_object().unwrap().values();
        let names = lists.flat_map(|list| list.as_array().unwrap());
        names.map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    security.as_array().unwrap().iter().map(scopes).collect()
}

fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    let reference = value["$ref"].as_str();
    reference.map_or(value, |to| document.pointer(to.trim_start_matches('#')).unwrap())
}

fn example_path(document: &Value, path: &str, item: &Value) -> String {
    let mut filled = path.to_owned();
    for parameter in item["parameters"].as_array().into_iter().flatten() {
        let parameter = resolved(document, parameter);
        let name = format!("{{{}}}", parameter["name"].as_str().unwrap());
        filled = filled.replace(&name, parameter["example"].as_str().unwrap());
    }
    filled
}

fn example_body(document: &Value, operation: &Value) -> Option<Value> {
    let content = operation.pointer("/requestBody/content/application~1json")?;
    if let Some(example) = content.get("example") {
        return Some(example.clone());
    }
    let first = content["examples"].as_object()?.values().next()?;
    Some(resolved(document, first).get("value").cloned().unwrap_or_else(|| json!({})))
}
