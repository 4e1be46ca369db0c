//! Verify: may the bearer of this key make this call?

use std::borrow::Cow;

use keyward_core::decision::{Outcome, Step};
use keyward_core::environment::Environment;
use keyward_core::id::{KeyId, TenantId};
use keyward_core::json::{push_number, push_optional, push_text, push_word};
use keyward_core::key::{Exposure, RateLimit};
use keyward_core::{Result, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::bounds::{self, Bounded};
use crate::schema;

/// Bytes that hold nearly every answer.
const USUAL_ANSWER_BYTES: usize = 768;

/// The `code` of a valid key; any other is the code of an error.
pub const VALID: &str = "valid";

/// Asks about a presented key. It borrows from the body, where the key stands anyway, and has no
/// formatter.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"key": "acme_live_…", "method": "GET", "path": "/v1/reports"}))]
pub struct VerifyRequest<'a> {
    /// The whole token as it was presented.
    #[serde(borrow)]
    #[schema(value_type = crate::secret::PastedSecret)]
    pub key: Cow<'a, str>,
    /// The method of the call; needs `path`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::HttpMethod>)]
    pub method: Option<Cow<'a, str>>,
    /// The path of the call; needs `method`. Without them the route is not checked.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Path>)]
    pub path: Option<Cow<'a, str>>,
    /// Scopes the call needs, all of them, besides those of its route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::ScopeName>, max_items = 64)]
    pub scopes: Vec<Cow<'a, str>>,
    /// The environment that is served where the call arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Environment>)]
    pub environment: Option<Environment>,
    /// The tenant the call is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TenantId>)]
    pub tenant_id: Option<TenantId>,
    /// The same as a call's own header names it, by id or short name.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::HeaderValue>)]
    pub tenant: Option<Cow<'a, str>>,
    /// The address of the caller.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::IpAddress>)]
    pub ip: Option<Cow<'a, str>>,
    /// How the key got where others may have seen it, if it did. The call is refused, and a key
    /// whose secret is right is marked as exposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Exposure>)]
    pub exposure: Option<Exposure>,
    /// How many requests the call counts for; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Cost>)]
    pub cost: Option<u32>,
    /// Whether to answer with the trace of checks, and with the words for a refusal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub explain: bool,
}

impl Bounded for VerifyRequest<'_> {
    fn check(&self) -> Result<()> {
        bounds::bytes("key", &self.key, bounds::MAX_SECRET_BYTES)?;
        bounds::optional(self.method.as_deref(), |method| {
            bounds::bytes("method", method, bounds::MAX_METHOD_BYTES)
        })?;
        bounds::optional(self.path.as_deref(), |path| {
            bounds::bytes("path", path, bounds::MAX_PATH_BYTES)
        })?;
        if self.method.is_some() != self.path.is_some() {
            let missing = if self.path.is_some() { "method" } else { "path" };
            let text = "method and path belong together; send both or neither";
            return Err(keyward_core::Error::validation(missing, text));
        }
        bounds::count("scopes", self.scopes.len(), 0, bounds::MAX_SCOPES)?;
        let scope_bytes = bounds::MAX_SCOPE_BYTES;
        self.scopes.iter().try_for_each(|scope| bounds::bytes("scopes", scope, scope_bytes))?;
        bounds::optional(self.tenant.as_deref(), |tenant| {
            bounds::bytes("tenant", tenant, bounds::MAX_HEADER_VALUE_BYTES)
        })?;
        bounds::optional(self.ip.as_deref(), |ip| bounds::bytes("ip", ip, bounds::MAX_IP_BYTES))?;
        bounds::optional(self.cost.as_ref(), |cost| {
            bounds::number("cost", *cost, 1, bounds::MAX_COST)
        })
    }
}

