//! The key set alone, beside a bare map of the same entries.

use std::hint::black_box;
use std::sync::Arc;

use hashbrown::HashMap;
use keyward_core::id::KeyId;
use keyward_core::key::KeySecret;
use keyward_gateway::KeySet;
use serde_json::{Value, json};

use crate::machine::{Order, elapsed, resident_bytes, since};
use crate::product::{self, KEYS_PER_TENANT};

/// As many bytes as an entry of the key set has.
type Entry = [u64; 14];

/// Tokens that are kept to be recognised.
const TOKENS: usize = 10_000;

pub(crate) fn measure(keys: usize, look_ups: usize) -> anyhow::Result<Value> {
    let keyring = Arc::new(product::keyring());
    let set = KeySet::keeping(usize::MAX / 2, product::catalog()?, Arc::clone(&keyring));
    let mut ids: Vec<KeyId> = Vec::with_capacity(keys);
    let mut tokens = Vec::with_capacity(TOKENS);
    let before = resident_bytes()?;
    let mut loading = std::time::Duration::ZERO;
    for position in 0..keys {
        let (key, secret) = product::key(&keyring, position);
        ids.push(key.id);
        if position % keys.div_ceil(TOKENS) == 0 {
            tokens.push(secret);
        }
        let begun = elapsed();
        if position % KEYS_PER_TENANT == 0 {
            let (tenant, member) = product::home(position);
            set.replace_tenant(tenant);
            set.replace_member(&member);
        }
        set.replace_key(key);
        loading += since(begun);
    }
    let bytes = resident_bytes()?.saturating_sub(before).saturating_sub(ids.len() as u64 * 16);
    let find_ns = timed(look_ups, || {
        let mut order = Order::new();
        for _ in 0..look_ups {
            if let Some(id) = ids.get(order.below(keys)) {
                black_box(set.present(*id));
            }
        }
    });
    let recognize_ns = timed(look_ups, || {
        let mut order = Order::new();
        for _ in 0..look_ups {
            let token = tokens.get(order.below(tokens.len())).map(KeySecret::expose);
            let presented = token.and_then(|text| keyring.format().parse(text).ok());
            black_box(presented.map(|presented| set.recognize(&presented)));
        }
    });
    let bare: HashMap<KeyId, Entry> = ids.iter().map(|id| (*id, [1; 14])).collect();
    let bare_ns = timed(look_ups, || {
        let mut order = Order::new();
        for _ in 0..look_ups {
            if let Some(id) = ids.get(order.below(keys)) {
                black_box(bare.get(id).copied());
            }
        }
    });
    Ok(json!({
        "what": "memory",
        "keys": keys,
        "bytesPerKey": bytes / keys.max(1) as u64,
        "loadMs": loading.as_millis(),
        "findNs": find_ns,
        "bareMapNs": bare_ns,
        "timesTheBareMap": (find_ns / bare_ns * 100.0).round() / 100.0,
        "recognizeNs": recognize_ns,
    }))
}

/// Nanoseconds of each of so many.
fn timed(count: usize, run: impl FnOnce()) -> f64 {
    let begun = elapsed();
    run();
    #[expect(clippy::cast_precision_loss, reason = "a count of look-ups is far below 2^52")]
    let each = since(begun).as_secs_f64() * 1e9 / count as f64;
    (each * 10.0).round() / 10.0
}
