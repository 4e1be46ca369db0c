//! Keys that come where others may have seen them: refused, counted, and kept to be marked.

use std::net::SocketAddr;

use keyward_core::key::Exposure;
use keyward_gateway::{Networks, PlanePolicy};

use crate::support::*;

/// What became known about the key since the last time.
fn exposed(stage: &Stage) -> Vec<Exposure> {
    let rows = stage.plane.drain_exposures();
    assert!(rows.iter().all(|row| (row.tenant, row.key) == (TENANT, stage.world.authority.id)));
    rows.into_iter().map(|row| row.exposed.by).collect()
}

#[tokio::test]
async fn an4_a_key_in_an_address_or_from_a_page_is_refused_and_kept() {
    let stage = stage().await;
    let token = stage.world.token.clone();
    let referer = format!("referer: https://a.example/?k={token}\r\n");
    let encoded = token.replace('_', "%5F");
    let hidden = format!("referer: https://a.example/\r\nreferer: https://ü.example/{encoded}\r\n");
    for (path, headers) in [
        (format!("/v1/reports?key={token}"), ""),
        (format!("/v1/reports/{token}"), ""),
        (format!("/v1/reports?key={}", token.replace('_', "%5F")), ""),
        ("/v1/reports".to_owned(), referer.as_str()),
        ("/v1/reports".to_owned(), hidden.as_str()),
        // exposed, whatever else is wrong with the address
        (format!("//v1/reports?key={token}"), ""),
        (format!("/v1/../reports?key={}", token.replace('_', "%5F")), ""),
        (format!("http://elsewhere.example/v1/reports?key={token}"), ""),
    ] {
        let answer = stage.send_bare("GET", &path, headers).await;
        assert_eq!(answer.refusal().1, "credential_in_url");
        assert_eq!(exposed(&stage), [Exposure::Url], "{path}");
    }
    let refused = stage.refused("GET", "/v1/reports", "origin: https://a.example\r\n").await;
    assert_eq!(refused.1, "browser_origin_refused");
    assert_eq!(exposed(&stage), [Exposure::Browser]);
    // what only looks like a key, or is cut off, is refused too, and is nobody's
    let end = token.len() - 1;
    let other = if token.ends_with('0') { "1" } else { "0" };
    for text in [format!("{}{other}", &token[..end]), token[..end].to_owned()] {
        let answer = stage.send_bare("GET", &format!("/v1/reports?key={text}"), "").await;
        assert_eq!(answer.refusal().1, "credential_in_url");
        assert_eq!(exposed(&stage), []);
    }
    stage.send("GET", "/v1/reports", "").await.told();
    assert_eq!(exposed(&stage), []);
    let metrics = metrics_of(&stage.plane);
    for line in ["{by=\"url\"} 8", "{by=\"browser\"} 1", "{by=\"clear_text\"} 0"] {
        assert!(
            metrics.contains(&format!("keyward_gateway_keys_exposed_total{line}")),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn an3_a_key_that_a_proxy_got_in_clear_text_is_refused_and_kept() {
    let world = World::new();
    let upstream = Upstream::start().await;
    let policy = PlanePolicy {
        trusted_proxies: Networks::new(vec!["127.0.0.0/8".parse().unwrap()]),
        ..PlanePolicy::default()
    };
    let plane = world.plane_with(vec![upstream_at(upstream.address)], policy, None);
    let mut options = options();
    options.behind_tls = true;
    let server = start(&plane, options);
    let stage = Stage { world, plane, server, upstream };
    for said in ["http", "https, HTTP", "https\r\nx-forwarded-proto: http"] {
        let said = format!("x-forwarded-proto: {said}\r\n");
        let (status, code, _) = stage.refused("GET", "/v1/reports", &said).await;
        assert_eq!((status, code.as_str()), (403, "tls_required"));
        assert_eq!(exposed(&stage), [Exposure::ClearText]);
        let wrong = format!("{said}x-api-key: nonsense\r\n");
        let refused = stage.send_bare("GET", "/v1/reports", &wrong).await.refusal();
        assert_eq!((refused.0, refused.1.as_str()), (403, "tls_required"));
        let nothing = stage.send_bare("GET", "/v1/reports", &said).await.refusal();
        assert_eq!(nothing.1, "missing_api_key");
        assert_eq!(exposed(&stage), []);
    }
    assert_eq!(stage.upstream.requests(), 0);
    for said in ["", "x-forwarded-proto: https\r\n", "x-forwarded-proto: http, https\r\n"] {
        stage.send("GET", "/v1/reports", said).await.told();
    }
    assert_eq!(exposed(&stage), []);
}

/// An address of this machine that is not a loopback one, if it has any.
pub(crate) fn other_address() -> Option<SocketAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // nothing is sent; the system only says where it would send from
    socket.connect("198.51.100.1:9").ok()?;
    socket.local_addr().ok().filter(|it| !it.ip().is_loopback())
}

#[tokio::test]
async fn an3_a_listener_without_tls_refuses_the_keys_of_other_machines() {
    let Some(address) = other_address() else {
        eprintln!("skipped: this machine has no address that others could reach");
        return;
    };
    let world = World::new();
    let upstream = Upstream::start().await;
    let plane = world.plane(vec![upstream_at(upstream.address)]);
    let any = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0);
    let server = keyward_gateway::GatewayServer::bind(&[any], plane.clone(), options()).unwrap();
    let port = server.local_addr().port();
    let stage = Stage { world, plane, server, upstream };
    let head =
        format!("GET /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\r\n", stage.world.token);
    let elsewhere = raw(SocketAddr::new(address.ip(), port), head.as_bytes()).await;
    assert_eq!(elsewhere.refusal().1, "tls_required");
    assert_eq!(exposed(&stage), [Exposure::ClearText]);
    let here = raw(SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), port), head.as_bytes());
    here.await.told();
    assert_eq!(exposed(&stage), []);
}

