//! Tenants.

use keyward_core::Timestamp;
use keyward_core::id::TenantId;

use crate::engine::{Row, StoreError, Value};
use crate::sql::read::{instant, opt_instant, parsed};
use crate::sql::statements;
use crate::tx::{SystemTx, TenantTx};

macro_rules! columns {
    () => {
        "tenant_id, slug, name, created_at, suspended_at, suspend_reason"
    };
}

statements! {
    INSERT = tenant "INSERT INTO tenants (tenant_id, slug, name, created_at)
         VALUES ($1, $2, $3, $4)";
    FIND = tenant concat!("SELECT ", columns!(), " FROM tenants WHERE tenant_id = $1");
    SUSPEND = tenant
        "UPDATE tenants SET suspended_at = $2, suspend_reason = $3 WHERE tenant_id = $1";
    FIND_BY_SLUG = system concat!("SELECT ", columns!(), " FROM tenants WHERE slug = $1");
    PAGE = system concat!("SELECT ", columns!(), " FROM tenants
         WHERE (CAST($1 AS TEXT) IS NULL OR tenant_id < $1) ORDER BY tenant_id DESC LIMIT $2");
}

/// A tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its short name, unique in the deployment.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it is suspended.
    pub suspended_at: Option<Timestamp>,
    /// Why it is suspended.
    pub suspend_reason: Option<String>,
}

fn tenant_of(row: &Row) -> Result<Tenant, StoreError> {
    Ok(Tenant {
        id: parsed(row, 0)?,
        slug: row.text(1)?.to_owned(),
        name: row.text(2)?.to_owned(),
        created_at: instant(row, 3)?,
        suspended_at: opt_instant(row, 4)?,
        suspend_reason: row.opt_text(5)?.map(str::to_owned),
    })
}

impl TenantTx {
    /// The tenant itself.
    pub async fn find_tenant(&mut self) -> Result<Option<Tenant>, StoreError> {
        self.query_opt(&FIND, []).await?.as_ref().map(tenant_of).transpose()
    }

    /// Suspends the tenant, or resumes it with `None`.
    pub async fn set_suspended(
        &mut self,
        since: Option<Timestamp>,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let values = [Value::from(since.map(Timestamp::as_millis)), Value::from(reason)];
        self.execute(&SUSPEND, values).await.map(drop)
    }
}

impl SystemTx {
    /// Adds a tenant. A slug that is taken is [`StoreError::UniqueViolation`].
    pub async fn insert_tenant(&mut self, tenant: &Tenant) -> Result<(), StoreError> {
        let values = [
            Value::from(tenant.id.to_string()),
            Value::from(tenant.slug.as_str()),
            Value::from(tenant.name.as_str()),
            Value::from(tenant.created_at.as_millis()),
        ];
        self.execute(&INSERT, values).await.map(drop)
    }

    /// The tenant with this id.
    pub async fn find_tenant(&mut self, id: TenantId) -> Result<Option<Tenant>, StoreError> {
        let row = self.query_opt(&FIND, [Value::from(id.to_string())]).await?;
        row.as_ref().map(tenant_of).transpose()
    }

    /// The tenant with this slug.
    pub async fn find_tenant_by_slug(&mut self, slug: &str) -> Result<Option<Tenant>, StoreError> {
        let row = self.query_opt(&FIND_BY_SLUG, [Value::from(slug)]).await?;
        row.as_ref().map(tenant_of).transpose()
    }

    /// A page of all tenants, newest first.
    pub async fn tenants(
        &mut self,
        before: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<Tenant>, StoreError> {
        let values = [Value::from(before.map(|id| id.to_string())), Value::from(limit)];
        self.query(&PAGE, values).await?.iter().map(tenant_of).collect()
    }
}
