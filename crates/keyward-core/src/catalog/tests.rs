use serde_json::{Value, json};

use super::*;
use crate::error::ErrorCode;

mod properties;

fn profile_from(value: Value) -> Profile {
    serde_json::from_value(value).unwrap()
}

fn described(names: &[&str]) -> Value {
    let entries = names.iter().map(|name| ((*name).to_owned(), json!({"description": "."})));
    Value::Object(entries.collect())
}

/// A product with `reports:read` names.
fn product() -> Value {
    json!({
        "name": "acme",
        "title": "Acme",
        "base_path": "/v1",
        "openapi": "openapi.json",
        "keys": {
            "prefix": "acme",
            "environments": {"live": "live", "staging": "stg"},
            "carriers": ["bearer"],
        },
        "scopes": described(&["audit:read", "files:read", "reports:read", "reports:write"]),
        "roles": {
            "admin": {"title": "Administrator", "areas": ["*"], "operations": ["*"]},
            "analyst": {"title": "Analyst", "areas": ["reports"], "operations": ["keys:read"]},
            "auditor": {"title": "Auditor", "areas": ["audit", "reports"]},
            "guest": {"title": "Guest", "areas": []},
        },
    })
}

/// A product with `read:universe` names.
fn reversed() -> Value {
    let mut product = product();
    product["keys"]["scope_order"] = json!("action-resource");
    product["scopes"] = described(&["read:findings", "read:universe", "write:universe"]);
    product["roles"]["analyst"]["areas"] = json!(["universe"]);
    product
}

fn key_schemes() -> Value {
    json!({"securitySchemes": {
        "key": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        "scheme": {"type": "http", "scheme": "ApiKey"},
        "session": {"type": "apiKey", "in": "cookie", "name": "session"},
        "query": {"type": "apiKey", "in": "query", "name": "key"},
        "basic": {"type": "http", "scheme": "basic"},
        "login": {"type": "openIdConnect", "openIdConnectUrl": "https://acme.example"},
    }})
}

fn document(paths: &Value) -> Value {
    json!({"openapi": "3.1.0", "components": key_schemes(), "paths": paths})
}

fn operation(security: &Value) -> Value {
    json!({"operationId": "op", "summary": "Does it", "security": security})
}

/// One route under this security, in a product with `reports:read` names.
fn with_security(security: &Value) -> Result<Catalog> {
    let paths = json!({"/a": {"get": operation(security)}});
    Catalog::new(&profile_from(product()), &document(&paths))
}

fn catalog_of(profile: Value) -> Catalog {
    let first = profile["scopes"].as_object().unwrap().keys().next().unwrap().clone();
    let paths = json!({"/a": {"get": operation(&json!([{"key": [first]}]))}});
    Catalog::new(&profile_from(profile), &document(&paths)).unwrap()
}

fn refusal(outcome: Result<Catalog>) -> String {
    let error = outcome.expect_err("a refusal");
    assert_eq!(error.code(), ErrorCode::ValidationFailed);
    error.public().to_owned()
}

fn set(catalog: &Catalog, names: &[&str]) -> ScopeSet {
    catalog.scope_set(names)
}

fn areas(catalog: &Catalog, names: &[&str]) -> AreaSet {
    let wanted = catalog.areas.iter().enumerate().filter(|(_, a)| names.contains(&a.as_str()));
    wanted.fold(AreaSet::EMPTY, |all, (at, _)| all.union(AreaSet::of(at)))
}

mod mint {
    use super::*;

    fn ask(catalog: &Catalog, role: &str, scopes: &[&str]) -> Result<Vec<String>> {
        let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        catalog.scopes_for_new_key(&scopes, catalog.role(role).unwrap())
    }

