//! The control plane: Keyward's own API. One folder per resource, one file per operation.

mod answer;
mod caller;
mod context;
mod input;
mod mount;
mod paging;

mod admin_tokens;
mod audit;
mod catalog;
mod keys;
mod members;
mod meta;
mod nodes;
mod pages;
mod revocations;
mod service_accounts;
mod setup;
mod tenants;
mod users;

pub(crate) use audit::page as audit_page;
pub(crate) use context::ControlState;
pub(crate) use input::read_query;
pub(crate) use mount::router;

#[cfg(test)]
mod tests;
