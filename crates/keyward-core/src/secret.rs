//! Secrets and their hashes, compared.

use aws_lc_rs::constant_time::verify_slices_are_equal;

/// Whether two secrets are the same, without telling by its timing where they differ; only whether
/// they are as long as each other can be found out.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    verify_slices_are_equal(one, other).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_the_length_count() {
        let secret = [7_u8; 77];
        assert!(is_same(&secret, &secret.clone()));
        assert!(is_same(b"", b""));
        assert!(!is_same(&secret, &secret[1..]));
        for at in 0..secret.len() {
            let mut other = secret;
            other[at] ^= 0x80;
            assert!(!is_same(&secret, &other));
        }
    }
}