    fn text(catalog: &Catalog, scopes: &[&str]) -> String {
        let error = ask(catalog, "admin", scopes).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ValidationFailed);
        assert_eq!(error.details()["field"], "scopes");
        error.public().to_owned()
    }

    #[test]
    fn known_scopes_are_granted_sorted_and_once() {
        let catalog = catalog_of(product());
        let asked = ["reports:write", "audit:read", "reports:write"];
        assert_eq!(ask(&catalog, "admin", &asked).unwrap(), ["audit:read", "reports:write"]);
        let reversed = catalog_of(reversed());
        assert_eq!(ask(&reversed, "admin", &["read:universe"]).unwrap(), ["read:universe"]);
    }

    #[test]
    fn ak6_bare_capabilities_are_refused_with_the_scopes_meant() {
        let catalog = catalog_of(product());
        let found = text(&catalog, &["reports"]);
        assert!(found.contains("bare capability"), "{found}");
        assert!(found.ends_with("use reports:read or reports:write"), "{found}");
        assert!(text(&catalog, &["nothing"]).ends_with("not a scope"));
        let reversed = catalog_of(reversed());
        let found = text(&reversed, &["universe"]);
        assert!(found.ends_with("use read:universe or write:universe"), "{found}");
        let found = text(&reversed, &["write"]);
        assert!(found.ends_with("use write:universe"), "{found}");
    }

    #[test]
    fn ak6_wildcards_are_refused() {
        for catalog in [catalog_of(product()), catalog_of(reversed())] {
            for wildcard in ["*", "reports:*", "*:read", "*:*", "rep*:read", "read:*"] {
                let found = text(&catalog, &[wildcard]);
                assert!(found.contains("wildcard"), "{found}");
            }
        }
    }

    #[test]
    fn ak6_settings_of_the_tenant_are_refused() {
        for catalog in [catalog_of(product()), catalog_of(reversed())] {
            for scope in ["settings:write", "write:settings", "tenant:write", "members:read"] {
                let found = text(&catalog, &[scope]);
                assert!(found.contains("tenant setting"), "{scope}: {found}");
            }
        }
        let found = text(&catalog_of(product()), &["settings"]);
        assert!(found.contains("bare capability"), "{found}");
    }

    #[test]
    fn ak6_unknown_scopes_are_refused_with_the_nearest() {
        let catalog = catalog_of(product());
        let found = text(&catalog, &["report:read"]);
        assert!(found.contains("did you mean reports:read?"), "{found}");
        let found = text(&catalog, &["reports:wrote"]);
        assert!(found.contains("did you mean reports:write?"), "{found}");
        let found = text(&catalog, &["customers:delete"]);
        assert!(!found.contains("did you mean"), "{found}");
        let found = text(&catalog_of(reversed()), &["read:univers"]);
        assert!(found.contains("did you mean read:universe?"), "{found}");
        // the other product's word order is not this one's
        let found = text(&catalog, &["read:reports"]);
        assert!(found.contains("no scope"), "{found}");
    }

    #[test]
    fn ak6_malformed_texts_are_refused() {
        let catalog = catalog_of(product());
        for scope in ["", " ", "Reports:read", "reports:read:all", "reports:read ", "a\nb:c"] {
            let found = text(&catalog, &[scope]);
            assert!(found.contains("is not a scope"), "{found}");
            assert!(!found.contains('\n'), "it is quoted");
        }
    }

    #[test]
    fn one_wrong_name_refuses_all() {
        let error = ask(&catalog_of(product()), "admin", &["reports:read", "x:y"]).unwrap_err();
        assert_eq!(error.details()["scope"], "x:y");
    }

    #[test]
    fn none_and_too_many_are_refused() {
        let catalog = catalog_of(product());
        assert!(text(&catalog, &[]).contains("1 to 64"));
        assert!(text(&catalog, &["reports:read"; 65]).contains("1 to 64"));
        assert!(ask(&catalog, "admin", &["reports:read"; 64]).is_ok());
    }

    #[test]
    fn scopes_beyond_the_role_are_refused_with_the_roles_that_can() {
        let catalog = catalog_of(product());
        assert!(ask(&catalog, "analyst", &["reports:read", "reports:write"]).is_ok());
        let error = ask(&catalog, "analyst", &["reports:read", "audit:read"]).unwrap_err();
        assert_eq!(error.code(), ErrorCode::RbacDenied);
        let details = error.details();
        assert_eq!(details["failed"], "role");
        assert_eq!(details["scope"], "audit:read");
        assert_eq!(details["role"], "analyst");
        assert_eq!(details["rolesThatCan"], json!(["admin", "auditor"]));
        assert!(ask(&catalog, "guest", &["reports:read"]).is_err());
    }
}

mod scopes {
    use super::*;

    #[test]
    fn the_area_is_the_resource_half_unless_the_profile_says_otherwise() {
        let mut changed = product();
        changed["scopes"]["files:read"]["area"] = json!("reports");
        let catalog = catalog_of(changed);
        let found: Vec<_> = catalog.scopes().iter().map(|s| s.area.as_str()).collect();
        assert_eq!(found, ["audit", "reports", "reports", "reports"]);
        let catalog = catalog_of(reversed());
        let found: Vec<_> = catalog.scopes().iter().map(|s| s.area.as_str()).collect();
        assert_eq!(found, ["findings", "universe", "universe"]);
    }

