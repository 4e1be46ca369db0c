//! A permitted request as its upstream gets it.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Uri, Version};
use http_body::Body as _;

use keyward_core::catalog::{Catalog, Route};
use keyward_core::id::RequestId;
use keyward_core::time::Timestamp;

use crate::client_address::X_FORWARDED_FOR;
use crate::identity::{IDENTITY_HEADERS, Identity, Ink, absent};
use crate::keyset::KnownKey;
use crate::plane::DataPlane;
use crate::proxy::body::ForwardBody;
use crate::proxy::headers::Passing;
use crate::proxy::standing::Standing;
use crate::proxy::target::{Target, Wire};
use crate::proxy::upgrade;
use crate::proxy::upstream::Upstream;
use crate::request_id::{TRACEPARENT, X_REQUEST_ID, push_traceparent, received_traceparent};

static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

static TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
static OF_THIS_HOP: HeaderValue = HeaderValue::from_static("te");

/// Headers that a forwarded request has besides those of its caller.
const ADDED_HEADERS: usize = IDENTITY_HEADERS + 7;

/// All the upstream is told about the caller, and all the exchange needs to know.
pub(crate) struct Passage<'a> {
    pub(crate) plane: &'a DataPlane,
    pub(crate) catalog: &'a Catalog,
    pub(crate) key: &'a KnownKey,
    pub(crate) tenant_header: Option<&'a HeaderName>,
    pub(crate) client: IpAddr,
    pub(crate) scheme: &'static str,
    pub(crate) request_id: RequestId,
    pub(crate) request_id_header: &'a HeaderValue,
    pub(crate) max_body_bytes: u64,
    pub(crate) now: Timestamp,
    pub(crate) now_ns: u64,
    /// Where what is asked about again is left, for when the answer lasts.
    pub(crate) standing: &'a OnceLock<Standing>,
}

/// What goes out, kept so that it can be made a second time.
pub(super) struct Outbound<'a> {
    upstream: &'a Upstream,
    pub(super) passage: &'a Passage<'a>,
    route: &'a Route,
    method: Method,
    uri: Uri,
    host: HeaderValue,
    trace: Option<HeaderValue>,
    passing: Passing,
    /// Whether its connection is to be handed over.
    pub(super) upgrades: bool,
}

impl<'a> Outbound<'a> {
    /// Keeps of a request what passes; what is left of its headers is only good for its memory.
    pub(super) fn new(
        upstream: &'a Upstream,
        passage: &'a Passage<'a>,
        route: &'a Route,
        parts: &mut Parts,
        uri: Uri,
    ) -> Self {
        let headers = &mut parts.headers;
        let trace = headers.get(&TRACEPARENT).filter(|it| received_traceparent(it).is_some());
        let outbound = Self {
            upstream,
            passage,
            route,
            method: parts.method.clone(),
            uri,
            host: headers.get(HOST).cloned().unwrap_or_else(absent),
            trace: trace.cloned(),
            passing: Passing::of(headers, passage.tenant_header),
            upgrades: false,
        };
        headers.clear();
        outbound
    }

    /// Whether the caller takes trailers behind the answer.
    pub(super) const fn wants_trailers(&self) -> bool {
        self.passing.wants_trailers
    }

