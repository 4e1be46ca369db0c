//! Answers as upstreams send them, in one piece and in many.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::http1::chunked::Chunked;
use crate::http1::reading::{Reading, Taken};
use crate::proxy::body::ForwardBody;
use crate::proxy::http1::head::{self, Head, MAX_RESPONSE_HEAD_BYTES, Seeker};
use crate::proxy::http1::{Connection, Fault, Socket};
use crate::proxy::outbound::Framing;
use crate::proxy::target::MAX_RESPONSE_HEADERS;

const PATIENCE: Duration = Duration::from_secs(20);

/// What is understood of bytes that come in these pieces before the connection ends.
#[derive(Debug, PartialEq)]
struct Understood {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
    /// What came behind it.
    rest: Vec<u8>,
    keeps: bool,
}

fn understand(pieces: &[&[u8]], asked_for_head: bool) -> io::Result<Option<Understood>> {
    let mut input = BytesMut::new();
    let mut seeker = Seeker::default();
    let mut pieces = pieces.iter();
    let mut head: Option<Head> = None;
    let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
    loop {
        if head.is_none() {
            head = head::take(&mut input, &mut seeker, asked_for_head)?;
        }
        if let Some(head) = &mut head {
            loop {
                match head.body.take(&mut input)? {
                    Taken::Nothing | Taken::Ended => break,
                    Taken::Frame(frame) => match frame.into_data() {
                        Ok(data) => body.extend_from_slice(&data),
                        Err(frame) => trailers = frame.into_trailers().unwrap(),
                    },
                }
            }
        }
        match pieces.next() {
            Some(piece) => input.extend_from_slice(piece),
            None => break,
        }
    }
    let Some(mut head) = head else {
        return Ok(None);
    };
    head.body.close()?;
    let Head { status, headers, keeps, .. } = head;
    Ok(Some(Understood { status, headers, body, trailers, rest: input.to_vec(), keeps }))
}

fn whole(text: &str) -> io::Result<Option<Understood>> {
    understand(&[text.as_bytes()], false)
}

fn head_of(headers: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}\r\n")
}

