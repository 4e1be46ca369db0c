use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::time::Timestamp;

const PREFIXES: [&str; 5] = ["asiri", "ak", "aiia_key", "ast", "a_b_c"];

/// Randomness that never repeats and is the same in every run (`SplitMix64`).
struct Seeded(AtomicU64);

impl Clock for Seeded {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

fn seeded(seed: u64) -> Seeded {
    Seeded(AtomicU64::new(seed))
}

fn format(prefix: &str) -> TokenFormat {
    TokenFormat::new(prefix, |environment| {
        let word = match environment {
            Environment::Live => "live",
            Environment::Staging => "stg",
            Environment::Development => "dev",
            Environment::Test => "test",
        };
        word.to_owned()
    })
}

fn tags() -> TagKey {
    TagKey::new(&[7; 32])
}

fn pepper() -> Pepper {
    Pepper::new(3, &[9; 32])
}

fn kinds() -> impl Iterator<Item = SecretKind> {
    let api = Environment::ALL.into_iter().map(SecretKind::Api);
    api.chain([SecretKind::Admin])
}

fn minted(prefix: &str, kind: SecretKind) -> Minted {
    format(prefix).mint(kind, &tags(), &pepper(), &seeded(1))
}

/// A text with a checksum that fits it.
fn with_checksum(signed: &str) -> String {
    let mut text = signed.to_owned();
    push_digits(&mut text, &checksum(signed));
    text
}

fn refusal(format: &TokenFormat, text: &str) -> Option<TokenError> {
    format.parse(text).err()
}

#[test]
fn every_kind_of_every_prefix_round_trips() {
    let clock = seeded(0);
    for (prefix, kind) in PREFIXES.iter().flat_map(|p| kinds().map(move |k| (p, k))) {
        let format = format(prefix);
        let minted = format.mint(kind, &tags(), &pepper(), &clock);
        let text = minted.secret.expose();
        let presented = format.parse(text).unwrap();
        assert!(text.starts_with(format.head(kind)), "{text}");
        assert!(text.starts_with(&format!("{prefix}_")), "{text}");
        assert!(text.len() <= MAX_TOKEN_BYTES);
        assert!(text.bytes().all(|b| b == b'_' || base62::is_digit(b)));
        assert_eq!(presented.kind, kind);
        assert_eq!(presented.id_bits, minted.id_bits);
        assert!(tags().made(presented.id_bits));
        assert!(pepper().hash(&presented).matches(&minted.hash));
        assert_eq!(minted.pepper_version, 3);
        assert!(text.as_bytes().ends_with(&minted.hint));
    }
}

#[test]
fn heads_are_as_the_profile_words_them() {
    let heads: Vec<String> = kinds().map(|kind| format("aiia_key").head(kind).to_owned()).collect();
    let expected = ["live", "stg", "dev", "test", "adm"].map(|word| format!("aiia_key_{word}_"));
    assert_eq!(heads, expected);
}

#[test]
fn secrets_and_ids_are_never_the_same_twice() {
    let clock = seeded(5);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let one = format("ak").mint(SecretKind::Admin, &tags(), &pepper(), &clock);
        assert!(seen.insert(one.id_bits));
    }
}

#[test]
fn changing_any_byte_is_refused() {
    for kind in kinds() {
        let minted = minted("aiia_key", kind);
        let text = minted.secret.expose();
        let format = format("aiia_key");
        for at in 0..text.len() {
            for with in [b'0', b'z', b'_', b' ', b'\n', b'-'] {
                let mut bytes = text.as_bytes().to_vec();
                if bytes[at] == with {
                    continue;
                }
                bytes[at] = with;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(refusal(&format, &changed).is_some(), "{at}: {changed}");
            }
        }
    }
}

