use std::sync::LazyLock;

use serde_json::{Value, json};

use super::*;
use crate::catalog::Catalog;
use crate::denial::DenialContext;
use crate::error::Error;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const LATER: Timestamp = NOW.plus_ms(1);
const CARRIERS: &str = "Authorization: Bearer …";

static OPEN: LazyLock<IpAllowlist> = LazyLock::new(IpAllowlist::default);
static OFFICE: LazyLock<IpAllowlist> =
    LazyLock::new(|| IpAllowlist::parse(&["203.0.113.0/24"]).unwrap());
static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let profile = json!({
        "name": "acme", "title": "Acme", "base_path": "/v1", "openapi": "openapi.json",
        "keys": {
            "prefix": "acme",
            "environments": {"live": "live", "test": "test"},
            "carriers": ["bearer"],
        },
        "scopes": {
            "audit:read": {"description": "."},
            "files:read": {"description": "."},
            "reports:read": {"description": "."},
        },
        "roles": {"admin": {"title": "Administrator", "areas": ["*"]}},
    });
    let op = |id: &str, security: Value| json!({"operationId": id, "security": security});
    let mut moved = op("moved", json!([{"key": ["reports:read"]}]));
    moved["x-keyward-area"] = json!("exports");
    let document = json!({
        "openapi": "3.1.0",
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            "/v1/reports": {"get": op("one", json!([{"key": ["reports:read"]}]))},
            "/v1/either": {"get": op("either", json!([
                {"key": ["reports:read", "audit:read"]}, {"key": ["files:read"]},
            ]))},
            "/v1/moved": {"get": moved},
            "/v1/plain": {"get": op("plain", json!([{"key": []}]))},
        },
    });
    Catalog::new(&serde_json::from_value(profile).unwrap(), &document).unwrap()
});

fn scopes(names: &[&str]) -> ScopeSet {
    CATALOG.scope_set(names)
}

/// The ceiling of a role that may use these areas.
fn ceiling(names: &[&str]) -> AreaSet {
    let routes = CATALOG.routes().iter();
    let known = routes.flat_map(|route| route.alternatives.iter().map(|a| a.areas));
    let within = |set: &AreaSet| CATALOG.area_names(*set).all(|name| names.contains(&name));
    known.filter(within).fold(AreaSet::EMPTY, AreaSet::union)
}

fn key() -> KeyFacts<'static> {
    KeyFacts {
        environment: Environment::Live,
        expires_at: None,
        revoked_at: None,
        suspect: false,
        tenant_suspended: false,
        scopes: scopes(&["reports:read"]),
        ceiling: Some(ceiling(&["reports"])),
        ip_allowlist: &OPEN,
    }
}

fn request() -> RequestFacts {
    RequestFacts {
        environments: EnvironmentSet::from_iter([Environment::Live]),
        ip: Some([203, 0, 113, 9].into()),
        from_browser: false,
        tenant: TenantHeader::Matches,
    }
}

fn route(path: &str) -> RouteMatch<'static> {
    CATALOG.route("GET", path)
}

fn ask(key: KeyFacts<'_>, path: &str) -> Result<Permit<'static>, Denial> {
    decide(&Credential::Known(key), route(path), &request(), NOW)
}

fn refused(step: Step, code: ErrorCode, reason: Reason) -> Denial {
    Denial { step, code, reason }
}

/// One way of failing a check: what it makes of a good request, and what it must be told.
struct Fault {
    denial: Denial,
    spoil: fn(&mut Case),
}

struct Case {
    credential: Option<Credential<'static>>,
    key: KeyFacts<'static>,
    request: RequestFacts,
    method: &'static str,
    path: &'static str,
}

impl Case {
    fn good() -> Self {
        let (key, request) = (key(), request());
        Self { credential: None, key, request, method: "GET", path: "/v1/reports" }
    }

    fn decide(&self) -> Result<Permit<'static>, Denial> {
        let known = Credential::Known(self.key);
        let credential = self.credential.as_ref().unwrap_or(&known);
        decide(credential, CATALOG.route(self.method, self.path), &self.request, NOW)
    }
}

macro_rules! faults {
    ($($step:ident $code:ident $reason:ident |$case:ident| $spoil:expr;)*) => {
        [$(Fault {
            denial: Denial {
                step: Step::$step, code: ErrorCode::$code, reason: Reason::$reason,
            },
            spoil: |$case| $spoil,
        },)*]
    };
}

