//! TLS in front of everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use keyward_core::time::Timestamp;
use keyward_gateway::{Certificate, GatewayOptions, InvalidCertificate, Protocols, Tls};

use crate::http2::exchange;
use crate::support::*;

/// A certificate that signs itself, as PEM and as its callers know it.
pub(crate) struct Made {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
}

pub(crate) fn make(names: &[&str]) -> Made {
    make_with(names, |_| {})
}

fn make_with(names: &[&str], tune: impl FnOnce(&mut rcgen::CertificateParams)) -> Made {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    tune(&mut params);
    let made = params.self_signed(&key).unwrap();
    Made { chain: made.pem(), key: key.serialize_pem(), der: made.der().clone() }
}

impl Made {
    pub(crate) fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.chain.as_bytes(), self.key.as_bytes()).unwrap()
    }
}

pub(crate) fn encrypted(tls: &Arc<Tls>) -> impl FnOnce(&mut GatewayOptions) + use<> {
    let tls = Arc::clone(tls);
    move |options| options.protocols = Protocols { tls: Some(tls), h2c: false }
}

/// A caller's side that trusts these, and offers these protocols.
pub(crate) fn connector(trusted: &[&Made], alpn: &[&[u8]]) -> TlsConnector {
    TlsConnector::from(Arc::new(caller(trusted, alpn)))
}

