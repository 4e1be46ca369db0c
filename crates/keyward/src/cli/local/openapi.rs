//! `keyward openapi`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cli::exit::{Done, Exit, Failure};
use crate::cli::output::{Output, print};

/// The methods of a path item.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// The largest document read, in bytes.
const MAX_DOCUMENT_BYTES: u64 = 8 * 1024 * 1024;

/// The API document of Keyward, and checks of a product's own
#[derive(Debug, Args)]
pub(crate) struct OpenapiCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the OpenAPI document of Keyward's own API
    Print,
    /// Check that every operation of a product's document names its scope (exit code 0 or 3)
    Lint {
        /// The document, YAML or JSON
        file: PathBuf,
    },
}

impl OpenapiCommand {
    pub(crate) fn run(self) -> Done {
        match self.action {
            Action::Print => print(&keyward_api::openapi::document_text()),
            Action::Lint { file } => {
                let findings = lint(&read(&file)?);
                for finding in &findings {
                    print(&format!("{}: {finding}\n", file.display()))?;
                }
                if findings.is_empty() {
                    Output::new(None, false).say("every operation has an id and names its scope");
                    return Ok(());
                }
                Err(Failure::no())
            }
        }
    }
}

fn read(file: &Path) -> Done<Value> {
    let size = std::fs::metadata(file).map_err(|error| Failure::io(file, &error))?.len();
    if size > MAX_DOCUMENT_BYTES {
        let text = format!("{} is larger than 8 MiB", file.display());
        return Err(Failure::new(Exit::Failed, text));
    }
    let text = std::fs::read_to_string(file).map_err(|error| Failure::io(file, &error))?;
    yaml_serde::from_str(&text).map_err(|error| {
        let text = format!("{} is neither YAML nor JSON: {error}", file.display());
        Failure::new(Exit::Failed, text)
    })
}

fn lint(document: &Value) -> Vec<String> {
    let mut findings = Vec::new();
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    if !version.starts_with("3.1") {
        findings.push(format!("openapi: must be 3.1.x, found {version:?}"));
    }
    let mut ids = BTreeSet::new();
    let inherited = document.get("security");
    let paths = document.get("paths").and_then(Value::as_object);
    for (path, item) in paths.into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            if !METHODS.contains(&method.as_str()) {
                continue;
            }
            let place = format!("{} {path}", method.to_uppercase());
            match operation.get("operationId").and_then(Value::as_str) {
                None => findings.push(format!("{place}: has no operationId")),
                Some(id) if !ids.insert(id.to_owned()) => {
                    findings.push(format!("{place}: operationId {id} stands twice"));
                }
                Some(_) => {}
            }
            if let Some(problem) = security(operation.get("security").or(inherited)) {
                findings.push(format!("{place}: {problem}"));
            }
        }
    }
    if ids.is_empty() {
        findings.push("paths: holds no operation".to_owned());
    }
    findings
}

/// What is wrong with the `security` of an operation. That any key may call it must be said, by
/// a scheme without scopes that stands alone: beside scopes it would make them pointless.
fn security(security: Option<&Value>) -> Option<&'static str> {
    let Some(alternatives) = security.and_then(Value::as_array) else {
        return Some("has no security: name its scope");
    };
    if alternatives.is_empty() {
        return Some("its security is empty: the gateway serves nothing without a key");
    }
    let bare = |alternative: &Value| {
        let schemes = alternative.as_object().into_iter().flatten();
        schemes.map(|(_, scopes)| scopes.as_array().map_or(0, Vec::len)).sum::<usize>() == 0
    };
    let pointless = alternatives.len() > 1 && alternatives.iter().any(bare);
    pointless.then_some("one alternative of its security names no scope: any key could call it")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operation_without_scope_is_found() {
        let scoped = json!([{ "key": ["a:read"] }]);
        let good = json!({ "openapi": "3.1.0", "paths": { "/a": {
            "parameters": [], "get": { "operationId": "a", "security": scoped } } } });
        assert_eq!(lint(&good), Vec::<String>::new());
        let bad = json!({ "openapi": "3.0.3", "paths": { "/a": {
            "get": { "operationId": "a" },
            "put": { "operationId": "a", "security": [{ "key": [] }, { "key": ["a:read"] }] },
            "post": { "security": [] } } } });
        let findings = lint(&bad).join("\n");
        for expected in [
            "3.1.x",
            "GET /a: has no security",
            "stands twice",
            "any key could",
            "is empty",
            "POST /a: has no operationId",
        ] {
            assert!(findings.contains(expected), "{expected}: {findings}");
        }
    }
}
