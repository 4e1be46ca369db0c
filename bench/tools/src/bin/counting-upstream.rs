//! An upstream of HTTP/2 that counts resets as Tomcat does, for `script/attacks`.
//!
//! `counting-upstream WRITE-MS READ-MS` prints its port and answers what came whole, a `GET` after
//! READ-MS and everything else after WRITE-MS. A connection on which too many streams are reset it
//! ends, with all that is under way there. A program with a garbage collector will not do: its
//! pauses are as long as what an attack might add.

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{Method, Request, Response, header};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What Tomcat counts for a connection with four settings, for a stream that is begun, and for one
/// that is reset; at less than nothing it ends the connection.
const FIRST: i64 = 60;
const BEGUN: i64 = 20;
const RESET: i64 = -50;
/// The library's own bound must not be what ends a connection.
const NO_BOUND: usize = usize::MAX;
const ANSWER: Bytes = Bytes::from_static(br#"{"data":[]}"#);

#[derive(Clone, Copy)]
struct Takes {
    write: Duration,
    read: Duration,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [write, read] = arguments.as_slice() else {
        bail!("usage: counting-upstream WRITE-MS READ-MS");
    };
    let millis = |text: &str| text.parse().map(Duration::from_millis).context("milliseconds");
    let takes = Takes { write: millis(write)?, read: millis(read)? };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?.port());
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            tokio::spawn(async move {
                // a connection that breaks is its gateway's affair
                let _ = serve(socket, takes).await;
            });
        }
    })
}

/// What a connection has left.
#[derive(Default)]
struct Account {
    count: AtomicI64,
    is_overdrawn: Notify,
}

impl Account {
    fn change(&self, by: i64) {
        if self.count.fetch_add(by, Ordering::Relaxed) + by < 0 {
            self.is_overdrawn.notify_one();
        }
    }
}

async fn serve(socket: TcpStream, takes: Takes) -> Result<(), h2::Error> {
    let mut connection =
        Builder::new().max_pending_accept_reset_streams(NO_BOUND).handshake(socket).await?;
    let account = Arc::new(Account::default());
    account.change(FIRST);
    loop {
        let (request, respond) = tokio::select! {
            // dropped, the connection ends without a word
            () = account.is_overdrawn.notified() => return Ok(()),
            accepted = connection.accept() => match accepted {
                Some(accepted) => accepted?,
                None => return Ok(()),
            },
        };
        account.change(BEGUN);
        let account = Arc::clone(&account);
        tokio::spawn(async move {
            if exchange(request, respond, takes).await.is_err() {
                account.change(RESET);
            }
        });
    }
}

/// Reads a request and answers; an error when its stream is reset before.
async fn exchange(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    takes: Takes,
) -> Result<(), h2::Error> {
    let after = if request.method() == Method::GET { takes.read } else { takes.write };
    let mut body = request.into_body();
    while let Some(bytes) = body.data().await {
        body.flow_control().release_capacity(bytes?.len())?;
    }
    tokio::select! {
        reset = poll_fn(|cx| respond.poll_reset(cx)) => return Err(reset?.into()),
        () = pause(after) => {}
    }
    let mut answer = Response::new(());
    let json = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    respond.send_response(answer, false)?.send_data(ANSWER, true)
}

#[expect(clippy::disallowed_methods, reason = "an upstream takes real time")]
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
