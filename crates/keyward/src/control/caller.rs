//! Who calls Keyward's own API, and what they may do there.

use http::HeaderMap;
use keyward_api::Operation;
use keyward_api::operation::Access;
use keyward_api::scope::ManagementScope;
use keyward_core::audit::{Actor, ActorKind};
use keyward_core::id::TenantId;
use keyward_core::{Catalog, Error, ErrorCode, Result, Timestamp};
use keyward_gateway::{AdminCaller, DataPlane};

/// Who is calling.
pub(crate) enum Caller {
    /// Nobody showed a credential; only public operations get this far.
    Anonymous,
    /// The bearer of an admin token.
    Token(AdminCaller),
}

impl Caller {
    /// Whom the audit trail names.
    pub(crate) fn actor(&self) -> Actor {
        match self {
            Self::Anonymous => Actor {
                kind: ActorKind::System,
                id: "-".to_owned(),
                name: "anonymous".to_owned(),
                role: None,
            },
            Self::Token(token) => Actor {
                kind: ActorKind::AdminToken,
                id: token.id().to_string(),
                name: token.name().to_owned(),
                role: token.role().map(str::to_owned),
            },
        }
    }

    /// The tenant the caller is confined to; `None` for the operator.
    pub(crate) fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::Anonymous => None,
            Self::Token(token) => token.tenant(),
        }
    }

    /// The role the caller acts with, if it is confined to a tenant.
    pub(crate) fn role(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::Token(token) => token.role(),
        }
    }

    /// When the caller's credential stops by itself.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::Anonymous => None,
            Self::Token(token) => token.expires_at(),
        }
    }

    /// What stands for the caller in idempotency records.
    pub(crate) fn principal(&self) -> String {
        match self {
            Self::Anonymous => "-".to_owned(),
            Self::Token(token) => token.id().to_string(),
        }
    }

    /// Whether the caller's credential carries the scope and the caller's role allows it.
    pub(crate) fn may(&self, scope: ManagementScope, catalog: &Catalog) -> bool {
        match self {
            Self::Anonymous => false,
            Self::Token(token) => token.may(scope.as_str(), catalog),
        }
    }
}

/// Reads and checks the credential that an operation asks for.
pub(super) async fn authenticate(
    operation: &Operation,
    headers: &HeaderMap,
    plane: &DataPlane,
) -> Result<Caller> {
    if operation.access == Access::Public {
        return Ok(Caller::Anonymous);
    }
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let missing = || {
        let text = "No admin token was sent; send it as Authorization: Bearer …";
        Error::new(ErrorCode::MissingApiKey, text)
    };
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        let text = "More than one Authorization header was sent; send one";
        return Err(Error::new(ErrorCode::AmbiguousApiKey, text));
    }
    let text = value.to_str().unwrap_or_default();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    Ok(Caller::Token(plane.admit(token.trim()).await?))
}

/// Checks that the caller may use the operation on this tenant.
pub(super) fn authorize(
    operation: &Operation,
    caller: &Caller,
    tenant: Option<TenantId>,
    catalog: &Catalog,
) -> Result<()> {
    match operation.access {
        Access::Public => return Ok(()),
        Access::Operator if caller.tenant().is_some() => {
            let text = "This operation is for the operator of the deployment";
            return Err(Error::new(ErrorCode::RbacDenied, text).with("failed", "role"));
        }
        // another tenant does not exist for this caller
        Access::Tenant if caller.tenant().is_some_and(|own| Some(own) != tenant) => {
            return Err(Error::not_found("tenant"));
        }
        Access::Authenticated | Access::Operator | Access::Tenant => {}
    }
    let Some(scope) = operation.scope else { return Ok(()) };
    if caller.may(scope, catalog) {
        return Ok(());
    }
    let Caller::Token(token) = caller else { return Err(Error::not_found("tenant")) };
    if token.has_scope(scope.as_str()) {
        let role = token.role().unwrap_or("-");
        let text = format!("The role {role} may not use {}", scope.as_str());
        let error = Error::new(ErrorCode::RbacDenied, text).with("failed", "role");
        return Err(error.with("role", role));
    }
    let text = format!("The admin token lacks the scope {}", scope.as_str());
    Err(Error::new(ErrorCode::Forbidden, text)
        .with("failed", "scope")
        .with("requiredScopes", vec![vec![scope.as_str()]])
        .with("grantedScopes", token.scopes().to_vec()))
}
