//! Addresses that are down get no requests, and those that are up again do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use keyward_gateway::{DataPlane, GatewayServer, HealthPolicy, UpstreamConfig};

use crate::speakers::*;
use crate::support::*;

/// Quick checks: what is waited for is a condition, not a time.
fn quick(path: Option<&str>) -> HealthPolicy {
    HealthPolicy {
        path: path.map(str::to_owned),
        interval: Duration::from_millis(10),
        timeout: Duration::from_millis(500),
        down_after: 2,
        up_after: 2,
    }
}

struct Scene {
    world: World,
    plane: Arc<DataPlane>,
    server: GatewayServer,
}

impl Scene {
    /// A gateway whose addresses are looked after.
    fn of(upstream: UpstreamConfig) -> Self {
        let world = World::new();
        let plane = world.plane(with_sockets_elsewhere(upstream));
        let server = start(&plane, options());
        let checked = Arc::clone(&plane);
        tokio::spawn(async move { checked.check_upstreams().await });
        Self { world, plane, server }
    }

    async fn get(&self) -> Answer {
        let token = &self.world.token;
        let head = format!("GET /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {token}\r\n\r\n");
        raw(self.server.local_addr(), head.as_bytes()).await
    }

    /// Asks until the answer is as it should be.
    async fn until(&self, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let asking = async {
            loop {
                let answer = self.get().await;
                if wanted(&answer) {
                    break answer;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.expect("the answer in time")
    }
}

/// An upstream whose health a test decides, and that counts what is not a check.
async fn switched(speech: Speech) -> (Speaker, Arc<AtomicBool>, Arc<AtomicU64>) {
    let (well, served) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let (switch, count) = (Arc::clone(&well), Arc::clone(&served));
    let answering: Answering = Arc::new(move |request| {
        let mut answer = whole("ok");
        if request.uri().path() == "/up" {
            assert_eq!(request.headers()["user-agent"], "keyward-health-check");
            assert!(!request.headers().contains_key("keyward-assertion"));
            if !switch.load(Ordering::SeqCst) {
                *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
        } else {
            count.fetch_add(1, Ordering::SeqCst);
        }
        Box::pin(async move { answer })
    });
    (Speaker::on_tcp(speech, answering).await, well, served)
}

#[tokio::test]
async fn an_address_that_says_it_is_ill_gets_nothing_until_it_says_it_is_well() {
    let (one, one_is_well, served_by_one) = switched(Speech::Http1).await;
    let (two, _, _) = switched(Speech::Http1).await;
    let mut config = config_of(&[&one.url, &two.url]);
    config.health = quick(Some("/up"));
    let scene = Scene::of(config);
    scene.until(|_| served_by_one.load(Ordering::SeqCst) > 0).await;
    one_is_well.store(false, Ordering::SeqCst);
    let gauge = format!("address=\"{}\"}} 0", one.url);
    scene.until(|_| metrics_of(&scene.plane).contains(&gauge)).await;
    let before = served_by_one.load(Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(scene.get().await.status, 200);
    }
    assert_eq!(served_by_one.load(Ordering::SeqCst), before);
    one_is_well.store(true, Ordering::SeqCst);
    scene.until(|_| served_by_one.load(Ordering::SeqCst) > before).await;
}

#[tokio::test]
async fn when_all_are_down_callers_are_told_when_to_come_back() {
    for speech in [Speech::Http1, Speech::Http2] {
        let (only, well, served) = switched(speech).await;
        let mut config = only.config();
        config.health = quick(Some("/up"));
        config.protocol = speech.protocol();
        let scene = Scene::of(config);
        assert_eq!(scene.get().await.status, 200);
        well.store(false, Ordering::SeqCst);
        let refused = scene.until(|answer| answer.status == 503).await;
        assert_eq!(refused.refusal().1, "unavailable");
        assert_eq!(refused.header("retry-after"), Some("1"));
        let before = served.load(Ordering::SeqCst);
        assert_eq!(scene.get().await.status, 503);
        assert_eq!(served.load(Ordering::SeqCst), before);
        well.store(true, Ordering::SeqCst);
        scene.until(|answer| answer.status == 200).await;
    }
}

#[tokio::test]
async fn an_address_that_fails_requests_is_left_alone_until_it_can_be_reached() {
    let well = Speaker::on_tcp(Speech::Http1, named("well")).await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let mut config = config_of(&[&format!("http://{address}"), &well.url]);
    config.health = quick(None);
    let scene = Scene::of(config);
    let gauge = format!("address=\"http://{address}\"}} 0");
    scene.until(|_| metrics_of(&scene.plane).contains(&gauge)).await;
    // it listens again, and is found
    let back = tokio::net::TcpListener::bind(address).await.unwrap();
    let up = format!("address=\"http://{address}\"}} 1");
    let accepting = async {
        loop {
            drop(back.accept().await);
        }
    };
    let coming_back = scene.until(|_| metrics_of(&scene.plane).contains(&up));
    tokio::select! {
        _ = coming_back => {}
        () = accepting => unreachable!("it accepts for ever"),
    }
}
