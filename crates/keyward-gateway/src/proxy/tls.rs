//! TLS with upstreams.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::proxy::address::Address;
use crate::proxy::config::{InvalidUpstream, UpstreamConfig, UpstreamProtocol};

/// The names of the protocols in a handshake (RFC 7301, RFC 9113 §3.2).
const HTTP_1: &[u8] = b"http/1.1";
pub(super) const HTTP_2: &[u8] = b"h2";

/// What a TLS connection to one address needs.
pub(super) struct Tls {
    /// For requests.
    pub(super) connector: TlsConnector,
    /// For connections that are handed over whole, which only HTTP/1.1 can do.
    pub(super) http1_only: TlsConnector,
    pub(super) name: ServerName<'static>,
}

/// Certificates that are believed, read once for all addresses of an upstream.
pub(super) struct Trust(Arc<ClientConfig>);

impl Trust {
    pub(super) fn of(config: &UpstreamConfig) -> Result<Self, InvalidUpstream> {
        let wrong = |text: String| InvalidUpstream::Authorities(config.label().to_owned(), text);
        let mut roots = RootCertStore::empty();
        if let Some(pem) = &config.tls.authorities {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
        } else {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
        if roots.is_empty() {
            let text = "no certificate authority is known; name a file of certificates";
            return Err(wrong(text.to_owned()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(client)))
    }

    pub(super) fn tls(
        &self,
        config: &UpstreamConfig,
        address: &Address,
    ) -> Result<Tls, InvalidUpstream> {
        let host = address.authority.host().trim_matches(['[', ']']);
        let name = config.tls.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name.clone()).map_err(|_| InvalidUpstream::Host(name))?;
        let offering = |protocols: &[&[u8]]| {
            let mut client = ClientConfig::clone(&self.0);
            client.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            TlsConnector::from(Arc::new(client))
        };
        let connector = match config.protocol {
            UpstreamProtocol::Auto => offering(&[HTTP_2, HTTP_1]),
            UpstreamProtocol::Http1 => offering(&[HTTP_1]),
            UpstreamProtocol::Http2 => offering(&[HTTP_2]),
        };
        Ok(Tls { connector, http1_only: offering(&[HTTP_1]), name })
    }
}
