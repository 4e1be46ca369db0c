//! A caller that speaks HTTP/2 frame by frame, as no library would let it.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::*;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it came over the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a reset or a GOAWAY, whichever it is.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Fields as literals that nobody remembers (RFC 7541 §6.2.2).
pub(crate) fn block<V: AsRef<[u8]>>(fields: &[(&str, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name.as_bytes(), value.as_ref()] {
            push_length(&mut bytes, text.len());
            bytes.extend(text);
        }
    }
    bytes
}

fn push_length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return bytes.push(u8::try_from(length).unwrap());
    }
    bytes.push(127);
    let mut left = length - 127;
    while left >= 128 {
        bytes.push(u8::try_from(left % 128).unwrap() | 0x80);
        left /= 128;
    }
    bytes.push(u8::try_from(left).unwrap());
}

/// What happened to a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was refused, with the code of the envelope.
    Refused(String),
    /// It was answered with something else than a refusal.
    Answered,
    Reset(u32),
    /// The connection ended, and not because its time had come.
    GoneAway(u32),
    Closed,
}

pub(crate) struct Wire {
    pub(crate) client: Client,
    pub(crate) answers_pings: bool,
}

impl Wire {
    /// A connection whose preface was sent, with these settings.
    pub(crate) async fn open(address: SocketAddr, settings: &[u8]) -> Self {
        let mut wire = Self { client: Client::connect(address).await, answers_pings: true };
        wire.client.write(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await;
        wire
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.client.write(&frame(kind, flags, stream, payload)).await;
    }

    /// A request without a body.
    pub(crate) async fn get(&mut self, stream: u32, path: &str, more: &[(&str, &str)]) {
        let mut fields = vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "api.test"),
            (":path", path),
        ];
        fields.extend(more);
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &block(&fields)).await;
    }

    /// The next frame; `None` when the other side closed. Settings and pings are
    /// acknowledged.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let head = self.client.bytes_or_end(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let payload = self.client.bytes_or_end(length).await?;
        let next = Frame { kind: head[3], flags: head[4], stream, payload };
        if next.kind == SETTINGS && next.flags & ACK == 0 {
            self.send(SETTINGS, ACK, 0, &[]).await;
        }
        if next.kind == PING && next.flags & ACK == 0 && self.answers_pings {
            self.send(PING, ACK, 0, &next.payload).await;
        }
        Some(next)
    }

    /// The next frame of this kind.
    pub(crate) async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let next = self.next().await?;
            if next.kind == kind {
                return Some(next);
            }
        }
    }

    /// What becomes of a stream.
    pub(crate) async fn fate(&mut self, stream: u32) -> Fate {
        let mut body = Vec::new();
        while let Some(next) = self.next().await {
            if next.kind == GOAWAY && next.code() != 0 {
                return Fate::GoneAway(next.code());
            }
            if next.stream != stream {
                continue;
            }
            if next.kind == RST_STREAM {
                return Fate::Reset(next.code());
            }
            if next.kind == DATA {
                body.extend(&next.payload);
            }
            if next.flags & END_STREAM != 0 {
                let json: Value = serde_json::from_slice(&body).unwrap_or_default();
                let code = json["error"]["code"].as_str().map(str::to_owned);
                return code.map_or(Fate::Answered, Fate::Refused);
            }
        }
        Fate::Closed
    }

    /// The code of the GOAWAY that ends the connection; `None` when it ends without one.
    pub(crate) async fn gone_away(&mut self) -> Option<u32> {
        let code = self.next_of(GOAWAY).await?.code();
        while self.next().await.is_some() {}
        Some(code)
    }
}
