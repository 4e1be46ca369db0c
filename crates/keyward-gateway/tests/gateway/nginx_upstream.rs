//! A real server behind the gateway: what it says about bodies arrives as it was said.

use std::time::Duration;

use keyward_gateway::{GatewayServer, UpstreamConfig};
use keyward_testkit::{Program, ServerProcess};

use crate::speakers::*;
use crate::support::*;

const NGINX: &str = "
pid {{folder}}/nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path {{folder}}/body;
    proxy_temp_path {{folder}}/proxy;
    fastcgi_temp_path {{folder}}/fastcgi;
    uwsgi_temp_path {{folder}}/uwsgi;
    scgi_temp_path {{folder}}/scgi;
    server {
        listen {{listen}};
        listen unix:{{folder}}/h2.sock http2;
        root {{folder}};
        location = /v1/reports/none { return 204; }
        location = /v1/reports/zipped { add_header content-encoding gzip; }
        location / {}
    }
}
";
/// Not text, so that nobody is tempted to look into it.
const ZIPPED: &[u8] = b"\x1f\x8b\x08\x00not really zipped";

struct Scene {
    world: World,
    server: GatewayServer,
}

impl Scene {
    fn of(upstream: UpstreamConfig) -> Self {
        let world = World::new();
        let server = start(&world.plane(with_sockets_elsewhere(upstream)), options());
        Self { world, server }
    }

    async fn ask(&self, client: &mut Client, method: &str, id: &str, more: &str) -> Answer {
        let head = format!(
            "{method} /v1/reports/{id} HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n{more}\r\n",
            self.world.token
        );
        client.write(head.as_bytes()).await;
        client.answer_to(method).await
    }
}

#[tokio::test]
async fn ranges_conditions_and_encodings_pass_and_frame_what_they_should() {
    let Some(nginx) = ServerProcess::start(Program::Nginx, NGINX, &[]).await else { return };
    let folder = nginx.folder().join("v1/reports");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("7"), "0123456789").unwrap();
    std::fs::write(folder.join("zipped"), ZIPPED).unwrap();
    let http1 = config_of(&[&format!("http://{}", nginx.address())]);
    let socket = format!("unix:{}/h2.sock", nginx.folder().display());
    let mut http2 = config_of(&[&socket]);
    http2.protocol = Speech::Http2.protocol();
    for upstream in [http1, http2] {
        let scene = Scene::of(upstream);
        // one connection: what is framed wrongly spoils the next answer
        let mut client = Client::connect(scene.server.local_addr()).await;
        let whole = scene.ask(&mut client, "GET", "7", "").await;
        assert_eq!((whole.status, whole.body.as_str()), (200, "0123456789"));
        assert_eq!(whole.header("accept-ranges"), Some("bytes"));
        assert_eq!(whole.header("content-length"), Some("10"));
        let etag = whole.header("etag").unwrap().to_owned();

        let part = scene.ask(&mut client, "GET", "7", "range: bytes=2-5\r\n").await;
        assert_eq!((part.status, part.body.as_str()), (206, "2345"));
        assert_eq!(part.header("content-range"), Some("bytes 2-5/10"));
        let beyond = scene.ask(&mut client, "GET", "7", "range: bytes=99-\r\n").await;
        assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));

        let same = format!("if-none-match: {etag}\r\n");
        let head = format!(
            "GET /v1/reports/7 HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n{same}\r\n",
            scene.world.token
        );
        client.write(head.as_bytes()).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 304") && head.contains(&etag), "{head}");

        let head = scene.ask(&mut client, "HEAD", "7", "").await;
        assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
        let none = scene.ask(&mut client, "DELETE", "none", "").await;
        assert_eq!((none.status, none.header("content-length")), (204, None));
        assert_eq!(none.header("transfer-encoding"), None);

        let zipped = format!(
            "GET /v1/reports/zipped HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\
             accept-encoding: gzip\r\n\r\n",
            scene.world.token
        );
        client.write(zipped.as_bytes()).await;
        let head = client.head().await.to_ascii_lowercase();
        let length = format!("content-length: {}", ZIPPED.len());
        for line in ["content-encoding: gzip", "etag: ", &length] {
            assert!(head.contains(line), "{line} in {head}");
        }
        assert_eq!(client.bytes(ZIPPED.len()).await, ZIPPED);
        let nothing = tokio::time::timeout(Duration::from_millis(50), client.more()).await;
        assert!(nothing.is_err(), "nothing more comes, and the connection stays");
    }
}
