//! A document that cannot be served is refused at start, with the place of the mistake.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "tests stop at the first surprise, and take literals as they are written"
)]

mod support;

use keyward_sandbox::{SandboxError, parse_yaml};
use serde_json::{Value, json};

fn fixture() -> Value {
    parse_yaml(include_str!("fixture/openapi.yaml")).unwrap()
}

/// The fixture with one place changed is refused at this pointer.
#[track_caller]
fn refused(place: &str, value: Value, pointer: &str, says: &str) {
    let mut document = fixture();
    let (parent, name) = place.rsplit_once('/').unwrap();
    let name = name.replace("~1", "/");
    match document.pointer_mut(parent).unwrap() {
        Value::Object(members) => drop(members.insert(name, value)),
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        other => panic!("{other}"),
    }
    match support::build(&document, &Value::Null).err() {
        Some(SandboxError::Document { pointer: at, message }) => {
            assert_eq!(at, pointer, "{message}");
            assert!(message.contains(says), "{message}");
        }
        other => panic!("{place}: {other:?}"),
    }
}

#[test]
fn the_fixture_itself_is_accepted() {
    assert!(support::build(&fixture(), &Value::Null).is_ok());
}

#[test]
fn mistakes_of_form_are_found() {
    refused("/openapi", json!("3.0.3"), "/openapi", "3.1");
    let jobs = "/x-sandbox-collections/jobs";
    refused(&format!("{jobs}/script"), json!("x"), &format!("{jobs}/script"), "unknown field");
    let later = format!("{jobs}/state/later/0");
    refused(&format!("{later}/after"), json!("1 s"), &format!("{later}/after"), "duration");
    refused(&format!("{later}/to"), json!("queued"), &later, "come back");
    refused("/x-sandbox-collections/Jobs", json!({}), "/x-sandbox-collections/Jobs", "a-z");
    let files = "/x-sandbox-collections/files/files";
    refused(&format!("{files}/urlTtl"), json!("2h"), &format!("{files}/urlTtl"), "1h");
    refused(&format!("{files}/maxBytes"), json!(9_000_000), &format!("{files}/maxBytes"), "bytes");
    let post = "/paths/~1jobs/post";
    refused(&format!("{post}/x-sandbox"), json!(1), &format!("{post}/x-sandbox"), "does");
    let does = format!("{post}/x-sandbox/does");
    refused(&does, json!("run"), &does, "create, list");
    let set = format!("{post}/x-sandbox/set");
    refused(&format!("{set}/x"), json!({"eval": "1"}), &format!("{set}/x"), "unknown variant");
    refused(&format!("{set}/x"), json!([1]), &format!("{set}/x"), "const");
    let get = "/paths/~1jobs~1{jobId}/get/x-sandbox";
    refused(&format!("{get}/to"), json!("done"), &format!("{get}/to"), "does not take");
}

#[test]
fn mistakes_of_meaning_are_found() {
    let post = "/paths/~1jobs/post/x-sandbox";
    refused(&format!("{post}/collection"), json!("none"), &format!("{post}/collection"), "none");
    let set = format!("{post}/set/x");
    refused(&set, json!({"param": "jobId"}), &set, "parameter");
    refused(&set, json!({"field": "kind"}), &set, "no row");
    refused(&set, json!({"linked": "machines"}), &set, "link");
    refused(&set, json!({"count": "none"}), &set, "none");
    let id = format!("{post}/set/id");
    refused(&id, json!("x"), &id, "keeps");
    let require = format!("{post}/require");
    let on_field = json!([{"field": "kind", "present": true}]);
    refused(&require, on_field, &format!("{require}/0"), "no row");
    let content = format!("{post}/content");
    refused(&content, json!("x"), &content, "files");
    let presign = format!("{post}/presign");
    refused(&presign, json!("upload"), &presign, "files");
    let later = "/x-sandbox-collections/jobs/state/later/0";
    let set = format!("{later}/set/x");
    refused(&set, json!({"caller": "actor"}), &set, "nobody calls");
    let when = format!("{later}/when");
    refused(&when, json!({"caller": "role", "in": ["x"]}), &when, "nobody calls");
    let used = "/paths/~1proofs~1{proofId}~1use/post/x-sandbox";
    refused(
        &format!("{used}/set/x"),
        json!({"body": "x"}),
        &format!("{used}/set/x"),
        "no request body",
    );
    refused(&format!("{used}/param"), json!("x"), &format!("{used}/param"), "path");
    let runs = "/paths/~1machines~1{machineId}~1runs/get/x-sandbox";
    let only = format!("{runs}/where/x");
    refused(&only, json!({"param": "x"}), &only, "path");
    let set = format!("{runs}/links/0/set");
    refused(&set, json!({"x": 1}), &set, "changes nothing");
    let export = "/paths/~1jobs~1{jobId}~1export/post/x-sandbox/from";
    refused(export, json!(["x"]), export, "unknown field");
}

