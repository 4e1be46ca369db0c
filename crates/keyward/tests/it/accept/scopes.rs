//! The eleven scopes on every route, the roles over them, and the documents that tell of both.

use std::collections::{BTreeMap, BTreeSet};

use keyward_api::operation::OPERATIONS;
use serde_json::{Value, json};

use super::document::{PublicRoute, alternatives, routes};
use crate::harness::{Actor, Got, LAGOS_PAY, SCOPES, TestNode, node_on_every_engine};

/// Whether the gateway let it through: what the product itself says about it does not matter here.
fn passed(got: &Got) -> bool {
    assert!(got.status < 500, "{}", got.text);
    got.status != 401 && got.status != 403
}

/// Keys with given scopes, made once each.
#[derive(Default)]
struct Keys(BTreeMap<BTreeSet<String>, Actor>);

impl Keys {
    async fn with(&mut self, node: &TestNode, scopes: BTreeSet<String>) -> Actor {
        if let Some(known) = self.0.get(&scopes) {
            return known.clone();
        }
        let names: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let actor = node.key(&names).await;
        self.0.insert(scopes, actor.clone());
        actor
    }
}

fn all() -> BTreeSet<String> {
    SCOPES.map(str::to_owned).into()
}

#[tokio::test]
async fn ak4_each_scope_opens_its_routes_and_no_other() {
    node_on_every_engine(async |node| {
        let routes = routes();
        let named: BTreeSet<_> = routes.iter().flat_map(|r| r.required.iter().flatten()).collect();
        assert_eq!(named, all().iter().collect(), "every scope opens something");
        let mut keys = Keys::default();
        for route in &routes {
            for alternative in &route.required {
                if alternative.is_empty() {
                    continue;
                }
                let opened = keys.with(node, alternative.clone()).await;
                let got = route.call(&opened).await;
                assert!(passed(&got), "{}: {}", route.id, got.text);
                // one scope of each alternative less
                let lacking: BTreeSet<_> =
                    route.required.iter().filter_map(|scopes| scopes.iter().next()).collect();
                let others = all().into_iter().filter(|scope| !lacking.contains(scope)).collect();
                let closed = keys.with(node, others).await;
                refused_for_scope(route, &route.call(&closed).await);
            }
        }
    })
    .await;
}

fn refused_for_scope(route: &PublicRoute, got: &Got) {
    let error = got.refused_at(403, "forbidden", "scope");
    let wanted = json!(route.required);
    assert_eq!(error["details"]["requiredScopes"], wanted, "{}", route.id);
    let accepted = got.header("keyward-accepted-scopes").unwrap();
    for scope in route.required.iter().flatten() {
        assert!(accepted.contains(scope.as_str()), "{}: {accepted}", route.id);
    }
    assert!(got.header("www-authenticate").unwrap().contains("insufficient_scope"));
}

#[tokio::test]
async fn ak4_a_role_is_the_ceiling_of_every_scope() {
    node_on_every_engine(async |node| {
        let routes = routes();
        let roles = node.operator().get("/v1/catalog/roles").await.is(200);
        let member = node.member(LAGOS_PAY, "owner").await;
        let mut body = node.key_body(LAGOS_PAY, &SCOPES).await;
        body["ownerId"] = json!(member);
        let caller = node.bearer(&node.mint(LAGOS_PAY, body).await.secret);
        let path = node.path(LAGOS_PAY, &format!("/members/{member}"));
        for role in roles["data"].as_array().unwrap() {
            let changed = node.operator().patch(&path, json!({ "role": role["name"] })).await;
            assert_eq!(changed.is(200)["fence"]["status"], "effective");
            let areas: BTreeSet<&str> = role["areas"]
                .as_array()
                .unwrap()
                .iter()
                .map(|area| area.as_str().unwrap())
                .collect();
            for route in &routes {
                let area = |scope: &String| scope.split(':').next().unwrap().to_owned();
                let within = |scopes: &BTreeSet<String>| {
                    scopes.iter().all(|scope| areas.contains(area(scope).as_str()))
                };
                if !route.required.iter().any(within) {
                    let error = route.call(&caller).await.refused_at(403, "rbac_denied", "role");
                    assert_eq!(error["details"]["role"], role["name"], "{}", route.id);
                } else if route.method == http::Method::GET {
                    let got = route.call(&caller).await;
                    assert!(passed(&got), "{} {}: {}", role["name"], route.id, got.text);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ap2_a_public_route_without_its_scope_answers_403() {
    node_on_every_engine(async |node| {
        let told = node.operator().get("/v1/catalog/scopes").await.is(200);
        let told: BTreeSet<_> = told["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|scope| scope["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(told, all());
        // a write scope brings no read scope with it
        let writer = node.key(&["reports:write", "webhooks:write", "files:write"]).await;
        for target in ["/v1/reports", "/v1/reports/overview", "/v1/webhooks/endpoints", "/v1/files"]
        {
            writer.get(target).await.refused_at(403, "forbidden", "scope");
        }
        // delivery attempts: either of two scopes
        for scope in ["webhooks:read", "audit:read"] {
            assert!(passed(&node.key(&[scope]).await.get("/v1/webhooks/deliveries").await));
        }
        let got = node.key(&["reports:read"]).await.get("/v1/webhooks/deliveries").await;
        got.refused_at(403, "forbidden", "scope");
    })
    .await;
}

#[tokio::test]
async fn ak5_the_reference_lists_the_required_scopes_of_every_operation() {
    node_on_every_engine(async |node| {
        let served = node.key(&["files:read"]).await.get("/v1/openapi.json").await.is(200);
        assert_eq!(served["openapi"], "3.1.0");
        assert!(!served.to_string().contains("x-sandbox"));
        let catalog = node.operator().get("/v1/catalog/routes").await.is(200);
        let listed = catalog["data"].as_array().unwrap();
        let routes = routes();
        assert_eq!(listed.len(), routes.len());
        for route in &routes {
            let method = route.method.as_str();
            let operation = &served["paths"][&route.template][method.to_lowercase()];
            assert_eq!(alternatives(&operation["security"]), route.required, "{}", route.id);
            let found = listed
                .iter()
                .find(|it| it["path"] == json!(route.template) && it["method"] == method)
                .unwrap_or_else(|| panic!("{} is not in the catalogue", route.id));
            let required: Vec<BTreeSet<String>> =
                serde_json::from_value(found["requiredScopes"].clone()).unwrap();
            let required: Vec<_> = required.into_iter().filter(|set| !set.is_empty()).collect();
            let wanted: Vec<_> = route.required.iter().filter(|set| !set.is_empty()).collect();
            assert_eq!(required.iter().collect::<Vec<_>>(), wanted, "{}", route.id);
        }
    })
    .await;
}

#[tokio::test]
async fn ak5_keywards_own_reference_lists_scope_and_access_of_every_operation() {
    node_on_every_engine(async |node| {
        let served = node.anonymous().get("/v1/openapi.json").await.is(200);
        let committed = include_str!("../../../../../openapi/keyward.json");
        let committed: Value = serde_json::from_str(committed).unwrap();
        assert_eq!(served, committed, "the document that is served is the one in the repository");
        for operation in OPERATIONS {
            let method = operation.method.as_str().to_lowercase();
            let told = &served["paths"][operation.path][method];
            assert_eq!(told["operationId"], operation.id);
            let scopes: Vec<_> = operation.scope.iter().map(|scope| scope.as_str()).collect();
            assert_eq!(told["x-required-scopes"], json!(scopes), "{}", operation.id);
            assert_eq!(told["x-required-access"], operation.access.as_str(), "{}", operation.id);
        }
    })
    .await;
}
