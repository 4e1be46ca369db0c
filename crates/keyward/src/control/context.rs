//! What every handler gets: who calls, what for, and the one way to change anything.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use keyward_api::Operation;
use keyward_api::audit::AuditAction;
use keyward_api::fence::Fence;
use keyward_core::audit::{AuditEntry, AuditOutcome, Origin};
use keyward_core::id::TenantId;
use keyward_core::key::Keyring;
use keyward_core::{Catalog, Clock, Error, ErrorCode, Result, Timestamp};
use keyward_gateway::DataPlane;
use keyward_gateway::authority::Follower;
use keyward_store::{
    Author, Chain, Claim, Committed, Idempotency, Store, SystemTx, TenantTx, Transaction, WriteTx,
};
use serde_json::Value;

use super::answer::Answer;
use super::caller::Caller;
use crate::product::Product;

/// What the control plane works with.
pub(crate) struct ControlState {
    /// Where state lives.
    pub(crate) store: Store,
    /// The product this deployment serves.
    pub(crate) product: Arc<Product>,
    /// The secrets behind keys and admin tokens.
    pub(crate) keyring: Arc<Keyring>,
    /// The data plane of this node: admin tokens, and the use of keys that is not stored yet.
    pub(crate) plane: Arc<DataPlane>,
    /// Who keeps this node's memory true and knows how far changes have reached.
    pub(crate) follower: Arc<Follower>,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// The largest body accepted, in bytes.
    pub(crate) max_body: usize,
}

/// One call of one operation.
pub(crate) struct Ctx {
    pub(super) state: Arc<ControlState>,
    pub(super) caller: Caller,
    pub(super) operation: &'static Operation,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) origin: Origin,
    pub(super) idempotency: Option<Idempotency>,
    /// How long the caller waits for every node.
    pub(super) patience: Duration,
}

impl Ctx {
    /// Who is calling.
    pub(crate) const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The product's scopes, roles and routes.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.state.product.catalog
    }

    /// What the control plane works with.
    pub(crate) fn state(&self) -> &ControlState {
        &self.state
    }

    /// The clock.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.state.clock
    }

    /// The instant of the call.
    pub(crate) fn now(&self) -> Timestamp {
        self.state.clock.now()
    }

    /// An id from the path. One that is not well-formed names nothing, so it is not found.
    pub(crate) fn parameter<T: FromStr>(&self, name: &str, what: &'static str) -> Result<T> {
        let text = self.parameters.get(name).map(String::as_str).unwrap_or_default();
        text.parse().map_err(|_| Error::not_found(what))
    }

    /// The tenant in the path.
    pub(crate) fn tenant(&self) -> Result<TenantId> {
        self.parameter("tenantId", "tenant")
    }

    /// Reads rows of the tenant in the path; not found when there is no such tenant.
    pub(crate) async fn read(&self) -> Result<TenantTx> {
        let mut tx = self.state.store.read(self.tenant()?).await?;
        tx.find_tenant().await?.ok_or_else(|| Error::not_found("tenant"))?;
        Ok(tx)
    }

    /// Reads over tenants.
    pub(crate) async fn read_system(&self, reason: &'static str) -> Result<SystemTx> {
        Ok(self.state.store.read_system(reason).await?)
    }

    /// Begins the change of the operation on the tenant in the path.
    pub(crate) async fn write(&self) -> Result<WriteTx<TenantTx>> {
        let mut tx = self.state.store.write(self.tenant()?, self.author()).await?;
        tx.wait_at_most(self.patience);
        tx.find_tenant().await?.ok_or_else(|| Error::not_found("tenant"))?;
        Ok(tx)
    }

    /// Begins a change that needs rows of no tenant or of several.
    pub(crate) async fn write_system(
        &self,
        reason: &'static str,
        chain: Chain,
    ) -> Result<WriteTx<SystemTx>> {
        let mut tx = self.state.store.write_system(reason, chain, self.author()).await?;
        tx.wait_at_most(self.patience);
        if let Chain::Tenant(id) = chain {
            tx.find_tenant(id).await?.ok_or_else(|| Error::not_found("tenant"))?;
        }
        Ok(tx)
    }

    /// Takes the request's idempotency key, if it has one. An answer means that the work was done
    /// before and must not run again.
    pub(crate) async fn claim<T: Transaction>(
        &self,
        tx: &mut WriteTx<T>,
    ) -> Result<Option<Answer>> {
        let Some(idempotency) = self.idempotency.clone() else { return Ok(None) };
        match tx.claim(idempotency).await {
            Ok(Claim::Fresh) => Ok(None),
            Ok(Claim::Replay(body)) => Ok(Some(Answer::replay(body))),
            Ok(Claim::Reused) => Err(Error::new(
                ErrorCode::IdempotencyKeyReused,
                "This Idempotency-Key was used for another request; use a new key",
            )),
            Err(keyward_store::StoreError::Busy(text)) => Err(Error::new(
                ErrorCode::IdempotencyInProgress,
                "The first request with this Idempotency-Key still runs; try again shortly",
            )
            .because(text)),
            Err(error) => Err(error.into()),
        }
    }

    /// The one audit event of the operation.
    pub(crate) fn audit(&self, target: &dyn std::fmt::Display, details: Value) -> AuditEntry {
        let action = self.operation.audit.map_or("-", AuditAction::as_str);
        let target_kind = self.operation.audit.map_or("-", AuditAction::target_kind);
        AuditEntry {
            action,
            target_kind,
            target_id: target.to_string(),
            outcome: AuditOutcome::Succeeded,
            details,
        }
    }

    /// What a fenced write reports.
    pub(crate) fn fence<V>(
        &self,
        committed: &Committed<V>,
        revoked_at: Option<Timestamp>,
    ) -> Fence {
        let poll = self.parameters.get("tenantId").map_or_else(
            || format!("/v1/changes/{}", committed.epoch),
            |tenant| format!("/v1/tenants/{tenant}/changes/{}", committed.epoch),
        );
        let reach = committed.reach;
        Fence {
            revoked_at,
            waited_ms: committed.waited_ms,
            ..Fence::of(committed.epoch.0, &reach, committed.at, &poll)
        }
    }

    /// The answer kept for a repeated request, with what is true by now of the wait that the first
    /// caller may not have waited for. While it propagates the request is to be repeated.
    pub(crate) async fn replay_fenced(&self, kept: Answer) -> Result<Answer> {
        let started_ns = self.clock().monotonic_ns();
        let reach = self.state.follower.fence_all(self.patience).await.map_err(|error| {
            let text = "How far the change has reached cannot be told just now; try again";
            Error::new(ErrorCode::Unavailable, text).because(error.to_string())
        })?;
        let waited_ms = self.clock().monotonic_ns().saturating_sub(started_ns) / 1_000_000;
        kept.fenced_anew(|revoked_at| Fence {
            revoked_at,
            waited_ms,
            poll: None,
            ..Fence::of(0, &reach, self.now(), "")
        })
    }

    fn author(&self) -> Author {
        Author { actor: self.caller.actor(), origin: self.origin.clone() }
    }
}
