//! Mutations of lengths and transfer encodings, made from the rules of RFC 9112 §6 and §7: what
//! deviates from the one spelling that every reader shares is refused.

/// The case of a request that stands in a body.
pub(crate) const SMUGGLED: &str = "smuggled";
/// What marks the request behind a case.
pub(crate) const NEXT: &str = "-next";

const LINE: &str = "POST /v1/reports HTTP/1.1\r\n";
const BODY: &[u8] = b"hello";

/// What must come of a case.
pub(crate) enum Outcome {
    /// 400, nothing is executed, and the connection is closed.
    Refused,
    /// 413, nothing is executed, and the connection is closed.
    TooLarge,
    /// The request with this body, and the one behind it.
    Executed(Vec<u8>),
    /// The request with this body, and the connection ends with it.
    Last(Vec<u8>),
    /// The request with this body; what follows is no request.
    ThenRefused(Vec<u8>),
}

/// A request whose own headers stand between two parts.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) before: Vec<u8>,
    pub(crate) after: Vec<u8>,
    pub(crate) outcome: Outcome,
}

fn executed() -> Outcome {
    Outcome::Executed(BODY.to_vec())
}

/// A request nobody asked for, as it stands in a body.
fn smuggled() -> Vec<u8> {
    let text = "GET /v1/reports/2 HTTP/1.1\r\nhost: api.test\r\nx-case: smuggled\r\n\r\n";
    text.as_bytes().to_vec()
}

