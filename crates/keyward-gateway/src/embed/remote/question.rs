//! What the node is asked about a request, and what its answer means here.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::HOST;
use http::request::Parts;

use keyward_api::verify::{VALID, VerifyRequest, VerifyResponse};
use keyward_core::Caller;
use keyward_core::decision::Step;
use keyward_core::error::{Error, ErrorCode, Result};
use keyward_core::id::RequestId;
use keyward_core::key::Exposure;
use keyward_core::path::Target;

use super::VerifyConfig;
use super::client::NodeError;
use crate::carrier::{self, Carried};
use crate::pipeline::key_in_address;
use crate::proxy::check_headers;

/// A key that came where others may have seen it too.
pub(super) struct ExposedKey<'r> {
    /// How.
    pub(super) by: Exposure,
    /// What looks like the key, when it is one and can be read.
    text: Option<Cow<'r, str>>,
}

impl<'r> ExposedKey<'r> {
    /// The key of a request that came in clear text, or one in its address. A request without a key
    /// learns what any such request learns.
    pub(super) fn of(config: &VerifyConfig, parts: &'r Parts, peer: IpAddr) -> Option<Self> {
        if config.trusted_proxies.came_in_clear_text(peer, &parts.headers) {
            let text = match carrier::credential(&parts.headers, &config.carriers) {
                Carried::Nothing => None,
                Carried::One(text) => Some(Some(Cow::Borrowed(text))),
                Carried::Several | Carried::Unreadable => Some(None),
            };
            if let Some(text) = text {
                return Some(Self { by: Exposure::ClearText, text });
            }
        }
        let found = key_in_address(address(parts), &parts.headers, &config.format)?;
        Some(Self { by: Exposure::Url, text: Some(Cow::Owned(found)) })
    }

    /// What the node is told, if this is a whole key.
    pub(super) fn question(self, config: &VerifyConfig, client: IpAddr) -> Option<Question<'r>> {
        let key = self.text.filter(|text| config.format.parse(text).is_ok())?;
        let asked = asked(config, key, client, Some(self.by));
        Some(Question { asked, tenant_missing: false })
    }
}

/// A request as the node is asked about it.
pub(super) struct Question<'r> {
    asked: VerifyRequest<'r>,
    /// What the node is not told, and what is checked here at its place in the order of checks.
    tenant_missing: bool,
}

impl<'r> Question<'r> {
    /// Reads the request once; what two parsers could read differently is refused.
    pub(super) fn read(config: &VerifyConfig, parts: &'r Parts, client: IpAddr) -> Result<Self> {
        let header = config.tenant_header.as_ref();
        let target = Target::parse(address(parts))?;
        let named = parts.headers.get(HOST).map(http::HeaderValue::as_bytes);
        let differs = |host: &str| named.is_none_or(|it| !it.eq_ignore_ascii_case(host.as_bytes()));
        if parts.uri.authority().is_some_and(|authority| differs(authority.as_str())) {
            let text = "The address names another host than the Host header";
            return Err(Error::new(ErrorCode::InvalidPath, text));
        }
        check_headers(&parts.headers, header)?;
        let key = presented(config, parts)?;
        let tenant = header.and_then(|name| one_value(parts, name));
        let exposure = carrier::is_from_browser(&parts.headers).then_some(Exposure::Browser);
        Ok(Self {
            tenant_missing: header.is_some_and(|name| !parts.headers.contains_key(name)),
            asked: VerifyRequest {
                method: Some(Cow::Borrowed(parts.method.as_str())),
                path: Some(Cow::Borrowed(target.path)),
                tenant,
                ..asked(config, Cow::Borrowed(key), client, exposure)
            },
        })
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.asked).map_err(|error| Error::internal(error.to_string()))
    }

    /// The caller, or the refusal of the first check that failed, here or there.
    pub(super) fn decide(
        &self,
        config: &VerifyConfig,
        answer: &VerifyResponse<'_>,
        request_id: RequestId,
    ) -> Result<Caller> {
        let failed = answer.failed.as_deref().and_then(position);
        let before = |step: Step| {
            let failed = failed.unwrap_or(usize::MAX);
            position(step.as_str()).is_some_and(|position| position < failed)
        };
        let refused = !answer.valid;
        if self.tenant_missing && (!refused || before(Step::Tenant)) {
            let header = config.tenant_header.as_ref().map_or("tenant", |name| name.as_str());
            let text = format!("The {header} header is missing; send the id of the key's tenant");
            let error = Error::new(ErrorCode::TenantMismatch, text);
            let error = error.with("failed", Step::Tenant.as_str());
            return Err(error.with("reason", "tenant_header_missing"));
        }
        if refused || answer.code != VALID {
            return Err(refusal(answer));
        }
        if config.format.parse(&self.asked.key).is_err() {
            return Err(foreign_format());
        }
        caller(answer, request_id)
            .ok_or_else(|| crate::authority::unavailable().because("verify named no caller"))
    }
}

