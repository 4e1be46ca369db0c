//! A target that is accepted reads one way only: its bytes are kept, decoding it once or twice
//! gives no other segments, and a key in it is seen.
#![no_main]

use keyward_core::key::TokenFormat;
use keyward_core::path::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let format = TokenFormat::new("ak", |environment| environment.as_str().to_owned());
    let Ok(target) = Target::parse(text) else {
        return;
    };
    assert!(target.path.starts_with('/') && text.starts_with(target.path));
    assert!(target.path.bytes().all(|byte| byte.is_ascii_graphic()));
    let whole = match target.query {
        Some(query) => format!("{}?{query}", target.path),
        None => target.path.to_owned(),
    };
    assert_eq!(whole, text);
    for segment in target.path.split('/').skip(1) {
        assert!(segment != "." && segment != ".." && !segment.contains('\\'));
    }
    assert_eq!(
        Target::parse(target.path).map(|again| again.path),
        Ok(target.path)
    );
    if format.occurs_in(text) {
        assert!(target.carries_credential(&format));
    }
});