    #[test]
    fn sets_keep_the_names_and_ignore_the_unknown() {
        let catalog = catalog_of(product());
        let found = set(&catalog, &["reports:read", "audit:read", "gone:read", ""]);
        assert_eq!(catalog.scope_names(found).collect::<Vec<_>>(), ["audit:read", "reports:read"]);
        assert!(set(&catalog, &["*", "reports"]).is_empty());
    }

    #[test]
    fn write_implies_read_only_where_the_profile_says_so() {
        for (profile, write, read) in [
            (product(), "reports:write", "reports:read"),
            (reversed(), "write:universe", "read:universe"),
        ] {
            let mut implying = profile.clone();
            implying["keys"]["write_implies_read"] = json!(true);
            for (profile, expected) in [(profile, false), (implying, true)] {
                let catalog = catalog_of(profile);
                let held = set(&catalog, &[write]);
                assert_eq!(held.contains_all(set(&catalog, &[read])), expected, "{write}");
                assert_eq!(held.len(), 1 + u32::from(expected));
                assert_eq!(set(&catalog, &[read]).len(), 1, "never the other way");
            }
        }
    }

    #[test]
    fn profiles_without_or_with_too_many_or_wrong_scopes_are_refused() {
        let build = |scopes: Value| {
            let mut product = product();
            product["scopes"] = scopes;
            let paths = json!({"/a": {"get": operation(&json!([{"key": []}]))}});
            Catalog::new(&profile_from(product), &document(&paths))
        };
        assert!(refusal(build(json!({}))).contains("1 to 128"));
        let entries = |n| (0..n).map(|i| (format!("s{}:r{i}", i % 60), json!({"description": ""})));
        assert!(build(Value::Object(entries(128).collect())).is_ok());
        assert!(refusal(build(Value::Object(entries(129).collect()))).contains("1 to 128"));
        let areas = (0..65).map(|i| (format!("s{i}:r"), json!({"description": ""})));
        assert!(refusal(build(Value::Object(areas.collect()))).contains("64 product areas"));
        assert!(refusal(build(described(&["reports"]))).contains("scopes.reports"));
        assert!(refusal(build(described(&["*"]))).contains("wildcard"));
    }

    #[test]
    fn every_position_up_to_the_last_is_its_own_scope() {
        let entries =
            (0..128).map(|i| (format!("s{}:r{i:03}", i % 60), json!({"description": ""})));
        let mut product = product();
        product["scopes"] = Value::Object(entries.collect());
        let catalog = catalog_of(product);
        let names: Vec<_> = catalog.scopes().iter().map(|s| s.name.to_string()).collect();
        let all = catalog.scope_set(&names);
        assert_eq!(all.len(), 128);
        for name in &names {
            let one = catalog.scope_set(&[name]);
            assert_eq!(catalog.scope_names(one).collect::<Vec<_>>(), [name.as_str()]);
        }
    }
}

mod roles {
    use super::*;

    #[test]
    fn ceilings_and_operations() {
        let catalog = catalog_of(product());
        let role = |name: &str| catalog.role(name).unwrap();
        let every = areas(&catalog, &["audit", "files", "reports"]);
        assert!(role("admin").areas.contains_all(every));
        assert_eq!(role("analyst").areas, areas(&catalog, &["reports"]));
        assert!(role("guest").areas.is_empty());
        assert!(role("admin").may_use("keys:write"));
        assert!(role("analyst").may_use("keys:read"));
        assert!(!role("analyst").may_use("keys:write"));
        assert!(!role("guest").may_use("keys:read"));
        assert!(catalog.role("owner").is_none());
        assert_eq!(catalog.role_position("auditor"), Some(2));
    }

    #[test]
    fn area_names_of_a_set() {
        let catalog = catalog_of(product());
        let names: Vec<_> = catalog.area_names(catalog.role("auditor").unwrap().areas).collect();
        assert_eq!(names, ["audit", "reports"]);
    }
}

mod profile {
    use super::*;

