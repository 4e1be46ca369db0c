//! The demo tenants of a profile, made through the same writes as any other.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyward_core::audit::{AuditEntry, AuditOutcome};
use keyward_core::authority::Invalidation;
use keyward_core::id::{KeyId, TenantId, UserId};
use keyward_core::ip::IpAllowlist;
use keyward_core::key::{ApiKey, KeyHint, KeySecret, Keyring, SecretKind};
use keyward_core::profile::{DemoMember, DemoTenant, MemberKind};
use keyward_core::time::DAY_MS;
use keyward_core::{Clock, Environment};
use keyward_store::{Author, Chain, Change, Store, Tenant, User, UserKind};
use serde_json::json;

use crate::bootstrap;
use crate::product::Product;

/// The most members of a demo tenant that are looked through for its owner.
const MAX_MEMBERS: u32 = 200;
/// Who makes the demo tenants, as the audit trail names them.
const AUTHOR: &str = "keyward dev";
/// Days a demo key lives.
const DEMO_DAYS: i64 = 30;

/// A demo tenant with a key for each environment.
pub(crate) struct SeededTenant {
    /// Its id.
    pub(crate) id: TenantId,
    /// Its short name.
    pub(crate) slug: String,
    /// A key with every scope of the product, by environment.
    pub(crate) keys: BTreeMap<Environment, KeySecret>,
}

/// Makes demo tenants and their credentials.
pub(crate) struct Seeder {
    pub(crate) store: Store,
    pub(crate) product: Arc<Product>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Seeder {
    /// Makes the demo tenants that are not there yet, and new keys for all of them.
    pub(crate) async fn tenants(&self) -> keyward_core::Result<Vec<SeededTenant>> {
        let mut seeded = Vec::new();
        for demo in &self.product.profile.demo.tenants {
            let (id, owner) = self.tenant(demo).await?;
            let mut keys = BTreeMap::new();
            for environment in self.product.profile.keys.environments.keys() {
                keys.insert(*environment, self.key(id, owner, *environment).await?);
            }
            seeded.push(SeededTenant { id, slug: demo.slug.clone(), keys });
        }
        Ok(seeded)
    }

    /// Makes an admin token of the operator with every scope.
    pub(crate) async fn admin_token(&self) -> keyward_core::Result<KeySecret> {
        let Self { store, keyring, clock, .. } = self;
        bootstrap::operator_token(store, keyring, author(), AUTHOR, &**clock).await
    }

    /// The tenant and its first member, who owns the demo keys.
    async fn tenant(&self, demo: &DemoTenant) -> keyward_core::Result<(TenantId, UserId)> {
        let mut tx = self.store.read_system("look for a demo tenant").await?;
        if let Some(known) = tx.find_tenant_by_slug(&demo.slug).await? {
            drop(tx);
            let newest = self.store.read(known.id).await?.members(None, None, MAX_MEMBERS).await?;
            let oldest = newest.iter().rev().find(|member| member.offboarded_at.is_none());
            if let Some(first) = oldest {
                return Ok((known.id, first.user));
            }
            let text = format!("the demo tenant {} has no member", demo.slug);
            return Err(keyward_core::Error::conflict(text));
        }
        drop(tx);
        let id = TenantId::generate(&*self.clock);
        let mut tx =
            self.store.write_system("make a demo tenant", Chain::Tenant(id), author()).await?;
        let tenant = Tenant {
            id,
            slug: demo.slug.clone(),
            name: demo.name.clone(),
            created_at: tx.at(),
            suspended_at: None,
            suspend_reason: None,
        };
        tx.insert_tenant(&tenant).await?;
        let entry = entry("tenant.created", "tenant", &id.to_string());
        tx.finish(Change::new((), entry).introducing(Invalidation::Tenant(id))).await?;
        let mut owner = None;
        for member in &demo.members {
            let user = self.member(id, member).await?;
            owner.get_or_insert(user);
        }
        let text = format!("profile: demo tenant {} has no members", demo.slug);
        let owner = owner.ok_or_else(|| keyward_core::Error::validation("demo.tenants", text))?;
        Ok((id, owner))
    }

    async fn member(&self, tenant: TenantId, demo: &DemoMember) -> keyward_core::Result<UserId> {
        let chain = Chain::Tenant(tenant);
        let mut tx = self.store.write_system("add a demo member", chain, author()).await?;
        let known = match &demo.email {
            Some(email) => tx.find_user_by_email(email).await?,
            None => None,
        };
        let user = if let Some(user) = known {
            user.id
        } else {
            let kind = match demo.kind {
                MemberKind::Person => UserKind::Person,
                MemberKind::Service => UserKind::Service,
            };
            let id = UserId::generate(&*self.clock);
            let (email, name, created_at) = (demo.email.clone(), demo.name.clone(), tx.at());
            let user = User { id, kind, email, name, administrator: false, created_at };
            tx.insert_user(&user, None).await?;
            id
        };
        let at = tx.at();
        tx.insert_member(tenant, user, &demo.role, at).await?;
        let entry = entry("member.added", "member", &user.to_string());
        tx.finish(Change::new((), entry).introducing(Invalidation::Member(tenant, user))).await?;
        Ok(user)
    }

    async fn key(
        &self,
        tenant: TenantId,
        owner: UserId,
        environment: Environment,
    ) -> keyward_core::Result<KeySecret> {
        let minted = self.keyring.mint(SecretKind::Api(environment), &*self.clock);
        let id = KeyId::from_bits(minted.id_bits);
        let mut tx = self.store.write(tenant, author()).await?;
        let now = tx.at();
        let scopes = self.product.catalog.scopes().iter().map(|s| s.name.to_string()).collect();
        let key = ApiKey {
            tenant,
            id,
            environment,
            name: format!("demo-{environment}"),
            description: "Made by keyward dev".to_owned(),
            hint: hint(minted.hint)?,
            scopes,
            owner,
            created_by: author().actor.name,
            created_at: now,
            expires_at: Some(now.plus_ms(DEMO_DAYS * DAY_MS)),
            revoked_at: None,
            revoke_reason: None,
            suspect_since: None,
            exposed: None,
            ip_allowlist: IpAllowlist::default(),
            rate_limit: None,
            lineage: id,
            rotated_from: None,
            replaced_by: None,
            deleted_at: None,
            last_used_at: None,
            last_used_ip: None,
            last_used_agent: None,
        };
        tx.insert_key(&key, &minted.hash, minted.pepper_version).await?;
        let entry = entry("api_key.created", "api_key", &id.to_string());
        tx.finish(Change::new((), entry).introducing(Invalidation::Key(tenant, id))).await?;
        Ok(minted.secret)
    }
}

fn author() -> Author {
    bootstrap::system(AUTHOR)
}

fn entry(action: &'static str, target_kind: &'static str, target_id: &str) -> AuditEntry {
    AuditEntry {
        action,
        target_kind,
        target_id: target_id.to_owned(),
        outcome: AuditOutcome::Succeeded,
        details: json!({ "seeded": true }),
    }
}

fn hint(bytes: [u8; 4]) -> keyward_core::Result<KeyHint> {
    KeyHint::new(bytes).ok_or_else(|| keyward_core::Error::internal("a hint with signs"))
}
