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

/// Whether a header has more than one value.
pub(crate) fn is_repeated(headers: &HeaderMap, name: &HeaderName) -> bool {
    find_all(headers, name).nth(1).is_some()
}