#[test]
fn bodies_end_where_the_head_says() {
    let understood = |text: &str| whole(text).unwrap().unwrap();
    let length = understood(&(head_of("content-length: 2\r\n") + "okHTTP/1.1 200"));
    assert_eq!((length.body.as_slice(), length.keeps), (&b"ok"[..], true));
    assert_eq!((length.rest.as_slice(), length.headers.len()), (&b"HTTP/1.1 200"[..], 1));
    let chunked = head_of("Transfer-Encoding: Chunked\r\n") + "2\r\nok\r\n0\r\nx: 1\r\n\r\nrest";
    let chunked = understood(&chunked);
    assert_eq!((chunked.body.as_slice(), chunked.rest.as_slice()), (&b"ok"[..], &b"rest"[..]));
    assert_eq!((chunked.trailers["x"].as_bytes(), chunked.headers.len()), (&b"1"[..], 0));
    let closed = understood(&(head_of("") + "whatever comes"));
    assert_eq!((closed.body.as_slice(), closed.keeps), (&b"whatever comes"[..], false));
    for status in ["204 No Content", "304 Not Modified", "101 Switching Protocols"] {
        let none = understood(&format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\nhello"));
        assert_eq!((none.body.len(), none.rest.as_slice()), (0, &b"hello"[..]), "{status}");
    }
    let text = head_of("content-length: 5\r\n") + "hello";
    let head = understand(&[text.as_bytes()], true).unwrap().unwrap();
    assert_eq!((head.body.len(), head.headers["content-length"].as_bytes()), (0, &b"5"[..]));
}

#[test]
fn what_says_that_the_connection_ends_is_heard() {
    let keeps = |text: &str| whole(text).unwrap().unwrap().keeps;
    let more = "content-length: 0\r\n";
    assert!(keeps(&head_of(more)));
    assert!(keeps(&head_of(&format!("connection: keep-alive\r\n{more}"))));
    assert!(!keeps(&head_of(&format!("connection: x, Close\r\n{more}"))));
    assert!(!keeps(&format!("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n{more}\r\n")));
    let named = whole(&head_of(&format!("connection: x-once\r\nx-once: 1\r\n{more}")));
    assert_eq!(named.unwrap().unwrap().headers["connection"], "x-once");
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for headers in [
        "content-length: 1\r\ncontent-length: 1\r\n",
        "content-length: 1\r\ncontent-length: 2\r\n",
        "content-length: 1, 1\r\n",
        "content-length: +1\r\n",
        "content-length: \r\n",
        "content-length: 0x1\r\n",
        "content-length: 99999999999999999999\r\n",
        "content-length: 1\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 1\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: identity\r\n",
        "x: y\r\n folded\r\n",
        " x: y\r\n",
        "x : y\r\n",
        "x\r\n",
        ": y\r\n",
        "x: a\0b\r\n",
        "x: a\rb\r\n",
    ] {
        assert!(whole(&(head_of(headers) + "1")).is_err(), "{headers:?}");
    }
    for text in [
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTQ",
        "SSH-2.0-x\r\n",
        "\r\n\r\n",
        "<html>",
    ] {
        assert!(whole(text).is_err(), "{text:?}");
    }
}

#[test]
fn what_breaks_off_never_looks_whole() {
    let length = head_of("content-length: 5\r\n");
    let chunked = head_of("transfer-encoding: chunked\r\n");
    for text in [
        length.clone() + "hell",
        length,
        chunked.clone(),
        chunked.clone() + "5\r\nhello\r\n",
        chunked.clone() + "5\r\nhello\r\n0\r\n",
        chunked.clone() + "5\r\nhello\r\n0\r\nx: 1\r\n",
    ] {
        let error = whole(&text).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{text:?}");
    }
    for text in [chunked.clone() + "5\r\nhelloX", chunked.clone() + "g\r\n", chunked + "0\r\nx\r\n"]
    {
        assert_eq!(whole(&text).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text:?}");
    }
    assert_eq!(whole("HTTP/1.1 200 OK\r\nx: y\r\n").unwrap(), None);
}

#[test]
fn heads_are_bounded() {
    let many = |count: usize| whole(&head_of(&"x: y\r\n".repeat(count)));
    assert_eq!(many(MAX_RESPONSE_HEADERS).unwrap().unwrap().headers.len(), MAX_RESPONSE_HEADERS);
    assert!(many(MAX_RESPONSE_HEADERS + 1).is_err());
    let long = "y".repeat(MAX_RESPONSE_HEAD_BYTES - 64);
    assert!(whole(&head_of(&format!("x: {long}\r\n"))).unwrap().is_some());
    assert!(whole(&head_of(&format!("x: {long}{long}\r\n"))).is_err());
    assert!(whole(&format!("HTTP/1.1 200 OK\r\nx: {long}{long}")).is_err(), "and not waited for");
}

/// An answer in one of the framings, with bytes that follow it, and its body.
fn answers() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let chunks = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6);
    let framed = (chunks, any::<bool>(), any::<bool>(), "[ -~]{0,20}");
    framed.prop_map(|(chunks, is_chunked, has_trailer, behind)| {
        let body = chunks.concat();
        let mut text = b"HTTP/1.1 200 OK\r\nserver: x\r\n".to_vec();
        if is_chunked {
            text.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            for chunk in &chunks {
                text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(if has_trailer { b"0\r\nx: 1\r\n\r\n" } else { b"0\r\n\r\n" });
        } else {
            text.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
            text.extend_from_slice(&body);
        }
        text.extend_from_slice(behind.as_bytes());
        (text, body)
    })
}

fn split<'b>(bytes: &'b [u8], cuts: &[prop::sample::Index]) -> Vec<&'b [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

proptest! {
    #[test]
    fn an_answer_is_the_same_however_it_is_split(
        (text, body) in answers(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let at_once = understand(&[&text], false).unwrap().unwrap();
        prop_assert_eq!(&at_once.body, &body);
        let in_pieces = understand(&split(&text, &cuts), false).unwrap().unwrap();
        prop_assert_eq!(&in_pieces, &at_once);
        let bytewise: Vec<&[u8]> = text.chunks(1).collect();
        prop_assert_eq!(understand(&bytewise, false).unwrap().unwrap(), at_once);
    }

    #[test]
    fn bent_answers_are_read_alike_or_refused(
        (text, _) in answers(),
        at in any::<prop::sample::Index>(),
        byte: u8,
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut bent = text;
        let at = at.index(bent.len());
        bent[at] = byte;
        let at_once = understand(&[&bent], false).ok();
        prop_assert_eq!(understand(&split(&bent, &cuts), false).ok(), at_once);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..400), chunked: bool,
    ) {
        let framing = if chunked { "transfer-encoding: chunked\r\n" } else { "" };
        let _ = understand(&[&bytes], false);
        let _ = understand(&[head_of(framing).as_bytes(), &bytes], false);
    }
}

/// A connection, and the upstream's end of it.
fn connected() -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Connection::new(Socket::Unix(ours), PATIENCE), theirs)
}

