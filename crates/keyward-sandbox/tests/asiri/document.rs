//! What the document promises: its examples work and its answers have the documented shape.

use std::collections::BTreeSet;

use keyward_sandbox::parse_yaml;
use reqwest::Method;
use serde_json::json;

use crate::support::{Caller, caller};
use crate::{DOCUMENT, SLUGS, asiri, ids, lagos_pay};

#[tokio::test]
async fn every_read_answers_as_documented() {
    let asiri = asiri().await;
    let mut reads = 0;
    for (path, item) in asiri.document["paths"].as_object().unwrap() {
        let read = &item["get"];
        if !read["x-sandbox"].is_object() {
            continue;
        }
        let target = asiri.example_path(path, item);
        let schema = &read["responses"]["200"]["content"]["application/json"]["schema"];
        let body = asiri.at.get(&lagos_pay(), &target).await.is(200);
        asiri.conforms(schema, &body, &target);
        if read["x-sandbox"]["does"] == "list" {
            assert!(!body["data"].as_array().unwrap().is_empty(), "{target} has sample data");
            for tenant in 1..=SLUGS.len() {
                for environment in ["live", "test"] {
                    let who = Caller { environment, ..caller(tenant as u128) };
                    if !path.contains('{') {
                        let body = asiri.at.get(&who, &target).await.is(200);
                        asiri.conforms(schema, &body, &target);
                    }
                }
            }
        }
        reads += 1;
    }
    assert!(reads >= 20, "{reads} reads are documented");
}

#[tokio::test]
async fn every_write_takes_its_documented_example() {
    let document = parse_yaml(DOCUMENT).unwrap();
    let mut writes = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method == "get" || !operation["x-sandbox"].is_object() {
                continue;
            }
            // each example is about the sample data as it was at first
            let asiri = asiri().await;
            let method: Method = method.to_uppercase().parse().unwrap();
            let target = asiri.example_path(path, item);
            let content = &operation["requestBody"]["content"]["application/json"];
            let named = content["examples"].as_object().into_iter().flat_map(|all| all.values());
            let mut bodies: Vec<_> =
                named.map(|example| Some(asiri.resolved(example)["value"].clone())).collect();
            if bodies.is_empty() {
                bodies.push(content.get("example").cloned());
            }
            for body in bodies {
                let got = asiri.at.call(&lagos_pay(), method.clone(), &target, body).await;
                // the file of the examples is complete already, and attached
                let refused = ["completeFile", "deleteFile"];
                let expected = refused.iter().all(|id| operation["operationId"] != **id);
                assert_eq!(got.status.is_success(), expected, "{target}: {}", got.body);
                let response = asiri.resolved(&operation["responses"][got.status.as_str()]);
                let schema = &response["content"]["application/json"]["schema"];
                asiri.conforms(schema, &got.body, &target);
                writes += 1;
            }
        }
    }
    assert!(writes >= 13, "{writes} examples of writes");
}

#[tokio::test]
async fn every_filter_narrows_to_its_documented_example() {
    let asiri = asiri().await;
    for (path, item) in asiri.document["paths"].as_object().unwrap() {
        let list = &item["get"];
        if list["x-sandbox"]["does"] != "list" {
            continue;
        }
        for parameter in list["parameters"].as_array().unwrap() {
            let parameter = asiri.resolved(parameter);
            let name = parameter["name"].as_str().unwrap();
            if name == "cursor" || name == "limit" {
                continue;
            }
            let value = parameter["example"].as_str().unwrap();
            let target = format!("{}?{name}={value}", asiri.example_path(path, item));
            let page = asiri.at.get(&lagos_pay(), &target).await.is(200);
            assert!(!ids(&page).is_empty(), "{target} finds sample data");
            for row in page["data"].as_array().unwrap() {
                let found = &row[name];
                let listed = found.as_array().is_some_and(|all| all.contains(&json!(value)));
                assert!(listed || found == value, "{target}: {row}");
            }
        }
        let target = format!("{}?colour=red", asiri.example_path(path, item));
        asiri.at.get(&lagos_pay(), &target).await.refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn every_scope_guards_an_operation() {
    let document = parse_yaml(DOCUMENT).unwrap();
    let mut scopes = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            for alternative in operation["security"].as_array().into_iter().flatten() {
                let all = alternative["apiKey"].as_array().unwrap();
                scopes.extend(all.iter().map(|scope| scope.as_str().unwrap().to_owned()));
            }
        }
    }
    let expected = [
        "audit:read",
        "controls:read",
        "controls:write",
        "evidence:read",
        "evidence:write",
        "files:read",
        "files:write",
        "reports:read",
        "reports:write",
        "webhooks:read",
        "webhooks:write",
    ];
    assert_eq!(scopes, expected.map(str::to_owned).into());
}

#[tokio::test]
async fn every_event_example_has_its_schema() {
    let asiri = asiri().await;
    let catalogue = parse_yaml(include_str!("../../../../profiles/asiri/events.yaml")).unwrap();
    let mut names = BTreeSet::new();
    for event in catalogue["events"].as_array().unwrap() {
        let name = event["name"].as_str().unwrap();
        let group = event["group"].as_str().unwrap();
        assert!(name.starts_with(&format!("{group}.")), "{name} is of {group}");
        assert!(event["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
        for (version, entry) in event["versions"].as_object().unwrap() {
            asiri.conforms(&entry["schema"], &entry["example"], &format!("{name} v{version}"));
        }
        assert!(names.insert(name.to_owned()), "{name} stands once");
    }
    assert!(names.len() >= 6, "{names:?}");
}
