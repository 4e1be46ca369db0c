//! Maps of headers: every request makes and drops two of them.

use std::cell::RefCell;

use http::HeaderMap;

/// Maps that a thread keeps.
const MAX_MAPS: usize = 8;
/// Headers that a kept map has room for at most.
const MAX_ROOM: usize = 64;

thread_local! {
    static MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many headers.
pub(crate) fn take(headers: usize) -> HeaderMap {
    let mut map = MAPS.with_borrow_mut(Vec::pop).unwrap_or_default();
    map.reserve(headers);
    map
}

/// Keeps the memory of a map that is done with.
pub(crate) fn keep(mut map: HeaderMap) {
    if map.capacity() == 0 || map.capacity() > MAX_ROOM {
        return;
    }
    map.clear();
    MAPS.with_borrow_mut(|maps| {
        if maps.len() < MAX_MAPS {
            maps.push(map);
        }
    });
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_was_in_a_map_is_gone() {
        let mut map = take(2);
        map.insert("authorization", HeaderValue::from_static("secret"));
        keep(map);
        assert!(take(2).is_empty());
    }

    #[test]
    fn little_is_kept() {
        keep(take(MAX_ROOM * 4));
        for _ in 0..3 * MAX_MAPS {
            keep(HeaderMap::with_capacity(4));
        }
        assert_eq!(MAPS.with_borrow(Vec::len), MAX_MAPS);
        assert!(MAPS.with_borrow(|maps| maps.iter().all(|map| map.capacity() <= MAX_ROOM)));
    }
}
