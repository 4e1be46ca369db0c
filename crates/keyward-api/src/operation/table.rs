//! The table itself.

use keyward_core::ErrorCode;

use super::{Access, BodySchema, Method, Operation, Plane, QuerySchema, Tag};
use crate::audit::{self, AuditAction};
use crate::page::{Listing, Page, PageQuery};
use crate::scope::ManagementScope as Scope;
use crate::{
    admin_tokens, catalog, fence, keys, members, nodes, revocations, service_accounts, setup,
    tenants, users, verify, whoami,
};

/// An entry before its particulars: a read on the control plane that answers 200.
const fn entry(id: &'static str, method: Method, path: &'static str, tag: Tag) -> Operation {
    Operation {
        id,
        method,
        path,
        plane: Plane::Control,
        access: Access::Public,
        scope: None,
        audit: None,
        summary: "",
        description: "",
        tag,
        query: None,
        request: None,
        response: None,
        also: &[],
        status: 200,
        idempotent: false,
        paged: false,
        fenced: false,
    }
}

impl Operation {
    const fn text(self, summary: &'static str, description: &'static str) -> Self {
        Self { summary, description, ..self }
    }

    const fn allow(self, access: Access, scope: Scope) -> Self {
        Self { access, scope: Some(scope), ..self }
    }

    const fn authenticated(self) -> Self {
        Self { access: Access::Authenticated, ..self }
    }

    const fn internal(self) -> Self {
        Self { plane: Plane::Internal, ..self }
    }

    const fn audited(self, action: AuditAction) -> Self {
        Self { audit: Some(action), ..self }
    }

    const fn reads<T: utoipa::ToSchema>(self) -> Self {
        Self { request: Some(BodySchema::of::<T>()), ..self }
    }

    const fn answers<T: utoipa::ToSchema>(self) -> Self {
        Self { response: Some(BodySchema::of::<T>()), ..self }
    }

    const fn creates<T: utoipa::ToSchema>(self) -> Self {
        Self { status: 201, ..self.answers::<T>() }
    }

    const fn pages<T: utoipa::ToSchema, Q: utoipa::IntoParams>(self) -> Self {
        Self { paged: true, ..self.filters::<Q>().answers::<Page<T>>() }
    }

    const fn filters<Q: utoipa::IntoParams>(self) -> Self {
        Self { query: Some(QuerySchema::of::<Q>()), ..self }
    }

    const fn also(self, errors: &'static [ErrorCode]) -> Self {
        Self { also: errors, ..self }
    }

    const fn idempotent(self) -> Self {
        Self { idempotent: true, ..self }
    }

    const fn fenced(self) -> Self {
        Self { fenced: true, ..self }
    }
}

