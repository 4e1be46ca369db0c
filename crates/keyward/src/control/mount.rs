//! The router, made from the table of operations. An operation that is not mounted exactly once
//! stops the start-up.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts as _, RawPathParams, Request};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter};
use http::request::Parts;
use http::{HeaderMap, Method, Uri, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use keyward_api::operation::{OPERATIONS, Plane};
use keyward_api::{Operation, operation};
use keyward_core::audit::Origin;
use keyward_core::id::{RequestId, TenantId};
use keyward_core::key::{Exposure, TokenFormat};
use keyward_core::{Error, ErrorCode, Result};
use keyward_gateway::Peer;
use keyward_store::{DEFAULT_PATIENCE, Idempotency};
use tokio::time::timeout;

use super::answer::{Answer, error_response};
use super::caller::{Caller, authenticate, authorize};
use super::context::{ControlState, Ctx};
use super::input::Input;
use crate::user_agent;

/// For how long a body may take to arrive whole.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of an idempotency key.
const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;
/// The longest time for which a caller may wait for every node, in seconds.
const MAX_PATIENCE_SECONDS: u64 = 30;

/// The operations that are mounted so far.
pub(super) struct Mounts {
    router: Router,
    state: Arc<ControlState>,
    mounted: Vec<&'static str>,
}

impl Mounts {
    /// Mounts an operation: authentication, authorization, limits and rendering come with it.
    pub(super) fn mount<I, H, F>(mut self, operation: &'static Operation, handler: H) -> Self
    where
        I: Input,
        H: Fn(Ctx, I) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Answer>> + Send + 'static,
    {
        let state = Arc::clone(&self.state);
        let endpoint = move |request: Request| {
            let (state, handler) = (Arc::clone(&state), handler.clone());
            async move { serve(operation, state, handler, request).await }
        };
        let filter = method_filter(operation.method);
        self.router = self.router.route(operation.path, axum::routing::on(filter, endpoint));
        self.mounted.push(operation.id);
        self
    }

    /// Mounts a page for browsers, which is no operation.
    pub(super) fn page(mut self, path: &str, endpoint: MethodRouter) -> Self {
        self.router = self.router.route(path, endpoint);
        self
    }

    /// What the control plane works with.
    pub(super) fn state(&self) -> Arc<ControlState> {
        Arc::clone(&self.state)
    }

    /// The finished router, if every operation of the control plane is mounted exactly once.
    fn finish(self) -> anyhow::Result<Router> {
        for operation in OPERATIONS.iter().filter(|o| o.plane == Plane::Control) {
            let times = self.mounted.iter().filter(|id| **id == operation.id).count();
            anyhow::ensure!(times == 1, "operation {} is mounted {times} times", operation.id);
        }
        let state = Arc::clone(&self.state);
        let not_found = move |request: Request| {
            let text = format!("There is no operation at {}", request.uri().path());
            let answer = unmounted(&state, request.uri(), Error::new(ErrorCode::NotFound, text));
            async move { answer }
        };
        let state = Arc::clone(&self.state);
        let other_method = move |request: Request| {
            let (method, path) = (request.method(), request.uri().path());
            let text = format!("{path} does not accept {method}");
            let error = Error::new(ErrorCode::MethodNotAllowed, text);
            let answer = unmounted(&state, request.uri(), error);
            async move { answer }
        };
        Ok(self.router.fallback(not_found).method_not_allowed_fallback(other_method))
    }
}

/// The control plane's API.
pub(crate) fn router(state: Arc<ControlState>) -> anyhow::Result<Router> {
    let mounts = Mounts { router: Router::new(), state, mounted: Vec::new() };
    let mounts = super::tenants::mount(mounts);
    let mounts = super::users::mount(mounts);
    let mounts = super::members::mount(mounts);
    let mounts = super::service_accounts::mount(mounts);
    let mounts = super::keys::mount(mounts);
    let mounts = super::catalog::mount(mounts);
    let mounts = super::audit::mount(mounts);
    let mounts = super::admin_tokens::mount(mounts);
    let mounts = super::nodes::mount(mounts);
    let mounts = super::revocations::mount(mounts);
    let mounts = super::setup::mount(mounts);
    let mounts = super::pages::mount(mounts);
    super::meta::mount(mounts).finish()
}

async fn serve<I, H, F>(
    operation: &'static Operation,
    state: Arc<ControlState>,
    handler: H,
    request: Request,
) -> Response
where
    I: Input,
    H: Fn(Ctx, I) -> F,
    F: Future<Output = Result<Answer>> + Send + 'static,
{
    let request_id = RequestId::generate(&*state.clock);
    let started = state.clock.monotonic_ns();
    let clock = Arc::clone(&state.clock);
    let answered = match prepare::<I>(operation, state, request, request_id).await {
        // the work goes on when the caller hangs up: a change must not stop half-way
        Ok((ctx, input)) => tokio::spawn(handler(ctx, input))
            .await
            .unwrap_or_else(|e| Err(Error::internal(format!("a handler stopped: {e}")))),
        Err(error) => Err(error),
    };
    let duration_ms = clock.monotonic_ns().saturating_sub(started) / 1_000_000;
    let response = match answered {
        Ok(answer) => answer.into_response(operation.status, request_id),
        Err(error) => {
            if let Some(cause) = error.internal_context() {
                tracing::error!(%request_id, operation = operation.id, cause, "request failed");
            }
            error_response(&error, request_id)
        }
    };
    let status = response.status().as_u16();
    tracing::info!(%request_id, operation = operation.id, status, duration_ms, "control request");
    response
}

async fn prepare<I: Input>(
    operation: &'static Operation,
    state: Arc<ControlState>,
    request: Request,
    request_id: RequestId,
) -> Result<(Ctx, I)> {
    let (mut parts, body) = request.into_parts();
    let parameters = path_parameters(&mut parts).await?;
    refuse_credential(&state, &parts.uri)?;
    let caller = authenticate(operation, &parts.headers, &state.plane).await?;
    let tenant = tenant_of(&parameters, &caller)?;
    authorize(operation, &caller, tenant, &state.product.catalog)?;
    let body = read_body(&parts.headers, body, state.max_body).await?;
    let input = I::read(parts.uri.query(), &body)?;
    let idempotency =
        if operation.idempotent { idempotency(operation, &parts, &body, &caller)? } else { None };
    let origin = origin(&parts, request_id, state.keyring.format());
    let patience = patience(&parts.headers)?;
    Ok((Ctx { state, caller, operation, parameters, origin, idempotency, patience }, input))
}

/// Refuses a secret in the URL, which would end up in histories and logs, and in our own errors.
fn refuse_credential(state: &ControlState, uri: &Uri) -> Result<()> {
    let text = uri.path_and_query().map_or("", |whole| whole.as_str());
    if state.keyring.format().occurs_in(text) {
        return Err(Exposure::Url.refusal());
    }
    Ok(())
}

/// The answer where nothing is mounted.
fn unmounted(state: &ControlState, uri: &Uri, otherwise: Error) -> Response {
    let error = refuse_credential(state, uri).err().unwrap_or(otherwise);
    error_response(&error, RequestId::generate(&*state.clock))
}

async fn path_parameters(parts: &mut Parts) -> Result<BTreeMap<String, String>> {
    let raw = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|_| Error::new(ErrorCode::InvalidPath, "The path is not valid UTF-8"))?;
    Ok(raw.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn tenant_of(parameters: &BTreeMap<String, String>, caller: &Caller) -> Result<Option<TenantId>> {
    match parameters.get("tenantId") {
        None => Ok(caller.tenant()),
        Some(text) => text.parse().map(Some).map_err(|_| Error::not_found("tenant")),
    }
}

fn too_slow() -> Error {
    let seconds = BODY_TIMEOUT.as_secs();
    let text = format!("The body did not arrive whole within {seconds} seconds");
    Error::new(ErrorCode::InvalidRequest, text)
}

async fn read_body(headers: &HeaderMap, body: Body, max: usize) -> Result<Vec<u8>> {
    let too_large = || {
        Error::new(ErrorCode::PayloadTooLarge, format!("The body is larger than {max} bytes"))
            .with("maxBytes", max)
    };
    let collecting = timeout(BODY_TIMEOUT, Limited::new(body, max).collect()).await;
    let collected = collecting.map_err(|_| too_slow())?.map_err(|e| {
        if e.is::<LengthLimitError>() {
            return too_large();
        }
        Error::new(ErrorCode::InvalidRequest, "The body did not arrive whole")
            .because(e.to_string())
    })?;
    let bytes = Vec::from(collected.to_bytes());
    let json = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_json = json.is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/json")
    });
    if !bytes.is_empty() && !is_json {
        let text = "Send the body with content-type: application/json";
        return Err(Error::new(ErrorCode::UnsupportedMediaType, text));
    }
    Ok(bytes)
}

fn idempotency(
    operation: &'static Operation,
    parts: &Parts,
    body: &[u8],
    caller: &Caller,
) -> Result<Option<Idempotency>> {
    let mut values = parts.headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    // the draft standard quotes the key, much of the world does not: both are the same key
    let key = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    let visible = key.bytes().all(|b| b.is_ascii_graphic());
    if key.is_empty()
        || key.len() > MAX_IDEMPOTENCY_KEY_BYTES
        || !visible
        || values.next().is_some()
    {
        let text = "Idempotency-Key is one header of 1 to 255 visible ASCII characters";
        return Err(Error::validation("Idempotency-Key", text));
    }
    let fingerprint = keyward_core::fingerprint::of_request(
        parts.method.as_str(),
        parts.uri.path(),
        parts.uri.query(),
        body,
    );
    let principal = caller.principal();
    Ok(Some(Idempotency { principal, operation: operation.id, key: key.to_owned(), fingerprint }))
}

/// How long the caller waits for every node: `Prefer: wait=SECONDS` (RFC 7240 §4.3).
fn patience(headers: &HeaderMap) -> Result<Duration> {
    let words = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let preferences = words.flat_map(|value| value.split(','));
    let mut waits = preferences.filter_map(|it| it.trim().strip_prefix("wait="));
    let Some(seconds) = waits.next() else { return Ok(DEFAULT_PATIENCE) };
    match seconds.trim().parse() {
        Ok(seconds) if seconds <= MAX_PATIENCE_SECONDS => Ok(Duration::from_secs(seconds)),
        _ => {
            let text = format!("Prefer: wait takes 0 to {MAX_PATIENCE_SECONDS} seconds");
            Err(Error::validation("Prefer", text))
        }
    }
}

fn origin(parts: &Parts, request_id: RequestId, format: &TokenFormat) -> Origin {
    let peer = parts.extensions.get::<Peer>();
    let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    Origin {
        request_id: Some(request_id),
        ip: peer.map(|Peer(address)| address.to_string()),
        user_agent: agent.map(|text| user_agent::kept(text, format)),
    }
}

fn method_filter(method: operation::Method) -> MethodFilter {
    let method = Method::from_bytes(method.as_str().as_bytes()).unwrap_or(Method::GET);
    MethodFilter::try_from(method).unwrap_or(MethodFilter::GET)
}
