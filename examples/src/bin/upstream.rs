//! The product's own API behind a gateway:
//! `upstream AUDIENCE SECRET-FILE|JWKS-URL 127.0.0.1:9000`.
//!
//! It believes nothing but `Keyward-Assertion`, so it may be reached by others than the gateway.

use std::sync::Arc;

use anyhow::Context as _;
use keyward_examples::{product, serve};
use keyward_upstream::{AssertionLayer, AssertionVerifier, Jwks};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let audience = arguments.next().context("name the audience of the assertions")?;
    let keys = arguments.next().context("name the secret's file, or the address of the keys")?;
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:9000".to_owned());

    let verifier = if keys.starts_with("http") {
        AssertionVerifier::published(audience, Jwks::at(keys.parse()?)?)
    } else {
        let secret = std::fs::read_to_string(&keys).with_context(|| keys.clone())?;
        AssertionVerifier::shared(audience, [secret.trim().as_bytes()])?
    };
    serve(&listen, product().layer(AssertionLayer::new(Arc::new(verifier)))).await
}
