//! A permitted request as its upstream gets it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Version};
use http_body::Body as _;

use keyward_core::catalog::{Catalog, Route};
use keyward_core::id::RequestId;
use keyward_core::time::Timestamp;

use crate::client_address::X_FORWARDED_FOR;
use crate::identity::{IDENTITY_HEADERS, Identity, Inked, Lines, Sheet, absent};
use crate::keyset::KnownKey;
use crate::lookup::find;
use crate::plane::DataPlane;
use crate::proxy::body::ForwardBody;
use crate::proxy::headers::passing;
use crate::proxy::standing::Standing;
use crate::proxy::target::Target;
use crate::proxy::trailers::{Of, are_wanted};
use crate::proxy::upgrade;
use crate::proxy::upstream::Upstream;
use crate::request_id::{TRACEPARENT, X_REQUEST_ID, push_traceparent, received_traceparent};

static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers that a forwarded request has besides those of its caller.
const ADDED_HEADERS: usize = IDENTITY_HEADERS + 7;

/// All the upstream is told about the caller, and all the exchange needs to know.
pub(crate) struct Passage<'a> {
    pub(crate) plane: &'a DataPlane,
    pub(crate) catalog: &'a Catalog,
    pub(crate) key: &'a KnownKey<'a>,
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

/// What goes out, so that it can be written as often as it is sent.
pub(super) struct Outbound<'a> {
    upstream: &'a Upstream,
    pub(super) passage: &'a Passage<'a>,
    route: &'a Route,
    parts: &'a Parts,
    path: &'a PathAndQuery,
    /// Whether the caller takes trailers behind the answer.
    pub(super) wants_trailers: bool,
    /// Whether its connection is to be handed over.
    pub(super) upgrades: bool,
}

impl<'a> Outbound<'a> {
    pub(super) fn new(
        upstream: &'a Upstream,
        passage: &'a Passage<'a>,
        route: &'a Route,
        parts: &'a Parts,
        path: &'a PathAndQuery,
    ) -> Self {
        let wants_trailers = are_wanted(&parts.headers);
        Self { upstream, passage, route, parts, path, wants_trailers, upgrades: false }
    }

    /// Whether it may be sent twice when its body is empty.
    pub(super) fn is_safe(&self) -> bool {
        matches!(self.parts.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// Whether the answer has a head only.
    pub(super) fn asks_for_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    /// The path that was matched.
    pub(super) fn path(&self) -> &str {
        self.path.path()
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

    /// How the body is framed.
    pub(super) fn framing(&self, body: &ForwardBody) -> Framing {
        match body {
            ForwardBody::Streaming(_) => match body.size_hint().exact() {
                Some(bytes) => Framing::Length(bytes),
                None => Framing::Unknown { trailers: self.announced() },
            },
            ForwardBody::Empty if self.usually_has_body() => Framing::Length(0),
            ForwardBody::Empty => Framing::None,
        }
    }

    fn usually_has_body(&self) -> bool {
        matches!(self.parts.method, Method::POST | Method::PUT | Method::PATCH)
    }

    fn announced(&self) -> Option<HeaderValue> {
        Of::Request(self.passage.tenant_header).announced(&self.parts.headers)
    }

    /// Writes the head for this address (RFC 9112 §3), straight from what the caller sent.
    pub(super) fn write_head(&self, target: &Target, framing: &Framing, out: &mut BytesMut) {
        for part in [self.parts.method.as_str(), " ", self.path.as_str(), " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        let mut lines = Lines(out);
        // RFC 9110 §7.2 wants it to be the first
        lines.set(&HOST, &target.host);
        for (name, value) in self.passing() {
            lines.set(name, value);
        }
        self.set_identity(&mut lines);
        match framing {
            Framing::None => {}
            Framing::Length(bytes) => lines.write(&CONTENT_LENGTH, |out| push_number(out, *bytes)),
            Framing::Unknown { .. } => lines.write_text(&TRANSFER_ENCODING, "chunked"),
        }
        self.announce(framing, &mut lines);
        if self.upgrades {
            upgrade::say_so(&mut lines);
        } else if self.wants_trailers {
            lines.write_text(&CONNECTION, "te");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The request for this address as HTTP/2 has it: the address names the host, the frames say
    /// where the body ends, and a connection has no headers of its own.
    pub(super) fn request(&self, target: &Target, body: ForwardBody) -> Request<ForwardBody> {
        let framing = self.framing(&body);
        let mut headers = HeaderMap::with_capacity(self.parts.headers.len() + ADDED_HEADERS);
        for (name, value) in self.passing() {
            headers.append(name, value.clone());
        }
        let mut inked = Inked::new(&mut headers);
        self.set_identity(&mut inked);
        if let Framing::Length(bytes) = framing {
            inked.set(&CONTENT_LENGTH, &bytes.into());
        }
        self.announce(&framing, &mut inked);
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.headers_mut() = headers;
        *request.uri_mut() = target.address.uri(self.path);
        *request.version_mut() = Version::HTTP_2;
        request
    }

    fn passing(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        passing(&self.parts.headers, self.passage.tenant_header)
    }

    /// Says what comes behind the body, and whether the same may come behind the answer.
    fn announce(&self, framing: &Framing, sheet: &mut impl Sheet) {
        if let Framing::Unknown { trailers: Some(announced) } = framing {
            sheet.set(&TRAILER, announced);
        }
        if self.wants_trailers {
            sheet.write_text(&TE, "trailers");
        }
    }

    fn set_identity(&self, sheet: &mut impl Sheet) {
        let Passage { catalog, key, request_id_header, .. } = *self.passage;
        let identity = Identity {
            catalog,
            key,
            method: &self.parts.method,
            path: self.path.path(),
            request_id: request_id_header,
            audience: &self.upstream.config.audience,
            assertion_key: &self.upstream.config.assertion_key,
            now: self.passage.now,
        };
        identity.set(sheet);
        sheet.write(&X_FORWARDED_FOR, |out| push_address(out, self.passage.client));
        let headers = &self.parts.headers;
        match find(headers, &TRACEPARENT).filter(|it| received_traceparent(it).is_some()) {
            Some(received) => sheet.set(&TRACEPARENT, received),
            None => {
                sheet.write(&TRACEPARENT, |out| push_traceparent(self.passage.request_id, out));
            }
        }
        sheet.set(&X_REQUEST_ID, request_id_header);
        sheet.write_text(&X_FORWARDED_PROTO, self.passage.scheme);
        match find(headers, &HOST) {
            Some(host) => sheet.set(&X_FORWARDED_HOST, host),
            None => sheet.set(&X_FORWARDED_HOST, &absent()),
        }
    }
}

fn push_number(out: &mut BytesMut, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn push_address(out: &mut BytesMut, address: IpAddr) {
    let IpAddr::V4(address) = address else {
        // writing to memory cannot fail
        let _ = write!(out, "{address}");
        return;
    };
    for (position, octet) in address.octets().into_iter().enumerate() {
        if position > 0 {
            out.extend_from_slice(b".");
        }
        push_number(out, octet.into());
    }
}

/// Every body is framed anew. A method that usually has a body says so also when it is empty.
pub(super) enum Framing {
    None,
    /// So many bytes.
    Length(u64),
    /// As many as come, and the trailers that were announced.
    Unknown {
        trailers: Option<HeaderValue>,
    },
}