/// Every fault, in the order of the checks; where one step has several, the first wins.
fn faults() -> [Fault; 21] {
    faults! {
        Credential MissingApiKey Plain |c| c.credential = Some(Credential::Missing);
        Credential AmbiguousApiKey Plain |c| c.credential = Some(Credential::Ambiguous);
        Credential InvalidApiKey Malformed |c| c.credential = Some(Credential::Malformed);
        FailedCaller RateLimited TooManyFailures |c| c.credential = Some(Credential::Withheld);
        Lookup InvalidApiKey Unknown |c| c.credential = Some(Credential::Unknown);
        State Unauthorized Revoked |c| c.key.revoked_at = Some(NOW);
        State ExpiredApiKey Plain |c| c.key.expires_at = Some(NOW);
        State Unauthorized TenantSuspended |c| c.key.tenant_suspended = true;
        State Unauthorized Suspect |c| c.key.suspect = true;
        Environment EnvironmentMismatch Plain |c| c.key.environment = Environment::Test;
        Ip IpNotAllowed Plain |c| {
            c.key.ip_allowlist = &OFFICE;
            c.request.ip = Some([198, 51, 100, 1].into());
        };
        Ip IpNotAllowed Plain |c| {
            c.key.ip_allowlist = &OFFICE;
            c.request.ip = None;
        };
        BrowserOrigin BrowserOriginRefused Plain |c| c.request.from_browser = true;
        Tenant TenantMismatch TenantHeaderMissing |c| c.request.tenant = TenantHeader::Missing;
        Tenant TenantMismatch TenantHeaderDiffers |c| c.request.tenant = TenantHeader::Differs;
        Route MethodNotAllowed MethodNotPublic |c| c.method = "DELETE";
        Route Forbidden Plain |c| c.path = "/v1/private";
        Role RbacDenied OwnerLeft |c| c.key.ceiling = None;
        Role RbacDenied Plain |c| c.key.ceiling = Some(AreaSet::EMPTY);
        Scope Forbidden Plain |c| c.key.scopes = scopes(&["audit:read", "files:read"]);
        Scope Forbidden Plain |c| c.key.scopes = ScopeSet::EMPTY;
    }
}

#[test]
fn a_good_request_is_permitted() {
    let permit = Case::good().decide().unwrap();
    assert_eq!(permit.route().operation_id, "one");
    assert_eq!(permit.alternative().scopes, scopes(&["reports:read"]));
}

#[test]
fn each_fault_alone_is_told_as_it_is() {
    for fault in faults() {
        let mut case = Case::good();
        (fault.spoil)(&mut case);
        assert_eq!(case.decide().err(), Some(fault.denial));
    }
}

#[test]
fn of_several_faults_the_first_step_is_told() {
    let faults = faults();
    for (at, first) in faults.iter().enumerate() {
        for second in faults.iter().skip(at + 1) {
            if first.denial.step == second.denial.step {
                continue;
            }
            assert!(first.denial.step < second.denial.step, "the table is in order");
            let mut case = Case::good();
            (second.spoil)(&mut case);
            (first.spoil)(&mut case);
            assert_eq!(case.decide().err(), Some(first.denial), "{:?}", second.denial);
        }
    }
}

#[test]
fn from_each_step_on_everything_may_be_wrong() {
    let faults = faults();
    for (at, first) in faults.iter().enumerate() {
        let mut case = Case::good();
        let later = faults.iter().skip(at).filter(|fault| fault.denial.step != first.denial.step);
        later.for_each(|fault| (fault.spoil)(&mut case));
        (first.spoil)(&mut case);
        assert_eq!(case.decide().err(), Some(first.denial));
    }
}

#[test]
fn revoked_is_told_before_expired_before_suspended_and_before_suspect() {
    let mut dead = key();
    dead.suspect = true;
    dead.tenant_suspended = true;
    let suspended = refused(Step::State, ErrorCode::Unauthorized, Reason::TenantSuspended);
    assert_eq!(ask(dead, "/v1/reports").err(), Some(suspended));
    dead.expires_at = Some(NOW);
    let expired = refused(Step::State, ErrorCode::ExpiredApiKey, Reason::Plain);
    assert_eq!(ask(dead, "/v1/reports").err(), Some(expired));
    dead.revoked_at = Some(LATER);
    let revoked = refused(Step::State, ErrorCode::Unauthorized, Reason::Revoked);
    assert_eq!(ask(dead, "/v1/reports").err(), Some(revoked));
}

#[test]
fn a_key_works_until_the_instant_of_its_expiry() {
    let expiring = KeyFacts { expires_at: Some(LATER), ..key() };
    assert!(ask(expiring, "/v1/reports").is_ok());
}

