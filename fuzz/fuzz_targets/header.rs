//! A head that is passed on reads one way only: whole, ended once, the same when it is read again.
#![no_main]

use keyward_gateway::head_length;
use libfuzzer_sys::fuzz_target;

const MAX_BYTES: usize = 16 * 1024;

fuzz_target!(|bytes: &[u8]| {
    let Some(length) = head_length(bytes, MAX_BYTES) else {
        return;
    };
    let head = &bytes[..length];
    assert!(length <= MAX_BYTES && head.ends_with(b"\r\n\r\n"));
    assert_eq!(head_length(head, MAX_BYTES), Some(length));
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    assert_eq!(text.matches("\r\nhost:").count(), 1);
    assert!(!(text.contains("\r\ncontent-length:") && text.contains("\r\ntransfer-encoding:")));
});
