//! What must hold of every operation of Keyward's own API, by enumeration of its table. An
//! operation without a request in `harness::request` fails here.

use std::collections::BTreeMap;
use std::path::Path;

use keyward_api::Operation;
use keyward_api::operation::{Access, OPERATIONS};
use keyward_api::scope::ManagementScope;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::request::{Request, request};
use crate::harness::{
    Actor, DAY_MS, Got, KURAMO_HEALTH, LAGOS_PAY, PROFILE, Setup, TestNode, node_on_every_engine,
    node_on_every_engine_with,
};

/// A role that may do nothing, added to the product's own for these tests.
const BYSTANDER: &str = "bystander";

/// Somebody who may or may not call an operation on a record of Lagos Pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// Without a credential.
    Nobody,
    /// An operator's token whose time has run out.
    Expired,
    /// An operator's token that was revoked.
    Revoked,
    /// An operator's token with every scope but the one.
    OperatorWrongScope,
    /// A token of the tenant's owner with every scope but the one.
    OwnerWrongScope,
    /// A token of the tenant with every scope and a role that may do nothing.
    WrongRole,
    /// A token of another tenant's owner with every scope.
    OtherTenant,
    /// A token of the tenant's owner with the scope and no other.
    Owner,
    /// An operator's token with the scope and no other.
    Operator,
}

impl Caller {
    /// The operator comes last: what was refused to the others was there all the time.
    const ALL: [Self; 9] = [
        Self::Nobody,
        Self::Expired,
        Self::Revoked,
        Self::OperatorWrongScope,
        Self::OwnerWrongScope,
        Self::WrongRole,
        Self::OtherTenant,
        Self::Owner,
        Self::Operator,
    ];
}

/// What a caller gets: success, or a status, a code and, where there is one, the failed check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Success,
    Refused(u16, &'static str, Option<&'static str>),
    /// A refusal with a code that the table does not know of this operation.
    Undeclared(&'static str),
}

const SCOPE: Outcome = Outcome::Refused(403, "forbidden", Some("scope"));
const ROLE: Outcome = Outcome::Refused(403, "rbac_denied", Some("role"));
const NOT_FOUND: Outcome = Outcome::Refused(404, "not_found", None);

/// Where the table alone does not tell the outcome. This list may only shrink.
const EXCEPTIONS: [(&str, Caller, Outcome); 4] = [
    // the key that is asked about belongs to a tenant that does not exist for this caller
    ("identifyKey", Caller::OtherTenant, NOT_FOUND),
    // whoever holds the scope may ask; the answer tells them of no key but their own tenant's
    ("verifyKey", Caller::OtherTenant, Outcome::Success),
    ("verifyKey", Caller::Owner, Outcome::Success),
    ("verifyKey", Caller::OwnerWrongScope, SCOPE),
];

fn expected(operation: &Operation, caller: Caller) -> Outcome {
    let exception = EXCEPTIONS.iter().find(|(id, who, _)| *id == operation.id && *who == caller);
    if let Some((_, _, outcome)) = exception {
        return *outcome;
    }
    by_table(operation, caller)
}

fn by_table(operation: &Operation, caller: Caller) -> Outcome {
    if operation.access == Access::Public {
        return Outcome::Success;
    }
    match caller {
        Caller::Nobody => Outcome::Refused(401, "missing_api_key", None),
        Caller::Expired => Outcome::Refused(401, "expired_api_key", None),
        Caller::Revoked => Outcome::Refused(401, "unauthorized", None),
        _ if operation.scope.is_none() => Outcome::Success,
        // what is the operator's is refused to every tenant before anything else
        Caller::OwnerWrongScope | Caller::WrongRole | Caller::OtherTenant | Caller::Owner
            if operation.access == Access::Operator =>
        {
            ROLE
        }
        Caller::OperatorWrongScope | Caller::OwnerWrongScope => SCOPE,
        Caller::WrongRole => ROLE,
        Caller::OtherTenant if operation.access == Access::Tenant => NOT_FOUND,
        Caller::OtherTenant | Caller::Owner | Caller::Operator => Outcome::Success,
    }
}

fn seen(operation: &Operation, got: &Got) -> Outcome {
    if got.status == operation.status {
        return Outcome::Success;
    }
    let error = got.envelope();
    // the table must know every code that its operations answer with
    let known: Vec<_> = operation.errors().iter().map(|code| code.as_str()).collect();
    let leak = |text: &Value| Box::leak(text.as_str().unwrap().to_owned().into_boxed_str());
    let code: &'static str = leak(&error["code"]);
    if !known.contains(&code) {
        return Outcome::Undeclared(code);
    }
    let failed = &error["details"]["failed"];
    let failed: Option<&'static str> = if failed.is_null() { None } else { Some(leak(failed)) };
    Outcome::Refused(got.status, code, failed)
}

