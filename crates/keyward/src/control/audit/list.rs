//! List audit events, newest first.

use keyward_api::audit::{self, AuditAction, AuditEvent, ListAuditEventsQuery};
use keyward_api::page::Page;
use keyward_core::audit::AuditOutcome;
use keyward_core::{Error, Result};
use keyward_store::{AuditFilter, TenantTx};

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::{Query, hint};
use crate::control::paging;

pub(super) async fn handle(ctx: Ctx, Query(query): Query<ListAuditEventsQuery>) -> Result<Answer> {
    Answer::json(&page(ctx.read().await?, &query).await?)
}

/// A page of the tenant's audit trail; the place in the chain is the cursor.
pub(crate) async fn page(
    mut tx: TenantTx,
    query: &ListAuditEventsQuery,
) -> Result<Page<AuditEvent>> {
    let page = query.page()?;
    let filter = AuditFilter {
        before: paging::begin(&page, |text| text.parse().ok())?,
        actor: query.actor_id.clone(),
        action: query.action.as_deref().map(action).transpose()?,
        target: query.target_id.clone(),
        outcome: query.outcome.map(outcome),
        from: query.from,
        to: query.to,
        key: query.key_id,
        limit: page.limit + 1,
    };
    let tenant = tx.tenant();
    let events = tx.audit_events(&filter).await?;
    let cursor = |event: &keyward_core::audit::AuditEvent| event.sequence.to_string();
    Ok(paging::end(events, &page, cursor, |event| AuditEvent::new(event, Some(tenant))))
}

/// A known action: a misspelt one would look like an empty trail.
fn action(text: &str) -> Result<String> {
    text.parse::<AuditAction>().map(|action| action.to_string()).map_err(|e| {
        let hint = hint(text, AuditAction::ALL.iter().map(|action| action.as_str()));
        Error::validation("action", format!("{text:?} is {e}{hint}"))
    })
}

const fn outcome(outcome: audit::AuditOutcome) -> AuditOutcome {
    match outcome {
        audit::AuditOutcome::Succeeded => AuditOutcome::Succeeded,
        audit::AuditOutcome::Denied => AuditOutcome::Denied,
    }
}
