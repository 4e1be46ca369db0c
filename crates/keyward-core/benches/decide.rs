//! Nanoseconds per operation of what every request pays: `cargo bench -p keyward-core`.
//!
//! Each figure is the median of many batches after a warm-up; the fastest batch stands beside it,
//! because a shared machine only ever makes code look slower.

#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

mod product;

use std::hint::black_box;
use std::time::Instant;

use keyward_core::key::{KeyHash, Pepper, TagKey, TokenError, TokenFormat};

const BATCHES: usize = 101;
const WARM_UP_BATCHES: usize = 20;
const CALLS_PER_BATCH: u32 = 2_000;
const TOKEN: &str = include_str!("../tests/golden/keys-0.1.0.json");

#[expect(clippy::disallowed_methods, reason = "a benchmark measures the real machine")]
fn now() -> Instant {
    Instant::now()
}

fn bench(name: &str, mut call: impl FnMut()) {
    let mut batch = || {
        let start = now();
        for _ in 0..CALLS_PER_BATCH {
            call();
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS_PER_BATCH)
    };
    for _ in 0..WARM_UP_BATCHES {
        batch();
    }
    let mut nanos: Vec<f64> = (0..BATCHES).map(|_| batch()).collect();
    nanos.sort_by(f64::total_cmp);
    let (best, median) = (nanos.first().unwrap(), nanos.get(BATCHES / 2).unwrap());
    println!("{name:<28} {median:>8.1} ns median {best:>8.1} ns best");
}

fn main() {
    let golden: serde_json::Value = serde_json::from_str(TOKEN).unwrap();
    let token = golden.pointer("/keys/2/token").unwrap().as_str().unwrap();
    let format = TokenFormat::new("asiri", |environment| {
        let words = ["live", "stg", "dev", "test"];
        (*words.get(environment as usize).unwrap()).to_owned()
    });
    let (pepper, tags) = (Pepper::new(1, &[1; 32]), TagKey::new(&[2; 32]));
    let presented = format.parse(token).unwrap();
    let stored = KeyHash::from_bytes(*pepper.hash(&presented).as_bytes());
    let key = product::key();
    let path = "/v1/reports/42/items/7";
    let (route, forbidden) =
        (product::CATALOG.route("GET", path), product::CATALOG.route("GET", "/v1/files"));
    assert!(product::decide_on(key, route).is_ok() && product::decide_on(key, forbidden).is_err());
    let (whole, last) = token.split_at(token.len() - 1);
    let mistyped = whole.to_owned() + if last == "0" { "1" } else { "0" };
    assert_eq!(format.parse(&mistyped).err(), Some(TokenError::WrongChecksum));

    bench("token parse", || {
        black_box(format.parse(black_box(token)).is_ok());
    });
    bench("token parse, mistyped", || {
        black_box(format.parse(black_box(&mistyped)).is_err());
    });
    bench("id tag", || {
        black_box(tags.made(black_box(presented.id_bits)));
    });
    bench("hash and compare", || {
        black_box(pepper.hash(black_box(&presented)).matches(&stored));
    });
    bench("route", || {
        black_box(product::CATALOG.route("GET", black_box(path)));
    });
    bench("decide", || {
        black_box(product::decide_on(black_box(key), black_box(route)).is_ok());
    });
    bench("decide, refused", || {
        black_box(product::decide_on(black_box(key), black_box(forbidden)).is_ok());
    });
    bench("route and decide", || {
        black_box(product::ask(black_box(key), "GET", black_box(path)).is_ok());
    });
}
