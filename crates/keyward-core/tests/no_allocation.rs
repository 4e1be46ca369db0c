//! Finding a route, parsing and hashing a token and deciding take nothing from the heap.

#[path = "../benches/product/mod.rs"]
mod product;

use allocation_counter::measure;
use keyward_core::Environment;
use keyward_core::decision::KeyFacts;
use keyward_core::key::{Pepper, TagKey, TokenFormat};
use product::{ask, key};

const TOKEN: &str = "asiri_live_0000000000000L1b9AYdp1";

#[test]
fn decisions_allocate_nothing() {
    let good = key();
    let other = KeyFacts { environment: Environment::Test, ..good };
    let departed = KeyFacts { ceiling: None, ..good };
    for (key, method, path, granted) in [
        (good, "GET", "/v1/reports/42/items/7", true),
        (good, "GET", "/v1/universe", true),
        (good, "POST", "/v1/reports", false),
        (good, "DELETE", "/v1/reports", false),
        (good, "GET", "/v1/private", false),
        (other, "GET", "/v1/reports", false),
        (departed, "GET", "/v1/reports", false),
    ] {
        assert_eq!(ask(key, method, path).is_ok(), granted, "{method} {path}");
        let info = measure(|| {
            let _ = ask(key, method, path);
        });
        assert_eq!(info.count_total, 0, "{method} {path}");
    }
}

#[test]
fn tokens_are_parsed_without_allocation() {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("golden/keys-0.1.0.json")).unwrap();
    let token = file["keys"][2]["token"].as_str().unwrap();
    let words = ["live", "stg", "dev", "test"];
    let format = TokenFormat::new("asiri", |environment| words[environment as usize].to_owned());
    let pepper = Pepper::new(1, &[1; 32]);
    let tags = TagKey::new(&[2; 32]);
    let info = measure(|| {
        let presented = format.parse(token).unwrap();
        let _ = tags.made(presented.id_bits);
        let _ = pepper.hash(&presented);
        assert!(format.parse(TOKEN).is_err());
    });
    assert_eq!(info.count_total, 0);
}