#[test]
fn dropping_doubling_or_swapping_any_byte_is_refused() {
    let minted = minted("ak", SecretKind::Api(Environment::Live));
    let text = minted.secret.expose();
    let format = format("ak");
    for at in 0..text.len() {
        let (head, tail) = text.split_at(at);
        assert!(refusal(&format, head).is_some(), "cut at {at}");
        let dropped = format!("{head}{}", &tail[1..]);
        assert!(refusal(&format, &dropped).is_some(), "dropped {at}");
        let doubled = format!("{head}{}{tail}", &tail[..1]);
        assert!(refusal(&format, &doubled).is_some(), "doubled {at}");
        let mut swapped = text.as_bytes().to_vec();
        if at > 0 && swapped[at] != swapped[at - 1] {
            swapped.swap(at, at - 1);
            let swapped = String::from_utf8(swapped).unwrap();
            assert!(refusal(&format, &swapped).is_some(), "swapped {at}");
        }
    }
}

#[test]
fn a_swapped_environment_word_is_caught_by_the_checksum() {
    let format = format("asiri");
    for kind in kinds() {
        let minted = minted("asiri", kind);
        let body = minted.secret.expose().strip_prefix(format.head(kind)).unwrap();
        for other in kinds().filter(|other| *other != kind) {
            let swapped = format!("{}{body}", format.head(other));
            assert_eq!(refusal(&format, &swapped), Some(TokenError::WrongChecksum));
        }
    }
}

#[test]
fn a_torn_key_with_a_checksum_made_for_it_is_refused_too() {
    let format = format("ak");
    let minted = minted("ak", SecretKind::Admin);
    let text = minted.secret.expose();
    let signed = &text[..text.len() - CRC_DIGITS];
    let short = with_checksum(&signed[..signed.len() - 1]);
    assert_eq!(refusal(&format, &short), Some(TokenError::Malformed));
    let long = with_checksum(&format!("{signed}0"));
    assert_eq!(refusal(&format, &long), Some(TokenError::Malformed));
}

#[test]
fn an_id_beyond_128_bits_is_refused() {
    let format = format("ak");
    let body = "z".repeat(ID_DIGITS + SECRET_DIGITS);
    let text = with_checksum(&format!("ak_live_{body}"));
    assert_eq!(refusal(&format, &text), Some(TokenError::Malformed));
}

#[test]
fn refusals_say_what_is_wrong() {
    let format = format("asiri");
    let minted = minted("ak", SecretKind::Api(Environment::Live));
    let other = minted.secret.expose();
    for text in ["", "asiri", "asiri_", "asiri_prod_x", "ASIRI_live_x", " asiri_live_x", other] {
        assert_eq!(refusal(&format, text), Some(TokenError::WrongPrefix), "{text}");
    }
    for text in ["asiri_live_", "asiri_live_short", "asiri_live_é"] {
        assert_eq!(refusal(&format, text), Some(TokenError::Malformed), "{text}");
    }
    let huge = format!("asiri_live_{}", "0".repeat(1 << 20));
    assert_eq!(refusal(&format, &huge), Some(TokenError::Malformed));
}

#[test]
fn prefixes_that_begin_alike_do_not_take_each_others_keys() {
    let long = minted("aiia_key", SecretKind::Api(Environment::Live));
    let short = minted("aiia", SecretKind::Api(Environment::Live));
    assert!(refusal(&format("aiia"), long.secret.expose()).is_some());
    assert!(refusal(&format("aiia_key"), short.secret.expose()).is_some());
}

#[test]
fn forged_ids_are_known_without_a_look_up() {
    let made = minted("ak", SecretKind::Admin).id_bits;
    assert!(tags().made(made));
    assert!(!TagKey::new(&[8; 32]).made(made), "another deployment");
    for bit in 0..128 {
        assert!(!tags().made(made ^ (1 << bit)), "bit {bit}");
    }
    for forged in [0, 1, u128::MAX, u128::MAX >> 1] {
        assert!(!tags().made(forged));
    }
}

#[test]
fn a_reissue_keeps_the_id_and_changes_the_secret() {
    let clock = seeded(2);
    let format = format("ak");
    let kind = SecretKind::Api(Environment::Test);
    let first = format.mint(kind, &tags(), &pepper(), &clock);
    let second = format.mint_for(first.id_bits, kind, &pepper(), &clock);
    assert_eq!(first.id_bits, second.id_bits);
    assert_ne!(first.secret.expose(), second.secret.expose());
    assert!(!first.hash.matches(&second.hash));
    let presented = format.parse(second.secret.expose()).unwrap();
    assert!(pepper().hash(&presented).matches(&second.hash));
}

