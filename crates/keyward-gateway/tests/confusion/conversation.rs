//! Bytes as the corpora write them, and conversations with whoever reads them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::PATIENCE;

/// The bytes behind a text of a corpus: `\xHH` is a byte, `\N{n:text}` is the text n times.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        if let Some(digits) = escape.strip_prefix('x') {
            bytes.push(u8::from_str_radix(&digits[..2], 16).unwrap());
            rest = &digits[2..];
        } else {
            let repeated = escape.strip_prefix("N{").expect("an escape that is known");
            let (inside, behind) = repeated.split_once('}').unwrap();
            let (count, text) = inside.split_once(':').unwrap();
            bytes.extend(text.repeat(count.parse().unwrap()).bytes());
            rest = behind;
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Percent-decoding as every server does it, once.
pub(crate) fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|two| str::from_utf8(two).ok());
        let octet = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        let octet = octet.filter(|_| *byte == b'%');
        bytes.push(octet.unwrap_or(*byte));
        rest = if octet.is_some() { &tail[2..] } else { tail };
    }
    bytes
}

/// Sends bytes on a connection of their own and reads whatever comes until the other side closes.
pub(crate) async fn converse(address: SocketAddr, bytes: &[u8]) -> String {
    converse_on(TcpStream::connect(address).await.unwrap(), bytes).await
}

/// The same on a connection that was made already.
pub(crate) async fn converse_on(mut stream: TcpStream, bytes: &[u8]) -> String {
    stream.set_nodelay(true).unwrap();
    // the other side may have answered and closed already; the answer is what counts
    let _ = stream.write_all(bytes).await;
    let mut received = Vec::new();
    let closed = timeout(PATIENCE, stream.read_to_end(&mut received)).await;
    let text = String::from_utf8_lossy(&received).into_owned();
    assert!(closed.is_ok(), "the connection stays open behind {text:?}");
    text
}

/// The same, for no longer than a while: who reads on may wait for what never comes.
pub(crate) async fn converse_for(limit: Duration, address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let _ = stream.write_all(bytes).await;
    let mut received = Vec::new();
    let _ = timeout(limit, stream.read_to_end(&mut received)).await;
    String::from_utf8_lossy(&received).into_owned()
}

/// The statuses of all answers in what was received.
pub(crate) fn statuses(received: &str) -> Vec<u16> {
    let lines = received.split("HTTP/1.").skip(1);
    lines.filter_map(|line| line.get(2..5)?.parse().ok()).collect()
}
