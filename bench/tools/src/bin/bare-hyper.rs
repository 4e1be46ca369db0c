//! A server that only reads the whole body and answers fixed bytes: what verify is compared with.
//!
//! `bare-hyper LISTEN ANSWER-FILE` serves the body in the file with the headers that verify sends.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// Stands for the request id of a real answer; equally long.
const REQUEST_ID: HeaderValue = HeaderValue::from_static("req_0123456789abcdefghijkl");

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: bare-hyper LISTEN ANSWER-FILE";
    let address: SocketAddr = arguments.next().context(usage)?.parse().context(usage)?;
    let body = Bytes::from(std::fs::read(arguments.next().context(usage)?)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(address, body))
}

async fn serve(address: SocketAddr, body: Bytes) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let body = body.clone();
        let service = service_fn(move |request| answer(request, body.clone()));
        // the header deadline is on, as any server on a network has one
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        tokio::task::spawn_local(async move {
            // a client that broke off is its own affair
            let _ = connection.await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, Infallible> {
    // what was read is dropped; an error means that the client is gone
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response.headers_mut().insert("x-request-id", REQUEST_ID);
    Ok(response)
}
