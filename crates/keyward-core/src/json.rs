//! JSON that is written for every request: piece by piece, with what stands between the values.

/// Writes what comes before, and then the text as a JSON string. What comes before is known where
/// this is called, and is written there without a call.
#[inline]
pub fn push_text(out: &mut Vec<u8>, before: &[u8], text: &str) {
    out.extend_from_slice(before);
    push_string(out, text);
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    // looking at every byte lets the compiler look at many at a time
    let escaped = |byte: u8| u8::from(byte < b' ') | u8::from(matches!(byte, b'"' | b'\\'));
    if text.bytes().fold(0, |found, byte| found | escaped(byte)) != 0 {
        // serialising text into memory cannot fail
        let _ = serde_json::to_writer(out, text);
    } else {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

/// The same for text that may be missing, which is `null`.
#[inline]
pub fn push_optional(out: &mut Vec<u8>, before: &[u8], text: Option<&str>) {
    out.extend_from_slice(before);
    match text {
        Some(text) => push_string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

/// The same for text where nothing has to be escaped, such as that of ids and instants.
#[inline]
pub fn push_word(out: &mut Vec<u8>, before: &[u8], word: Option<&[u8]>) {
    out.extend_from_slice(before);
    match word {
        Some(word) => {
            out.push(b'"');
            out.extend_from_slice(word);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// Writes what comes before, and then the number.
#[inline]
pub fn push_number(out: &mut Vec<u8>, before: &[u8], number: impl itoa::Integer) {
    out.extend_from_slice(before);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
