//! What it takes to tell whether a presented secret is right.

use keyward_core::key::{KeyHash, Pepper, Presented, TokenFormat};

/// The token format of the product and the peppers behind the stored hashes.
pub struct Keyring {
    format: TokenFormat,
    peppers: Box<[Pepper]>,
}

impl Keyring {
    /// A keyring; hashes made with a pepper that is not in it never match.
    pub fn new(format: TokenFormat, peppers: Vec<Pepper>) -> Self {
        Self {
            format,
            peppers: peppers.into_boxed_slice(),
        }
    }

    /// The token format.
    pub const fn format(&self) -> &TokenFormat {
        &self.format
    }

    /// Whether the secret of a presented token is the one behind the stored hash.
    pub(crate) fn proves(&self, presented: &Presented<'_>, stored: &KeyHash, version: u16) -> bool {
        self.peppers
            .iter()
            .find(|pepper| pepper.version() == version)
            .is_some_and(|pepper| pepper.hash(presented).matches(stored))
    }

    /// The work of a comparison for an id that nobody has, so that the timing does not tell.
    pub(crate) fn disprove(&self, presented: &Presented<'_>) {
        if let Some(pepper) = self.peppers.last() {
            let nobody = KeyHash::from_bytes([0; 32]);
            std::hint::black_box(pepper.hash(presented).matches(&nobody));
        }
    }
}
