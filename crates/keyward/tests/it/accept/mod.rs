//! One test or more for each requirement; the name begins with its id.

mod allowlist;
mod browsers;
mod document;
mod envelope;
mod evidence;
mod lifecycle;
mod minting;
mod people;
mod scopes;
