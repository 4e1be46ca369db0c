//! TLS of a listener: certificates by name, replaced while connections are served.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use x509_cert::Certificate as X509;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use keyward_core::time::Timestamp;

/// The protocol of a connection that chose HTTP/2 in its handshake (RFC 9113 §3.2).
pub(super) const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP_11: &[u8] = b"http/1.1";
/// The protocol of a connection that only looks who holds a name (RFC 8737 §6.2).
pub(super) const ALPN_CHALLENGE: &[u8] = b"acme-tls/1";

/// The most certificates of one listener.
pub const MAX_CERTIFICATES: usize = 100;
/// The most certificates of one chain.
const MAX_CHAIN: usize = 10;

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCertificate {
    /// The text holds no certificate.
    #[error("there is no certificate in it; it must begin with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// The text holds no private key.
    #[error("there is no private key in it; it must hold one -----BEGIN PRIVATE KEY-----")]
    NoKey,
    /// The text is not PEM.
    #[error("it is not PEM: {0}")]
    Pem(String),
    /// A certificate cannot be read.
    #[error("certificate {0} of the chain cannot be read: {1}")]
    Unreadable(usize, String),
    /// More certificates than [`MAX_CERTIFICATES`], or a longer chain than anybody needs.
    #[error("there are too many certificates in it")]
    TooMany,
    /// A certificate was not issued by the one after it.
    #[error("certificate {0} of the chain was not issued by the next one; put them in order")]
    OutOfOrder(usize),
    /// The certificate is of another key, or the key is of a kind that TLS does not use.
    #[error("the private key does not fit the certificate: {0}")]
    Key(rustls::Error),
    /// The certificate is not valid any more.
    #[error("it expired at {0}")]
    Expired(Timestamp),
    /// The certificate is not valid yet.
    #[error("it is not valid before {0}")]
    NotYetValid(Timestamp),
    /// The library refused the settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// A certificate with its chain and its private key. No formatter shows the key.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Box<[String]>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Certificate {
    /// Reads a chain, the certificate itself first, and its private key, both as PEM (RFC 7468).
    ///
    /// # Errors
    /// When one of them cannot be read, the chain is out of order, or the key is another one's.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, InvalidCertificate> {
        let read = Self::for_challenge(chain, key)?;
        read.key.keys_match().map_err(InvalidCertificate::Key)?;
        Ok(read)
    }

    /// The same for a certificate that answers a challenge (RFC 8737 §3). It has a critical
    /// extension that no check of a certificate knows; whether the key fits it is not looked at.
    ///
    /// # Errors
    /// As [`Certificate::from_pem`].
    pub fn for_challenge(chain: &[u8], key: &[u8]) -> Result<Self, InvalidCertificate> {
        let unreadable = |error: PemError| InvalidCertificate::Pem(error.to_string());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(unreadable)?;
        if chain.len() > MAX_CHAIN {
            return Err(InvalidCertificate::TooMany);
        }
        let own = check_chain(&chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            PemError::NoItemsFound => InvalidCertificate::NoKey,
            error => unreadable(error),
        })?;
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(key);
        let key = key.map_err(InvalidCertificate::Key)?;
        let validity = &own.tbs_certificate.validity;
        Ok(Self {
            key: Arc::new(CertifiedKey::new(chain, key)),
            names: names(&own),
            not_before: instant(validity.not_before.to_unix_duration()),
            not_after: instant(validity.not_after.to_unix_duration()),
        })
    }

    /// Refuses a certificate that is not valid at this time.
    ///
    /// # Errors
    /// [`InvalidCertificate::Expired`] and [`InvalidCertificate::NotYetValid`].
    pub fn check(&self, now: Timestamp) -> Result<(), InvalidCertificate> {
        if now >= self.not_after {
            return Err(InvalidCertificate::Expired(self.not_after));
        }
        if now < self.not_before {
            return Err(InvalidCertificate::NotYetValid(self.not_before));
        }
        Ok(())
    }

    /// From when on it is valid.
    pub const fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// When it expires.
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The host names it is for, in lower case; one may begin with `*.`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether it is for this host (RFC 9525 §6.3: a wildcard stands for one label).
    pub fn is_for(&self, host: &str) -> bool {
        let parent = host.split_once('.').map_or("", |(_, parent)| parent);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(covered) => covered == parent,
            None => name == host,
        })
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Reads every certificate of a chain and says what the first holds.
fn check_chain(chain: &[CertificateDer<'_>]) -> Result<X509, InvalidCertificate> {
    let mut own = None;
    let mut issuer = None;
    for (position, der) in chain.iter().enumerate() {
        let read = X509::from_der(der)
            .map_err(|error| InvalidCertificate::Unreadable(position + 1, error.to_string()))?;
        let subject = &read.tbs_certificate.subject;
        if issuer.is_some_and(|issuer| issuer != *subject) {
            return Err(InvalidCertificate::OutOfOrder(position));
        }
        issuer = Some(read.tbs_certificate.issuer.clone());
        own.get_or_insert(read);
    }
    own.ok_or(InvalidCertificate::NoCertificate)
}

fn names(certificate: &X509) -> Box<[String]> {
    let found = certificate.tbs_certificate.get::<SubjectAltName>();
    let Ok(Some((_, SubjectAltName(names)))) = found else {
        return Box::default();
    };
    let of_host = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    };
    names.iter().filter_map(of_host).collect()
}

