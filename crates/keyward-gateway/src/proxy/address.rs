//! The addresses of upstreams as they are configured.

use std::path::PathBuf;

use http::Uri;
use http::uri::{Authority, Parts, PathAndQuery, Scheme};

use crate::proxy::config::InvalidUpstream;

/// What stands before the path of a socket.
const UNIX: &str = "unix:";
/// Whom a request to a socket names as its host, unless the settings name another.
const UNIX_HOST: &str = "localhost";

/// How an address is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// One address of an upstream.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// As it is configured.
    pub(super) text: String,
    pub(super) endpoint: Endpoint,
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
}

impl Address {
    /// Reads `http://host[:port]`, `https://host[:port]` or `unix:/path`.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidUpstream> {
        if let Some(path) = text.strip_prefix(UNIX) {
            if !path.starts_with('/') {
                return Err(InvalidUpstream::Socket(text.to_owned()));
            }
            return Ok(Self {
                text: text.to_owned(),
                endpoint: Endpoint::Unix(path.into()),
                scheme: Scheme::HTTP,
                authority: Authority::from_static(UNIX_HOST),
            });
        }
        let wrong = || InvalidUpstream::Url(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let scheme = uri.scheme().filter(|it| **it == Scheme::HTTP || **it == Scheme::HTTPS);
        let scheme = scheme.cloned().ok_or_else(wrong)?;
        if uri.path() != "/" || uri.query().is_some() {
            return Err(InvalidUpstream::Path(text.to_owned()));
        }
        let authority = uri.authority().cloned().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err(wrong());
        }
        let default_port = if scheme == Scheme::HTTPS { 443 } else { 80 };
        let endpoint = Endpoint::Tcp {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
        };
        Ok(Self { text: text.to_owned(), endpoint, scheme, authority })
    }

    /// A path at this address, byte for byte.
    pub(super) fn uri(&self, path: &PathAndQuery) -> Uri {
        let mut parts = Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.clone());
        // scheme, authority and path make an address
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Whether it is reached over TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> (String, u16) {
        match Address::parse(text).unwrap().endpoint {
            Endpoint::Tcp { host, port } => (host, port),
            Endpoint::Unix(path) => panic!("{path:?}"),
        }
    }

    #[test]
    fn addresses_of_each_kind() {
        assert_eq!(tcp("http://api.test"), ("api.test".to_owned(), 80));
        assert_eq!(tcp("https://api.test"), ("api.test".to_owned(), 443));
        assert_eq!(tcp("http://[::1]:9000"), ("::1".to_owned(), 9_000));
        let socket = Address::parse("unix:/run/api.sock").unwrap();
        assert_eq!(socket.endpoint, Endpoint::Unix("/run/api.sock".into()));
        assert_eq!(socket.authority, "localhost");
        for bad in ["", "api.test", "ftp://a", "http://", "http://u:p@a", "unix:api.sock", "unix:"]
        {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
        assert!(matches!(Address::parse("http://a/b"), Err(InvalidUpstream::Path(_))));
    }
}
