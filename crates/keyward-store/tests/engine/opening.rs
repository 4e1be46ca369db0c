//! Opening: who may, a schema that fits, an address that can be read.

use std::os::unix::fs::PermissionsExt as _;

use futures_util::FutureExt as _;
use keyward_store::{Context, Engine, StoreError, migrations};
use keyward_testkit::TestDatabase;

use crate::isolation::raw;
use crate::{ADA, add_note, count, probed, refusal};

#[tokio::test]
async fn a_second_process_on_a_file_is_refused_until_the_first_is_gone() {
    let database = TestDatabase::sqlite_with(probed());
    let config = database.config();
    let engine = Engine::open(&config).await.unwrap();
    let text = refusal(Engine::open(&config).await);
    let process = format!("is in use by process {}", std::process::id());
    assert!(text.contains(&process), "{text}");
    add_note(&engine, ADA, "kept").await;
    engine.close().await;
    let engine = Engine::open(&config).await.unwrap();
    assert_eq!(count(&engine, ADA).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_ending_is_waited_for() {
    let database = TestDatabase::sqlite_with(probed());
    let config = database.config();
    let engine = Engine::open(&config).await.unwrap();
    add_note(&engine, ADA, "kept").await;
    // the one that opens meets the lock before the one that closes has let go of it
    let (opened, ()) = tokio::join!(Engine::open(&config), engine.close());
    assert_eq!(count(&opened.unwrap(), ADA).await, 1);
}

#[tokio::test]
async fn who_waits_for_a_release_finds_the_file_free() {
    let database = TestDatabase::sqlite_with(probed());
    let engine = Engine::open(&database.config()).await.unwrap();
    add_note(&engine, ADA, "kept").await;
    let lock = std::fs::File::open(database.data_dir().join("keyward.lock")).unwrap();
    let mut released = std::pin::pin!(engine.released());
    assert!(released.as_mut().now_or_never().is_none());
    assert!(lock.try_lock().is_err());
    drop(engine);
    released.await;
    lock.try_lock().expect("a file that another process may open at once");
}

#[tokio::test]
async fn nodes_that_start_at_once_on_a_server_migrate_it_once_and_share_it() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let mut config = database.config();
    config.migrations = probed();
    let opening = std::iter::repeat_with(|| Engine::open(&config)).take(6);
    let engines: Vec<_> = futures_util::future::join_all(opening).await;
    for (place, engine) in engines.iter().enumerate() {
        add_note(engine.as_ref().unwrap(), ADA, &format!("of node {place}")).await;
    }
    for engine in engines {
        assert_eq!(count(&engine.unwrap(), ADA).await, 6);
    }
}

#[tokio::test]
async fn a_newer_schema_is_left_as_it_is() {
    for database in TestDatabase::every_with(probed()).await {
        let mut config = database.config();
        Engine::open(&config).await.unwrap().close().await;
        let file = database.data_dir().join("keyward.db");
        let before = std::fs::read(&file).ok();
        config.migrations = migrations();
        match Engine::open(&config).await.err() {
            Some(StoreError::NewerSchema { found: 9000, known }) => {
                assert_eq!(known as usize, migrations().len());
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(std::fs::read(&file).ok(), before);
        assert!(!database.data_dir().join("backups").exists());
        let log = database.data_dir().join("keyward.db-wal").metadata();
        assert_eq!(log.map_or(0, |log| log.len()), 0);
    }
}

#[tokio::test]
async fn a_migration_that_was_edited_or_fails_changes_nothing() {
    for database in TestDatabase::every_with(probed()).await {
        let mut config = database.config();
        Engine::open(&config).await.unwrap().close().await;
        let last = config.migrations.last_mut().unwrap();
        (last.sqlite, last.postgres) = ("SELECT 2", "SELECT 2");
        let text = refusal(Engine::open(&config).await);
        assert!(text.contains("V9000__probe of this binary is not the"), "{text}");

        config.migrations = probed();
        let broken = "CREATE TABLE half (a TEXT); SELECT * FROM nowhere;";
        let broken =
            keyward_store::Migration { name: "V9001__broken", sqlite: broken, postgres: broken };
        config.migrations.push(broken);
        let error = Engine::open(&config).await.err().unwrap();
        assert!(error.to_string().contains("V9001__broken"), "{error}");
        config.migrations = probed();
        let engine = Engine::open(&config).await.unwrap();
        add_note(&engine, ADA, "still works").await;
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_read_is_not_repeated() {
    let database = TestDatabase::sqlite();
    for url in [
        "mysql://root:hunter2@db/keyward",
        "postgres://keyward:hunter2@db:port/keyward",
        "postgres://",
        "sqlite:",
        "sqlite::memory:",
        "sqlite:keyward.db?mode=hunter2",
        "",
    ] {
        let mut config = database.config();
        config.url = url.to_owned().into();
        let text = refusal(Engine::open(&config).await);
        assert!(text.contains("the store's address"), "{url}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable() {
    let database = TestDatabase::sqlite();
    let mut config = database.config();
    // Bound and never accepting: nobody else can take the port meanwhile.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    config.url = format!("postgres://keyward:hunter2@127.0.0.1:{port}/keyward").into();
    let error = Engine::open(&config).await.err().unwrap();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_data_directory_others_can_enter_is_refused_and_a_new_one_is_private() {
    let database = TestDatabase::sqlite();
    let mut config = database.config();
    config.url = "sqlite:inner/keyward.db".to_owned().into();
    Engine::open(&config).await.unwrap().close().await;
    let inner = database.data_dir().join("inner");
    let mode = |name: &str| inner.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("."), mode("keyward.db"), mode("keyward.lock")), (0o700, 0o600, 0o600));

    std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = refusal(Engine::open(&config).await);
    assert!(text.contains(&format!("run `chmod 700 {}`", inner.display())), "{text}");
}

#[tokio::test]
async fn connections_the_server_ended_are_replaced() {
    let Some(database) = TestDatabase::postgres_with(probed()).await else {
        return;
    };
    let engine = Engine::open(&database.config()).await.unwrap();
    add_note(&engine, ADA, "kept").await;
    let superuser = raw(&database.superuser_url().unwrap()).await;
    let end_all = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND usename = 'keyward_app'";
    let ended = superuser.query(end_all, &[]).await.unwrap();
    assert!(!ended.is_empty(), "a pooled connection");
    // Each try may find one more broken connection, and each is replaced.
    let mut found = None;
    for _ in 0..10 {
        match engine.begin_read(Context::Tenant(ADA)).await {
            Ok(conn) => found = Some(conn),
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
    assert!(found.is_some());
    assert_eq!(count(&engine, ADA).await, 1);
}
