//! What makes two requests the same for an idempotency key.

use aws_lc_rs::digest::{Context, SHA256};

/// SHA-256 over method, path, query and raw body, each with its length before it.
pub fn of_request(method: &str, path: &str, query: Option<&str>, body: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let parts = [method.as_bytes(), path.as_bytes(), query.unwrap_or_default().as_bytes(), body];
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    let mut fingerprint = [0; 32];
    for (slot, byte) in fingerprint.iter_mut().zip(digest.as_ref()) {
        *slot = *byte;
    }
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::of_request;

    #[test]
    fn every_part_counts_and_none_runs_into_the_next() {
        let base = of_request("POST", "/v1/a", Some("x=1"), b"{}");
        assert_eq!(base, of_request("POST", "/v1/a", Some("x=1"), b"{}"));
        assert_ne!(base, of_request("PUT", "/v1/a", Some("x=1"), b"{}"));
        assert_ne!(base, of_request("POST", "/v1/b", Some("x=1"), b"{}"));
        assert_ne!(base, of_request("POST", "/v1/a", Some("x=2"), b"{}"));
        assert_ne!(base, of_request("POST", "/v1/a", Some("x=1"), b"{ }"));
        assert_ne!(of_request("POST", "/a", Some("b"), b""), of_request("POST", "/ab", None, b""));
    }
}