/// The path and query of a request.
fn address(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("", |whole| whole.as_str())
}

/// A question about a key alone.
fn asked<'r>(
    config: &VerifyConfig,
    key: Cow<'r, str>,
    client: IpAddr,
    exposure: Option<Exposure>,
) -> VerifyRequest<'r> {
    VerifyRequest {
        key,
        method: None,
        path: None,
        scopes: Vec::new(),
        environment: config.environment,
        tenant_id: None,
        tenant: None,
        ip: Some(Cow::Owned(client.to_string())),
        exposure,
        cost: None,
        explain: true,
    }
}

/// The key of a request.
fn presented<'r>(config: &VerifyConfig, parts: &'r Parts) -> Result<&'r str> {
    let failed = Step::Credential.as_str();
    let refuse = |code, text: String| Err(Error::new(code, text).with("failed", failed));
    match carrier::credential(&parts.headers, &config.carriers) {
        Carried::One(text) => Ok(text),
        Carried::Nothing => {
            let how = carrier::describe(&config.carriers);
            let text = format!("No API key was sent; send it as {how}");
            refuse(ErrorCode::MissingApiKey, text)
        }
        Carried::Several => {
            let text = "More than one API key was sent; send one".to_owned();
            refuse(ErrorCode::AmbiguousApiKey, text)
        }
        Carried::Unreadable => {
            refuse(ErrorCode::InvalidApiKey, "API key is invalid: it is not text".to_owned())
        }
    }
}

/// The value of a header that stands once; of one that stands twice a text that names nobody.
fn one_value<'r>(parts: &'r Parts, name: &http::HeaderName) -> Option<Cow<'r, str>> {
    let mut values = parts.headers.get_all(name).iter();
    let first = values.next()?;
    let same = values.all(|value| value == first);
    let text = first.to_str().ok().filter(|_| same);
    Some(Cow::Borrowed(text.unwrap_or_default()))
}

fn position(step: &str) -> Option<usize> {
    Step::ALL.iter().position(|known| known.as_str() == step)
}

pub(super) fn read_answer(bytes: &[u8]) -> std::result::Result<VerifyResponse<'_>, NodeError> {
    serde_json::from_slice(bytes).map_err(|_| NodeError::Unreadable)
}

/// The node's refusal in its own words. A code that this version does not know refuses as well.
fn refusal(answer: &VerifyResponse<'_>) -> Error {
    let code = ErrorCode::ALL.iter().find(|code| code.as_str() == answer.code);
    let code = code.copied().unwrap_or(ErrorCode::Forbidden);
    let told = answer.refusal.as_ref();
    let text = told.map_or("The request was refused", |it| it.message.as_str()).to_owned();
    let mut error = Error::new(code, text);
    for (name, value) in told.into_iter().flat_map(|refusal| &refusal.details) {
        error = error.with(name, value.clone());
    }
    match &answer.failed {
        Some(failed) => error.with("failed", failed.as_ref()),
        None => error,
    }
}

/// The refusal of a good key of another format than the layer was given, which does not see such
/// keys in addresses.
fn foreign_format() -> Error {
    let text = "the format of the layer is not that of the keys its node knows";
    tracing::error!("{text}");
    Error::internal(text)
}

fn caller(answer: &VerifyResponse<'_>, request_id: RequestId) -> Option<Caller> {
    Some(Caller {
        tenant: answer.tenant_id?,
        environment: answer.environment?,
        key: answer.key_id?,
        key_name: answer.name.as_deref().map(Arc::from),
        scopes: answer.scopes.iter().map(|scope| Box::from(scope.as_ref())).collect(),
        role: Arc::from(answer.role.as_deref()?),
        actor: answer.actor.as_deref()?.parse().ok()?,
        request_id,
    })
}
