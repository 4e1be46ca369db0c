//! Request ids and trace contexts, made without a system call for each.

use std::cell::Cell;

use bytes::BytesMut;
use http::{HeaderName, HeaderValue};

use keyward_core::clock::Clock;
use keyward_core::id::RequestId;
use keyward_core::time::Timestamp;

/// The header in which every answer and every forwarded request carries its id.
pub(crate) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header that carries a trace context.
pub(crate) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const RANDOM_BITS: u32 = 80;
const RANDOM_MASK: u128 = (1 << RANDOM_BITS) - 1;

thread_local! {
    /// Where this thread stands, and the odd number it steps by: both random, so that threads and
    /// nodes never meet.
    static SEQUENCE: Cell<Option<(u128, u128)>> = const { Cell::new(None) };
}

/// A new id: 48 bits of milliseconds, 80 bits that do not repeat within them.
pub(crate) fn next(clock: &dyn Clock, now: Timestamp) -> RequestId {
    let (at, step) = SEQUENCE.get().unwrap_or_else(|| seed(clock));
    let at = at.wrapping_add(step) & RANDOM_MASK;
    SEQUENCE.set(Some((at, step)));
    let millis = u128::try_from(now.as_millis()).unwrap_or(0);
    RequestId::from_bits((millis << RANDOM_BITS) | at)
}

fn seed(clock: &dyn Clock) -> (u128, u128) {
    let mut random = [0_u8; 32];
    clock.fill_random(&mut random);
    let (at, step) = random.split_at(16);
    let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |n, b| (n << 8) | u128::from(*b));
    (number(at), (number(step) & RANDOM_MASK) | 1)
}

/// The id as a header value.
pub(crate) fn header(id: RequestId) -> HeaderValue {
    HeaderValue::from_bytes(&id.text()).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// A header value from text that is ASCII by construction; `-` should it not be.
pub(crate) fn ascii_header(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
        .unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// A W3C `traceparent` that was received, if it is one.
pub(crate) fn received_traceparent(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?;
    let mut parts = text.split('-');
    let well_formed = [2, 32, 16, 2].into_iter().all(|digits| {
        parts.next().is_some_and(|part| {
            part.len() == digits
                && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    });
    let all_zero = |part: Option<&str>| part.is_none_or(|part| part.bytes().all(|b| b == b'0'));
    let usable = well_formed
        && parts.next().is_none()
        && text.starts_with("00-")
        && !all_zero(text.get(3..35))
        && !all_zero(text.get(36..52));
    usable.then_some(text)
}

/// Writes the trace context of a request that came without one: its trace id is the request id.
pub(crate) fn push_traceparent(id: RequestId, out: &mut BytesMut) {
    let bits = id.bits();
    let parent = (bits & u128::from(u64::MAX)).max(1);
    out.extend_from_slice(b"00-");
    push_hex(out, &bits.to_be_bytes());
    out.extend_from_slice(b"-");
    push_hex(out, parent.to_be_bytes().split_at(8).1);
    out.extend_from_slice(b"-00");
}

fn push_hex(out: &mut BytesMut, bytes: &[u8]) {
    let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    let mut digits = [0; 2 * size_of::<u128>()];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    out.extend_from_slice(digits.get(..2 * bytes.len()).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_contexts() {
        let check =
            |text: &'static str| received_traceparent(&HeaderValue::from_static(text)).is_some();
        assert!(check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(!check("00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
        assert!(!check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"));
        assert!(!check("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"));
        assert!(!check("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(!check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x"));
        assert!(!check("x"));
        for bits in [7 << 64, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210] {
            let mut started = BytesMut::new();
            push_traceparent(RequestId::from_bits(bits), &mut started);
            let parent = (bits & u128::from(u64::MAX)).max(1);
            assert_eq!(started, format!("00-{bits:032x}-{parent:016x}-00"));
            let value = HeaderValue::from_maybe_shared(started.freeze()).unwrap();
            assert!(received_traceparent(&value).is_some());
        }
    }
}
