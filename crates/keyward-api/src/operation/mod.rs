//! Keyward's own operations as data: one table for router, document, clients and tests.

mod body;
mod errors;
mod table;
#[cfg(test)]
mod tests;

use keyward_core::ErrorCode;
pub use keyward_core::catalog::Method;

pub use body::{BodySchema, QuerySchema};
pub use table::*;

use crate::audit::AuditAction;
use crate::scope::ManagementScope;

/// Who may call an operation, given the scope it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a credential.
    Public,
    /// Anybody with a valid credential; the answer holds only what the caller may see.
    Authenticated,
    /// The operator, or a member of the tenant in the path whose role grants the scope. For
    /// everybody else the tenant does not exist.
    Tenant,
    /// The operator only.
    Operator,
}

impl Access {
    /// The word in the OpenAPI document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Authenticated => "authenticated",
            Self::Tenant => "tenant",
            Self::Operator => "operator",
        }
    }
}

/// The listener an operation is served on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// Keyward's own API and the dashboard.
    Control,
    /// The operator's own network.
    Internal,
}

impl Plane {
    /// The word in the OpenAPI document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Internal => "internal",
        }
    }
}

/// What an operation is about; groups the document and the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    /// Tenants.
    Tenants,
    /// Users.
    Users,
    /// Members of a tenant.
    Members,
    /// Service accounts of a tenant.
    ServiceAccounts,
    /// API keys of a tenant.
    Keys,
    /// The product's scopes, routes and roles.
    Catalog,
    /// The audit trail.
    Audit,
    /// Admin tokens.
    AdminTokens,
    /// The nodes of the deployment.
    Nodes,
    /// Backup and restore.
    Restore,
    /// The caller and this API.
    Meta,
    /// Verification of presented keys.
    Verify,
}

impl Tag {
    /// Every tag, in the order of the document.
    pub const ALL: [Self; 12] = [
        Self::Tenants,
        Self::Users,
        Self::Members,
        Self::ServiceAccounts,
        Self::Keys,
        Self::Catalog,
        Self::Audit,
        Self::AdminTokens,
        Self::Nodes,
        Self::Restore,
        Self::Meta,
        Self::Verify,
    ];

    /// What its operations are about, in one sentence.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Tenants => "The isolated customers of the product.",
            Self::Users => "People, known to the whole deployment.",
            Self::Members => "Users with a role in a tenant.",
            Self::ServiceAccounts => "Users without a person, to own the keys of machines.",
            Self::Keys => "API keys of a tenant, from creation to revocation.",
            Self::Catalog => "The product's scopes, routes and roles, as configured.",
            Self::Audit => "Who did what, and the proof that nothing was changed since.",
            Self::AdminTokens => "Credentials for this API.",
            Self::Nodes => "The processes of the deployment, and how far changes have reached.",
            Self::Restore => "What a restore from a backup needs besides the backup.",
            Self::Meta => "The caller, the first administrator and this document.",
            Self::Verify => "The gateway's decision for any proxy and any code.",
        }
    }

    /// The name in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenants => "Tenants",
            Self::Users => "Users",
            Self::Members => "Members",
            Self::ServiceAccounts => "Service accounts",
            Self::Keys => "Keys",
            Self::Catalog => "Catalogue",
            Self::Audit => "Audit",
            Self::AdminTokens => "Admin tokens",
            Self::Nodes => "Nodes",
            Self::Restore => "Backup and restore",
            Self::Meta => "Meta",
            Self::Verify => "Verify",
        }
    }
}

/// One of Keyward's own API operations.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Its `operationId`, also the name of its method in clients.
    pub id: &'static str,
    /// Its method.
    pub method: Method,
    /// Its path, with `{names}` for the variable segments.
    pub path: &'static str,
    /// The listener it is served on.
    pub plane: Plane,
    /// Who may call it.
    pub access: Access,
    /// The scope the caller needs.
    pub scope: Option<ManagementScope>,
    /// What it writes to the audit trail. A read has none, whatever its method.
    pub audit: Option<AuditAction>,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// What one must know to use it.
    pub description: &'static str,
    /// What it is about.
    pub tag: Tag,
    /// The query parameters it reads.
    pub query: Option<QuerySchema>,
    /// The body it reads.
    pub request: Option<BodySchema>,
    /// The body it answers with; `None` for a free-form JSON document.
    pub response: Option<BodySchema>,
    /// Errors it can answer with besides those every operation of its shape can.
    pub also: &'static [ErrorCode],
    /// The status of success. A fenced write may answer 202 instead.
    pub status: u16,
    /// Whether it honours `Idempotency-Key`.
    pub idempotent: bool,
    /// Whether it answers with keyset pages.
    pub paged: bool,
    /// Whether it takes authority away and answers with a fence.
    pub fenced: bool,
}

impl Operation {
    /// Whether it changes anything.
    pub const fn is_mutation(&self) -> bool {
        self.audit.is_some()
    }

    /// The names of the variable segments of its path, in order.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// The operation with this `operationId`.
    pub fn find(id: &str) -> Option<&'static Self> {
        OPERATIONS.iter().find(|operation| operation.id == id)
    }
}