    fn refused(change: impl FnOnce(&mut Value)) -> String {
        let mut product = product();
        change(&mut product);
        let error = profile_from(product).validate().unwrap_err();
        assert_eq!(error.code(), ErrorCode::ValidationFailed);
        error.public().to_owned()
    }

    #[test]
    fn a_right_one_is_accepted() {
        profile_from(product()).validate().unwrap();
        profile_from(reversed()).validate().unwrap();
    }

    #[test]
    fn refusals_name_the_member() {
        assert!(refused(|p| p["name"] = json!("Acme Inc")).contains("profile: name:"));
        assert!(refused(|p| p["base_path"] = json!("v1")).contains("base_path"));
        assert!(refused(|p| p["base_path"] = json!("/v1/")).contains("base_path"));
        assert!(refused(|p| p["roles"] = json!({})).contains("roles"));
        assert!(refused(|p| p["keys"]["carriers"] = json!([])).contains("keys.carriers"));
        assert!(refused(|p| p["keys"]["environments"] = json!({})).contains("keys.environments"));
        let member = json!({"name": "Ada", "role": "owner"});
        let tenants = json!({"tenants": [{"slug": "t", "name": "T", "members": [member]}]});
        assert!(refused(|p| p["demo"] = tenants).contains("unknown role \"owner\""));
    }

    #[test]
    fn prefixes_are_words_with_single_underscores() {
        for prefix in ["", "A", "9a", "a-b", "a__b", "a_", "_a", "é", &"a".repeat(33)] {
            assert!(refused(|p| p["keys"]["prefix"] = json!(prefix)).contains("keys.prefix"));
        }
        let mut product = product();
        product["keys"]["prefix"] = json!("aiia_key");
        profile_from(product).validate().unwrap();
    }

    #[test]
    fn environment_words_stand_once_and_never_begin_like_another() {
        for words in [
            json!({"live": "x", "test": "x"}),
            json!({"live": "adm"}),
            // the environment without a word keeps its own in the format
            json!({"live": "test"}),
            json!({"live": "live", "staging": "live_eu"}),
            json!({"live": ""}),
            json!({"live": "Live"}),
            json!({"live": "abcdefghijklmnopq"}),
        ] {
            let found = refused(|p| p["keys"]["environments"] = words.clone());
            assert!(found.contains("keys.environments"), "{words}: {found}");
        }
    }

    #[test]
    fn the_token_format_has_the_words() {
        use crate::environment::Environment;
        use crate::key::SecretKind;
        let format = profile_from(product()).token_format();
        assert_eq!(format.head(SecretKind::Api(Environment::Staging)), "acme_stg_");
        assert_eq!(format.head(SecretKind::Api(Environment::Test)), "acme_test_");
        assert_eq!(format.head(SecretKind::Admin), "acme_adm_");
    }
}

mod openapi {
    use super::*;

    fn build(paths: &Value) -> Result<Catalog> {
        Catalog::new(&profile_from(product()), &document(paths))
    }

    fn reports_read() -> Value {
        operation(&json!([{"key": ["reports:read"]}]))
    }

    #[test]
    fn alternatives_are_or_and_scopes_within_one_are_and() {
        let security = json!([
            {"key": ["reports:write", "audit:read"]},
            {"header": ["files:read"]},
            {"scheme": ["reports:read"]},
        ]);
        let catalog = with_security(&security).unwrap();
        let route = &catalog.routes()[0];
        let expected = [
            (["audit:read", "reports:write"].as_slice(), ["audit", "reports"].as_slice()),
            (&["files:read"], &["files"]),
            (&["reports:read"], &["reports"]),
        ];
        assert_eq!(route.alternatives.len(), expected.len());
        for (alternative, (scopes, ceiling)) in route.alternatives.iter().zip(expected) {
            assert_eq!(alternative.scopes, set(&catalog, scopes));
            assert_eq!(alternative.areas, areas(&catalog, ceiling));
        }
        assert_eq!(route.accepted, "reports:write,audit:read;files:read;reports:read");
        assert_eq!((route.operation_id.as_str(), route.summary.as_str()), ("op", "Does it"));
        assert!(catalog.warnings().is_empty());
    }

