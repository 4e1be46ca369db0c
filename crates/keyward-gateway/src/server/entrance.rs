//! Finds out what a new connection speaks.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::metrics::HandshakeFailure;
use crate::server::admission::Caller;
use crate::server::connection::Serving;
use crate::server::http1::serve;
use crate::server::tls::{ALPN_CHALLENGE, ALPN_H2, Tls};
use crate::server::{Stage, http2};

/// What a caller sends first that speaks HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection that may be encrypted or speak HTTP/2.
pub(super) async fn enter(serving: Arc<Serving>, stream: TcpStream, peer: IpAddr, caller: Caller) {
    let Some(tls) = serving.protocols.tls.as_ref() else {
        return enter_plain(serving, stream, peer, caller).await;
    };
    let Some(stream) = shake_hands(&serving, tls, stream).await else {
        return;
    };
    match stream.get_ref().1.alpn_protocol() {
        Some(ALPN_H2) => http2::serve(serving, stream, Vec::new(), peer, caller).await,
        // the handshake said everything (RFC 8737 §3)
        Some(ALPN_CHALLENGE) => end(&serving, stream).await,
        _ => serve(serving, stream, Vec::new(), peer).await,
    }
}

/// Ends an encrypted connection on which nothing is to be said.
async fn end(serving: &Serving, mut stream: TlsStream<TcpStream>) {
    // whoever does not take the end of it misses nothing
    let _ = timeout(serving.limits.header_timeout, stream.shutdown()).await;
}

async fn enter_plain(serving: Arc<Serving>, mut stream: TcpStream, peer: IpAddr, caller: Caller) {
    let within = serving.limits.header_timeout;
    let Ok(Ok(first)) = timeout(within, read_preface(&mut stream)).await else {
        return;
    };
    if first == PREFACE {
        http2::serve(serving, stream, first, peer, caller).await;
    } else if !first.is_empty() {
        serve(serving, stream, first, peer).await;
    }
}

/// Reads as long as it may be the preface, and never past it. Empty when the caller left.
async fn read_preface(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        let left = (PREFACE.len() - first.len()) as u64;
        if (&mut *stream).take(left).read_buf(&mut first).await? == 0 {
            break;
        }
    }
    Ok(first)
}

/// The encrypted connection; `None` when there will be none.
async fn shake_hands(
    serving: &Serving,
    tls: &Tls,
    stream: TcpStream,
) -> Option<TlsStream<TcpStream>> {
    let mut stage = serving.listener.stage.clone();
    let shaking = timeout(serving.limits.header_timeout, tls.acceptor().accept(stream));
    let shaken = tokio::select! {
        biased;
        _ = stage.wait_for(|stage| *stage >= Stage::Draining) => return None,
        shaken = shaking => shaken,
    };
    let failure = match shaken {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => HandshakeFailure::of(&error),
        Err(_) => HandshakeFailure::TooSlow,
    };
    serving.plane.recorder.metrics.count_handshake(failure);
    None
}
