//! Keys of every release verify for ever: the committed vectors are parsed, verified and minted
//! again from the randomness they were made of.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of a test: a vector that cannot be read has to fail it"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use keyward_core::key::{KeyHash, Pepper, SecretKind, TagKey, TokenFormat};
use keyward_core::{Clock, Environment, Timestamp};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GoldenFile {
    tag_key: String,
    peppers: BTreeMap<u16, String>,
    environments: BTreeMap<String, BTreeMap<Environment, String>>,
    keys: Vec<GoldenKey>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GoldenKey {
    prefix: String,
    kind: String,
    id_random: String,
    secret_random: String,
    id_bits: String,
    pepper_version: u16,
    hash: String,
    token: String,
}

impl GoldenKey {
    fn kind(&self) -> SecretKind {
        match self.kind.as_str() {
            "admin" => SecretKind::Admin,
            word => SecretKind::Api(word.parse().unwrap()),
        }
    }

    fn format(&self, file: &GoldenFile) -> TokenFormat {
        let words = &file.environments[&self.prefix];
        TokenFormat::new(&self.prefix, |environment| words[&environment].clone())
    }

    fn hash(&self) -> KeyHash {
        KeyHash::from_bytes(array(&self.hash))
    }
}

/// Hands out the bytes it was given, in the order in which they are asked for.
struct Replay(Mutex<Vec<u8>>);

impl Clock for Replay {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        let mut left = self.0.lock().unwrap();
        let rest = left.split_off(buffer.len());
        buffer.copy_from_slice(&left);
        *left = rest;
    }
}

#[test]
fn keys_of_every_release_verify_and_are_still_made_so() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        check(&serde_json::from_str(&text).unwrap());
        files += 1;
    }
    assert!(files >= 1, "the vectors of 0.1.0 stay");
}

#[test]
fn the_first_release_has_twenty_keys_over_four_prefixes() {
    let file: GoldenFile = serde_json::from_str(include_str!("golden/keys-0.1.0.json")).unwrap();
    let prefixes: Vec<&str> = file.environments.keys().map(String::as_str).collect();
    assert_eq!(prefixes, ["aiia_key", "ak", "asiri", "ast"]);
    assert_eq!(file.keys.len(), 20);
}

fn check(file: &GoldenFile) {
    let tags = TagKey::new(&array(&file.tag_key));
    for key in &file.keys {
        let format = key.format(file);
        let bytes = array(&file.peppers[&key.pepper_version]);
        let pepper = Pepper::new(key.pepper_version, &bytes);

        let presented = format.parse(&key.token).unwrap();
        assert_eq!(presented.kind, key.kind(), "{}", key.token);
        assert_eq!(presented.id_bits, u128::from_be_bytes(array(&key.id_bits)));
        assert!(tags.made(presented.id_bits), "{}", key.token);
        assert!(pepper.hash(&presented).matches(&key.hash()), "{}", key.token);
        assert!(format.occurs_in(&key.token));

        let random = [bytes_of(&key.id_random), bytes_of(&key.secret_random)].concat();
        let minted = format.mint(key.kind(), &tags, &pepper, &Replay(Mutex::new(random)));
        assert_eq!(minted.secret.expose(), key.token);
        assert_eq!(minted.id_bits, presented.id_bits);
        assert_eq!(minted.hash.as_bytes(), key.hash().as_bytes());
        assert_eq!(minted.pepper_version, key.pepper_version);
        assert!(key.token.as_bytes().ends_with(&minted.hint));
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap();
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).unwrap()).collect()
}

fn array<const N: usize>(hex: &str) -> [u8; N] {
    bytes_of(hex).try_into().unwrap()
}
