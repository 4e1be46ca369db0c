//! The request that a proxy asks about, as the proxy says it came.

use std::net::IpAddr;

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use keyward_core::error::{Error, ErrorCode, Result};
use keyward_core::path::{InvalidTarget, Target};

use crate::client_address::{Networks, X_FORWARDED_FOR};
use crate::forward_auth::check::{CheckRequest, HttpRequest};
use crate::server::is_host;

/// Where a proxy says what was asked for.
pub(super) struct Names {
    method: HeaderName,
    target: HeaderName,
}

/// As Traefik, Caddy and APISIX name it.
pub(super) static FORWARDED: Names = Names {
    method: HeaderName::from_static("x-forwarded-method"),
    target: HeaderName::from_static("x-forwarded-uri"),
};
/// As the samples for nginx name it.
pub(super) static ORIGINAL: Names = Names {
    method: HeaderName::from_static("x-original-method"),
    target: HeaderName::from_static("x-original-uri"),
};
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// A request that somebody else would forward.
pub(super) struct Asked {
    pub(super) parts: Parts,
    pub(super) client: IpAddr,
}

impl Asked {
    /// What stands in headers. Nothing of it is made up when it is missing.
    pub(super) fn told(
        names: &Names,
        mut parts: Parts,
        peer: IpAddr,
        proxies: &Networks,
    ) -> Result<Self> {
        let method = only(&parts.headers, &names.method)?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| {
            let text = format!("{} is not a method", names.method);
            Error::new(ErrorCode::InvalidRequest, text).with("header", names.method.as_str())
        })?;
        let uri = read_target(only(&parts.headers, &names.target)?)?;
        let host = only(&parts.headers, &X_FORWARDED_HOST)?.clone();
        if !is_host(host.as_bytes()) {
            let text = format!("{X_FORWARDED_HOST} is not a host");
            let error = Error::new(ErrorCode::InvalidRequest, text);
            return Err(error.with("header", X_FORWARDED_HOST.as_str()));
        }
        parts.method = method;
        parts.uri = uri;
        parts.headers.insert(HOST, host);
        Self::from(parts, peer, proxies)
    }

    /// What comes as itself, with a prefix before its path.
    pub(super) fn below(
        prefix: &str,
        mut parts: Parts,
        peer: IpAddr,
        proxies: &Networks,
    ) -> Result<Self> {
        let whole = parts.uri.path_and_query().map_or("", |whole| whole.as_str());
        let target = whole.strip_prefix(prefix).unwrap_or_default();
        parts.uri = read(target)?;
        Self::from(parts, peer, proxies)
    }

    /// What Envoy describes in a message.
    pub(super) fn checked(question: CheckRequest, proxies: &Networks) -> Result<Self> {
        let attributes = question.attributes.unwrap_or_default();
        let http = attributes.request.and_then(|it| it.http).unwrap_or_default();
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.headers = described_headers(&http)?;
        parts.method = Method::from_bytes(http.method.as_bytes())
            .map_err(|_| undescribed("request.http.method"))?;
        parts.uri = read(&http.path)?;
        let host = HeaderValue::try_from(http.host).ok().filter(|host| is_host(host.as_bytes()));
        parts.headers.insert(HOST, host.ok_or_else(|| undescribed("request.http.host"))?);
        let source = attributes.source.and_then(|it| it.address?.socket_address);
        let source = source.and_then(|it| it.address.parse().ok());
        let source: IpAddr = source.ok_or_else(|| undescribed("source.address"))?;
        // Envoy's own client, which is a proxy only if it is listed
        let client = proxies.client(source, &parts.headers);
        Ok(Self { parts, client })
    }

    /// Whoever asked was admitted, so the nearest address is the one it wrote.
    fn from(parts: Parts, peer: IpAddr, proxies: &Networks) -> Result<Self> {
        if !parts.headers.contains_key(&X_FORWARDED_FOR) {
            return Err(unsaid(&X_FORWARDED_FOR, "once or more"));
        }
        let client = proxies.client_behind(peer, &parts.headers);
        Ok(Self { parts, client })
    }
}

/// The value of a header that must be there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if !value.is_empty() => Ok(value),
        _ => Err(unsaid(name, "exactly once")),
    }
}

/// The refusal of a question that leaves something out, or says it twice.
fn unsaid(name: &HeaderName, times: &str) -> Error {
    let text = format!("The proxy in front of this API must send {name} {times}");
    Error::new(ErrorCode::InvalidRequest, text).with("header", name.as_str())
}

/// The refusal of a description that leaves something out.
fn undescribed(member: &'static str) -> Error {
    let text = format!("The proxy in front of this API must say {member}");
    Error::new(ErrorCode::InvalidRequest, text).with("field", member)
}

/// The headers as they came, or joined where Envoy is set up so; without those of HTTP/2 alone,
/// which are described beside.
fn described_headers(http: &HttpRequest) -> Result<HeaderMap> {
    let raw = http.header_map.iter().flat_map(|map| &map.headers);
    let raw = raw.map(|header| {
        let text = header.value.as_bytes();
        let raw = header.raw_value.as_slice();
        (&header.key, if raw.is_empty() { text } else { raw })
    });
    let joined = http.headers.iter().map(|(name, value)| (name, value.as_bytes()));
    let mut headers = HeaderMap::new();
    for (name, value) in raw.chain(joined).filter(|(name, _)| !name.starts_with(':')) {
        let bad = || undescribed("request.http.headers");
        let name = HeaderName::try_from(name).map_err(|_| bad())?;
        let value = HeaderValue::from_bytes(value).map_err(|_| bad())?;
        headers.try_append(name, value).map_err(|_| bad())?;
    }
    Ok(headers)
}

fn read_target(value: &HeaderValue) -> Result<Uri> {
    // what is not ASCII has no place in a path, and is refused as that
    read(value.to_str().map_err(|_| InvalidTarget::ForeignByte)?)
}

/// A path with its query, which must come out of the parser as it went in.
fn read(text: &str) -> Result<Uri> {
    let uri = Uri::try_from(text).ok();
    let unchanged = |uri: &Uri| uri.path_and_query().is_some_and(|whole| whole.as_str() == text);
    let plain = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_path = |uri: &Uri| plain && uri.authority().is_none() && unchanged(uri);
    uri.filter(is_path).ok_or_else(|| {
        // the reason, where there is a better one than that it was not understood
        Error::from(Target::parse(text).err().unwrap_or(InvalidTarget::NotAPath))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_comes_out_as_it_went_in_or_not_at_all() {
        for text in ["/", "/v1/reports?x=1&y=%2F", "/v1/a%20b", "//x", "/a/../b"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        for text in ["", "*", "v1", "/v1#x", "http://a/v1", "a:80", "?x", "/v1 x", "/v1/\u{e9}"] {
            assert_eq!(read(text).unwrap_err().code(), ErrorCode::InvalidPath, "{text}");
        }
    }
}
