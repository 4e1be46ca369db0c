//! HTTP: who calls, which operation, and the signed file URLs.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request as HttpRequest, State};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use http::header::{
    CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use keyward_core::assertion::{self, Claims};
use keyward_core::{Error, ErrorCode, Timestamp};
use serde_json::{Map, Value};

use crate::declare::{Files, Found, Operation};
use crate::evaluate::{Caller, Request, new_request_id};
use crate::operate::{Work, row};
use crate::presign::{FILES_PATH, Grant};
use crate::reply::{self, Refusal};
use crate::space::{Change, Space};
use crate::{MAX_BODY_BYTES, Shared};

const REQUEST_ID: HeaderName = HeaderName::from_static("keyward-request-id");
/// Bytes of a request id that is repeated.
const MAX_REQUEST_ID_BYTES: usize = 128;
/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// Query parameters of one request.
const MAX_QUERY: usize = 32;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(handle).with_state(shared)
}

async fn handle(State(shared): State<Arc<Shared>>, request: HttpRequest) -> Response {
    let (parts, body) = request.into_parts();
    let request_id =
        request_id(&parts.headers).unwrap_or_else(|| new_request_id(shared.clock.as_ref()));
    let answer = match parts.uri.path().strip_prefix(FILES_PATH) {
        Some(token) => shared.file(&parts, token, body).await,
        None => shared.operation(&parts, body).await,
    };
    let response = answer.unwrap_or_else(|refusal| reply::refusal(&refusal, &request_id));
    let status = response.status().as_u16();
    tracing::debug!(request_id, method = %parts.method, status, "sandbox answered");
    reply::finish(response, &request_id)
}

impl Shared {
    async fn operation(&self, parts: &Parts, body: Body) -> Result<Response, Refusal> {
        let now = self.clock.now();
        let caller = self.caller(parts, now)?;
        let (operation, params) = match self.plan.find(&parts.method, parts.uri.path()) {
            Found::Operation(operation, params) => (operation, params),
            Found::OtherMethods(methods) => return Err(other_method(&methods.join(", "))),
            Found::Nothing => {
                let text = "The sandbox serves no operation at this path";
                return Err(Error::new(ErrorCode::NotFound, text).into());
            }
        };
        let body = read_members(operation, &parts.headers, body).await?;
        let query = query(parts)?;
        operation.parameters.check(&query, &parts.headers)?;
        let request = Request {
            plan: &self.plan,
            caller: &caller,
            params: &params,
            query: &query,
            body: &body,
            now,
            clock: self.clock.as_ref(),
        };
        let work = Work { request: &request, operation, signer: &self.signer };
        let key = (caller.tenant, caller.environment);
        let answer = self.state.with(&self.plan, key, now, |space| work.run(space))?;
        tracing::debug!(operation = operation.name, request_id = caller.request_id, "served");
        Ok(reply::success(answer))
    }

    /// The caller of the assertion, if it was made for this very request.
    fn caller(&self, parts: &Parts, now: Timestamp) -> Result<Caller, Error> {
        let refused = |why: &str| Error::new(ErrorCode::Unauthorized, why.to_owned());
        let mut tokens = parts.headers.get_all(assertion::HEADER).iter();
        let (Some(token), None) = (tokens.next(), tokens.next()) else {
            return Err(refused("Exactly one Keyward-Assertion header is needed"));
        };
        let token = token.to_str().map_err(|_| refused("The assertion is not text"))?;
        let verified = assertion::verify(token, &self.verify_key, &self.audience, now)
            .map_err(|error| refused(&error.to_string()))?;
        let claims = verified.claims().map_err(|error| refused(&error.to_string()))?;
        if claims.method != parts.method.as_str() || claims.path != parts.uri.path() {
            return Err(refused("The assertion is for another method or path"));
        }
        if request_id(&parts.headers).is_some_and(|id| id != claims.request_id) {
            return Err(refused("The assertion is for another request id"));
        }
        caller(&claims).ok_or_else(|| refused("The assertion names no tenant or environment"))
    }

