//! Passwords of administrators: argon2id, away from the threads that serve requests.

use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, Version};
use keyward_core::{Clock, Error, Result};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Memory of one hash in KiB.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over that memory.
const PASSES: u32 = 2;
/// Lanes computed side by side.
const LANES: u32 = 1;
/// Bytes of salt.
const SALT_BYTES: usize = 16;
/// Hashes computed at a time, which bounds the memory they take together.
const MAX_CONCURRENT: usize = 2;

static PERMITS: Semaphore = Semaphore::const_new(MAX_CONCURRENT);

/// The hash of a password as it is stored: algorithm, parameters, salt and hash in one text.
pub(crate) async fn hash(password: Zeroizing<String>, clock: &dyn Clock) -> Result<String> {
    let mut salt = [0; SALT_BYTES];
    clock.fill_random(&mut salt);
    let failed = |e: &dyn std::fmt::Display| Error::internal(format!("password hash: {e}"));
    let _permit = PERMITS.acquire().await.map_err(|e| failed(&e))?;
    let work = tokio::task::spawn_blocking(move || compute(&password, &salt));
    work.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))
}

fn compute(
    password: &str,
    salt: &[u8; SALT_BYTES],
) -> Result<String, argon2::password_hash::Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Ok(hasher.hash_password_with_salt(password.as_bytes(), salt)?.to_string())
}

#[cfg(test)]
mod tests {
    use argon2::PasswordVerifier as _;

    use super::*;

    #[test]
    fn the_stored_text_names_its_parameters_and_verifies() {
        let stored = compute("correct horse battery", &[7; SALT_BYTES]).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        let verify = |password: &str| {
            Argon2::default().verify_password(password.as_bytes(), stored.as_str())
        };
        assert!(verify("correct horse battery").is_ok());
        assert!(verify("correct horse").is_err());
        assert_ne!(stored, compute("correct horse battery", &[8; SALT_BYTES]).unwrap());
    }
}
