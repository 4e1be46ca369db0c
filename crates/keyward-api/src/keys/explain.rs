//! Whose key is this, and what would happen if it were used so?

use keyward_core::environment::Environment;
use keyward_core::{Result, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Key;
use crate::bounds::{self, Bounded};
use crate::schema;
use crate::secret::PastedSecret;
use crate::verify::TraceStep;

/// Asks whose key a secret is. The secret is compared, not kept and not logged.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentifyKey {
    /// The whole token.
    pub secret: PastedSecret,
}

impl Bounded for IdentifyKey {
    fn check(&self) -> Result<()> {
        bounds::bytes("secret", self.secret.expose(), bounds::MAX_SECRET_BYTES)
    }
}

/// The key a secret belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentifiedKey {
    /// The record.
    pub key: Key,
    /// The slug of its tenant.
    #[schema(value_type = schema::Slug)]
    pub tenant_slug: String,
    /// The name of its owner.
    #[schema(value_type = schema::Name)]
    pub owner_name: String,
}

/// A call to try in thought. What is not named is taken as the key would need it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"method": "POST", "path": "/v1/reports/build", "ip": "203.0.113.9"}))]
pub struct ExplainKey {
    /// The method of the call.
    #[schema(value_type = schema::HttpMethod)]
    pub method: String,
    /// The path of the call.
    #[schema(value_type = schema::Path)]
    pub path: String,
    /// The address it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::IpAddress>)]
    pub ip: Option<String>,
    /// The value of the product's tenant header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::HeaderValue>)]
    pub tenant_header: Option<String>,
    /// The `Origin` header a browser would send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::HeaderValue>)]
    pub browser_origin: Option<String>,
    /// The environment that is served where the call arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Environment>)]
    pub environment: Option<Environment>,
    /// When the call arrives; now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Instant>)]
    pub at: Option<Timestamp>,
}

impl Bounded for ExplainKey {
    fn check(&self) -> Result<()> {
        bounds::bytes("method", &self.method, bounds::MAX_METHOD_BYTES)?;
        bounds::bytes("path", &self.path, bounds::MAX_PATH_BYTES)?;
        bounds::optional(self.ip.as_deref(), |ip| bounds::bytes("ip", ip, bounds::MAX_IP_BYTES))?;
        let header = bounds::MAX_HEADER_VALUE_BYTES;
        bounds::optional(self.tenant_header.as_deref(), |value| {
            bounds::text("tenantHeader", value, header)
        })?;
        bounds::optional(self.browser_origin.as_deref(), |value| {
            bounds::text("browserOrigin", value, header)
        })
    }
}

/// What would happen to the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whether it would be forwarded.
    pub allowed: bool,
    /// The error code it would be refused with.
    #[schema(required)]
    pub code: Option<String>,
    /// The text it would be refused with.
    #[schema(required)]
    pub message: Option<String>,
    /// The check that would fail.
    #[schema(required)]
    pub failed: Option<String>,
    /// Since when the key waits to be confirmed after a restore.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub suspect_since: Option<Timestamp>,
    /// The route the call meets, such as `POST /v1/reports/build`.
    #[schema(required)]
    pub route: Option<String>,
    /// Scopes that would be accepted: any one list of them.
    #[schema(value_type = Vec<Vec<schema::ScopeName>>)]
    pub required_scopes: Vec<Vec<String>>,
    /// The role of the key's owner.
    #[schema(required)]
    pub role: Option<String>,
    /// Every check in its fixed order.
    pub trace: Vec<TraceStep>,
}
