//! A server and the addresses of its upstreams, from the settings to the log.

use std::net::TcpListener as StdListener;

use keyward_testkit::TestDatabase;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::keyward;
use crate::supervised::Supervised;

#[tokio::test]
async fn addresses_are_looked_after_from_the_start_to_the_end() {
    let absent = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let health = r#"{ path = "/up", interval = "20ms", down-after = 1, up-after = 1 }"#;
    let upstream = format!(
        r#"{{ environments = ["live"], url = ["http://{absent}", "http://127.0.0.1:1"],
        audience = "api", health = {health} }}"#
    );
    let server = Supervised::start(false, &["--upstream", &upstream], &[]);
    let line = |level: &str, text: &str| {
        format!(r#""address":"http://{absent}","level":"{level}","msg":"{text}""#)
    };
    server.logged(&line("warn", "an address is down")).await;
    let listener = TcpListener::bind(absent).await.unwrap();
    let answering = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let length = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..length]);
            assert!(head.starts_with("GET /up HTTP/1.1\r\n"), "{head}");
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    };
    let up = line("info", "an address is up again");
    tokio::select! {
        () = server.logged(&up) => {}
        () = answering => {}
    }
}

#[tokio::test]
async fn upstreams_that_cannot_be_used_do_not_start() {
    for (upstream, what) in [
        (r#"{ environments = ["live"], url = "http://a/b", audience = "a" }"#, "has no path"),
        (r#"{ environments = ["live"], url = "unix:/a" }"#, "set audience"),
        (
            r#"{ environments = ["live"], url = "https://a", ca-file = "/nowhere/ca.pem" }"#,
            "/nowhere/ca.pem",
        ),
    ] {
        let database = TestDatabase::sqlite();
        let data_dir = database.data_dir().display().to_string();
        let ended = keyward(
            &[
                &["serve", "--profile", crate::harness::PROFILE, "--data-dir", &data_dir][..],
                &["--control-listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"],
                &["--upstream", upstream],
            ]
            .concat(),
            &[],
        )
        .await;
        assert_ne!(ended.code, 0, "{upstream}");
        assert!(ended.stderr.contains(what), "{what}: {}", ended.stderr);
    }
}
