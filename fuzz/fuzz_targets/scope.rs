//! Any text is a scope name or is refused, and a name is kept as it was written.
#![no_main]

use keyward_core::scope::{MAX_SCOPE_BYTES, ScopeName, is_segment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<ScopeName>() {
        let (first, second) = name.halves();
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= MAX_SCOPE_BYTES);
        assert!(is_segment(first) && is_segment(second));
    }
});