fn instant(since_1970: std::time::Duration) -> Timestamp {
    Timestamp::from_millis(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}

/// The certificate that proves to an authority who holds a name (RFC 8737 §3), by that name in
/// lower case. It is asked for inside a handshake and should answer within microseconds.
pub type ChallengeAnswer = Box<dyn Fn(&str) -> Option<Certificate> + Send + Sync>;

/// What a listener shows of itself in its handshakes: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, no
/// early data, tickets under keys that change every few hours.
pub struct Tls {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
}

impl Tls {
    /// Chooses among these certificates by the name a caller asks for; the first is for callers
    /// that ask for none or for another.
    ///
    /// # Errors
    /// When there is no certificate, or more than [`MAX_CERTIFICATES`].
    pub fn new(certificates: Vec<Certificate>) -> Result<Self, InvalidCertificate> {
        Self::with(Certificates { shown: RwLock::new(checked(certificates)?), answer: None })
    }

    /// The same, and answers authorities that validate a name on this listener (RFC 8737). There
    /// may be no certificate yet; every other handshake fails until there is one.
    ///
    /// # Errors
    /// When there are more certificates than [`MAX_CERTIFICATES`].
    pub fn answering(
        certificates: Vec<Certificate>,
        answer: ChallengeAnswer,
    ) -> Result<Self, InvalidCertificate> {
        let shown = if certificates.is_empty() { Box::default() } else { checked(certificates)? };
        Self::with(Certificates { shown: RwLock::new(shown), answer: Some(answer) })
    }

    fn with(certificates: Certificates) -> Result<Self, InvalidCertificate> {
        let certificates = Arc::new(certificates);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(InvalidCertificate::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP_11.to_vec()];
        if certificates.answer.is_some() {
            config.alpn_protocols.push(ALPN_CHALLENGE.to_vec());
        }
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(InvalidCertificate::Setup)?;
        Ok(Self { config: Arc::new(config), certificates })
    }

    /// Shows these certificates from the next handshake on. Connections that are open stay.
    ///
    /// # Errors
    /// As [`Tls::new`]; the earlier certificates stay then.
    pub fn replace(&self, certificates: Vec<Certificate>) -> Result<(), InvalidCertificate> {
        *self.certificates.shown.write() = checked(certificates)?;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.certificates).finish()
    }
}

fn checked(certificates: Vec<Certificate>) -> Result<Box<[Certificate]>, InvalidCertificate> {
    match certificates.len() {
        0 => Err(InvalidCertificate::NoCertificate),
        1..=MAX_CERTIFICATES => Ok(certificates.into()),
        _ => Err(InvalidCertificate::TooMany),
    }
}

/// The certificates in force.
struct Certificates {
    shown: RwLock<Box<[Certificate]>>,
    answer: Option<ChallengeAnswer>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificates").field(&self.shown).finish()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls has brought the name into lower case
        let named = hello.server_name();
        if let Some(answer) = self.answer.as_ref().filter(|_| is_challenge(&hello)) {
            return answer(named?).map(|it| it.key);
        }
        let certificates = self.shown.read();
        let fitting = named.and_then(|host| certificates.iter().find(|it| it.is_for(host)));
        fitting.or(certificates.first()).map(|it| Arc::clone(&it.key))
    }
}

/// Whether an authority asks: it offers this protocol and no other (RFC 8737 §3).
fn is_challenge(hello: &ClientHello<'_>) -> bool {
    let mut offered = hello.alpn().into_iter().flatten();
    offered.next() == Some(ALPN_CHALLENGE) && offered.next().is_none()
}
