//! gRPC: HTTP/2 on both sides, streams in both directions, and a status behind the body.

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body as _, Frame};
use keyward_gateway::GatewayServer;
use tokio::net::TcpStream;

use crate::speakers::*;
use crate::support::*;

struct Scene {
    world: World,
    server: GatewayServer,
    speaker: Speaker,
}

impl Scene {
    async fn of(answering: Answering) -> Self {
        let speaker = Speaker::on_tcp(Speech::Http2, answering).await;
        let mut config = speaker.config();
        config.protocol = Speech::Http2.protocol();
        let world = World::new();
        let mut options = options();
        options.protocols.h2c = true;
        let server = start(&world.plane(with_sockets_elsewhere(config)), options);
        Self { world, server, speaker }
    }

    async fn channel(&self) -> SendRequest<Bytes> {
        let socket = TcpStream::connect(self.server.local_addr()).await.unwrap();
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(async move {
            // what went wrong is told to whoever waits for an answer
            drop(connection.await);
        });
        sender.ready().await.unwrap()
    }

    fn call(&self, token: &str) -> Request<()> {
        Request::post(format!("http://{}/v1/reports", self.server.local_addr()))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "5S")
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .unwrap()
    }
}

/// Sends each message back as it comes, and the status when no more do.
fn echo() -> Answering {
    std::sync::Arc::new(|request| {
        Box::pin(async move {
            let (parts, mut body) = request.into_parts();
            assert_eq!(parts.headers["te"], "trailers");
            assert_eq!(parts.headers["content-type"], "application/grpc");
            assert_eq!(parts.headers["grpc-timeout"], "5S");
            let mut ended = false;
            let frames = futures_util::stream::poll_fn(move |cx| {
                use std::task::{Poll, ready};
                if ended {
                    return Poll::Ready(None);
                }
                let next = ready!(std::pin::Pin::new(&mut body).poll_frame(cx));
                let data = next.and_then(Result::ok).and_then(|it| it.into_data().ok());
                Poll::Ready(Some(Ok(data.map_or_else(
                    || {
                        ended = true;
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        trailers.insert("grpc-message", "fine".parse().unwrap());
                        trailers.insert("keyward-tenant", "forged".parse().unwrap());
                        Frame::trailers(trailers)
                    },
                    Frame::data,
                ))))
            });
            let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
            let kind = "application/grpc".parse().unwrap();
            answer.headers_mut().insert("content-type", kind);
            answer
        })
    })
}

#[tokio::test]
async fn a_conversation_has_its_status_behind_it() {
    let scene = Scene::of(echo()).await;
    let mut channel = scene.channel().await;
    let (answer, mut upload) = channel.send_request(scene.call(&scene.world.token), false).unwrap();
    upload.send_data("one".into(), false).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/grpc".parse().unwrap())
    );
    let mut body = answer.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "one");
    upload.send_data("two".into(), true).unwrap();
    assert_eq!(body.data().await.unwrap().unwrap(), "two");
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&"0".parse().unwrap(), &"fine".parse().unwrap())
    );
    assert!(!trailers.contains_key("keyward-tenant"));
    assert_eq!(scene.speaker.connections(), 1);
}

#[tokio::test]
async fn a_status_without_a_body_passes_and_a_refusal_is_one_of_http() {
    let only: Answering = std::sync::Arc::new(|_| {
        let mut answer = Response::new(http_body_util::Empty::new().boxed_unsync());
        for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "5")] {
            answer.headers_mut().insert(name, value.parse().unwrap());
        }
        Box::pin(async move { answer })
    });
    let scene = Scene::of(only).await;
    let mut channel = scene.channel().await;
    let (answer, _) = channel.send_request(scene.call(&scene.world.token), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "5");
    assert!(answer.body().is_end_stream());
    // clients of gRPC read 401 as UNAUTHENTICATED
    let (answer, _) = channel.send_request(scene.call("acme_live_nonsense"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 401);
    assert_eq!(scene.speaker.requests(), 1);
}

#[tokio::test]
async fn an_answer_before_the_end_of_a_call_leaves_the_channel_in_use() {
    let early: Answering = std::sync::Arc::new(|_| {
        let mut answer = whole("no");
        *answer.status_mut() = http::StatusCode::CONFLICT;
        Box::pin(async move { answer })
    });
    let scene = Scene::of(early).await;
    let mut channel = scene.channel().await;
    for _ in 0..3 {
        let call = scene.call(&scene.world.token);
        let (answer, mut upload) = channel.send_request(call, false).unwrap();
        upload.send_data("part".into(), false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 409);
        assert!(!answer.headers().contains_key("connection"));
        assert_eq!(answer.into_body().data().await.unwrap().unwrap(), "no");
        channel = channel.ready().await.unwrap();
    }
    assert_eq!((scene.speaker.requests(), scene.speaker.connections()), (3, 1));
}