#[test]
fn mistakes_of_the_document_are_found() {
    let post = "/paths/~1jobs/post";
    let neither = json!({"responses": {"200": {"description": "x"}}});
    refused(post, neither, post, "neither");
    refused(&format!("{post}/responses"), json!({}), &format!("{post}/responses"), "2xx");
    let get = "/paths/~1jobs/get";
    let parameters = json!([{"name": "since", "in": "query"}]);
    let at = format!("{get}/parameters");
    refused(&at, parameters, &at, "`since`");
    let schema = format!("{post}/requestBody/content/application~1json/schema");
    for bad in [
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"$ref": "file:///etc/passwd"}),
        json!({"$ref": "#/components/schemas/None"}),
        json!({"type": 7}),
        json!({"pattern": "(a"}),
        json!({"properties": {"x": {"pattern": "(?=a)b"}}}),
    ] {
        let (place, _) = schema.rsplit_once('/').unwrap();
        refused(place, json!({"schema": bad}), &schema, "not usable");
    }
    let response = json!({"$ref": "#/components/responses/None"});
    let place = format!("{post}/responses");
    refused(&place, json!({"200": response}), &format!("{place}/$ref"), "not in this document");
    let at = "/paths/~1files~1{*rest}";
    refused(at, json!({}), at, "one segment");
    refused("/servers/0/url", json!("https://{host}/v1"), "/servers/0/url", "variables");
    refused(
        "/paths/~1jobs~1{other}",
        json!({"get": {
            "x-sandbox": {"does": "get", "collection": "jobs"}, "responses": {"200": {}}
        }}),
        "/paths/~1jobs~1{other}",
        "path",
    );
}

#[test]
fn mistakes_of_the_seeds_are_found() {
    #[track_caller]
    fn refused(rows: Value, pointer: &str, says: &str) {
        let seeds = json!({"tenants": {"acme": {"live": rows}}});
        match support::build(&fixture(), &seeds).err() {
            Some(SandboxError::Seeds { pointer: at, message }) => {
                assert_eq!(at, pointer, "{message}");
                assert!(message.contains(says), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    let at = "/tenants/acme/live";
    refused(json!({"none": []}), &format!("{at}/none"), "collection");
    refused(json!({"jobs": [{}]}), &format!("{at}/jobs/0"), "`id`");
    let twice = json!({"jobs": [{"id": "a"}, {"id": "a"}]});
    refused(twice, &format!("{at}/jobs/0"), "id");
    let serials = json!({"machines": [{"id": "a", "serial": 1}, {"id": "b", "serial": 1}]});
    refused(serials, &format!("{at}/machines/0"), "serial");
    let when = json!({"jobs": [{"id": "a", "at": ["@now-3x"]}]});
    refused(when, &format!("{at}/jobs/0/at"), "@now-3x");
    let hash = json!({"proofs": [{"proofId": "a", "payload": 1, "payloadHash": "x"}]});
    refused(hash, &format!("{at}/proofs/0"), "payloadHash");
    let content = json!({"jobs": [{"id": "a", "@content": "x"}]});
    refused(content, &format!("{at}/jobs/0/@content"), "files");
    let environment = json!({"tenants": {"acme": {"prod": {}}}});
    let error = support::build(&fixture(), &environment).err().unwrap();
    assert!(error.to_string().contains("prod"), "{error}");
}

#[test]
fn text_that_is_not_yaml_is_refused() {
    assert!(parse_yaml("a: [").is_err());
    assert_eq!(parse_yaml("{\"a\": 1}").unwrap(), json!({"a": 1}));
}

/// The pointers of everything inside the declarations.
fn places(value: &Value, at: &str, inside: bool, found: &mut Vec<String>) {
    if inside {
        found.push(at.to_owned());
    }
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let place = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                places(member, &place, inside || name.starts_with("x-sandbox"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{index}"), inside, found);
            }
        }
        _ => {}
    }
}

#[test]
fn whatever_stands_in_a_declaration_it_is_accepted_or_refused_with_a_pointer() {
    let fixture = fixture();
    let mut found = Vec::new();
    places(&fixture, "", false, &mut found);
    assert!(found.len() > 200);
    for place in found {
        for other in [json!(null), json!(-1), json!("é{"), json!([{}]), json!({"": {}})] {
            let mut document = fixture.clone();
            *document.pointer_mut(&place).unwrap() = other;
            if let Err(error) = support::build(&document, &Value::Null) {
                assert!(matches!(error, SandboxError::Document { .. }), "{place}: {error}");
            }
        }
    }
}
