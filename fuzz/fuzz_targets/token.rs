//! Any text is a token or is refused: never a panic, and never a key that redaction overlooks.
#![no_main]

use keyward_core::key::{Pepper, TagKey, TokenFormat};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for prefix in ["ak", "aiia_key"] {
        let format = TokenFormat::new(prefix, |environment| environment.as_str().to_owned());
        let seen = format.occurs_in(text);
        if let Ok(presented) = format.parse(text) {
            assert!(seen);
            assert!(text.starts_with(format.head(presented.kind)));
            let pepper = Pepper::new(1, &[1; 32]);
            assert!(pepper.hash(&presented).matches(&pepper.hash(&presented)));
            let _ = TagKey::new(&[2; 32]).made(presented.id_bits);
        }
    }
});
