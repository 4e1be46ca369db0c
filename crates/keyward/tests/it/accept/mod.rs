//! One test or more for each requirement; the name begins with its id.

mod aiia;
mod allowlist;
mod asteri;
mod browsers;
mod document;
mod envelope;
mod evidence;
mod lifecycle;
mod logs;
mod minting;
mod other;
mod people;
mod scopes;