/// A gateway that proxies stand in front of may be reached past them as well.
#[tokio::test]
async fn an3_what_comes_past_the_declared_proxies_came_without_tls() {
    let Some(address) = other_address() else {
        eprintln!("skipped: this machine has no address that others could reach");
        return;
    };
    let world = World::new();
    let upstream = Upstream::start().await;
    let policy = PlanePolicy {
        trusted_proxies: Networks::new(vec!["198.51.100.0/24".parse().unwrap()]),
        ..PlanePolicy::default()
    };
    let plane = world.plane_with(vec![upstream_at(upstream.address)], policy, None);
    let any = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0);
    let mut options = options();
    options.behind_tls = true;
    let server = keyward_gateway::GatewayServer::bind(&[any], plane.clone(), options).unwrap();
    let port = server.local_addr().port();
    let stage = Stage { world, plane, server, upstream };
    let elsewhere = SocketAddr::new(address.ip(), port);
    let here = SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), port);
    let key = format!("x-api-key: {}\r\n", stage.world.token);
    for said in ["", "x-forwarded-proto: https\r\n", "x-forwarded-for: 127.0.0.1\r\n"] {
        for path in ["/v1/reports", "//v1/reports"] {
            let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{said}{key}\r\n");
            let (status, code, _) = raw(elsewhere, head.as_bytes()).await.refusal();
            assert_eq!((status, code.as_str()), (403, "tls_required"), "{said}");
            assert_eq!(exposed(&stage), [Exposure::ClearText]);
        }
    }
    assert_eq!(stage.upstream.requests(), 0);
    // a proxy on the machine itself
    let head = format!("GET /v1/reports HTTP/1.1\r\nhost: a\r\n{key}\r\n");
    raw(here, head.as_bytes()).await.told();
    assert_eq!(exposed(&stage), []);
}