#[test]
fn no_exception_is_left_over() {
    for (id, caller, outcome) in EXCEPTIONS {
        let operation = Operation::find(id).expect("an operation of the table");
        assert_ne!(by_table(operation, caller), outcome, "{id} {caller:?} is the rule by now");
    }
}

/// The tokens of all callers but those that depend on the operation.
struct Callers<'n> {
    node: &'n TestNode,
    expired: Actor,
    revoked: Actor,
    wrong_role: Actor,
    other_tenant: Actor,
}

fn scopes(keep: impl Fn(ManagementScope) -> bool) -> Vec<&'static str> {
    let all = ManagementScope::ALL.iter().copied();
    all.filter(|scope| keep(*scope)).map(ManagementScope::as_str).collect()
}

impl<'n> Callers<'n> {
    async fn new(node: &'n TestNode) -> Self {
        let all = scopes(|_| true);
        let make = async |days: u32| {
            let body = json!({ "name": "operator", "scopes": all, "expiresInDays": days });
            node.operator().post("/v1/admin-tokens", body).await.is(201)
        };
        let token = |made: &Value| node.admin(made["secret"].as_str().unwrap());
        let expired = token(&make(1).await);
        node.clock.advance_ms(DAY_MS);
        let revoked = make(1).await;
        let path =
            format!("/v1/admin-tokens/{}/revoke", revoked["adminToken"]["id"].as_str().unwrap());
        node.operator().send("POST".parse().unwrap(), &path, None).await.is(200);
        Self {
            node,
            expired,
            revoked: token(&revoked),
            wrong_role: node.admin_token(&all, Some((LAGOS_PAY, BYSTANDER))).await,
            other_tenant: node.admin_token(&all, Some((KURAMO_HEALTH, "owner"))).await,
        }
    }

    async fn actor(&self, caller: Caller, operation: &Operation) -> Actor {
        let node = self.node;
        let needed = operation.scope;
        let only = || match needed {
            Some(scope) => vec![scope.as_str()],
            None => scopes(|scope| scope == ManagementScope::CatalogRead),
        };
        let all_but = || scopes(|scope| Some(scope) != needed);
        match caller {
            Caller::Nobody => node.anonymous(),
            Caller::Expired => self.expired.clone(),
            Caller::Revoked => self.revoked.clone(),
            Caller::OperatorWrongScope => node.admin_token(&all_but(), None).await,
            Caller::OwnerWrongScope => {
                node.admin_token(&all_but(), Some((LAGOS_PAY, "owner"))).await
            }
            Caller::WrongRole => self.wrong_role.clone(),
            Caller::OtherTenant => self.other_tenant.clone(),
            Caller::Owner => node.admin_token(&only(), Some((LAGOS_PAY, "owner"))).await,
            Caller::Operator => node.admin_token(&only(), None).await,
        }
    }
}

async fn good(node: &TestNode, operation: &Operation) -> Request {
    let found = request(node, operation).await;
    found.unwrap_or_else(|| panic!("{} has no request in harness::request", operation.id))
}

/// The product with one more role, which may do nothing.
fn with_bystander(folder: &Path) -> Setup {
    for entry in std::fs::read_dir(PROFILE).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let path = folder.join("profile.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let role = format!("[roles.{BYSTANDER}]\ntitle = \"Bystander\"\nareas = []\noperations = []\n");
    std::fs::write(&path, format!("{text}\n{role}")).unwrap();
    Setup { profile: folder.to_owned(), ..Setup::default() }
}

