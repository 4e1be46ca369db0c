//! The store above the engines: every statement, the one write path, and the tenant's bound.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
mod history;
mod loads;
mod restore;
mod statements;
mod stranger;
mod writes;
