//! What an upstream believes: the layer over real sockets, and the documented examples.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

mod documents;
mod layer;

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

use keyward_core::assertion::{Claims, ISSUER, LIFETIME_SECONDS, SigningKey};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER_SECRET: &[u8] = b"fedcba9876543210fedcba9876543210";
const PATH: &str = "/v1/reports";
const TENANT: &str = "ten_0000000000000000000002";

/// What the gateway says of a request for [`PATH`] that was made at this second.
fn claims(issued: i64) -> Claims<'static> {
    Claims {
        iss: ISSUER,
        aud: "reports",
        iat: issued,
        exp: issued + LIFETIME_SECONDS,
        sub: "key_0000000000000000000001",
        tenant: TENANT,
        environment: "live",
        scopes: vec!["reports:read"],
        role: "analyst",
        actor: "usr_0000000000000000000003",
        method: "GET",
        path: PATH.into(),
        request_id: "req_0000000000000000000004",
    }
}

fn signed(key: &SigningKey, claims: &Claims<'_>) -> String {
    key.sign(claims)
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
