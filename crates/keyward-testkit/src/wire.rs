//! HTTP as bytes, for requests that no client library would send.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing takes this long; it only keeps a broken test from hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that speaks raw bytes.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer as it came over the wire. Header names are in lower case.
#[derive(Debug)]
pub struct WireAnswer {
    /// The status.
    pub status: u16,
    /// The headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl WireAnswer {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert!(serde_json::from_str::<Value>(&self.body).is_ok(), "no JSON in {self:?}");
        serde_json::from_str(&self.body).expect("just parsed")
    }
}

impl Wire {
    /// Connects to an address such as `127.0.0.1:8787`, with or without `http://`.
    pub async fn connect(address: &str) -> Self {
        let address: SocketAddr =
            address.trim_start_matches("http://").parse().expect("a socket address");
        let stream = TcpStream::connect(address).await.expect("a listener");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends bytes. The other side may have answered and closed already: the answer counts.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next answer; `None` when the connection was closed before one began.
    pub async fn answer(&mut self) -> Option<WireAnswer> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if !self.more().await {
                assert!(self.buffer.is_empty(), "closed within a head");
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("a head in ASCII");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.and_then(|word| word.parse().ok()).expect("a status line");
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = WireAnswer { status, headers, body: String::new() };
        let length =
            answer.header("content-length").map_or(0, |text| text.parse().expect("digits"));
        while self.buffer.len() < length {
            assert!(self.more().await, "closed within a body");
        }
        let body: Vec<u8> = self.buffer.drain(..length).collect();
        answer.body = String::from_utf8(body).expect("a body in UTF-8");
        Some(answer)
    }

    /// Reads more; false when the other side closed.
    async fn more(&mut self) -> bool {
        let mut chunk = [0; 4 * 1024];
        let read =
            timeout(PATIENCE, self.stream.read(&mut chunk)).await.expect("an answer in time");
        let (read, _) = chunk.split_at(read.unwrap_or(0));
        self.buffer.extend_from_slice(read);
        !read.is_empty()
    }
}
