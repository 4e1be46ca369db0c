//! Nodes behind a pooler that lends connections by the transaction.

use keyward_testkit::{PgBouncer, TestDatabase};

use crate::harness::{LAGOS_PAY, PROFILE, Process, migrate_url_file, write_private};

/// The arguments of a node whose every transaction goes through the pooler. It hears of changes
/// past it, or looks for them.
fn arguments(database: &TestDatabase, pooler: &PgBouncer, listens: bool) -> Vec<String> {
    let data_dir = database.data_dir();
    let migrate = migrate_url_file(database).unwrap();
    let mut all: Vec<String> = [
        ("--profile", PROFILE),
        ("--data-dir", data_dir.to_str().unwrap()),
        ("--store-url", pooler.url()),
        ("--store-migrate-url-file", migrate.to_str().unwrap()),
        ("--store-pooler", "transaction"),
        ("--control-listen", "127.0.0.1:0"),
        ("--internal-listen", "127.0.0.1:0"),
        ("--gateway-listen", "127.0.0.1:0"),
        ("--sandbox-listen", "127.0.0.1:0"),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()])
    .collect();
    if listens {
        let listen = data_dir.join("listen-url");
        write_private(&listen, &database.url());
        all.extend(["--store-listen-url-file".to_owned(), listen.display().to_string()]);
    }
    all
}

#[tokio::test]
async fn two_nodes_serve_and_revoke_through_one_pooler() {
    for listens in [true, false] {
        let Some(database) = TestDatabase::postgres().await else { return };
        let Some(pooler) = PgBouncer::before(&database, "server_reset_query =").await else {
            return;
        };
        let arguments = arguments(&database, &pooler, listens);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let first = Process::dev(&arguments).await;
        let second = Process::dev(&arguments).await;
        for _ in 0..10 {
            let made = first.site.minted(&["reports:read"]).await;
            let nodes = [&first.site, &second.site];
            for node in nodes {
                node.bearer(&made.secret).get("/v1/reports").await.is(200);
            }
            let revoked = first.site.revoke(&made.id).await;
            assert_eq!(revoked["fence"]["status"], "effective", "{revoked}");
            for node in nodes {
                node.bearer(&made.secret).get("/v1/reports").await.is(401);
            }
        }
        second.site.demo_key(LAGOS_PAY).get("/v1/reports").await.is(200);
        assert_eq!(second.stop().await.code, 0);
        assert_eq!(first.stop().await.code, 0);
    }
}
