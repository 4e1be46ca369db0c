//! Upstreams in this process that speak what a test wants them to.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use keyward_core::assertion::SigningKey;
use keyward_core::environment::EnvironmentSet;
use keyward_gateway::{UpstreamConfig, UpstreamProtocol};

use crate::support::{AUDIENCE, SECRET};

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
pub(crate) type Answering =
    Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// What a speaker speaks on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    Http1,
    Http2,
}

impl Speech {
    pub(crate) const fn protocol(self) -> UpstreamProtocol {
        match self {
            Self::Http1 => UpstreamProtocol::Http1,
            Self::Http2 => UpstreamProtocol::Http2,
        }
    }
}

/// An upstream that takes all but the routes of web sockets, which HTTP/2 does not carry.
pub(crate) fn with_sockets_elsewhere(upstream: UpstreamConfig) -> Vec<UpstreamConfig> {
    let mut elsewhere = config_of(&["http://127.0.0.1:1"]);
    elsewhere.name = Some("billing".to_owned());
    elsewhere.paths = vec!["/v1/socket".to_owned()];
    vec![upstream, elsewhere]
}

/// A running upstream.
pub(crate) struct Speaker {
    pub(crate) url: String,
    pub(crate) requests: Arc<AtomicU64>,
    pub(crate) connections: Arc<AtomicU64>,
}

/// Answers everything with its name, the method and the address it was asked for.
pub(crate) fn named(name: &'static str) -> Answering {
    Arc::new(move |request| {
        let text = format!("{name} {} {}", request.method(), request.uri());
        Box::pin(async move { whole(text) })
    })
}

pub(crate) fn whole(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).boxed_unsync())
}

impl Speaker {
    fn new(url: String) -> Self {
        Self { url, requests: Arc::default(), connections: Arc::default() }
    }

    /// Listens on a port.
    pub(crate) async fn on_tcp(speech: Speech, answering: Answering) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let speaker = Self::new(format!("http://{}", listener.local_addr().unwrap()));
        let counted = speaker.counted(answering);
        let connections = Arc::clone(&speaker.connections);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(speak(socket, speech, Arc::clone(&counted)));
            }
        });
        speaker
    }

    /// Listens on a socket.
    pub(crate) fn on_socket(path: &Path, speech: Speech, answering: Answering) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let speaker = Self::new(format!("unix:{}", path.display()));
        let counted = speaker.counted(answering);
        let connections = Arc::clone(&speaker.connections);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(speak(socket, speech, Arc::clone(&counted)));
            }
        });
        speaker
    }

    /// Listens for TLS with a certificate for `name`, and speaks what is agreed on.
    pub(crate) async fn on_tls(
        authority: &Authority,
        name: &str,
        protocols: &[&str],
        answering: Answering,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let speaker = Self::new(format!("https://{}", listener.local_addr().unwrap()));
        let counted = speaker.counted(answering);
        let connections = Arc::clone(&speaker.connections);
        let acceptor = authority.acceptor(name, protocols);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, counted) = (acceptor.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    // a caller that does not believe us is gone
                    let Ok(socket) = acceptor.accept(socket).await else { return };
                    let http2 = socket.get_ref().1.alpn_protocol() == Some(b"h2");
                    let speech = if http2 { Speech::Http2 } else { Speech::Http1 };
                    speak(socket, speech, counted).await;
                });
            }
        });
        speaker
    }

    fn counted(&self, answering: Answering) -> Answering {
        let requests = Arc::clone(&self.requests);
        Arc::new(move |request| {
            requests.fetch_add(1, Ordering::SeqCst);
            answering(request)
        })
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// It as the upstream of every environment.
    pub(crate) fn config(&self) -> UpstreamConfig {
        config_of(&[&self.url])
    }
}

/// An upstream with these addresses.
pub(crate) fn config_of(urls: &[&str]) -> UpstreamConfig {
    let key = Arc::new(SigningKey::hs256(SECRET).unwrap());
    let mut config = UpstreamConfig::new(EnvironmentSet::ALL, "", AUDIENCE, key);
    config.addresses = urls.iter().map(|url| (*url).to_owned()).collect();
    config
}

async fn speak<S>(socket: S, speech: Speech, answering: Answering)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answering(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let io = TokioIo::new(socket);
    // a connection that breaks has nobody left to tell
    match speech {
        Speech::Http1 => {
            let served = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
            drop(served.await);
        }
        Speech::Http2 => {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(builder.serve_connection(io, service).await);
        }
    }
}

/// A certificate authority of a test's own.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(crate) pem: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let pem = certificate.pem().into_bytes();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    pub(crate) fn acceptor(&self, name: &str, protocols: &[&str]) -> TlsAcceptor {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}
