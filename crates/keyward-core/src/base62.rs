//! Fixed-width base62 over big-endian bytes: `0-9A-Za-z`, most significant digit first.
//!
//! The digits are in ASCII order, so texts of one width sort like the numbers they write.

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What each byte is worth as a digit. A table, as nobody foresees which of three kinds comes next.
static VALUES: [u8; 256] = values();
/// Marks a byte that is no digit.
const FOREIGN: u8 = 0x80;

/// Words of 32 bits in the longest number.
const WORDS: usize = 8;
/// Digits that are taken at a time: the most whose values fit into a word.
const STRIDE: usize = 5;
const STRIDE_VALUE: u64 = 62_u64.pow(5);

/// Digits of a part of an id, two groups: the most whose values fit into a register.
const PART: usize = 10;
const PART_VALUE: u128 = 62_u128.pow(10);

/// Writes a number as exactly `N` digits, as [`encode`] does; it must fit. For ids, which every
/// request has written: in groups of digits that do not wait for each other.
pub fn encode_number<const N: usize>(mut number: u128) -> [u8; N] {
    let mut digits = [b'0'; N];
    for part in digits.rchunks_mut(PART) {
        // less than a part's value, so nothing is cut
        let mut value = (number % PART_VALUE) as u64;
        number /= PART_VALUE;
        for group in part.rchunks_mut(STRIDE) {
            write_group(group, (value % STRIDE_VALUE) as u32);
            value /= STRIDE_VALUE;
        }
    }
    digits
}

/// Writes a number of 32 bits as exactly `N` digits, as [`encode`] does; it must fit.
pub fn encode_word<const N: usize>(number: u32) -> [u8; N] {
    let mut digits = [b'0'; N];
    write_group(&mut digits, number);
    digits
}

fn write_group(digits: &mut [u8], mut value: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS.get((value % 62) as usize).copied().unwrap_or(b'0');
        value /= 62;
    }
}

/// Writes `bytes` (at most 32) as exactly `N` digits; the number must fit.
pub fn encode<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut words = [0_u32; WORDS];
    let used = bytes.len().div_ceil(4);
    for (word, part) in words.iter_mut().rev().zip(bytes.rchunks(4)) {
        *word = part.iter().fold(0, |value, byte| (value << 8) | u32::from(*byte));
    }
    let mut digits = [b'0'; N];
    for group in digits.rchunks_mut(STRIDE) {
        let mut remainder = 0_u64;
        for word in words.iter_mut().skip(WORDS.saturating_sub(used)) {
            let value = (remainder << 32) | u64::from(*word);
            *word = u32::try_from(value / STRIDE_VALUE).unwrap_or(u32::MAX);
            remainder = value % STRIDE_VALUE;
        }
        for digit in group.iter_mut().rev() {
            *digit = DIGITS.get((remainder % 62) as usize).copied().unwrap_or(b'0');
            remainder /= 62;
        }
    }
    digits
}

/// Reads digits as a number; `None` for a foreign character or a number past 128 bits.
pub fn decode_number(digits: &[u8]) -> Option<u128> {
    let mut number = 0_u128;
    let mut foreign = 0;
    for part in digits.chunks(PART) {
        let mut value = 0_u64;
        let mut scale = 1_u64;
        for digit in part {
            let worth = VALUES.get(usize::from(*digit)).copied().unwrap_or(FOREIGN);
            foreign |= worth & FOREIGN;
            value = value * 62 + u64::from(worth);
            scale *= 62;
        }
        number = number.checked_mul(u128::from(scale))?.checked_add(u128::from(value))?;
    }
    (foreign == 0).then_some(number)
}

/// Whether all bytes are digits. Looking at every byte lets the compiler look at many at a time.
pub fn are_digits(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |all, byte| all & is_digit(*byte))
}

/// Whether the byte is one of the sixty-two digits.
pub fn is_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

const fn values() -> [u8; 256] {
    let mut values = [FOREIGN; 256];
    let (mut digits, mut value): (&[u8], u8) = (DIGITS, 0);
    while let [digit, rest @ ..] = digits {
        let (_, from) = values.split_at_mut(*digit as usize);
        if let [slot, ..] = from {
            *slot = value;
        }
        value += 1;
        digits = rest;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value_of(digit: u8) -> Option<u32> {
        let position = DIGITS.iter().position(|it| *it == digit)?;
        u32::try_from(position).ok()
    }

    /// Digits as `N` big-endian bytes (at most 32), read another way than [`decode_number`] does.
    fn decode<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
        let mut words = [0_u32; WORDS];
        for group in digits.chunks(STRIDE) {
            let mut scale = 1_u64;
            let mut carry = 0_u64;
            for digit in group {
                scale *= 62;
                carry = carry * 62 + u64::from(value_of(*digit)?);
            }
            for word in words.iter_mut().rev().take(N.div_ceil(4)) {
                let value = u64::from(*word) * scale + carry;
                *word = (value & 0xffff_ffff) as u32;
                carry = value >> 32;
            }
            if carry != 0 {
                return None;
            }
        }
        let mut number = [0_u8; N];
        for (part, word) in number.rchunks_mut(4).zip(words.iter().rev()) {
            let bytes = word.to_be_bytes();
            let (excess, kept) = bytes.split_at(4 - part.len());
            if excess.iter().any(|byte| *byte != 0) {
                return None;
            }
            part.copy_from_slice(kept);
        }
        Some(number)
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_their_bytes_are(number: u128) {
            let digits = encode_number::<22>(number);
            prop_assert_eq!(digits, encode::<22>(&number.to_be_bytes()));
            prop_assert_eq!(decode_number(&digits), Some(number));
        }

        #[test]
        fn numbers_are_read_as_their_bytes_are(
            text in "[0-9A-Za-z]{0,23}|[ -~]{22}|[6-9A-Za-z].{21}",
        ) {
            let bytes = decode::<16>(text.as_bytes());
            prop_assert_eq!(decode_number(text.as_bytes()), bytes.map(u128::from_be_bytes));
            let digits = text.bytes().all(|byte| value_of(byte).is_some());
            prop_assert_eq!(are_digits(text.as_bytes()), digits);
        }
    }

    #[test]
    fn known_values() {
        assert_eq!(&encode::<6>(&0_u32.to_be_bytes()), b"000000");
        assert_eq!(&encode::<6>(&61_u32.to_be_bytes()), b"00000z");
        assert_eq!(&encode::<6>(&u32::MAX.to_be_bytes()), b"4gfFC3");
        for word in [0, 1, 61, 62, 3_844, 916_132_831, 916_132_832, u32::MAX] {
            assert_eq!(encode_word::<6>(word), encode::<6>(&word.to_be_bytes()));
        }
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
            let _ = decode_number(&text);
        }
    }
}
