//! The layer around the product's own API.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body_util::{Either, Full};
use tower_layer::Layer;
use tower_service::Service;

use keyward_core::id::RequestId;
use keyward_core::{Error, ErrorCode};
use keyward_layer::{Gate, Gated};

use crate::verifier::{AssertionVerifier, Refused};

/// Lets only requests through that came through the gateway.
///
/// The service finds the [`Caller`](keyward_core::Caller) among the extensions of the request.
/// Every other request is answered with 401 and the error envelope, or with 503 while the keys of
/// the gateway cannot be fetched. The path is compared as it was received, so the layer belongs
/// around the outermost router.
#[derive(Clone)]
pub struct AssertionLayer(Arc<AssertionVerifier>);

impl AssertionLayer {
    /// A layer that believes what this verifier believes.
    pub const fn new(verifier: Arc<AssertionVerifier>) -> Self {
        Self(verifier)
    }
}

impl<S> Layer<S> for AssertionLayer {
    type Service = AssertionService<S>;

    fn layer(&self, inner: S) -> AssertionService<S> {
        Gated::new(Arc::clone(&self.0), inner)
    }
}

/// A service behind an [`AssertionLayer`].
pub type AssertionService<S> = Gated<AssertionVerifier, S>;

impl<S, B, R> Gate<S, Request<B>> for AssertionVerifier
where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: 'static,
{
    type Response = Response<Either<Full<Bytes>, R>>;

    async fn pass(
        self: Arc<Self>,
        mut ready: S,
        request: Request<B>,
    ) -> Result<Self::Response, S::Error> {
        let (mut parts, body) = request.into_parts();
        match self.caller(&parts).await {
            Ok(caller) => parts.extensions.insert(caller),
            Err(refused) => return Ok(refusal(refused, &parts).map(Either::Left)),
        };
        let response = ready.call(Request::from_parts(parts, body)).await?;
        Ok(response.map(Either::Right))
    }
}

fn refusal(refused: Refused, parts: &Parts) -> Response<Full<Bytes>> {
    tracing::warn!(method = %parts.method, reason = %refused, "a request is not the gateway's");
    let error = if refused == Refused::Unavailable {
        Error::new(ErrorCode::Unavailable, "It cannot be told just now who calls; try again")
    } else {
        Error::new(ErrorCode::Unauthorized, "This API is reached through its gateway only")
    };
    let id = parts.headers.get("keyward-request-id").and_then(|id| id.to_str().ok());
    let id = id.and_then(|id| id.parse().ok()).unwrap_or(RequestId::from_bits(0));
    let docs = keyward_api::error::DEFAULT_DOCS_BASE;
    let (status, body) = keyward_api::error::render(&error, id, docs);
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
