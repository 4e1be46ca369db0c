//! Commands that talk to a server over its API.

mod admin_token;
mod audit;
mod client;
mod contexts;
mod demo_key;
mod health;
mod key;
mod key_change;
mod member;
mod node;
mod revocations;
mod scopes;
mod service_account;
mod session;
mod tenant;
mod user;
mod whoami;

pub(crate) use admin_token::AdminTokenCommand;
pub(crate) use audit::AuditCommand;
pub(crate) use contexts::ContextCommand;
pub(crate) use demo_key::DemoKeyCommand;
pub(crate) use health::HealthCommand;
pub(crate) use key::KeyCommand;
pub(crate) use member::MemberCommand;
pub(crate) use node::NodeCommand;
pub(crate) use revocations::RevocationsCommand;
pub(crate) use scopes::ScopesCommand;
pub(crate) use service_account::ServiceAccountCommand;
pub(crate) use session::read_stdin;
pub(crate) use tenant::TenantCommand;
pub(crate) use user::UserCommand;
pub(crate) use whoami::WhoamiCommand;
