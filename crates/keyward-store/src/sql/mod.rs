//! The SQL, by aggregate: its statements, its row mapping, its methods on the transactions.

pub(crate) mod admin_tokens;
pub(crate) mod audit;
pub(crate) mod authority;
pub(crate) mod changes;
pub(crate) mod idempotency;
pub(crate) mod keys;
pub(crate) mod members;
pub(crate) mod nodes;
pub(crate) mod read;
pub(crate) mod restore;
pub(crate) mod setup_links;
pub(crate) mod tenants;
pub(crate) mod users;

use crate::engine::Statement;

/// Every statement of the product, for the test that prepares them all.
pub fn all_statements() -> impl Iterator<Item = &'static Statement> {
    [
        admin_tokens::ALL,
        audit::ALL,
        authority::ALL,
        changes::ALL,
        idempotency::ALL,
        keys::ALL,
        members::ALL,
        restore::ALL,
        nodes::ALL,
        setup_links::ALL,
        tenants::ALL,
        users::ALL,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// Declares statements and the list of them.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $kind:ident $sql:expr;)*) => {
        $($(#[$doc])* static $name: crate::engine::Statement =
            crate::engine::Statement::$kind(
                concat!(module_path!(), "::", stringify!($name)),
                $sql,
            );)*

        /// The statements of this aggregate.
        pub(crate) static ALL: &[&crate::engine::Statement] = &[$(&$name,)*];
    };
}
pub(crate) use statements;
