//! Fixed-width base62 over big-endian bytes: `0-9A-Za-z`, most significant digit first.
//!
//! The digits are in ASCII order, so texts of one width sort like the numbers they write.

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Writes `bytes` (at most 32) as exactly `N` digits; the number must fit.
pub fn encode<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut number = [0_u8; 32];
    let width = bytes.len().min(number.len());
    for (slot, byte) in number.iter_mut().zip(bytes) {
        *slot = *byte;
    }
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in number.iter_mut().take(width) {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        *digit = DIGITS.get(remainder as usize).copied().unwrap_or(b'0');
    }
    digits
}

/// Reads digits into `N` big-endian bytes; `None` for a foreign character or a number too large.
pub fn decode<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut number = [0_u8; N];
    for digit in digits {
        let mut carry = value_of(*digit)?;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 62 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

/// Whether the byte is one of the sixty-two digits.
pub fn is_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn value_of(digit: u8) -> Option<u32> {
    let value = match digit {
        b'0'..=b'9' => digit - b'0',
        b'A'..=b'Z' => digit - b'A' + 10,
        b'a'..=b'z' => digit - b'a' + 36,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert_eq!(&encode::<6>(&0_u32.to_be_bytes()), b"000000");
        assert_eq!(&encode::<6>(&61_u32.to_be_bytes()), b"00000z");
        assert_eq!(&encode::<6>(&u32::MAX.to_be_bytes()), b"4gfFC3");
        assert_eq!(decode::<4>(b"4gfFC4"), None, "one more than fits");
        assert_eq!(decode::<4>(b"00000-"), None);
    }

    proptest! {
        #[test]
        fn round_trips_and_keeps_order(a: [u8; 32], b: [u8; 32]) {
            let (x, y) = (encode::<43>(&a), encode::<43>(&b));
            prop_assert_eq!(decode::<32>(&x), Some(a));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn decoding_never_panics(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode::<16>(&text);
        }
    }
}