/// The answer about a presented key. The status is always 200; facts of the key are present when
/// its secret was right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifyResponse<'a> {
    /// Whether the call may be made.
    pub valid: bool,
    /// `valid`, or the code of the error to answer with.
    #[serde(borrow)]
    pub code: Cow<'a, str>,
    /// The key.
    #[schema(required, value_type = Option<schema::KeyId>)]
    pub key_id: Option<KeyId>,
    /// The name of the key.
    #[schema(required)]
    pub name: Option<Cow<'a, str>>,
    /// The tenant of the key.
    #[schema(required, value_type = Option<schema::TenantId>)]
    pub tenant_id: Option<TenantId>,
    /// Where the key is valid.
    #[schema(required, value_type = Option<schema::Environment>)]
    pub environment: Option<Environment>,
    /// The scopes of the key.
    #[schema(value_type = Vec<schema::ScopeName>)]
    pub scopes: Vec<Cow<'a, str>>,
    /// The role of the key's owner.
    #[schema(required)]
    pub role: Option<Cow<'a, str>>,
    /// The key's owner, as the audit trail names them.
    #[schema(required)]
    pub actor: Option<Cow<'a, str>>,
    /// When the key stops by itself.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub expires_at: Option<Timestamp>,
    /// Whether the key waits to be confirmed after a restore; absent when it does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
    /// The rate limits that were counted, the tightest first.
    pub rate_limits: Vec<RateLimitState>,
    /// The quota that was counted.
    #[schema(required)]
    pub quota: Option<QuotaState>,
    /// The check that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Cow<'a, str>>,
    /// Every check in its fixed order, when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Vec<TraceStep>>,
    /// What to tell the caller of a refused call, when the trace was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// The newest change of authority that was known.
    pub epoch: u64,
}