#[test]
fn an_open_list_needs_no_address_and_a_list_does() {
    let ask = |list, ip: Option<&str>| {
        let ip = ip.map(|text| text.parse().unwrap());
        let key = KeyFacts { ip_allowlist: list, ..key() };
        let request = RequestFacts { ip, ..request() };
        decide(&Credential::Known(key), route("/v1/reports"), &request, NOW).is_ok()
    };
    assert!(ask(&OPEN, None));
    assert!(ask(&OPEN, Some("2001:db8::1")));
    assert!(ask(&OFFICE, Some("203.0.113.1")));
    assert!(ask(&OFFICE, Some("::ffff:203.0.113.1")));
    assert!(!ask(&OFFICE, Some("2001:db8::1")));
    assert!(!ask(&OFFICE, None));
}

#[test]
fn a_product_without_tenant_header_needs_none() {
    let request = RequestFacts { tenant: TenantHeader::NotRequired, ..request() };
    assert!(decide(&Credential::Known(key()), route("/v1/reports"), &request, NOW).is_ok());
}

#[test]
fn one_of_the_alternatives_with_all_its_scopes_suffices() {
    let every = ceiling(&["reports", "audit", "files"]);
    let held = |names: &[&str]| {
        let key = KeyFacts { scopes: scopes(names), ceiling: Some(every), ..key() };
        ask(key, "/v1/either").map(|permit| permit.alternative().scopes)
    };
    let lacks = Err(refused(Step::Scope, ErrorCode::Forbidden, Reason::Plain));
    let both = scopes(&["reports:read", "audit:read"]);
    assert_eq!(held(&["files:read"]).ok(), Some(scopes(&["files:read"])));
    assert_eq!(held(&["reports:read", "audit:read"]).ok(), Some(both));
    assert_eq!(held(&["reports:read", "audit:read", "files:read"]).ok(), Some(both));
    assert_eq!(held(&["reports:read"]), lacks);
    assert_eq!(held(&["audit:read"]), lacks);
    assert_eq!(held(&[]), lacks);
}

#[test]
fn the_ceiling_holds_for_each_alternative_on_its_own() {
    let ask = |areas: &[&str], names: &[&str]| {
        let key = KeyFacts { scopes: scopes(names), ceiling: Some(ceiling(areas)), ..key() };
        ask(key, "/v1/either").map(|permit| permit.alternative().scopes)
    };
    let every_scope = ["reports:read", "audit:read", "files:read"];
    let role = Err(refused(Step::Role, ErrorCode::RbacDenied, Reason::Plain));
    let scope = Err(refused(Step::Scope, ErrorCode::Forbidden, Reason::Plain));
    assert_eq!(ask(&["files"], &every_scope), Ok(scopes(&["files:read"])));
    // the role may use one alternative, the key satisfies only the other
    assert_eq!(ask(&["files"], &["reports:read", "audit:read"]), scope);
    assert_eq!(ask(&["reports", "audit"], &["files:read"]), scope);
    // half of the areas of an alternative is none of it
    assert_eq!(ask(&["reports"], &every_scope), role);
    assert_eq!(ask(&[], &every_scope), role);
}

#[test]
fn the_area_of_a_route_may_differ_from_that_of_its_scope() {
    let role = refused(Step::Role, ErrorCode::RbacDenied, Reason::Plain);
    assert_eq!(ask(key(), "/v1/moved").err(), Some(role));
    let moved = KeyFacts { ceiling: Some(ceiling(&["exports"])), ..key() };
    assert!(ask(moved, "/v1/moved").is_ok());
    assert_eq!(ask(moved, "/v1/reports").err(), Some(role));
}

#[test]
fn a_route_that_asks_for_no_scope_still_asks_for_a_member() {
    let bare = KeyFacts { scopes: ScopeSet::EMPTY, ceiling: Some(AreaSet::EMPTY), ..key() };
    assert!(ask(bare, "/v1/plain").is_ok());
    let left = refused(Step::Role, ErrorCode::RbacDenied, Reason::OwnerLeft);
    assert_eq!(ask(KeyFacts { ceiling: None, ..bare }, "/v1/plain").err(), Some(left));
}

#[test]
fn traces_tell_every_check_in_order() {
    let steps: Vec<Step> = trace(None).map(|(step, _)| step).collect();
    assert_eq!(steps, Step::ALL);
    assert!(trace(None).all(|(_, outcome)| outcome == Outcome::Passed));
    for failed in Step::ALL {
        for (step, outcome) in trace(Some(*failed)) {
            let expected = match step.cmp(failed) {
                std::cmp::Ordering::Less => Outcome::Passed,
                std::cmp::Ordering::Equal => Outcome::Failed,
                std::cmp::Ordering::Greater => Outcome::Skipped,
            };
            assert_eq!(outcome, expected);
        }
    }
    let words: Vec<_> = Step::ALL.iter().map(|step| step.as_str()).collect();
    let expected = "credential failed_caller lookup state environment ip browser_origin tenant \
                    route role scope rate_limit quota idempotency";
    assert_eq!(words.join(" "), expected);
}

