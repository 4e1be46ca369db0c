//! Message authentication codes: HMAC-SHA-256 (RFC 2104).

use hmac::digest::Key;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

/// Bytes of a code.
pub const MAC_BYTES: usize = 32;

/// A key, with what depends on it alone computed once. Its memory is wiped in the end, and so is
/// that of each code under way.
#[derive(Clone)]
pub struct MacKey(Hmac<Sha256>);

impl MacKey {
    /// A key of any length; 32 bytes are as strong as it gets.
    pub fn new(bytes: &[u8]) -> Self {
        let mut block = Key::<Hmac<Sha256>>::default();
        match block.get_mut(..bytes.len()) {
            Some(room) => room.copy_from_slice(bytes),
            // RFC 2104 §2: what is longer than a block is hashed first
            None => {
                for (slot, byte) in block.iter_mut().zip(Sha256::digest(bytes)) {
                    *slot = byte;
                }
            }
        }
        let key = Hmac::new(&block);
        block.as_mut_slice().zeroize();
        Self(key)
    }

    /// The code of a message.
    pub fn sign(&self, message: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = self.0.clone();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    /// Whether it is the code of the message, without telling by its timing where it differs.
    pub fn verifies(&self, message: &[u8], code: &[u8]) -> bool {
        let mut mac = self.0.clone();
        mac.update(message);
        mac.verify_slice(code).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test cases 1, 2 and 6: a short key, a shorter one, one longer than a block.
    #[test]
    fn the_codes_of_the_standard() {
        for (key, message, code) in [
            (
                vec![0x0b; 20],
                "Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe".to_vec(),
                "what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xaa; 131],
                "Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            let key = MacKey::new(&key);
            let made = key.sign(message.as_bytes());
            let text = made.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
            assert_eq!(text, code);
            assert!(key.verifies(message.as_bytes(), &made));
            assert!(!key.verifies(b"something else", &made));
            assert!(!key.verifies(message.as_bytes(), &made[1..]));
        }
    }
}