fn begin(connection: &mut Connection) {
    connection.begin(ForwardBody::Empty, Framing::None, false, |_, out| {
        out.extend_from_slice(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    });
}

async fn head_on(connection: &mut Connection) -> Result<(StatusCode, HeaderMap), Fault> {
    timeout(PATIENCE, poll_fn(|cx| connection.poll_head(cx))).await.expect("an answer in time")
}

async fn body_on(connection: &mut Connection) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(frame) = timeout(PATIENCE, poll_fn(|cx| connection.poll_frame(cx))).await? {
        body.extend_from_slice(&frame?.into_data().unwrap());
    }
    Ok(body)
}

#[tokio::test]
async fn exchanges_follow_each_other_on_a_connection() {
    let (mut connection, mut upstream) = connected();
    for number in 0..3 {
        begin(&mut connection);
        let answer = format!("HTTP/1.1 20{number} OK\r\ncontent-length: 2\r\n\r\nok");
        upstream.write_all(answer.as_bytes()).await.unwrap();
        let (status, _) = head_on(&mut connection).await.unwrap();
        assert_eq!(status.as_u16(), 200 + number);
        assert_eq!(body_on(&mut connection).await.unwrap(), b"ok");
        assert!(connection.settle() && connection.is_quiet());
    }
    let mut sent = vec![0; 3 * 27];
    upstream.read_exact(&mut sent).await.unwrap();
    assert!(sent.ends_with(b"host: a\r\n\r\n"));
}

#[tokio::test]
async fn what_only_announces_an_answer_is_read_over_a_few_times() {
    let (mut connection, mut upstream) = connected();
    begin(&mut connection);
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    upstream.write_all((interim.to_owned() + &head_of("x: y\r\n")).as_bytes()).await.unwrap();
    let (status, headers) = head_on(&mut connection).await.unwrap();
    assert_eq!((status, headers.len()), (StatusCode::OK, 1));
    let (mut connection, mut upstream) = connected();
    begin(&mut connection);
    upstream.write_all(interim.repeat(20).as_bytes()).await.unwrap();
    assert!(matches!(head_on(&mut connection).await, Err(Fault::Garbled(_))));
}

#[tokio::test]
async fn a_connection_is_kept_only_when_nothing_speaks_against_it() {
    for (answer, keeps) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
    ] {
        let (mut connection, mut upstream) = connected();
        begin(&mut connection);
        upstream.write_all(answer.as_bytes()).await.unwrap();
        head_on(&mut connection).await.unwrap();
        assert_eq!(body_on(&mut connection).await.unwrap(), b"ok", "{answer}");
        assert_eq!(connection.settle(), keeps, "{answer}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_quiet_until_anything_comes_on_it() {
    for last_word in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\n\r\n"] {
        let (mut connection, mut upstream) = connected();
        assert!(connection.is_quiet());
        upstream.write_all(last_word).await.unwrap();
        drop(upstream);
        let heard = async {
            while connection.is_quiet() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, heard).await.expect("heard in time");
    }
}

#[tokio::test]
async fn a_connection_that_ends_says_whether_the_request_was_sent() {
    let (mut connection, upstream) = connected();
    drop(upstream);
    begin(&mut connection);
    assert!(matches!(head_on(&mut connection).await, Err(Fault::Silent(_))));
    assert!(matches!(connection.take_unsent(), Some(ForwardBody::Empty)), "nothing was taken");
    let (mut connection, mut upstream) = connected();
    begin(&mut connection);
    let answering = async {
        let mut byte = [0];
        upstream.read_exact(&mut byte).await.unwrap();
        drop(upstream);
    };
    let (answer, ()) = tokio::join!(head_on(&mut connection), answering);
    assert!(matches!(answer, Err(Fault::Silent(_))));
    assert!(connection.take_unsent().is_none(), "it may have been done");
    let (mut connection, mut upstream) = connected();
    begin(&mut connection);
    upstream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    drop(upstream);
    assert!(matches!(head_on(&mut connection).await, Err(Fault::Garbled(_))));
    assert!(connection.take_unsent().is_none(), "it was answered, somehow");
}

#[tokio::test]
async fn an_upstream_that_stops_reading_may_still_say_why() {
    let (mut connection, mut upstream) = connected();
    let answer = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno";
    upstream.write_all(answer).await.unwrap();
    drop(upstream);
    begin(&mut connection);
    assert_eq!(head_on(&mut connection).await.unwrap().0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(body_on(&mut connection).await.unwrap(), b"no");
    assert!(!connection.settle());
}

#[test]
fn nothing_is_expected_of_a_body_that_is_over() {
    assert!(matches!(Reading::Ended.take(&mut BytesMut::new()), Ok(Taken::Ended)));
    assert_eq!(Reading::Length(7).size_hint().exact(), Some(7));
    assert_eq!(Reading::chunked(Chunked::of_answer()).size_hint().exact(), None);
}