    /// Whether it may be sent twice when its body is empty.
    pub(super) fn is_safe(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// The path that was matched.
    pub(super) fn path(&self) -> &str {
        self.uri.path()
    }

    /// What is asked about again when one of the bodies lasts.
    pub(super) fn standing(&self) -> Standing {
        let Passage { catalog, key, client, request_id, now_ns, .. } = *self.passage;
        let position = catalog.routes().element_offset(self.route);
        Standing {
            request_id,
            key: key.id,
            begun_ns: now_ns,
            client,
            environment: key.environment,
            // a position that is none finds no route, and that ends a stream
            route: position.and_then(|it| u32::try_from(it).ok()).unwrap_or(u32::MAX),
        }
    }

    /// For how long the whole exchange may last: as the route says, else as the upstream does.
    pub(super) fn total_timeout(&self) -> Option<Duration> {
        match self.route.forwarding.timeout_ms {
            None => self.upstream.config.total_timeout,
            Some(0) => None,
            Some(ms) => Some(Duration::from_millis(ms)),
        }
    }

    /// The request for this address, in the version that is spoken with it. The headers given are
    /// empty; their memory is used.
    pub(super) fn request(
        &self,
        target: &Target,
        wire: Wire,
        mut headers: HeaderMap,
        body: ForwardBody,
    ) -> Request<ForwardBody> {
        headers.reserve(self.passing.headers.len() + ADDED_HEADERS);
        // RFC 9110 §7.2 wants it to be the first
        set_host(&mut headers, target, wire);
        for (name, value) in &self.passing.headers {
            headers.append(name, value.clone());
        }
        self.set_identity(&mut headers);
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = headers;
        self.speak(&mut request, target, wire);
        request
    }

    /// Makes a request one for another address, or another version.
    pub(super) fn aim(&self, request: &mut Request<ForwardBody>, target: &Target, wire: Wire) {
        set_host(request.headers_mut(), target, wire);
        self.speak(request, target, wire);
    }

    /// Sets what differs between versions.
    fn speak(&self, request: &mut Request<ForwardBody>, target: &Target, wire: Wire) {
        let framing = Framing::of(&self.method, request.body());
        let headers = request.headers_mut();
        framing.set(headers, wire);
        if let (Framing::Unknown, Some(announced)) = (framing, &self.passing.announced) {
            headers.insert(TRAILER, announced.clone());
        }
        if self.passing.wants_trailers {
            headers.insert(TE, TRAILERS.clone());
        }
        match wire {
            Wire::Http1 => {
                if self.upgrades {
                    upgrade::say_so(headers);
                } else if self.passing.wants_trailers {
                    headers.insert(CONNECTION, OF_THIS_HOP.clone());
                }
                *request.uri_mut() = self.uri.clone();
                *request.version_mut() = Version::HTTP_11;
            }
            Wire::Http2 => {
                *request.uri_mut() = target.address.uri(&self.uri);
                *request.version_mut() = Version::HTTP_2;
            }
        }
    }

    fn set_identity(&self, headers: &mut HeaderMap) {
        let Passage { catalog, key, request_id_header, .. } = *self.passage;
        let identity = Identity {
            catalog,
            key,
            method: &self.method,
            path: self.uri.path(),
            request_id: request_id_header,
            audience: &self.upstream.config.audience,
            assertion_key: &self.upstream.config.assertion_key,
            now: self.passage.now,
        };
        let mut ink = Ink::new();
        identity.set(headers, &mut ink);
        headers.insert(&X_FORWARDED_FOR, ink.display(&self.passage.client));
        let trace = self.trace.clone();
        let trace = trace
            .unwrap_or_else(|| ink.value(|out| push_traceparent(self.passage.request_id, out)));
        headers.insert(&TRACEPARENT, trace);
        headers.insert(&X_REQUEST_ID, request_id_header.clone());
        headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(self.passage.scheme));
        headers.insert(&X_FORWARDED_HOST, self.host.clone());
    }
}

/// Names the host. In HTTP/2 the address does, and a connection has no headers of its own.
fn set_host(headers: &mut HeaderMap, target: &Target, wire: Wire) {
    match wire {
        Wire::Http1 => {
            headers.insert(HOST, target.host.clone());
        }
        Wire::Http2 => {
            headers.remove(HOST);
            headers.remove(CONNECTION);
        }
    }
}

/// Every body is framed anew. A method that usually has a body says so also when it is empty.
#[derive(Clone, Copy)]
enum Framing {
    None,
    Length(u64),
    Unknown,
}

impl Framing {
    fn of(method: &Method, body: &ForwardBody) -> Self {
        match body {
            ForwardBody::Streaming(_) => {
                body.size_hint().exact().map_or(Self::Unknown, Self::Length)
            }
            ForwardBody::Empty if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
                Self::Length(0)
            }
            ForwardBody::Empty => Self::None,
        }
    }

    fn set(self, headers: &mut HeaderMap, wire: Wire) {
        match (self, wire) {
            (Self::None, _) => {}
            (Self::Length(bytes), _) => {
                headers.insert(CONTENT_LENGTH, bytes.into());
            }
            (Self::Unknown, Wire::Http1) => {
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            // the frames say where it ends
            (Self::Unknown, Wire::Http2) => {
                headers.remove(TRANSFER_ENCODING);
            }
        }
    }
}