    /// Bytes go to and come from the row that a signed URL names.
    async fn file(&self, parts: &Parts, token: &str, body: Body) -> Result<Response, Refusal> {
        let now = self.clock.now();
        let grant = self.signer.verify(token, now)?;
        if parts.method.as_str() != grant.method {
            return Err(other_method(&grant.method));
        }
        let files = self.plan.collections.get(&grant.collection).and_then(|c| c.files.as_ref());
        let files = files.ok_or_else(|| Error::internal("a grant without files"))?;
        let key = (grant.tenant, grant.environment);
        if parts.method == Method::GET {
            let read = |space: &mut Space| download(space, &grant, files);
            return Ok(self.state.with(&self.plan, key, now, read)?);
        }
        let content = read_body(&parts.headers, body, files.max_bytes).await?;
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let write = |space: &mut Space| upload(space, &grant, files, kind, content, now);
        self.state.with(&self.plan, key, now, write)?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }
}

fn caller(claims: &Claims<'_>) -> Option<Caller> {
    Some(Caller {
        key_id: claims.sub.to_owned(),
        actor: claims.actor.to_owned(),
        role: claims.role.to_owned(),
        tenant: claims.tenant.parse().ok()?,
        environment: claims.environment.parse().ok()?,
        request_id: claims.request_id.to_owned(),
    })
}

fn upload(
    space: &mut Space,
    grant: &Grant,
    files: &Files,
    kind: Option<&str>,
    content: Bytes,
    now: Timestamp,
) -> Result<(), Error> {
    let row = space.table(&grant.collection)?.get(&grant.id);
    let mut row = row.ok_or_else(|| Error::not_found("file"))?.clone();
    if row.content.is_some() {
        return Err(Error::conflict("The bytes are there already; a URL uploads once"));
    }
    row::store(files, &mut row, content, now)?;
    if let Some(kind) = kind
        && !row.fields.contains_key(&files.type_field)
    {
        row.fields.insert(files.type_field.clone(), Value::from(kind));
    }
    let (collection, id) = (grant.collection.clone(), grant.id.clone());
    space.commit(vec![Change::Replace { collection, id, row }])
}

fn download(space: &Space, grant: &Grant, files: &Files) -> Result<Response, Error> {
    let row = space.table(&grant.collection)?.get(&grant.id);
    let row = row.ok_or_else(|| Error::not_found("file"))?;
    let content = row.content.clone().ok_or_else(|| Error::not_found("file"))?;
    let kind = row.fields.get(&files.type_field).and_then(Value::as_str);
    let kind = kind.and_then(|kind| HeaderValue::from_str(kind).ok());
    let mut response = Response::new(Body::from(content));
    let headers = response.headers_mut();
    let default = HeaderValue::from_static(row::DEFAULT_TYPE);
    headers.insert(CONTENT_TYPE, kind.unwrap_or(default));
    // a browser must never run what somebody uploaded
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    Ok(response)
}

async fn read_members(
    operation: &Operation,
    headers: &HeaderMap,
    body: Body,
) -> Result<Map<String, Value>, Error> {
    let Some(schema) = &operation.body else {
        return Ok(Map::new());
    };
    let bytes = read_body(headers, body, MAX_BODY_BYTES).await?;
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let json = kind.eq_ignore_ascii_case("application/json")
        || kind.eq_ignore_ascii_case("application/merge-patch+json");
    if !bytes.is_empty() && !json {
        let text = "Send the body as application/json";
        return Err(Error::new(ErrorCode::UnsupportedMediaType, text));
    }
    schema.check(&bytes)
}

async fn read_body(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, Error> {
    let too_large = || {
        let text = format!("The body has more than {limit} bytes");
        Error::new(ErrorCode::PayloadTooLarge, text).with("limitBytes", limit)
    };
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|text| text.parse::<usize>().ok()).is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let invalid = |text: &'static str| Error::new(ErrorCode::InvalidRequest, text);
    let collect = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| invalid("The body broke off"))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len().saturating_add(data.len()) > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    };
    let late = |_| invalid("The body did not arrive in time");
    tokio::time::timeout(BODY_DEADLINE, collect).await.map_err(late)?
}

fn query(parts: &Parts) -> Result<Vec<(String, String)>, Error> {
    let invalid = |text: &'static str| Error::new(ErrorCode::InvalidRequest, text);
    let Query(query) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
        .map_err(|_| invalid("The query is not readable"))?;
    if query.len() > MAX_QUERY {
        return Err(invalid("The query has too many parameters"));
    }
    Ok(query)
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(REQUEST_ID)?.to_str().ok()?;
    let plain = !text.is_empty() && text.len() <= MAX_REQUEST_ID_BYTES;
    (plain && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
}

fn other_method(allow: &str) -> Refusal {
    let text = format!("This path takes {allow}");
    let error = Error::new(ErrorCode::MethodNotAllowed, text);
    Refusal { error, allow: Some(allow.to_owned()) }
}
