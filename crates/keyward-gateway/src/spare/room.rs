//! Room for bytes that were read, or wait to be sent. A connection has some only while it has bytes
//! of a message.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes of a room: most messages fit in.
pub(crate) const ROOM_BYTES: usize = 8 * 1024;
/// Rooms that a thread keeps.
const MAX_ROOMS: usize = 64;

thread_local! {
    static ROOMS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty room, the one that was given back last.
pub(crate) fn take() -> BytesMut {
    let kept = ROOMS.with_borrow_mut(Vec::pop);
    kept.unwrap_or_else(|| BytesMut::with_capacity(ROOM_BYTES))
}

/// Gives a room back that has no bytes left, and leaves none. It stays where it is while somebody
/// else still looks at what was in it; one that has grown is freed.
pub(crate) fn keep(room: &mut BytesMut) {
    if !room.is_empty() || !room.try_reclaim(ROOM_BYTES) {
        return;
    }
    let room = std::mem::take(room);
    if room.capacity() > ROOM_BYTES {
        return;
    }
    ROOMS.with_borrow_mut(|rooms| {
        if rooms.len() < MAX_ROOMS {
            rooms.push(room);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> usize {
        ROOMS.with_borrow(Vec::len)
    }

    #[test]
    fn a_room_is_used_again_from_its_front_and_shows_nothing_of_before() {
        let mut room = take();
        let front = room.as_ptr();
        room.extend_from_slice(b"secret");
        drop(room.split_to(6).freeze());
        keep(&mut room);
        assert_eq!((room.capacity(), kept()), (0, 1));
        let room = take();
        assert_eq!((room.as_ptr(), room.len(), room.capacity()), (front, 0, ROOM_BYTES));
        assert_eq!(kept(), 0);
    }

    #[test]
    fn what_is_in_use_is_not_given_back() {
        let mut room = take();
        room.extend_from_slice(b"head, rest");
        let head = room.split_to(4).freeze();
        keep(&mut room);
        assert_eq!(&room[..], b", rest", "bytes that nobody took");
        room.clear();
        keep(&mut room);
        assert_eq!(kept(), 0, "somebody looks at the head");
        assert_eq!(&head[..], b"head");
        drop(head);
        keep(&mut room);
        assert_eq!(kept(), 1);
        keep(&mut BytesMut::new());
        assert_eq!(kept(), 1, "no room is none");
    }

    #[test]
    fn little_is_kept() {
        let mut grown = take();
        grown.reserve(ROOM_BYTES * 2);
        keep(&mut grown);
        assert_eq!((grown.capacity(), kept()), (0, 0));
        let rooms: Vec<_> = (0..MAX_ROOMS + 8).map(|_| take()).collect();
        for mut room in rooms {
            keep(&mut room);
        }
        assert_eq!(kept(), MAX_ROOMS);
    }
}