#[test]
fn a_hash_matches_only_the_same_secret_under_the_same_pepper() {
    let minted = minted("ak", SecretKind::Admin);
    let format = format("ak");
    let presented = format.parse(minted.secret.expose()).unwrap();
    let stored = KeyHash::from_bytes(*minted.hash.as_bytes());
    assert!(stored.matches(&pepper().hash(&presented)));
    assert!(!stored.matches(&Pepper::new(3, &[10; 32]).hash(&presented)));
    for at in 0..32 {
        let mut bytes = *minted.hash.as_bytes();
        bytes[at] ^= 1;
        assert!(!stored.matches(&KeyHash::from_bytes(bytes)), "byte {at}");
    }
}

#[test]
fn keys_inside_texts_are_found() {
    let format = format("aiia_key");
    for kind in kinds() {
        let minted = minted("aiia_key", kind);
        let key = minted.secret.expose();
        for text in [
            key.to_owned(),
            format!("Authorization: ApiKey {key}"),
            format!("https://x.example/a?key={key}&b=1"),
            format!("{{\"k\":\"{key}\"}}"),
            format!("é{key}é"),
            format!("x{key}{key}"),
            // the checksum was cut off: the secret is whole
            key[..key.len() - CRC_DIGITS].to_owned(),
        ] {
            assert!(format.occurs_in(&text), "{text}");
        }
    }
}

#[test]
fn texts_without_a_whole_secret_hold_no_key() {
    let format = format("ak");
    let minted = minted("ak", SecretKind::Admin);
    let key = minted.secret.expose();
    let head = format.head(SecretKind::Admin).len();
    for text in [
        "",
        "ak_live_",
        "ak_live_ and some words that go on for a long while, much longer than any key would",
        &key[..head + ID_DIGITS],
        &key[head..],
        &key.replace("ak_", "ka_"),
    ] {
        assert!(!format.occurs_in(text), "{text}");
    }
}

proptest! {
    #[test]
    fn parsing_any_text_never_panics(text in ".{0,200}") {
        for prefix in PREFIXES {
            prop_assert!(format(prefix).parse(&text).is_err());
            prop_assert!(!format(prefix).occurs_in(&text));
        }
    }

    #[test]
    fn only_the_right_checksum_is_accepted(
        body in "[0-9A-Za-z]{71}",
        prefix in proptest::sample::select(&PREFIXES[..]),
    ) {
        let format = format(prefix);
        let text = format!("{prefix}_live_{body}");
        let fits = with_checksum(&text[..text.len() - CRC_DIGITS]) == text;
        prop_assert!(fits || format.parse(&text).is_err());
        prop_assert!(format.occurs_in(&text));
    }

    #[test]
    fn any_secret_round_trips(seed: u64, prefix in "[a-z][a-z0-9]{0,8}(_[a-z0-9]{1,8}){0,2}") {
        let format = format(&prefix);
        for kind in kinds() {
            let minted = format.mint(kind, &tags(), &pepper(), &seeded(seed));
            let presented = format.parse(minted.secret.expose());
            prop_assert_eq!(presented.map(|p| (p.kind, p.id_bits)), Ok((kind, minted.id_bits)));
        }
    }

    #[test]
    fn any_change_of_a_key_is_refused(seed: u64, at in 0_usize..79, with in any::<char>()) {
        let format = format("ak");
        let kind = SecretKind::Api(Environment::Live);
        let minted = format.mint(kind, &tags(), &pepper(), &seeded(seed));
        let mut changed: Vec<char> = minted.secret.expose().chars().collect();
        prop_assume!(changed[at] != with);
        changed[at] = with;
        let changed: String = changed.into_iter().collect();
        prop_assert!(format.parse(&changed).is_err());
    }
}