macro_rules! operations {
    ($($(#[doc = $description:literal])+ $name:ident: $summary:literal = $entry:expr;)*) => {
        $(
            $(#[doc = $description])+
            pub const $name: Operation = $entry.text($summary, concat!($($description),+));
        )*

        /// Every operation, in the order of the document.
        pub const OPERATIONS: &[Operation] = &[$($name,)*];
    };
}

operations! {
    // Tenants
    /// The slug is unique in the deployment and never changes.
    CREATE_TENANT: "Create a tenant" =
        entry("createTenant", Method::Post, "/v1/tenants", Tag::Tenants)
            .allow(Access::Operator, Scope::TenantsWrite)
            .audited(AuditAction::TenantCreated)
            .reads::<tenants::CreateTenant>()
            .creates::<tenants::Tenant>()
            .idempotent();
    /// Newest first.
    LIST_TENANTS: "List tenants" =
        entry("listTenants", Method::Get, "/v1/tenants", Tag::Tenants)
            .allow(Access::Operator, Scope::TenantsRead)
            .pages::<tenants::Tenant, PageQuery>();
    /// One tenant by its id.
    GET_TENANT: "Get a tenant" =
        entry("getTenant", Method::Get, "/v1/tenants/{tenantId}", Tag::Tenants)
            .allow(Access::Tenant, Scope::TenantsRead)
            .answers::<tenants::Tenant>();
    /// Stops all keys of the tenant. Nothing is lost; resuming brings them back.
    SUSPEND_TENANT: "Suspend a tenant" =
        entry("suspendTenant", Method::Post, "/v1/tenants/{tenantId}/suspend", Tag::Tenants)
            .allow(Access::Operator, Scope::TenantsWrite)
            .audited(AuditAction::TenantSuspended)
            .reads::<tenants::SuspendTenant>()
            .answers::<tenants::SuspendedTenant>()
            .fenced();
    /// The keys of a suspended tenant work again, those that are still active.
    RESUME_TENANT: "Resume a tenant" =
        entry("resumeTenant", Method::Post, "/v1/tenants/{tenantId}/resume", Tag::Tenants)
            .allow(Access::Operator, Scope::TenantsWrite)
            .audited(AuditAction::TenantResumed)
            .answers::<tenants::Tenant>();

    // Users
    /// A person, without a membership yet.
    CREATE_USER: "Create a user" =
        entry("createUser", Method::Post, "/v1/users", Tag::Users)
            .allow(Access::Operator, Scope::UsersWrite)
            .audited(AuditAction::UserCreated)
            .reads::<users::CreateUser>()
            .creates::<users::User>()
            .idempotent();
    /// Newest first.
    LIST_USERS: "List users" =
        entry("listUsers", Method::Get, "/v1/users", Tag::Users)
            .allow(Access::Operator, Scope::UsersRead)
            .pages::<users::User, PageQuery>();
    /// One user by its id.
    GET_USER: "Get a user" =
        entry("getUser", Method::Get, "/v1/users/{userId}", Tag::Users)
            .allow(Access::Operator, Scope::UsersRead)
            .answers::<users::User>();

    // Members
    /// A known user by id, or a person by address, who is created when the address is new.
    ADD_MEMBER: "Add a member" =
        entry("addMember", Method::Post, "/v1/tenants/{tenantId}/members", Tag::Members)
            .allow(Access::Tenant, Scope::MembersWrite)
            .audited(AuditAction::MemberAdded)
            .reads::<members::AddMember>()
            .creates::<members::Member>()
            .idempotent();
    /// Newest first, those who left included.
    LIST_MEMBERS: "List members" =
        entry("listMembers", Method::Get, "/v1/tenants/{tenantId}/members", Tag::Members)
            .allow(Access::Tenant, Scope::MembersRead)
            .pages::<members::Member, PageQuery>();
    /// The membership and how many keys would stop if it ended.
    GET_MEMBER: "Get a member" =
        entry("getMember", Method::Get, "/v1/tenants/{tenantId}/members/{userId}", Tag::Members)
            .allow(Access::Tenant, Scope::MembersRead)
            .answers::<members::MemberDetails>();
    /// The role is the ceiling of every key the member owns, from the next request on.
    CHANGE_MEMBER_ROLE: "Change a member's role" =
        entry(
            "changeMemberRole",
            Method::Patch,
            "/v1/tenants/{tenantId}/members/{userId}",
            Tag::Members,
        )
            .allow(Access::Tenant, Scope::MembersWrite)
            .audited(AuditAction::MemberRoleChanged)
            .reads::<members::ChangeMemberRole>()
            .answers::<members::ChangedMember>()
            .fenced();
    /// Ends the membership and, in the same write, revokes the member's keys or gives them
    /// another owner.
    OFFBOARD_MEMBER: "Offboard a member" =
        entry(
            "offboardMember",
            Method::Post,
            "/v1/tenants/{tenantId}/members/{userId}/offboard",
            Tag::Members,
        )
            .allow(Access::Tenant, Scope::MembersWrite)
            .audited(AuditAction::MemberOffboarded)
            .reads::<members::OffboardMember>()
            .answers::<members::OffboardedMember>()
            .fenced();

    // Service accounts
    /// A user without a person, whose keys outlive everybody's employment.
    CREATE_SERVICE_ACCOUNT: "Create a service account" =
        entry(
            "createServiceAccount",
            Method::Post,
            "/v1/tenants/{tenantId}/service-accounts",
            Tag::ServiceAccounts,
        )
            .allow(Access::Tenant, Scope::ServiceAccountsWrite)
            .audited(AuditAction::ServiceAccountCreated)
            .reads::<service_accounts::CreateServiceAccount>()
            .creates::<service_accounts::ServiceAccount>()
            .idempotent();
    /// Newest first.
    LIST_SERVICE_ACCOUNTS: "List service accounts" =
        entry(
            "listServiceAccounts",
            Method::Get,
            "/v1/tenants/{tenantId}/service-accounts",
            Tag::ServiceAccounts,
        )
            .allow(Access::Tenant, Scope::ServiceAccountsRead)
            .pages::<service_accounts::ServiceAccount, PageQuery>();

    // API keys
    /// The secret is in this answer and nowhere else. The owner's role is the key's ceiling, now
    /// and later.
    CREATE_KEY: "Create an API key" =
        entry("createKey", Method::Post, "/v1/tenants/{tenantId}/keys", Tag::Keys)
            .allow(Access::Tenant, Scope::KeysWrite)
            .audited(AuditAction::ApiKeyCreated)
            .reads::<keys::CreateKey>()
            .creates::<keys::KeyWithSecret>()
            .idempotent();
    /// Newest first. Deleted keys are left out unless asked for.
    LIST_KEYS: "List API keys" =
        entry("listKeys", Method::Get, "/v1/tenants/{tenantId}/keys", Tag::Keys)
            .allow(Access::Tenant, Scope::KeysRead)
            .pages::<keys::Key, keys::ListKeysQuery>();
    /// One key by its id, deleted ones included.
    GET_KEY: "Get an API key" =
        entry("getKey", Method::Get, "/v1/tenants/{tenantId}/keys/{keyId}", Tag::Keys)
            .allow(Access::Tenant, Scope::KeysRead)
            .answers::<keys::Key>();
    /// Name, description, IP list, rate limit, and an expiry earlier than the one it has.
    UPDATE_KEY: "Edit an API key" =
        entry("updateKey", Method::Patch, "/v1/tenants/{tenantId}/keys/{keyId}", Tag::Keys)
            .allow(Access::Tenant, Scope::KeysWrite)
            .audited(AuditAction::ApiKeyUpdated)
            .reads::<keys::UpdateKey>()
            .answers::<keys::UpdatedKey>()
            .fenced();
    /// Revokes the key if it is still active and hides it from lists. The audit trail keeps it.
    DELETE_KEY: "Delete an API key" =
        entry("deleteKey", Method::Delete, "/v1/tenants/{tenantId}/keys/{keyId}", Tag::Keys)
            .allow(Access::Tenant, Scope::KeysWrite)
            .audited(AuditAction::ApiKeyDeleted)
            .answers::<keys::ChangedKey>()
            .fenced();
    /// At least one scope stays. Scopes can only be added with a new key.
    NARROW_KEY_SCOPES: "Take scopes from an API key" =
        entry(
            "narrowKeyScopes",
            Method::Post,
            "/v1/tenants/{tenantId}/keys/{keyId}/narrow-scopes",
            Tag::Keys,
        )
            .allow(Access::Tenant, Scope::KeysWrite)
            .audited(AuditAction::ApiKeyScopesNarrowed)
            .reads::<keys::NarrowKeyScopes>()
            .answers::<keys::ChangedKey>()
            .fenced();
    /// Makes a replacement. Both keys work during the overlap, then the old one stops by itself;
    /// its life is never extended.
    ROTATE_KEY: "Rotate an API key" =
        entry("rotateKey", Method::Post, "/v1/tenants/{tenantId}/keys/{keyId}/rotate", Tag::Keys)
            .allow(Access::Tenant, Scope::KeysWrite)
            .audited(AuditAction::ApiKeyRotated)
            .reads::<keys::RotateKey>()
            .creates::<keys::RotatedKey>()
            .idempotent()
            .fenced();
    /// Revokes the old key, the one in the path, before its overlap has run out.
    END_KEY_OVERLAP: "End the overlap of a rotation" =
        entry(
            "endKeyOverlap",
            Method::Post,
            "/v1/tenants/{tenantId}/keys/{keyId}/end-overlap",
            Tag::Keys,
        )
            .allow(Access::Tenant, Scope::KeysWrite)
            .audited(AuditAction::ApiKeyOverlapEnded)
            .answers::<keys::ChangedKey>()
            .fenced();
    /// For ever. Once this has answered `effective`, every request sent afterwards is refused on
    /// every node.
    REVOKE_KEY: "Revoke an API key" =
        entry("revokeKey", Method::Post, "/v1/tenants/{tenantId}/keys/{keyId}/revoke", Tag::Keys)
            .allow(Access::Tenant, Scope::KeysWrite)
            .audited(AuditAction::ApiKeyRevoked)
            .reads::<keys::RevokeKey>()
            .answers::<keys::ChangedKey>()
            .fenced();
    /// For a secret that was lost before its first use, within one hour of the key's creation.
    /// The earlier secret stops working.
    REISSUE_KEY: "Issue a new secret for a never-used API key" =
        entry("reissueKey", Method::Post, "/v1/tenants/{tenantId}/keys/{keyId}/reissue", Tag::Keys)
            .allow(Access::Tenant, Scope::KeysWrite)
            .audited(AuditAction::ApiKeyReissued)
            .answers::<keys::KeyWithSecret>()
            .idempotent()
            .fenced();
    /// The deployment was restored from a backup that cannot tell what became of the key; from
    /// now on it works again. Confirm a key only when you know that nobody revoked it.
    CONFIRM_KEY: "Confirm a suspect API key" =
        entry("confirmKey", Method::Post, "/v1/tenants/{tenantId}/keys/{keyId}/confirm", Tag::Keys)
            .allow(Access::Tenant, Scope::KeysWrite)
            .audited(AuditAction::ApiKeyConfirmed)
            .answers::<keys::ConfirmedKey>();
    /// At most 1000 in one call; `remaining` tells whether to call again. Keys whose owner has
    /// left the tenant, or has a role that allows more than the caller's, stay suspect.
    CONFIRM_KEYS: "Confirm all suspect API keys" =
        entry("confirmKeys", Method::Post, "/v1/tenants/{tenantId}/keys/confirm", Tag::Keys)
            .allow(Access::Tenant, Scope::KeysWrite)
            .audited(AuditAction::TenantKeysConfirmed)
            .answers::<keys::ConfirmedKeys>();
    /// Runs the decision for a call in thought and shows every check. Nothing is counted.
    EXPLAIN_KEY: "Explain what an API key may do" =
        entry("explainKey", Method::Post, "/v1/tenants/{tenantId}/keys/{keyId}/explain", Tag::Keys)
            .allow(Access::Tenant, Scope::KeysRead)
            .reads::<keys::ExplainKey>()
            .answers::<keys::Explanation>();
    /// Whose key it is and whether it works. A key of a tenant the caller may not see is not
    /// found.
    IDENTIFY_KEY: "Identify a pasted secret" =
        entry("identifyKey", Method::Post, "/v1/keys/identify", Tag::Keys)
            .allow(Access::Authenticated, Scope::KeysRead)
            .reads::<keys::IdentifyKey>()
            .answers::<keys::IdentifiedKey>()
            .also(&[ErrorCode::NotFound]);

    // The catalogue
    /// All scopes a key can carry, in the order of their names, and those of a demo key.
    LIST_SCOPES: "List the product's scopes" =
        entry("listScopes", Method::Get, "/v1/catalog/scopes", Tag::Catalog)
            .allow(Access::Authenticated, Scope::CatalogRead)
            .answers::<catalog::CatalogScopes>();
    /// All operations of the product that keys may call, with the scopes and roles that may.
    LIST_ROUTES: "List the product's routes" =
        entry("listRoutes", Method::Get, "/v1/catalog/routes", Tag::Catalog)
            .allow(Access::Authenticated, Scope::CatalogRead)
            .filters::<catalog::ListRoutesQuery>()
            .answers::<Listing<catalog::CatalogRoute>>();
    /// All roles, with the product areas and the operations of this API each may use.
    LIST_ROLES: "List the product's roles" =
        entry("listRoles", Method::Get, "/v1/catalog/roles", Tag::Catalog)
            .allow(Access::Authenticated, Scope::CatalogRead)
            .answers::<Listing<catalog::CatalogRole>>();
    /// The fewest scopes that allow all of the calls. A call that no key may make is refused.
    SUGGEST_SCOPES: "Suggest scopes for some calls" =
        entry("suggestScopes", Method::Post, "/v1/catalog/suggest-scopes", Tag::Catalog)
            .allow(Access::Authenticated, Scope::CatalogRead)
            .reads::<catalog::SuggestScopes>()
            .answers::<catalog::SuggestedScopes>();

    // The audit trail
    /// Newest first.
    LIST_AUDIT_EVENTS: "List audit events" =
        entry("listAuditEvents", Method::Get, "/v1/tenants/{tenantId}/audit-events", Tag::Audit)
            .allow(Access::Tenant, Scope::AuditRead)
            .pages::<audit::AuditEvent, audit::ListAuditEventsQuery>();
    /// Computes every hash of the tenant's chain anew. Keep `headHash` to prove later that no
    /// event was cut off at the end.
    VERIFY_AUDIT_CHAIN: "Verify the audit trail" =
        entry(
            "verifyAuditChain",
            Method::Get,
            "/v1/tenants/{tenantId}/audit-events/verify",
            Tag::Audit,
        )
            .allow(Access::Tenant, Scope::AuditRead)
            .answers::<audit::AuditChain>();
    /// One event by its id.
    GET_AUDIT_EVENT: "Get an audit event" =
        entry(
            "getAuditEvent",
            Method::Get,
            "/v1/tenants/{tenantId}/audit-events/{auditEventId}",
            Tag::Audit,
        )
            .allow(Access::Tenant, Scope::AuditRead)
            .answers::<audit::AuditEvent>();

    // Admin tokens
    /// The secret is in this answer and nowhere else. A token carries no scope its maker lacks.
    CREATE_ADMIN_TOKEN: "Create an admin token" =
        entry("createAdminToken", Method::Post, "/v1/admin-tokens", Tag::AdminTokens)
            .allow(Access::Operator, Scope::AdminTokensWrite)
            .audited(AuditAction::AdminTokenCreated)
            .reads::<admin_tokens::CreateAdminToken>()
            .creates::<admin_tokens::AdminTokenWithSecret>()
            .idempotent();
    /// Newest first.
    LIST_ADMIN_TOKENS: "List admin tokens" =
        entry("listAdminTokens", Method::Get, "/v1/admin-tokens", Tag::AdminTokens)
            .allow(Access::Operator, Scope::AdminTokensRead)
            .pages::<admin_tokens::AdminToken, PageQuery>();
    /// For ever, and on every node before this answers `effective`.
    REVOKE_ADMIN_TOKEN: "Revoke an admin token" =
        entry(
            "revokeAdminToken",
            Method::Post,
            "/v1/admin-tokens/{adminTokenId}/revoke",
            Tag::AdminTokens,
        )
            .allow(Access::Operator, Scope::AdminTokensWrite)
            .audited(AuditAction::AdminTokenRevoked)
            .answers::<admin_tokens::RevokedAdminToken>()
            .fenced();

    // Nodes
    /// Every process that may decide from memory, oldest first. A node that ended without saying
    /// so stays until it has been silent for twenty seconds or so.
    LIST_NODES: "List nodes" =
        entry("listNodes", Method::Get, "/v1/nodes", Tag::Nodes)
            .allow(Access::Operator, Scope::NodesRead)
            .answers::<nodes::Nodes>();
    /// How far a change has reached by now, as far as the node that is asked can tell. One that
    /// started after the change was made waits one lease before it says `effective`.
    GET_CHANGE: "Ask how far a change has reached" =
        entry("getChange", Method::Get, "/v1/changes/{epoch}", Tag::Nodes)
            .allow(Access::Operator, Scope::NodesRead)
            .answers::<fence::Fence>();
    /// As for the operator, for a change of this tenant.
    GET_TENANT_CHANGE: "Ask how far a change of a tenant has reached" =
        entry("getTenantChange", Method::Get, "/v1/tenants/{tenantId}/changes/{epoch}", Tag::Nodes)
            .allow(Access::Tenant, Scope::KeysRead)
            .answers::<fence::Fence>();

    // Backup and restore
    /// What every changed key, membership, tenant and admin token may still do, in the order of
    /// the changes. Keep it apart from the backups: a restore takes away again what it names.
    EXPORT_REVOCATIONS: "Export the log of lowered authority" =
        entry("exportRevocations", Method::Get, "/v1/revocations", Tag::Restore)
            .allow(Access::Operator, Scope::RevocationsRead)
            .filters::<revocations::RevocationsQuery>()
            .answers::<revocations::RevocationPage>();

    // The caller and this API
    /// What the credential is and what it may do now.
    WHOAMI: "Show who is calling" =
        entry("whoami", Method::Get, "/v1/whoami", Tag::Meta)
            .authenticated()
            .answers::<whoami::Whoami>();
    /// The OpenAPI 3.1 document of this API.
    GET_OPENAPI: "Get this document" =
        entry("getOpenapi", Method::Get, "/v1/openapi.json", Tag::Meta);
    /// Uses up a setup link. Answers with an admin token, shown once.
    COMPLETE_SETUP: "Set up the first administrator" =
        entry("completeSetup", Method::Post, "/v1/setup", Tag::Meta)
            .audited(AuditAction::AdministratorCreated)
            .reads::<setup::CompleteSetup>()
            .creates::<setup::CompletedSetup>()
            .also(&[ErrorCode::Gone]);

    // Verify
    /// The decision of the gateway for any proxy and any code. The status is 200 whatever the
    /// answer; a key of a tenant the caller may not see is `invalid_api_key`. Served on the
    /// internal listener.
    VERIFY_KEY: "Verify a presented key" =
        entry("verifyKey", Method::Post, "/v1/verify", Tag::Verify)
            .internal()
            .allow(Access::Operator, Scope::Verify)
            .reads::<verify::VerifyRequest<'static>>()
            .answers::<verify::VerifyResponse<'static>>();
}
