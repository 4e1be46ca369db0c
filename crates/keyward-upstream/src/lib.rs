//! For the product's own API behind Keyward: who calls, proven by the assertion.
//!
//! Every request that the gateway forwards carries `Keyward-Assertion`, a signed statement about
//! its caller, for this one request and half a minute. An [`AssertionVerifier`] believes it or says
//! why not; an [`AssertionLayer`] puts the [`Caller`] among the extensions of a request, and
//! refuses requests that did not come through the gateway.
//!
//! ```no_run
//! use std::sync::Arc;
//! use axum::{Extension, Router, routing::get};
//! use keyward_upstream::{AssertionLayer, AssertionVerifier, Caller};
//!
//! async fn reports(Extension(caller): Extension<Caller>) -> String {
//!     format!("the reports of {}", caller.tenant)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let secret = std::fs::read_to_string("assertion.secret")?;
//! let verifier = AssertionVerifier::shared("reports", [secret.trim().as_bytes()])?;
//! let app: Router = Router::new()
//!     .route("/v1/reports", get(reports))
//!     .layer(AssertionLayer::new(Arc::new(verifier)));
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

mod jwks;
mod layer;
mod verifier;

pub use jwks::{InvalidJwks, Jwks, MAX_AGE, MAX_KEYS, REFRESH_AFTER, RETRY_AFTER};
pub use keyward_core::Caller;
pub use keyward_core::assertion::AssertionError;
pub use layer::{AssertionLayer, AssertionService};
pub use verifier::{AssertionVerifier, Now, Refused};