    #[test]
    fn the_catalogue_can_name_another_area() {
        let mut op = operation(&json!([{"key": ["reports:read"]}, {"key": ["files:read"]}]));
        op["x-keyward-area"] = json!("exports");
        op["x-keyward-builtin"] = json!("audit");
        let catalog = build(&json!({"/a": {"get": op}})).unwrap();
        let route = &catalog.routes()[0];
        assert_eq!(route.builtin.as_deref(), Some("audit"));
        for alternative in &route.alternatives {
            assert_eq!(alternative.areas, areas(&catalog, &["exports"]));
            assert!(!alternative.areas.is_empty());
        }
        assert!(
            !catalog.role("auditor").unwrap().areas.contains_all(areas(&catalog, &["exports"]))
        );
    }

    #[test]
    fn the_documents_own_security_holds_where_an_operation_has_none() {
        let mut doc = document(&json!({"/a": {
            "get": {"operationId": "a"},
            "post": {"operationId": "b", "security": [{"key": ["reports:write"]}]},
            "put": {"operationId": "c", "security": []},
        }}));
        doc["security"] = json!([{"key": ["reports:read"]}]);
        let catalog = Catalog::new(&profile_from(product()), &doc).unwrap();
        let accepted: Vec<_> = catalog.routes().iter().map(|r| r.accepted.as_str()).collect();
        assert_eq!(accepted, ["reports:read", "reports:write"]);
        assert!(catalog.warnings()[0].starts_with("PUT /a has no security requirement"));
    }

    #[test]
    fn operations_for_other_credentials_are_not_public() {
        for name in ["session", "query", "basic", "login"] {
            let paths = json!({"/a": {
                "get": reports_read(),
                "post": operation(&json!([{name: []}])),
                "put": operation(&json!([{name: [], "key": ["reports:write"]}])),
                "patch": operation(&json!([{name: []}, {"key": ["reports:write"]}])),
            }});
            let catalog = build(&paths).unwrap();
            let methods: Vec<_> = catalog.routes().iter().map(|r| r.method).collect();
            assert_eq!(methods, [Method::Get, Method::Patch], "{name}");
            assert_eq!(catalog.routes()[1].alternatives.len(), 1);
            assert_eq!(catalog.warnings().len(), 2);
        }
    }

    #[test]
    fn documents_that_open_too_much_or_nothing_are_refused() {
        let says = |security: Value, words: &str| {
            let found = refusal(with_security(&security));
            assert!(found.contains(words), "{security}: {found}");
            assert!(found.starts_with("OpenAPI document: "), "{found}");
        };
        says(json!([{}]), "anonymous");
        says(json!([{"key": ["reports:read"]}, {}]), "anonymous");
        says(json!([]), "none is public");
        says(json!({}), "none is public");
        says(json!([{"other": []}]), "securitySchemes does not declare other");
        says(json!([{"key": ["reports:delete"]}]), "no scope reports:delete");
        says(json!([{"key": ["*"]}]), "no scope *");
        says(json!([{"key": "reports:read"}]), "scopes must be a list");
        says(json!([{"key": [1]}]), "must be a string");
        says(json!(["key"]), "list of objects");
    }

    #[test]
    fn documents_that_cannot_be_read_are_refused() {
        let profile = profile_from(product());
        let says = |doc: &Value, words: &str| {
            let found = refusal(Catalog::new(&profile, doc));
            assert!(found.contains(words), "{doc}: {found}");
        };
        says(&json!(null), "OpenAPI 3.x");
        says(&json!({"swagger": "2.0"}), "OpenAPI 3.x");
        says(&json!({"openapi": "3.1.0"}), "no paths");
        says(&document(&json!({})), "none is public");
        says(&document(&json!({"/a": 1})), "must be an object");
        says(&document(&json!({"/a": {"get": []}})), "must be an object");
        let anonymous_op = json!({"security": [{"key": []}]});
        says(&document(&json!({"/a": {"get": anonymous_op}})), "operationId is missing");
        says(
            &document(&json!({"/{a}": {"get": reports_read()}, "/{b}": {"get": reports_read()}})),
            "path /{b}",
        );
    }

    #[test]
    fn templates_the_matcher_would_read_otherwise_are_refused() {
        let build = |template: &str| build(&json!({template: {"get": reports_read()}}));
        for wrong in
            "a /{*rest} /a/{*r} /{a}{b} /{ /} /{} /{a/b} /{{a}} /a}/{b /{é}".split(' ').chain([""])
        {
            let found = refusal(build(wrong));
            assert!(found.starts_with(&format!("OpenAPI document: {wrong}: ")), "{found}");
        }
        for right in ["/", "/a/", "/{a}/{b-c}", "/v{n}.json", "/{id}:export"] {
            assert!(build(right).is_ok(), "{right}");
        }
        let many = |count| (0..count).fold(String::new(), |path, n| format!("{path}/{{p{n}}}"));
        assert!(build(&many(16)).is_ok());
        assert!(refusal(build(&many(17))).contains("16 parameters"));
        assert!(refusal(build(&many(1_000))).contains("16 parameters"));
    }