mod told {
    use super::*;

    fn error(case: &Case) -> Error {
        let denial = case.decide().expect_err("a refusal");
        denial.to_error(&DenialContext {
            catalog: &CATALOG,
            method: case.method,
            path: case.path,
            route: CATALOG.route(case.method, case.path),
            key: case.credential.is_none().then_some(&case.key),
            role: "analyst",
            environments: case.request.environments,
            carriers: CARRIERS,
            tenant_header: Some("x-organization-id"),
        })
    }

    #[test]
    fn every_denial_has_a_text_and_names_its_step() {
        for fault in faults() {
            let mut case = Case::good();
            (fault.spoil)(&mut case);
            let error = error(&case);
            assert_eq!(error.code(), fault.denial.code);
            assert_eq!(error.details()["failed"], fault.denial.step.as_str());
            let reason = error.details().get("reason").and_then(Value::as_str);
            assert_eq!(reason, fault.denial.reason.as_str());
            assert!(!error.public().starts_with("The request was refused"));
        }
    }

    #[test]
    fn ak3_each_of_the_three_refusals_says_which_failed() {
        let mut case = Case::good();
        case.path = "/v1/private";
        let route = error(&case);
        assert_eq!(
            (route.code(), &route.details()["failed"]),
            (ErrorCode::Forbidden, &json!("route"))
        );
        assert_eq!(route.public(), "GET /v1/private is not open to API keys");

        let mut case = Case::good();
        case.key.ceiling = Some(ceiling(&["files"]));
        let role = error(&case);
        assert_eq!(
            (role.code(), &role.details()["failed"]),
            (ErrorCode::RbacDenied, &json!("role"))
        );
        assert_eq!(role.details()["role"], "analyst");
        assert_eq!(role.details()["areas"], json!(["reports"]));

        let mut case = Case::good();
        case.key.scopes = scopes(&["files:read"]);
        let scope = error(&case);
        assert_eq!(
            (scope.code(), &scope.details()["failed"]),
            (ErrorCode::Forbidden, &json!("scope"))
        );
        assert_eq!(scope.details()["requiredScopes"], json!([["reports:read"]]));
        assert_eq!(scope.details()["grantedScopes"], json!(["files:read"]));
    }

    #[test]
    fn alternatives_are_told_as_lists() {
        let mut case = Case::good();
        case.path = "/v1/either";
        case.key.ceiling = Some(ceiling(&["reports", "audit", "files"]));
        let found = error(&case);
        let expected = json!([["audit:read", "reports:read"], ["files:read"]]);
        assert_eq!(found.details()["requiredScopes"], expected);
    }

    #[test]
    fn particulars_say_what_to_fix() {
        let told = |spoil: fn(&mut Case)| {
            let mut case = Case::good();
            spoil(&mut case);
            error(&case)
        };
        let found = told(|c| c.credential = Some(Credential::Missing));
        assert!(found.public().contains(CARRIERS));
        let found = told(|c| c.key.revoked_at = Some(NOW));
        assert_eq!(found.details()["revokedAt"], NOW.to_string());
        let found = told(|c| c.key.expires_at = Some(NOW));
        assert_eq!(found.details()["expiredAt"], NOW.to_string());
        let found = told(|c| c.key.environment = Environment::Test);
        assert_eq!(found.public(), "This is a test key, and this address serves live");
        assert_eq!(found.details()["keyEnvironment"], "test");
        assert_eq!(found.details()["servedEnvironments"], json!(["live"]));
        let found = told(|c| c.request.tenant = TenantHeader::Missing);
        assert!(found.public().starts_with("The x-organization-id header is missing"));
        let found = told(|c| c.method = "DELETE");
        assert_eq!(found.details()["allowedMethods"], json!(["GET"]));
    }

    #[test]
    fn an_unproven_caller_learns_nothing_of_the_key() {
        for credential in [Credential::Unknown, Credential::Malformed, Credential::Withheld] {
            let mut case = Case::good();
            case.credential = Some(credential);
            case.key.scopes = ScopeSet::EMPTY;
            let members: Vec<String> = error(&case).details().keys().cloned().collect();
            assert_eq!(members, ["failed", "reason"]);
        }
    }
}
