//! The control plane: Keyward's own API. One folder per resource, one file per operation.

mod answer;
mod caller;
mod context;
mod input;
mod mount;

mod admin_tokens;
mod audit;
mod catalog;
mod keys;
mod members;
mod meta;
mod service_accounts;
mod setup;
mod tenants;
mod users;

pub(crate) use caller::Caller;
pub(crate) use context::{ControlState, Ctx};
pub(crate) use mount::router;