    #[test]
    fn extensions_among_the_paths_are_skipped() {
        let paths = json!({"x-note": "text", "/a": {"get": reports_read(), "x-note": 1}});
        assert_eq!(build(&paths).unwrap().routes().len(), 1);
    }

    #[test]
    fn more_routes_than_the_limit_are_refused() {
        let paths = |count: usize| {
            let items = (0..count).map(|n| (format!("/p{n}"), json!({"get": reports_read()})));
            Value::Object(items.collect())
        };
        assert!(build(&paths(route::MAX_ROUTES)).is_ok());
        let found = refusal(build(&paths(route::MAX_ROUTES + 1)));
        assert!(found.contains("more than 4096 routes"), "{found}");
    }
}

mod routes {
    use super::*;

    fn catalog() -> Catalog {
        let op = |id: &str| json!({"operationId": id, "security": [{"key": ["reports:read"]}]});
        let paths = json!({
            "/v1/reports": {"get": op("list"), "post": op("create")},
            "/v1/reports/{id}": {"get": op("get"), "delete": op("delete")},
            "/v1/reports/overview": {"get": op("overview")},
            "/v1/reports/{id}/items/{item}": {"get": op("item")},
            "/v1/reports/{id}:export": {"post": op("export")},
            "/v1/private": {"get": {"operationId": "private"}},
        });
        Catalog::new(&profile_from(product()), &document(&paths)).unwrap()
    }

    fn found(catalog: &Catalog, method: &str, path: &str) -> String {
        match catalog.route(method, path) {
            RouteMatch::Route(route) => route.operation_id.clone(),
            RouteMatch::OtherMethods(methods) => {
                let words: Vec<_> = methods.iter().map(ToString::to_string).collect();
                format!("!{}", words.join(","))
            }
            RouteMatch::None => "-".to_owned(),
        }
    }

    #[test]
    fn requests_find_their_route() {
        let catalog = catalog();
        for (method, path, expected) in [
            ("GET", "/v1/reports", "list"),
            ("POST", "/v1/reports", "create"),
            ("GET", "/v1/reports/1", "get"),
            ("GET", "/v1/reports/overview", "overview"),
            ("GET", "/v1/reports/overviews", "get"),
            ("GET", "/v1/reports/a%20b", "get"),
            ("GET", "/v1/reports/1/items/2", "item"),
            ("GET", "/v1/reports/overview/items/2", "item"),
            ("POST", "/v1/reports/1:export", "export"),
        ] {
            assert_eq!(found(&catalog, method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn other_methods_are_told_and_other_paths_are_not_public() {
        let catalog = catalog();
        for (method, path, expected) in [
            ("PUT", "/v1/reports", "!GET,POST"),
            ("get", "/v1/reports", "!GET,POST"),
            ("HEAD", "/v1/reports", "!GET,POST"),
            ("", "/v1/reports", "!GET,POST"),
            ("DELETE", "/v1/reports/overview", "!GET"),
            ("GET", "/v1/reports/1:export", "!POST"),
            ("GET", "/v1/private", "-"),
            ("GET", "/v1/reports/", "-"),
            ("GET", "/v1/reports/1/", "-"),
            ("GET", "/v1/reports//items/2", "-"),
            ("GET", "/v1/Reports", "-"),
            ("GET", "/v1", "-"),
            ("GET", "", "-"),
            ("GET", "v1/reports", "-"),
            ("GET", "/v1/reports?x=1", "-"),
            ("GET", "/v1/reports/1/items", "-"),
        ] {
            assert_eq!(found(&catalog, method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn methods_are_words_of_the_request_line() {
        for method in Method::ALL {
            assert_eq!(Method::from_word(method.as_str()), Some(method));
            assert_eq!(Method::from_word(&method.as_str().to_lowercase()), None);
        }
        let safe: Vec<_> = Method::ALL.into_iter().filter(|m| m.is_safe()).collect();
        assert_eq!(safe, [Method::Get, Method::Head, Method::Options]);
    }
}
