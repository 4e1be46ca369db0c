//! A product of believable size, for the benchmark and for the count of allocations.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the product stands below; nothing of it comes from outside"
)]

use std::sync::LazyLock;

use keyward_core::catalog::RouteMatch;
use keyward_core::decision::{
    Credential, Denial, KeyFacts, Permit, RequestFacts, TenantHeader, decide,
};
use keyward_core::environment::EnvironmentSet;
use keyward_core::ip::IpAllowlist;
use keyward_core::profile::Profile;
use keyward_core::{Catalog, Environment, Timestamp};
use serde_json::{Value, json};

const RESOURCES: [&str; 12] = [
    "audit",
    "controls",
    "customers",
    "estimates",
    "evidence",
    "files",
    "findings",
    "invoices",
    "payments",
    "reports",
    "universe",
    "webhooks",
];

pub(crate) static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let mut scopes = json!({});
    let mut paths = json!({});
    for resource in RESOURCES {
        for action in ["read", "write"] {
            scopes[format!("{resource}:{action}")] = json!({"description": "."});
        }
        let op = |verb: &str, action: &str| {
            json!({
                "operationId": format!("{resource}.{verb}"),
                "security": [{"key": [format!("{resource}:{action}"), "audit:read"]},
                             {"key": [format!("{resource}:{action}")]}],
            })
        };
        paths[format!("/v1/{resource}")] =
            json!({"get": op("list", "read"), "post": op("new", "write")});
        paths[format!("/v1/{resource}/{{id}}")] = json!({"get": op("get", "read")});
        paths[format!("/v1/{resource}/{{id}}/items/{{item}}")] = json!({"get": op("item", "read")});
    }
    let document = json!({
        "openapi": "3.1.0",
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": paths,
    });
    Catalog::new(&profile(&scopes), &document).expect("the product is right")
});

pub(crate) static OFFICE: LazyLock<IpAllowlist> = LazyLock::new(|| {
    let networks = ["10.0.0.0/8", "198.51.100.0/24", "2001:db8::/32", "203.0.113.0/24"];
    IpAllowlist::parse(&networks).expect("the networks are right")
});

fn profile(scopes: &Value) -> Profile {
    let profile = json!({
        "name": "acme", "title": "Acme", "base_path": "/v1", "openapi": "openapi.json",
        "keys": {
            "prefix": "acme",
            "environments": {"live": "live", "test": "test"},
            "carriers": ["bearer"],
        },
        "scopes": scopes,
        "roles": {
            "admin": {"title": "Administrator", "areas": ["*"]},
            "analyst": {"title": "Analyst", "areas": ["reports", "universe"]},
        },
    });
    serde_json::from_value(profile).expect("the profile is right")
}

/// A key of an analyst that may read two areas, from the office only.
pub(crate) fn key() -> KeyFacts<'static> {
    KeyFacts {
        environment: Environment::Live,
        expires_at: Some(Timestamp::MAX),
        revoked_at: None,
        suspect: false,
        tenant_suspended: false,
        scopes: CATALOG.scope_set(&["reports:read", "universe:read"]),
        ceiling: CATALOG.role("analyst").map(|role| role.areas),
        ip_allowlist: &OFFICE,
    }
}

/// Finds the route and decides, as the pipeline does.
pub(crate) fn ask(key: KeyFacts<'_>, method: &str, path: &str) -> Result<Permit<'static>, Denial> {
    decide_on(key, CATALOG.route(method, path))
}

/// Decides, once the route was found.
pub(crate) fn decide_on(
    key: KeyFacts<'_>,
    route: RouteMatch<'static>,
) -> Result<Permit<'static>, Denial> {
    let request = RequestFacts {
        environments: EnvironmentSet::from_iter([Environment::Live]),
        ip: Some([203, 0, 113, 9].into()),
        from_browser: false,
        tenant: TenantHeader::Matches,
    };
    decide(&Credential::Known(key), route, &request, Timestamp::from_millis(1_800_000_000_000))
}