#[tokio::test]
async fn every_operation_answers_every_caller_as_the_table_says() {
    let folder = TempDir::new().unwrap();
    node_on_every_engine_with(&with_bystander(folder.path()), async |node| {
        let callers = Callers::new(node).await;
        let mut wrong = Vec::new();
        for operation in OPERATIONS {
            // a privileged call that works, so that no refusal below is there by coincidence
            let first = good(node, operation).await.send(node, &node.operator(), operation).await;
            if first.status != operation.status {
                wrong.push(format!("{}: {} {}", operation.id, first.status, first.text));
                continue;
            }
            let fresh = good(node, operation).await;
            for caller in Caller::ALL {
                // a link works once, and nobody needs more than one
                if operation.access == Access::Public && caller != Caller::Nobody {
                    continue;
                }
                // what succeeds may use up the record
                let wanted = expected(operation, caller);
                let own;
                let request = match wanted {
                    Outcome::Success if caller != Caller::Operator => {
                        own = good(node, operation).await;
                        &own
                    }
                    _ => &fresh,
                };
                let actor = callers.actor(caller, operation).await;
                let got = request.send(node, &actor, operation).await;
                let seen = seen(operation, &got);
                if seen != wanted {
                    wrong.push(format!("{} {caller:?}: {seen:?} {}", operation.id, got.text));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    })
    .await;
}

/// How many events of each action the audit trail of all tenants holds.
async fn trail(node: &TestNode) -> BTreeMap<String, i64> {
    let sql = "SELECT action, COUNT(*) FROM audit_events GROUP BY action";
    let rows = node.database.behind(sql).await;
    let cell = |cell: &Option<String>| cell.clone().unwrap();
    rows.iter().map(|row| (cell(&row[0]), cell(&row[1]).parse().unwrap())).collect()
}

fn added(before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>) -> Vec<(String, i64)> {
    let more = after.iter().map(|(action, count)| {
        (action.clone(), count - before.get(action).copied().unwrap_or_default())
    });
    more.filter(|(_, count)| *count != 0).collect()
}

#[tokio::test]
async fn every_mutation_writes_one_audit_event_and_no_read_writes_any() {
    node_on_every_engine(async |node| {
        for operation in OPERATIONS {
            let request = good(node, operation).await;
            let before = trail(node).await;
            let got = request.send(node, &node.operator(), operation).await;
            got.is(operation.status);
            let one = operation.audit.map(|action| (action.as_str().to_owned(), 1));
            let wanted: Vec<_> = one.into_iter().collect();
            let after = trail(node).await;
            assert_eq!(added(&before, &after), wanted, "{}", operation.id);
            // what is refused was not done
            if let Some(Value::Object(mut body)) = request.body {
                body.insert("colour".to_owned(), json!("red"));
                let odd = Request { path: request.path, body: Some(body.into()) };
                let got = odd.send(node, &node.operator(), operation).await;
                let status = if operation.id == "verifyKey" { 400 } else { 422 };
                assert_eq!(got.status, status, "{}: {}", operation.id, got.text);
                got.envelope();
                assert_eq!(trail(node).await, after, "{}", operation.id);
            }
        }
        for slug in [LAGOS_PAY, KURAMO_HEALTH] {
            let path = node.path(slug, "/audit-events/verify");
            assert_eq!(node.operator().get(&path).await.is(200)["valid"], true);
        }
    })
    .await;
}

#[tokio::test]
async fn every_idempotent_operation_takes_effect_once_for_a_key() {
    node_on_every_engine(async |node| {
        for operation in OPERATIONS.iter().filter(|operation| operation.idempotent) {
            let id = operation.id;
            let request = good(node, operation).await;
            let operator = node.operator().with("idempotency-key", &node.fresh("retry"));
            let first = request.send(node, &operator, operation).await;
            let mut first_body = first.is(operation.status);
            assert_eq!(first.header("idempotency-replayed"), None, "{id}");
            let before = trail(node).await;
            let again = request.send(node, &operator, operation).await;
            let mut again_body = again.is(operation.status);
            assert_eq!(again.header("idempotency-replayed"), Some("true"), "{id}");
            assert_eq!(trail(node).await, before, "{id} ran twice");
            // the same answer, but for a secret that leaves once and the wait of the first write
            if first_body.get("secret").is_some() {
                assert!(first_body["secret"].take().is_string(), "{id}");
                assert_eq!(again_body["secret"], Value::Null, "{id}");
                let told = again_body.as_object_mut().unwrap().remove("secretNotReplayable");
                assert_eq!(told, Some(json!(true)), "{id}");
            }
            for body in [&mut first_body, &mut again_body] {
                body.as_object_mut().unwrap().remove("fence");
            }
            assert_eq!(first_body, again_body, "{id}");
            if let Some(mut body) = request.body {
                body["name"] = json!("something else");
                let other = Request { path: request.path, body: Some(body) };
                let got = other.send(node, &operator, operation).await;
                got.refused(422, "idempotency_key_reused");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn every_list_is_paged_and_bounded() {
    node_on_every_engine(async |node| {
        for operation in OPERATIONS.iter().filter(|operation| operation.paged) {
            let request = good(node, operation).await;
            let page = |query: &str| format!("{}?{query}", request.path);
            let operator = node.operator();
            let all = operator.all(&request.path).await;
            let (mut one_by_one, mut cursor) = (Vec::new(), String::new());
            for _ in 0..=all.len() {
                let got = operator.get(&page(&format!("limit=1{cursor}"))).await.is(200);
                one_by_one.extend(got["data"].as_array().unwrap().iter().cloned());
                let Some(next) = got["nextCursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            assert_eq!(one_by_one, all, "{}", operation.id);
            for query in ["limit=0", "limit=201", "limit=many", "cursor=%20", "colour=red"] {
                let got = operator.get(&page(query)).await;
                assert_eq!(got.status, 422, "{} {query}: {}", operation.id, got.text);
                got.envelope();
            }
        }
    })
    .await;
}
