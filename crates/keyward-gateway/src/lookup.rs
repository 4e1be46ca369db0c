//! Headers found by looking at all of them.
//!
//! A request has few, and asks for many that it does not have: comparing names is then several
//! times faster than hashing the one that is asked for.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The first value of a header.
pub(crate) fn find<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// All values of a header, in their order.
pub(crate) fn find_all<'h>(
    headers: &'h HeaderMap,
    name: &'h HeaderName,
) -> impl Iterator<Item = &'h HeaderValue> {
    headers.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value)
}

/// The words of a list in a header, whichever lines it has (RFC 9110 §5.6.1).
pub(crate) fn words<'h>(
    headers: &'h HeaderMap,
    name: &'h HeaderName,
) -> impl Iterator<Item = &'h str> {
    let lines = find_all(headers, name).filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// Whether a header has more than one value.
pub(crate) fn is_repeated(headers: &HeaderMap, name: &HeaderName) -> bool {
    find_all(headers, name).nth(1).is_some()
}
