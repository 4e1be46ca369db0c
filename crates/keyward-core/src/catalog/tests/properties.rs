use proptest::prelude::*;

use super::*;

/// Any JSON, with the words of a document more often than chance would have them.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        proptest::sample::select(
            &[
                "get",
                "post",
                "security",
                "operationId",
                "key",
                "session",
                "reports:read",
                "/a",
                "/a/{b}",
                "/{c",
                "x-keyward-area",
                "3.1.0",
                "components",
                "paths",
                "openapi",
            ][..]
        )
        .prop_map(str::to_owned),
        ".{0,12}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((word.clone(), inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn outcome_is_a_catalogue_or_a_text(doc: &Value) {
    match Catalog::new(&profile_from(product()), doc) {
        Ok(catalog) => assert!(catalog.routes().iter().all(|r| !r.alternatives.is_empty())),
        Err(error) => assert!(!error.public().is_empty()),
    }
}

proptest! {
    #[test]
    fn any_document_is_a_catalogue_or_a_text(
        doc in any_json(), paths in any_json(), item in any_json(), security in any_json(),
    ) {
        outcome_is_a_catalogue_or_a_text(&doc);
        outcome_is_a_catalogue_or_a_text(&document(&paths));
        outcome_is_a_catalogue_or_a_text(&document(&json!({"/a": item})));
        outcome_is_a_catalogue_or_a_text(&document(&json!({"/a": {"get": item}})));
        let _ = with_security(&security);
    }

    #[test]
    fn any_template_is_a_route_or_a_text(template in "/?[a-z{}*/:.%é]{0,24}", path in ".{0,24}") {
        let paths = json!({template: {"get": operation(&json!([{"key": []}]))}});
        if let Ok(catalog) = Catalog::new(&profile_from(product()), &document(&paths)) {
            let _ = catalog.route("GET", &path);
        }
    }

    #[test]
    fn any_request_for_scopes_is_answered(texts in proptest::collection::vec(".{0,70}", 0..5)) {
        let catalog = catalog_of(product());
        let granted = catalog.scopes_for_new_key(&texts, catalog.role("admin").unwrap());
        if let Ok(names) = granted {
            prop_assert_eq!(catalog.scope_set(&names).len() as usize, names.len());
        }
    }
}
