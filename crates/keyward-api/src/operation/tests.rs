use std::collections::BTreeSet;
use std::fmt::Write;

use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use super::*;
use crate::{Bounded, admin_tokens, catalog, keys, members, service_accounts, tenants, users};

/// Reads that need a body or must not put their input in the URL.
const POST_READS: [&str; 4] = ["explainKey", "identifyKey", "suggestScopes", "verifyKey"];

#[test]
fn ids_and_routes_are_unique() {
    let ids: BTreeSet<&str> = OPERATIONS.iter().map(|o| o.id).collect();
    assert_eq!(ids.len(), OPERATIONS.len());
    let routes: BTreeSet<(Method, &str)> = OPERATIONS.iter().map(|o| (o.method, o.path)).collect();
    assert_eq!(routes.len(), OPERATIONS.len());
}

#[test]
fn every_mutation_is_audited_and_no_read_is() {
    for operation in OPERATIONS {
        let reads = operation.method.is_safe() || POST_READS.contains(&operation.id);
        assert_eq!(operation.is_mutation(), !reads, "{}", operation.id);
        let read_is_plain = !operation.fenced && !operation.idempotent;
        assert!(operation.is_mutation() || read_is_plain, "{}", operation.id);
    }
}

#[test]
fn an_action_belongs_to_one_operation() {
    let mut seen = BTreeSet::new();
    for action in OPERATIONS.iter().filter_map(|o| o.audit) {
        assert!(seen.insert(action), "{action} is written by two operations");
    }
    let unused: Vec<AuditAction> =
        AuditAction::ALL.iter().copied().filter(|action| !seen.contains(action)).collect();
    // made on the data directory or by a restore, not through the API
    let by_command = [
        AuditAction::ApiKeySuspected,
        AuditAction::SetupLinkCreated,
        AuditAction::AdminTokenUpdated,
        AuditAction::DeploymentRestored,
    ];
    assert_eq!(unused, by_command);
}

#[test]
fn access_and_scope_fit_together() {
    for operation in OPERATIONS {
        let in_tenant = operation.path_parameters().any(|name| name == "tenantId");
        match operation.access {
            Access::Public => assert_eq!(operation.scope, None, "{}", operation.id),
            Access::Authenticated => assert!(!in_tenant, "{}", operation.id),
            Access::Tenant => assert!(in_tenant && operation.scope.is_some(), "{}", operation.id),
            Access::Operator => assert!(operation.scope.is_some(), "{}", operation.id),
        }
    }
}

#[test]
fn every_scope_is_used_and_described() {
    let used: BTreeSet<ManagementScope> = OPERATIONS.iter().filter_map(|o| o.scope).collect();
    for scope in ManagementScope::ALL {
        assert!(used.contains(scope), "{scope} opens nothing");
        assert!(scope.description().ends_with('.'), "{scope}");
    }
}

#[test]
fn writes_need_write_scopes_and_reads_do_not() {
    for operation in OPERATIONS {
        let Some(scope) = operation.scope else {
            continue;
        };
        assert_eq!(operation.is_mutation(), scope.as_str().ends_with(":write"), "{}", operation.id);
    }
}

#[test]
fn pages_have_a_query_and_texts_are_there() {
    for operation in OPERATIONS {
        assert!(!operation.paged || operation.query.is_some(), "{}", operation.id);
        assert!(!operation.summary.is_empty(), "{}", operation.id);
        assert!(operation.description.trim().ends_with('.'), "{}", operation.id);
        assert!(operation.path.starts_with("/v1/"), "{}", operation.id);
    }
}

#[test]
fn an_operation_is_found_by_its_id() {
    assert_eq!(Operation::find("createKey").map(|o| o.path), Some(CREATE_KEY.path));
    assert!(Operation::find("pauseKey").is_none());
}

/// The example in the schema, read as the body it is an example of.
fn accept_example<T: ToSchema + DeserializeOwned + Bounded>() {
    let schema = serde_json::to_value(T::schema()).unwrap();
    let text = schema["example"].to_string();
    let body: T = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", T::name()));
    body.check().unwrap_or_else(|e| panic!("{}: {}", T::name(), e.public()));
}

#[test]
fn examples_are_accepted() {
    accept_example::<admin_tokens::CreateAdminToken>();
    accept_example::<catalog::SuggestScopes>();
    accept_example::<keys::CreateKey>();
    accept_example::<keys::ExplainKey>();
    accept_example::<keys::NarrowKeyScopes>();
    accept_example::<keys::RevokeKey>();
    accept_example::<keys::RotateKey>();
    accept_example::<keys::UpdateKey>();
    accept_example::<members::AddMember>();
    accept_example::<members::ChangeMemberRole>();
    accept_example::<members::OffboardMember>();
    accept_example::<service_accounts::CreateServiceAccount>();
    accept_example::<tenants::CreateTenant>();
    accept_example::<tenants::SuspendTenant>();
    accept_example::<users::CreateUser>();
}

#[test]
fn the_table() {
    let mut text = String::new();
    for operation in OPERATIONS {
        let scope = operation.scope.map_or("-", |scope| scope.as_str());
        let audit = operation.audit.map_or("-", |action| action.as_str());
        let marks = [
            (operation.idempotent, "idempotent"),
            (operation.paged, "paged"),
            (operation.fenced, "fenced"),
        ];
        let marks: Vec<&str> = marks.iter().filter(|mark| mark.0).map(|mark| mark.1).collect();
        writeln!(
            text,
            "{} {} {} | {} {} {scope} | {audit} | {} | {}",
            operation.id,
            operation.method,
            operation.path,
            operation.plane.as_str(),
            operation.access.as_str(),
            operation.status,
            marks.join(" "),
        )
        .unwrap();
    }
    insta::assert_snapshot!(text);
}
