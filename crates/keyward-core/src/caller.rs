//! Who made a permitted request, as an application is told.

use std::sync::Arc;

use crate::environment::Environment;
use crate::id::{KeyId, RequestId, TenantId, UserId};

/// Whoever made a request that was permitted.
///
/// An application chooses its data by [`tenant`](Self::tenant) and
/// [`environment`](Self::environment), and by nothing a client has sent. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant of the key.
    pub tenant: TenantId,
    /// The environment of the key.
    pub environment: Environment,
    /// The key.
    pub key: KeyId,
    /// The name of the key, for logs; `None` when whoever vouches for the caller does not say it.
    pub key_name: Option<Arc<str>>,
    /// The scopes of the key.
    pub scopes: Arc<[Box<str>]>,
    /// The role of the key's owner at the time of the decision.
    pub role: Arc<str>,
    /// The owner of the key.
    pub actor: UserId,
    /// The id of the request, for logs and for answers of the application's own.
    pub request_id: RequestId,
}

impl Caller {
    /// Whether the key carries a scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| **held == *scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_held_by_its_whole_name() {
        let caller = Caller {
            tenant: TenantId::from_bits(1),
            environment: Environment::Live,
            key: KeyId::from_bits(2),
            key_name: None,
            scopes: Arc::new(["reports:read".into()]),
            role: "owner".into(),
            actor: UserId::from_bits(3),
            request_id: RequestId::from_bits(4),
        };
        assert!(caller.has_scope("reports:read"));
        assert!(!caller.has_scope("reports"));
        assert!(!caller.has_scope("reports:read "));
    }
}
