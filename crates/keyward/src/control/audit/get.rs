//! Get an audit event.

use keyward_api::audit::AuditEvent;
use keyward_core::id::AuditEventId;
use keyward_core::{Error, Result};

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let id: AuditEventId = ctx.parameter("auditEventId", "audit event")?;
    let mut tx = ctx.read().await?;
    let event = tx.find_audit_event(id).await?.ok_or_else(|| Error::not_found("audit event"))?;
    Answer::json(&AuditEvent::new(&event, Some(tx.tenant())))
}