impl VerifyResponse<'_> {
    /// What serde would write, in a quarter of the time: this is done for every question.
    ///
    /// # Errors
    /// None in practice; those of the parts that few answers have.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(USUAL_ANSWER_BYTES);
        out.extend_from_slice(br#"{"valid":"#);
        out.extend_from_slice(if self.valid { b"true" } else { b"false" });
        push_text(&mut out, br#","code":"#, &self.code);
        let key_id = self.key_id.map(KeyId::text);
        push_word(&mut out, br#","keyId":"#, key_id.as_ref().map(<[u8; _]>::as_slice));
        push_optional(&mut out, br#","name":"#, self.name.as_deref());
        let tenant_id = self.tenant_id.map(TenantId::text);
        push_word(&mut out, br#","tenantId":"#, tenant_id.as_ref().map(<[u8; _]>::as_slice));
        let environment = self.environment.map(|it| it.as_str().as_bytes());
        push_word(&mut out, br#","environment":"#, environment);
        out.extend_from_slice(br#","scopes":["#);
        for (position, scope) in self.scopes.iter().enumerate() {
            push_text(&mut out, if position == 0 { b"" } else { b"," }, scope);
        }
        push_optional(&mut out, br#"],"role":"#, self.role.as_deref());
        push_optional(&mut out, br#","actor":"#, self.actor.as_deref());
        let expires_at = self.expires_at.map(Timestamp::text);
        push_word(&mut out, br#","expiresAt":"#, expires_at.as_ref().map(<[u8; _]>::as_slice));
        if self.suspect {
            out.extend_from_slice(br#","suspect":true"#);
        }
        if self.rate_limits.is_empty() && self.quota.is_none() {
            out.extend_from_slice(br#","rateLimits":[],"quota":null"#);
        } else {
            out.extend_from_slice(br#","rateLimits":"#);
            serde_json::to_writer(&mut out, &self.rate_limits)?;
            out.extend_from_slice(br#","quota":"#);
            serde_json::to_writer(&mut out, &self.quota)?;
        }
        if let Some(failed) = &self.failed {
            push_text(&mut out, br#","failed":"#, failed);
        }
        if let Some(trace) = &self.trace {
            out.extend_from_slice(br#","trace":"#);
            serde_json::to_writer(&mut out, trace)?;
        }
        if let Some(refusal) = &self.refusal {
            out.extend_from_slice(br#","refusal":"#);
            serde_json::to_writer(&mut out, refusal)?;
        }
        push_number(&mut out, br#","epoch":"#, self.epoch);
        out.push(b'}');
        Ok(out)
    }
}

/// What the gateway would have told a refused caller, besides the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// What is wrong and what to do about it, for people.
    pub message: String,
    /// Particulars, such as `requiredScopes`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = schema::RefusalDetails)]
    pub details: Map<String, Value>,
}

/// Where a rate limit stands after the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitState {
    /// What it belongs to: `key`, `lineage`, `tenant` or `route`.
    pub name: String,
    /// The limit.
    #[serde(flatten)]
    #[schema(value_type = schema::RateLimit)]
    pub limit: RateLimit,
    /// Requests left in the window.
    pub remaining: u32,
    /// Seconds until the window begins anew.
    pub reset_seconds: u32,
}

/// Where a quota stands after the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaState {
    /// Requests in a period.
    pub limit: u64,
    /// Requests used.
    pub used: u64,
    /// When the period ends.
    #[schema(value_type = schema::Instant)]
    pub resets_at: Timestamp,
}

/// One check of a decision and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceStep {
    /// The check.
    pub check: Cow<'static, str>,
    /// How it ended: `passed`, `failed` or `skipped`.
    pub outcome: Cow<'static, str>,
}

impl TraceStep {
    /// A step of the decision as callers see it.
    pub const fn new(step: Step, outcome: Outcome) -> Self {
        Self { check: Cow::Borrowed(step.as_str()), outcome: Cow::Borrowed(outcome.as_str()) }
    }
}

#[cfg(test)]
mod tests {
    use keyward_core::environment::Environment;

    use super::*;

    /// An answer in which the parts are present that the bits say.
    fn answer(bits: u32) -> VerifyResponse<'static> {
        let has = |bit: u32| bits & (1 << bit) != 0;
        let limit = RateLimitState {
            name: "key".to_owned(),
            limit: RateLimit { limit: 10, window_seconds: 60, burst: None },
            remaining: 3,
            reset_seconds: 12,
        };
        let details = Map::from_iter([("requiredScopes".to_owned(), serde_json::json!([["a"]]))]);
        VerifyResponse {
            valid: has(0),
            code: Cow::Borrowed(if has(0) { VALID } else { "expired_api_key" }),
            key_id: has(1).then(|| KeyId::from_bits(7)),
            name: has(1)
                .then(|| Cow::Borrowed(if has(2) { "a \"key\"\n\u{1}é" } else { "plain" })),
            tenant_id: has(1).then(|| TenantId::from_bits(9)),
            environment: has(1).then_some(Environment::Live),
            scopes: ["a:read", "b:\\"]
                .map(Cow::Borrowed)
                .into_iter()
                .skip(usize::from(has(3)))
                .collect(),
            role: has(4).then_some(Cow::Borrowed("owner")),
            actor: has(4).then_some(Cow::Borrowed("usr_1")),
            expires_at: has(5).then(|| Timestamp::from_millis(1_764_000_000_123)),
            suspect: has(6),
            rate_limits: if has(7) { vec![limit.clone(), limit] } else { Vec::new() },
            quota: has(7).then(|| QuotaState {
                limit: 5,
                used: 2,
                resets_at: Timestamp::from_millis(1_764_000_000_000),
            }),
            failed: has(8).then_some(Cow::Borrowed("expiry")),
            trace: has(8).then(|| vec![TraceStep::new(Step::Scope, Outcome::Passed)]),
            refusal: has(9).then(|| Refusal { message: "no".to_owned(), details }),
            epoch: u64::from(bits) << 40,
        }
    }

    #[test]
    fn answers_are_written_as_serde_would() {
        for bits in 0..1 << 10 {
            let answer = answer(bits);
            let written = String::from_utf8(answer.to_json().unwrap()).unwrap();
            assert_eq!(written, serde_json::to_string(&answer).unwrap());
        }
    }

    #[test]
    fn a_plain_body_is_borrowed_and_an_escaped_one_still_read() {
        let plain: VerifyRequest<'_> = serde_json::from_str(r#"{"key":"acme_live_1"}"#).unwrap();
        assert!(matches!(plain.key, Cow::Borrowed("acme_live_1")));
        let escaped: VerifyRequest<'_> = serde_json::from_str(r#"{"key":"\u0061cme"}"#).unwrap();
        assert_eq!(escaped.key, "acme");
        assert!(plain.check().is_ok());
    }

    #[test]
    fn method_and_path_go_together() {
        let lone: VerifyRequest<'_> = serde_json::from_str(r#"{"key":"k","path":"/v1"}"#).unwrap();
        assert!(lone.check().is_err());
    }
}