/// A whole chunked body around some bytes.
fn chunked(inside: &[u8]) -> Vec<u8> {
    let size = format!("{:x}\r\n", inside.len());
    [size.as_bytes(), inside, b"\r\n0\r\n\r\n"].concat()
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

struct Corpus(Vec<Case>);

impl Corpus {
    /// Header lines (each without its end) and a body.
    fn add(&mut self, lines: &[&[u8]], body: &[u8], outcome: Outcome) {
        let mut after = Vec::new();
        for line in lines {
            after.extend_from_slice(line);
            after.extend_from_slice(b"\r\n");
        }
        after.extend_from_slice(b"\r\n");
        after.extend_from_slice(body);
        self.raw(LINE.as_bytes(), &after, outcome);
    }

    fn raw(&mut self, before: &[u8], after: &[u8], outcome: Outcome) {
        let name = format!("{} … {}", before.escape_ascii(), after.escape_ascii());
        let (before, after) = (before.to_vec(), after.to_vec());
        self.0.push(Case { name, before, after, outcome });
    }

    /// A transfer encoding that some reader may understand, in a request with a length that covers
    /// a second request: who reads the encoding executes that one as well.
    fn beside_length(&mut self, line: &[u8], outcome: impl Fn(Vec<u8>) -> Outcome) {
        let body = [b"0\r\n\r\n".to_vec(), smuggled()].concat();
        let length = format!("content-length: {}", body.len());
        self.add(&[length.as_bytes(), line], &body, outcome(body.clone()));
        self.add(&[line, length.as_bytes()], &body, outcome(body.clone()));
    }

    /// The same encoding alone, around a second request: who does not read it executes that one.
    fn alone(&mut self, line: &[u8], outcome: Outcome) {
        self.add(&[line], &chunked(&smuggled()), outcome);
    }

    /// A line that is refused wherever it stands.
    fn refused(&mut self, line: &[u8]) {
        self.beside_length(line, |_| Outcome::Refused);
        self.alone(line, Outcome::Refused);
    }

    /// A line that is a header without a meaning.
    fn meaningless(&mut self, line: &[u8]) {
        self.beside_length(line, Outcome::Executed);
        self.alone(line, Outcome::ThenRefused(Vec::new()));
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut corpus = Corpus(Vec::new());
    names_of_encodings(&mut corpus);
    values_of_encodings(&mut corpus);
    lengths(&mut corpus);
    names_of_lengths(&mut corpus);
    both(&mut corpus);
    chunks(&mut corpus);
    trailers(&mut corpus);
    lines(&mut corpus);
    corpus.0
}

/// Every byte before, within and behind the name.
fn names_of_encodings(corpus: &mut Corpus) {
    for byte in 0..=u8::MAX {
        for (before, behind) in [("", "Transfer-Encoding"), ("Transfer-Encoding", "")] {
            let line = [before.as_bytes(), &[byte], behind.as_bytes(), b": chunked"].concat();
            if is_token(byte) {
                corpus.meaningless(&line);
            } else {
                corpus.refused(&line);
            }
        }
        let line = [b"Transfer".as_slice(), &[byte], b"Encoding: chunked"].concat();
        match byte {
            b'-' => corpus.alone(&line, Outcome::Executed(smuggled())),
            // a colon only ends the name earlier
            byte if is_token(byte) || byte == b':' => corpus.meaningless(&line),
            _ => corpus.refused(&line),
        }
    }
    for name in ["TRANSFER-ENCODING", "transfer-encoding", "tRANSFER-eNCODING"] {
        corpus.alone(format!("{name}: chunked").as_bytes(), Outcome::Executed(smuggled()));
        corpus.alone(format!("{name}:chunked").as_bytes(), Outcome::Executed(smuggled()));
    }
    for line in ["TE: chunked", "Content-Encoding: chunked", "X-Transfer-Encoding: chunked"] {
        corpus.meaningless(line.as_bytes());
    }
}

/// Values that some readers take for `chunked`, or pass over.
const NOT_CHUNKED: &[&str] = &[
    "",
    " ",
    "identity",
    "gzip",
    "gzip, chunked",
    "chunked, gzip",
    "chunked, identity",
    "identity, chunked",
    "chunked, chunked",
    "chunked,chunked",
    "chunked,",
    ",chunked",
    ", chunked",
    "chunked, ",
    "chunked;q=1",
    "chunked; x",
    "chunked x",
    "x chunked",
    "\"chunked\"",
    "'chunked'",
    "\"chunked",
    "<chunked>",
    "(chunked)",
    "chun ked",
    "chunke",
    "chunkedd",
    "chunked-",
    "x-chunked",
    "not-chunked",
    "chunk",
    "deflate",
    "compress",
    "null",
    "0",
    "*",
    "trailers",
    "chunked\tgzip",
    "\x0bchunked",
    "\x0cchunked",
    "chunked\x0b",
    "ch\u{212a}unked",
    "chun\u{212a}ed",
    "\u{a0}chunked",
    "\u{feff}chunked",
    "%63hunked",
    "=?utf-8?q?chunked?=",
    "chunked\r\n ",
    "\r\n chunked",
    "\r\n\tchunked",
    "chunked\r\n x: y",
    "chun\r\n ked",
    "gzip\r\n , chunked",
    "x\r\n chunked",
    "chunked\0",
    "chunked\0, x",
    "chunked\rx: y",
    "chunked\nx: y",
    "chunked\n",
    "chunked\r",
];

/// Every byte before and behind the value, and values that some readers take for it.
fn values_of_encodings(corpus: &mut Corpus) {
    for byte in 0..=u8::MAX {
        for value in [[&[byte], b"chunked".as_slice()], [b"chunked".as_slice(), &[byte]]] {
            let line = [b"transfer-encoding:".as_slice(), &value.concat()].concat();
            if matches!(byte, b' ' | b'\t') {
                corpus.alone(&line, Outcome::Executed(smuggled()));
                corpus.beside_length(&line, |_| Outcome::Refused);
            } else {
                corpus.refused(&line);
            }
        }
        if !matches!(byte, b'c' | b'C') {
            let line = [b"transfer-encoding: ".as_slice(), &[byte], b"hunked"].concat();
            corpus.refused(&line);
        }
    }
    for value in ["CHUNKED", "Chunked", "cHuNkEd", " \t chunked \t "] {
        let line = format!("transfer-encoding: {value}");
        corpus.alone(line.as_bytes(), Outcome::Executed(smuggled()));
    }
    for value in NOT_CHUNKED {
        corpus.refused(format!("transfer-encoding: {value}").as_bytes());
    }
}

/// Values that some readers take for a length of five, or pass over.
const NO_LENGTHS: &[&str] = &[
    "",
    " ",
    "\t",
    "+5",
    "-5",
    "--5",
    "+ 5",
    "-0",
    "+0",
    "5+",
    "5-",
    "0x5",
    "0X5",
    "x5",
    "5h",
    "0b101",
    "0o5",
    "1_0",
    "_5",
    "5_",
    "5 5",
    "5\t5",
    "5,5",
    "5, 5",
    "5,6",
    "5,",
    ",5",
    "5;",
    "5;q=1",
    "5.0",
    "5.",
    ".5",
    "5e0",
    "5E0",
    "5d",
    "5f",
    "five",
    "\"5\"",
    "'5'",
    "(5)",
    "#5",
    "5#",
    "5 #",
    "~5",
    "*",
    "NaN",
    "inf",
    "null",
    "true",
    "%35",
    "5%",
    "\u{ff15}",
    "\u{665}",
    "\u{2075}",
    "5\u{a0}",
    "\u{a0}5",
    "\u{feff}5",
    "5\0",
    "\x005",
    "5\x0b",
    "\x0b5",
    "5\x0c",
    "\x0c5",
    "5\r",
    "\r5",
    "5\n",
    "\n5",
    "5\r\n 6",
    "5\r\n\t6",
    "\r\n 5",
    "5\r\n ",
    "5\x7f",
    "5\x08",
    "5\x1b",
    "18446744073709551614",
    "18446744073709551615",
    "18446744073709551616",
    "18446744073709551621",
    "99999999999999999999",
    "340282366920938463463374607431768211461",
];

/// Spellings of a length of five.
fn lengths(corpus: &mut Corpus) {
    for value in ["5", "05", "005", "00000000000000000005", " 5", "\t5", "5 ", "5\t", " \t 5 \t "] {
        corpus.add(&[format!("Content-Length:{value}").as_bytes()], BODY, executed());
    }
    for name in ["CONTENT-LENGTH", "content-length", "cONTENT-lENGTH"] {
        corpus.add(&[format!("{name}: 5").as_bytes()], BODY, executed());
    }
    for zero in ["0", "00", "0000000000000000000000"] {
        let line = format!("content-length: {zero}");
        corpus.add(&[line.as_bytes()], b"", Outcome::Executed(Vec::new()));
    }
    for huge in ["104857601", "4294967301", "9223372036854775807", "18446744073709551613"] {
        let line = format!("content-length: {huge}");
        corpus.add(&[line.as_bytes()], BODY, Outcome::TooLarge);
    }
    for value in NO_LENGTHS {
        corpus.add(&[format!("content-length: {value}").as_bytes()], BODY, Outcome::Refused);
    }
    for byte in (0..=u8::MAX).filter(|byte| !byte.is_ascii_digit()) {
        let line = [b"content-length: 5".as_slice(), &[byte], b"5"].concat();
        corpus.add(&[&line], BODY, Outcome::Refused);
        if !matches!(byte, b' ' | b'\t') {
            let line = [b"content-length:".as_slice(), &[byte], b"5"].concat();
            corpus.add(&[&line], BODY, Outcome::Refused);
        }
    }
}

/// Names that some readers take for that of a length, beside the true one.
fn names_of_lengths(corpus: &mut Corpus) {
    let body = [BODY, &smuggled()].concat();
    let length = format!("content-length: {}", body.len());
    for byte in 0..=u8::MAX {
        for (before, behind) in
            [("Content-Length", ""), ("Content", "Length"), ("", "Content-Length")]
        {
            let line = [before.as_bytes(), &[byte], behind.as_bytes(), b": 5"].concat();
            let is_true_name = (before, byte) == ("Content", b'-');
            let splits_name = before == "Content" && byte == b':';
            let outcome = if splits_name || (is_token(byte) && !is_true_name) {
                Outcome::Executed(body.clone())
            } else {
                Outcome::Refused
            };
            corpus.add(&[length.as_bytes(), &line], &body, outcome);
        }
    }
}

/// Two lengths, two encodings, and one of each.
fn both(corpus: &mut Corpus) {
    for (first, second) in [("5", "5"), ("5", "6"), ("6", "5"), ("5", "0"), ("0", "5"), ("5", "")] {
        for (one, other) in
            [("content-length", "content-length"), ("Content-Length", "CONTENT-LENGTH")]
        {
            let lines = [format!("{one}: {first}"), format!("{other}: {second}")];
            corpus.add(&[lines[0].as_bytes(), lines[1].as_bytes()], BODY, Outcome::Refused);
            let apart = [lines[0].as_bytes(), b"x-between: y", lines[1].as_bytes()];
            corpus.add(&apart, BODY, Outcome::Refused);
        }
    }
    let encodings: [&[u8]; 4] = [
        b"transfer-encoding: chunked",
        b"Transfer-Encoding: Chunked",
        b"transfer-encoding: identity",
        b"transfer-encoding:",
    ];
    for first in encodings {
        for second in encodings {
            corpus.add(&[first, second], &chunked(&smuggled()), Outcome::Refused);
            corpus.add(&[first, b"x: y", second], &chunked(&smuggled()), Outcome::Refused);
        }
        for length in ["5", "0", "6", "1000", "", "+5", "x"] {
            let length = format!("content-length: {length}");
            corpus.add(&[first, length.as_bytes()], &chunked(&smuggled()), Outcome::Refused);
            corpus.add(&[length.as_bytes(), first], &chunked(&smuggled()), Outcome::Refused);
        }
    }
    let old = b"POST /v1/reports HTTP/1.0\r\n";
    let chunks = [b"transfer-encoding: chunked\r\n\r\n".as_slice(), &chunked(BODY)].concat();
    corpus.raw(old, &chunks, Outcome::Refused);
    let with = |lines: &str| format!("{lines}\r\nhello").into_bytes();
    let both = with("content-length: 5\r\ntransfer-encoding: chunked\r\n");
    corpus.raw(old, &both, Outcome::Refused);
    corpus.raw(old, &with("content-length: 5\r\n"), Outcome::Last(BODY.to_vec()));
    let kept = with("content-length: 5\r\nconnection: keep-alive\r\n");
    corpus.raw(old, &kept, executed());
}

const CHUNKED: &[u8] = b"transfer-encoding: chunked";

/// Values that some readers take for the size of a chunk of five bytes.
const NO_SIZES: &[&str] = &[
    "",
    " ",
    " 5",
    "5 ",
    "\t5",
    "5\t",
    "+5",
    "-5",
    "0x5",
    "0X5",
    "x5",
    "5h",
    "5,",
    "5.0",
    "5_",
    "_5",
    "\"5\"",
    "5;",
    "5;ext",
    "5;ext=1",
    "5;ext=\"1\"",
    "5;ext=\"\r\n\"",
    "5; ext",
    "5 ;ext",
    "5;\r",
    "5;\n",
    "5\0",
    "\x005",
    "5\x0b",
    "\u{ff15}",
    "0000000000000005",
    "ffffffffffffffff",
    "fffffffffffffff0",
    "10000000000000005",
    "7fffffffffffffff",
    "5\r",
    "\r5",
    "5\n",
    "\n5",
    "5\r\r",
    "5;a\rb",
    "5;a\nb",
    "g",
    "five",
    "-0",
    "--5",
    "5 5",
    "5/5",
    "5:5",
    "5=5",
    "5'5",
];

/// Bodies whose chunks end where not all readers see it.
const NO_CHUNKS: &[&str] = &[
    "5\nhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "5\rhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhelloX\r\n0\r\n\r\n",
    "5\r\nhello\r\n\r\n0\r\n\r\n",
    "5\r\nhello\r\n 0\r\n\r\n",
    "4\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\n\r\n",
    "5\r\nhello\r\n0\r\n\n",
    "5\r\nhello\r\n0\n\n",
    "5\r\nhello\r\n0\r\r\n",
    "5\r\nhello\r\n0;x\r\n\r\n",
    "5\r\nhello\r\n0 \r\n\r\n",
    "5\r\nhello\r\n0x0\r\n\r\n",
    "5\r\nhello\r\n+0\r\n\r\n",
    "5\r\nhello\r\n-0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\rX",
    "5\r\nhello\r\n\0",
    "5\r\nhello\r\nx",
    "hello\r\n0\r\n\r\n",
    "\r\n5\r\nhello\r\n0\r\n\r\n",
];

/// Chunks in the one spelling, and in those of lenient readers.
fn chunks(corpus: &mut Corpus) {
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "05\r\nhello\r\n0\r\n\r\n",
        "000000000000005\r\nhello\r\n000000000000000\r\n\r\n",
        "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
        "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n00\r\n\r\n",
    ] {
        corpus.add(&[CHUNKED], body.as_bytes(), executed());
    }
    let ten = Outcome::Executed(b"0123456789".to_vec());
    corpus.add(&[CHUNKED], b"a\r\n0123456789\r\n0\r\n\r\n", ten);
    let ten = Outcome::Executed(b"0123456789".to_vec());
    corpus.add(&[CHUNKED], b"A\r\n0123456789\r\n0\r\n\r\n", ten);
    corpus.add(&[CHUNKED], b"0\r\n\r\n", Outcome::Executed(Vec::new()));
    for size in NO_SIZES {
        let body = format!("{size}\r\nhello\r\n0\r\n\r\n");
        corpus.add(&[CHUNKED], body.as_bytes(), Outcome::Refused);
    }
    for body in NO_CHUNKS {
        corpus.add(&[CHUNKED], body.as_bytes(), Outcome::Refused);
    }
    // any byte between a chunk and the end of its line
    for byte in (0..=u8::MAX).filter(|byte| *byte != b'\r') {
        let body = [b"5\r\nhello".as_slice(), &[byte], b"\r\n0\r\n\r\n"].concat();
        corpus.add(&[CHUNKED], &body, Outcome::Refused);
    }
    for byte in (0..=u8::MAX).filter(|byte| !byte.is_ascii_hexdigit()) {
        let body = [b"5".as_slice(), &[byte], b"\r\nhello\r\n0\r\n\r\n"].concat();
        corpus.add(&[CHUNKED], &body, Outcome::Refused);
    }
}

/// Trailers that are well-formed, whatever they are called, and those that are not.
fn trailers(corpus: &mut Corpus) {
    let mut with = |trailer: &[u8], outcome: Outcome| {
        let body = [b"5\r\nhello\r\n0\r\n".as_slice(), trailer, b"\r\n"].concat();
        corpus.add(&[CHUNKED], &body, outcome);
    };
    for trailer in [
        "x-sum: 1\r\n",
        "x-sum:1\r\n",
        "x-sum:\r\n",
        "x-sum: a b\tc\r\n",
        "x-one: 1\r\nx-two: 2\r\n",
        "x: y: z\r\n",
        "content-length: 100\r\n",
        "transfer-encoding: chunked\r\n",
        "host: evil.test\r\n",
        "authorization: Bearer evil\r\n",
        "keyward-tenant: evil\r\n",
        "keyward-assertion: evil\r\n",
        "x-forwarded-for: 6.6.6.6\r\n",
        "trailer: x\r\n",
        "connection: close\r\n",
    ] {
        with(trailer.as_bytes(), executed());
    }
    for trailer in [
        "bad\r\n",
        "bad trailer\r\n",
        "bad trailer: x\r\n",
        "bad : x\r\n",
        ": x\r\n",
        " x: y\r\n",
        "\tx: y\r\n",
        "x: y\r\n folded\r\n",
        "x: y\n",
        "x: y\r",
        "x: a\0b\r\n",
        "x: a\rb\r\n",
        "x: a\nb\r\n",
        "x: caf\u{e9}\r\n",
        "\u{e9}: x\r\n",
        "GET / HTTP/1.1\r\n",
    ] {
        with(trailer.as_bytes(), Outcome::Refused);
    }
    with(format!("x: {}\r\n", "y".repeat(9_000)).as_bytes(), Outcome::Refused);
    for byte in (0..=u8::MAX).filter(|byte| !matches!(byte, b'\r' | b'\n')) {
        let good = is_token(byte) || byte == b':';
        let outcome = if good { executed() } else { Outcome::Refused };
        with(&[b"x".as_slice(), &[byte], b"y: z\r\n"].concat(), outcome);
        let good = byte == b'\t' || (b' '..=b'~').contains(&byte);
        let outcome = if good { executed() } else { Outcome::Refused };
        with(&[b"x: y".as_slice(), &[byte], b"z\r\n"].concat(), outcome);
    }
}

/// The ends of lines, and the line of the request itself.
fn lines(corpus: &mut Corpus) {
    let hello: &[u8] = b"content-length: 5\r\n\r\nhello";
    for line in [
        "POST /v1/reports HTTP/1.1\n",
        "POST /v1/reports HTTP/1.1\r",
        "POST /v1/reports HTTP/1.1\r\r\n",
        "POST /v1/reports HTTP/1.1 \r\n",
        "POST  /v1/reports HTTP/1.1\r\n",
        "POST /v1/reports  HTTP/1.1\r\n",
        "POST\t/v1/reports HTTP/1.1\r\n",
        "POST /v1/reports\tHTTP/1.1\r\n",
        " POST /v1/reports HTTP/1.1\r\n",
        "POST /v1/reports\r\n",
        "POST /v1/reports HTTP/0.9\r\n",
        "POST /v1/reports HTTP/1.2\r\n",
        "POST /v1/reports HTTP/1.10\r\n",
        "POST /v1/reports HTTP/1.\r\n",
        "POST /v1/reports HTTP/1\r\n",
        "POST /v1/reports HTTP/2.0\r\n",
        "POST /v1/reports HTTP/01.1\r\n",
        "POST /v1/reports http/1.1\r\n",
        "POST /v1/reports HTTPS/1.1\r\n",
        "POST /v1/reports HTTP /1.1\r\n",
        "POST /v1/reports HTTP/1.1 x\r\n",
        "POST /v1/reports HTTP/1.1\0\r\n",
        "PO\0ST /v1/reports HTTP/1.1\r\n",
        "PO(ST /v1/reports HTTP/1.1\r\n",
        "POST: /v1/reports HTTP/1.1\r\n",
        "\nPOST /v1/reports HTTP/1.1\r\n",
        "POST /v1/reports HTTP/1.1\r\n \r\n",
        "POST /v1/reports HTTP/1.1\r\n folded\r\n",
        "POST /v1/reports HTTP/1.1\r\nnocolon\r\n",
        "POST /v1/reports HTTP/1.1\r\n: empty\r\n",
        "POST /v1/reports HTTP/1.1\r\nx\r\n",
        "POST /v1/reports HTTP/1.1\r\nx: y\n",
        "POST /v1/reports HTTP/1.1\r\nx: y\r",
        "POST /v1/reports HTTP/1.1\r\nx: y\r\n z\r\n",
        "POST /v1/reports HTTP/1.1\r\nx: y\r\n\tz\r\n",
        "POST /v1/reports HTTP/1.1\r\nhost: other.test\r\n",
        "POST /v1/reports HTTP/1.1\r\nhost: api.test\r\n",
    ] {
        corpus.raw(line.as_bytes(), hello, Outcome::Refused);
    }
    for after in [
        "content-length: 5\n\r\nhello",
        "content-length: 5\r\n\nhello",
        "content-length: 5\n\nhello",
        "content-length: 5\r\n\r\r\nhello",
        "content-length: 5\r\r\n\r\nhello",
        "content-length: 5\r\n \r\nhello",
    ] {
        corpus.raw(LINE.as_bytes(), after.as_bytes(), Outcome::Refused);
    }
    // RFC 9112 §2.2: empty lines before a request are passed over
    corpus.raw(b"\r\nPOST /v1/reports HTTP/1.1\r\n", hello, executed());
}