fn caller(trusted: &[&Made], alpn: &[&[u8]]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for made in trusted {
        roots.add(made.der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

pub(crate) async fn shake(
    connector: &TlsConnector,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio::time::timeout(PATIENCE, connector.connect(name, stream)).await.expect("in time")
}

/// The answer to one request over HTTP/1.1.
async fn ask(stream: &mut TlsStream<TcpStream>, token: &str) -> String {
    let head = format!(
        "GET /v1/reports HTTP/1.1\r\nhost: api.test\r\nx-api-key: {token}\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn both_protocols_on_one_port() {
    let made = make(&["api.test"]);
    let tls = Arc::new(Tls::new(vec![made.certificate()]).unwrap());
    let stage = stage_with(encrypted(&tls), None).await;
    let address = stage.server.local_addr();
    for alpn in [&[][..], &[&b"http/1.1"[..]]] {
        let mut stream = shake(&connector(&[&made], alpn), address, "api.test").await.unwrap();
        let answer = ask(&mut stream, &stage.world.token).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(r#""x-forwarded-proto":"https""#), "{answer}");
    }
    let stream = shake(&connector(&[&made], &[b"h2"]), address, "api.test").await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::builder()
        .uri("https://api.test/v1/reports")
        .header("x-api-key", &stage.world.token)
        .body(http_body_util::Full::default())
        .unwrap();
    let (status, _, body) = exchange(&mut client, request).await;
    assert_eq!(status, 200);
    assert!(String::from_utf8(body).unwrap().contains(r#""x-forwarded-proto":"https""#));
    // a protocol that nobody here speaks
    let failed = shake(&connector(&[&made], &[b"h3"]), address, "api.test").await;
    assert!(failed.is_err());
    let counted = "keyward_tls_handshakes_failed_total{reason=\"incompatible\"} 1";
    assert!(metrics_of(&stage.plane).contains(counted), "{}", metrics_of(&stage.plane));
}

/// Early data can be sent again by whoever recorded it, and a request could be made twice.
#[tokio::test]
async fn a_caller_that_comes_back_is_known_again_and_has_no_early_data() {
    let made = make(&["api.test"]);
    let tls = Arc::new(Tls::new(vec![made.certificate()]).unwrap());
    let stage = stage_with(encrypted(&tls), None).await;
    let mut eager = caller(&[&made], &[]);
    eager.enable_early_data = true;
    let connector = TlsConnector::from(Arc::new(eager));
    for known in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
        let stream = TcpStream::connect(stage.server.local_addr()).await.unwrap();
        let mut offered = false;
        let handshake = connector.connect_with(
            ServerName::try_from("api.test").unwrap(),
            stream,
            |connection| offered = connection.early_data().is_some(),
        );
        let mut stream = tokio::time::timeout(PATIENCE, handshake).await.unwrap().unwrap();
        assert!(!offered, "the first answer allowed early data");
        let answer = ask(&mut stream, &stage.world.token).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(known));
    }
}

#[tokio::test]
async fn certificates_are_chosen_by_name_and_replaced_under_way() {
    let (first, wild) = (make(&["api.test"]), make(&["*.wild.test"]));
    let tls = Tls::new(vec![first.certificate(), wild.certificate()]).unwrap();
    let tls = Arc::new(tls);
    let stage = stage_with(encrypted(&tls), None).await;
    let address = stage.server.local_addr();
    let shown = async |name: &str| {
        let anybody = connector(&[&first, &wild], &[]);
        let stream = shake(&anybody, address, name).await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap();
        std::io::Result::Ok(certificates[0].clone())
    };
    assert_eq!(shown("api.test").await.unwrap(), first.der);
    assert_eq!(shown("a.wild.test").await.unwrap(), wild.der);
    // a wildcard stands for one label, and the first certificate is shown to everybody else
    for other in ["wild.test", "a.b.wild.test", "other.test"] {
        assert!(shown(other).await.is_err(), "{other}");
    }

    let mut open = shake(&connector(&[&first], &[]), address, "api.test").await.unwrap();
    let renewed = make(&["api.test"]);
    tls.replace(vec![renewed.certificate()]).unwrap();
    assert!(shake(&connector(&[&first], &[]), address, "api.test").await.is_err());
    shake(&connector(&[&renewed], &[]), address, "api.test").await.unwrap();
    // what was open stays
    let answer = ask(&mut open, &stage.world.token).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(tls.replace(Vec::new()).is_err());
    shake(&connector(&[&renewed], &[]), address, "api.test").await.unwrap();
}

#[tokio::test]
async fn whoever_looks_who_holds_a_name_is_answered_and_nothing_else() {
    const CHALLENGE: &[u8] = b"acme-tls/1";
    // what authorities look for is refused as anything else
    let extension = rcgen::CustomExtension::new_acme_identifier(&[7; 32]);
    let real = make_with(&["api.test"], |params| params.custom_extensions.push(extension));
    let (chain, key) = (real.chain.as_bytes(), real.key.as_bytes());
    assert!(matches!(Certificate::from_pem(chain, key), Err(InvalidCertificate::Key(_))));
    assert!(Certificate::for_challenge(chain, key).is_ok());

    let (answer, shown) = (make(&["api.test"]), make(&["api.test"]));
    let answering = answer.certificate();
    let answers = move |name: &str| (name == "api.test").then(|| answering.clone());
    let tls = Arc::new(Tls::answering(Vec::new(), Box::new(answers)).unwrap());
    let stage = stage_with(encrypted(&tls), None).await;
    let address = stage.server.local_addr();
    let anybody = [&answer, &shown];
    let mut stream = shake(&connector(&anybody, &[CHALLENGE]), address, "api.test").await.unwrap();
    let certificates = stream.get_ref().1.peer_certificates().unwrap();
    assert_eq!(certificates[0], answer.der);
    // a request on it is not answered
    let request = b"GET /v1/reports HTTP/1.1\r\nhost: api.test\r\n\r\n";
    let _ = stream.write_all(request).await;
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.unwrap();
    assert!(said.is_empty(), "{said:?}");
    // another name is nobody's, and callers are shown nothing before there is a certificate
    for (alpn, name) in [(&[CHALLENGE][..], "other.test"), (&[], "api.test")] {
        assert!(shake(&connector(&anybody, alpn), address, name).await.is_err(), "{name}");
    }

    tls.replace(vec![shown.certificate()]).unwrap();
    // a caller that could speak HTTP does not look who holds the name
    for alpn in [&[][..], &[b"http/1.1", CHALLENGE]] {
        let mut stream = shake(&connector(&[&shown], alpn), address, "api.test").await.unwrap();
        assert!(ask(&mut stream, &stage.world.token).await.starts_with("HTTP/1.1 200"));
    }
    let stream = shake(&connector(&[&answer], &[CHALLENGE]), address, "api.test").await;
    assert!(stream.is_ok());
    // a listener without [acme] does not speak of it
    let tls = Arc::new(Tls::new(vec![shown.certificate()]).unwrap());
    let stage = stage_with(encrypted(&tls), None).await;
    let refused = connector(&[&shown], &[CHALLENGE]);
    assert!(shake(&refused, stage.server.local_addr(), "api.test").await.is_err());
}

#[tokio::test]
async fn callers_that_do_not_finish_their_handshake_are_let_go() {
    let made = make(&["api.test"]);
    let tls = Arc::new(Tls::new(vec![made.certificate()]).unwrap());
    let short = |options: &mut GatewayOptions| {
        options.protocols.tls = Some(tls);
        options.limits.header_timeout = Duration::from_millis(60);
        options.limits.max_connections = 2;
    };
    let stage = stage_with(short, None).await;
    let address = stage.server.local_addr();
    // both places are taken by callers that say nothing, and come free again
    let mut silent = Client::connect(address).await;
    let mut half = Client::connect(address).await;
    half.write(&[22, 3, 1, 0, 200, 1]).await;
    let mut stream = shake(&connector(&[&made], &[]), address, "api.test").await.unwrap();
    assert!(ask(&mut stream, &stage.world.token).await.starts_with("HTTP/1.1 200"));
    assert!(silent.is_closed().await && half.is_closed().await);
    let counted = "keyward_tls_handshakes_failed_total{reason=\"too_slow\"} 2";
    assert!(metrics_of(&stage.plane).contains(counted));
}

/// The hello of a caller that knows no version above this one.
fn hello(version: u8) -> Vec<u8> {
    let mut body = vec![3, version];
    body.extend([7; 32]);
    // no session; one cipher; no compression
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let groups: &[u8] = &[0, 10, 0, 4, 0, 2, 0, 23];
    let signatures: &[u8] = &[0, 13, 0, 4, 0, 2, 4, 3];
    let points: &[u8] = &[0, 11, 0, 2, 1, 0];
    let extensions = [groups, signatures, points].concat();
    body.extend([0, u8::try_from(extensions.len()).unwrap()]);
    body.extend(extensions);
    let mut handshake = vec![1, 0, 0, u8::try_from(body.len()).unwrap()];
    handshake.extend(body);
    let mut record = vec![22, 3, version, 0, u8::try_from(handshake.len()).unwrap()];
    record.extend(handshake);
    record
}

#[tokio::test]
async fn versions_before_1_2_are_refused() {
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    const PROTOCOL_VERSION: u8 = 70;
    let made = make(&["api.test"]);
    let tls = Arc::new(Tls::new(vec![made.certificate()]).unwrap());
    let stage = stage_with(encrypted(&tls), None).await;
    for version in [0, 1, 2] {
        let mut client = Client::connect(stage.server.local_addr()).await;
        client.write(&hello(version)).await;
        let alert = client.bytes(7).await;
        assert_eq!((alert[0], alert[6]), (ALERT, PROTOCOL_VERSION), "3.{version}: {alert:?}");
        assert!(client.is_closed().await);
    }
    // the same hello of a caller that knows 1.2
    let mut client = Client::connect(stage.server.local_addr()).await;
    client.write(&hello(3)).await;
    assert_eq!(client.bytes(1).await, [HANDSHAKE]);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.der.clone()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = shake(&connector, stage.server.local_addr(), "api.test").await.unwrap();
        assert!(ask(&mut stream, &stage.world.token).await.starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn what_cannot_be_served_says_why() {
    let (one, other) = (make(&["one.test"]), make(&["other.test"]));
    let read = |chain: &str, key: &str| {
        Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err()
    };
    assert!(matches!(read("", &one.key), InvalidCertificate::NoCertificate));
    assert!(matches!(read(&one.key, &one.key), InvalidCertificate::NoCertificate));
    assert!(matches!(read(&one.chain, ""), InvalidCertificate::NoKey));
    assert!(matches!(read(&one.chain, &one.chain), InvalidCertificate::NoKey));
    assert!(matches!(read(&one.chain, &other.key), InvalidCertificate::Key(_)));
    let cut = one.chain.replace("-----END CERTIFICATE-----", "");
    assert!(matches!(read(&cut, &one.key), InvalidCertificate::Pem(_)));
    let unordered = format!("{}{}", one.chain, other.chain);
    // both sign themselves, and neither the other; their subjects are the same by default
    let named = |name: &str| {
        make_with(&[name], |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
        })
    };
    assert!(Certificate::from_pem(unordered.as_bytes(), one.key.as_bytes()).is_ok());
    let (one, other) = (named("one.test"), named("other.test"));
    let unordered = format!("{}{}", one.chain, other.chain);
    assert!(matches!(read(&unordered, &one.key), InvalidCertificate::OutOfOrder(1)));
    let long = one.chain.repeat(11);
    assert!(matches!(read(&long, &one.key), InvalidCertificate::TooMany));
}

#[test]
fn certificates_are_valid_for_a_time() {
    let made = make_with(&["api.test", "*.API.test"], |params| {
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
    });
    let certificate = made.certificate();
    assert_eq!(certificate.names(), ["api.test", "*.api.test"]);
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    assert_eq!(certificate.not_after(), at("2026-04-01T00:00:00Z"));
    assert!(certificate.check(at("2026-03-31T23:59:59Z")).is_ok());
    let expired = certificate.check(at("2026-04-01T00:00:00Z")).unwrap_err();
    assert_eq!(expired.to_string(), "it expired at 2026-04-01T00:00:00.000Z");
    let early = certificate.check(at("2025-12-31T23:59:59Z")).unwrap_err();
    assert!(matches!(early, InvalidCertificate::NotYetValid(_)));
    let shown = format!("{certificate:?}");
    assert!(shown.contains("api.test") && !shown.to_lowercase().contains("key"), "{shown}");
}
