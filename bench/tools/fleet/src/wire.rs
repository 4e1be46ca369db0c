//! HTTP/1.1 as bytes, so that it is known what was sent when, and how a connection ended.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use std::{fmt, io};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// The most bytes of one answer.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that is kept open between requests.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    answers: u32,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The lines of the head in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
pub(crate) enum Failure {
    /// Nobody accepts connections.
    Refused(String),
    /// The connection ended before the first byte of an answer.
    Unanswered {
        /// Answers it had given before.
        answers: u32,
    },
    /// The connection broke within an answer, or the answer was unreadable.
    Broken(String),
    /// The answer did not come in time.
    Late,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) => write!(f, "no connection: {text}"),
            Self::Unanswered { answers } => write!(f, "closed unanswered after {answers} answers"),
            Self::Broken(text) => write!(f, "broken off: {text}"),
            Self::Late => write!(f, "no answer in time"),
        }
    }
}

impl Answer {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            (known == name).then(|| value.trim())
        })
    }

    fn body_bytes(&self) -> Option<usize> {
        match self.header("content-length") {
            Some(digits) => digits.parse().ok(),
            None if self.header("transfer-encoding").is_some() => None,
            None => Some(0),
        }
    }

    fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.contains("close"))
    }
}

impl Wire {
    /// Connects, from this address of the loopback network.
    pub(crate) async fn connect(to: SocketAddr, from: Ipv4Addr) -> Result<Self, Failure> {
        let refused = |error: io::Error| Failure::Refused(error.to_string());
        let socket = TcpSocket::new_v4().map_err(refused)?;
        socket.bind(SocketAddr::from((from, 0))).map_err(refused)?;
        let stream = match timeout(CONNECT_TIMEOUT, socket.connect(to)).await {
            Ok(connected) => connected.map_err(refused)?,
            Err(_) => return Err(Failure::Refused("connecting took too long".to_owned())),
        };
        stream.set_nodelay(true).map_err(refused)?;
        Ok(Self { stream, buffer: Vec::new(), answers: 0 })
    }

    /// Whether the other side has not closed it, as far as is known here.
    pub(crate) fn is_open(&self) -> bool {
        let mut byte = [0];
        match self.stream.try_read(&mut byte) {
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            Ok(_) => false,
        }
    }

    /// Sends a request and reads the answer; also gives the connection back if it stays open.
    pub(crate) async fn ask(
        mut self,
        request: &[u8],
        within: Duration,
    ) -> Result<(Answer, Option<Self>), Failure> {
        match timeout(within, self.exchange(request)).await {
            Ok(Ok(answer)) => {
                self.answers += 1;
                let keep = !answer.closes() && self.buffer.is_empty();
                Ok((answer, keep.then_some(self)))
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Late),
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        // when this fails, an answer may stand in the buffer all the same
        let _ = self.stream.write_all(request).await;
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            match self.more().await {
                Ok(0) | Err(_) if self.buffer.is_empty() => {
                    return Err(Failure::Unanswered { answers: self.answers });
                }
                Ok(0) => return Err(Failure::Broken("closed within a head".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(Failure::Broken(error.to_string())),
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let Some(status) = status else {
            return Err(Failure::Broken(format!("no status in {head:?}")));
        };
        let mut answer = Answer { status, head, body: Vec::new() };
        let Some(length) = answer.body_bytes().filter(|length| *length <= MAX_ANSWER_BYTES) else {
            return Err(Failure::Broken(format!("no usable length in {:?}", answer.head)));
        };
        while self.buffer.len() < length {
            match self.more().await {
                Ok(0) => return Err(Failure::Broken("closed within a body".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(Failure::Broken(error.to_string())),
            }
        }
        answer.body = self.buffer.drain(..length).collect();
        Ok(answer)
    }

    async fn more(&mut self) -> io::Result<usize> {
        if self.buffer.len() > MAX_ANSWER_BYTES {
            return Err(io::Error::other("the answer is too long"));
        }
        self.stream.read_buf(&mut self.buffer).await
    }
}
