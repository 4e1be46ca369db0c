//! Work on a database that is not open: its schema, a copy of it, a copy put back.

use keyward_store::{Engine, StoreError, back_up, migrations, restore, schema_status};
use keyward_testkit::TestDatabase;

use crate::{ADA, PROBE, add_note, count, probed, refusal};

#[tokio::test]
async fn the_schema_is_told_before_and_after_the_first_opening() {
    let database = TestDatabase::sqlite_with(probed());
    let config = database.config();
    let status = schema_status(&config).await.unwrap();
    assert_eq!((status.version, status.pending.len()), (0, probed().len()));
    let left = std::fs::read_dir(&config.data_dir).unwrap().count();
    assert_eq!(left, 0, "looking makes nothing");
    let engine = Engine::open(&config).await.unwrap();
    let status = schema_status(&config).await.unwrap();
    assert_eq!((status.version, status.pending), (9_000, Vec::new()));
    let mut older = database.config();
    older.migrations = migrations();
    let refused = schema_status(&older).await;
    assert!(matches!(refused, Err(StoreError::NewerSchema { found: 9_000, .. })));
    engine.close().await;
}

#[tokio::test]
async fn on_postgres_the_schema_is_told_and_copies_are_left_to_its_tools() {
    let Some(database) = TestDatabase::postgres_with(probed()).await else { return };
    let config = database.config();
    let engine = Engine::open(&config).await.unwrap();
    let status = schema_status(&config).await.unwrap();
    assert_eq!((status.version, status.pending), (9_000, Vec::new()));
    let copy = config.data_dir.join("copy.db");
    assert!(refusal(back_up(&config, &copy).await).contains("pg_dump"));
    assert!(refusal(restore(&config, &copy).await).contains("pg_restore"));
    engine.close().await;
}

#[tokio::test]
async fn a_copy_of_an_open_database_can_be_put_back_once_it_is_closed() {
    let database = TestDatabase::sqlite_with(probed());
    let config = database.config();
    let copy = config.data_dir.join("copy.db");
    assert!(refusal(back_up(&config, &copy).await).contains("there is no database"));
    let engine = Engine::open(&config).await.unwrap();
    add_note(&engine, ADA, "first").await;
    back_up(&config, &copy).await.unwrap();
    add_note(&engine, ADA, "second").await;
    let in_use = restore(&config, &copy).await;
    assert!(refusal(in_use).contains("in use by process"));
    assert_eq!(count(&engine, ADA).await, 2, "a refused restore changes nothing");
    engine.close().await;

    let restored = restore(&config, &copy).await.unwrap();
    let replaced = restored.replaced.unwrap();
    let engine = Engine::open(&config).await.unwrap();
    assert_eq!(count(&engine, ADA).await, 1);
    engine.close().await;
    // what was replaced is a whole backup itself; its name tells when it was replaced
    let mut later = database.config();
    later.now = config.now.plus_ms(1);
    restore(&later, &replaced).await.unwrap();
    let engine = Engine::open(&config).await.unwrap();
    assert_eq!(count(&engine, ADA).await, 2);
    engine.close().await;
}

#[tokio::test]
async fn neither_damage_nor_a_newer_schema_takes_the_place_of_a_database() {
    let database = TestDatabase::sqlite_with(probed());
    let config = database.config();
    let engine = Engine::open(&config).await.unwrap();
    add_note(&engine, ADA, "kept").await;
    let newer = config.data_dir.join("newer.db");
    back_up(&config, &newer).await.unwrap();
    engine.close().await;
    let torn = config.data_dir.join("torn.db");
    std::fs::write(&torn, b"no database").unwrap();
    assert!(refusal(restore(&config, &torn).await).contains("is not a usable backup"));
    let mut older = database.config();
    older.migrations = migrations();
    assert!(!older.migrations.iter().any(|migration| migration.name == PROBE.name));
    let refused = restore(&older, &newer).await;
    assert!(matches!(refused, Err(StoreError::NewerSchema { .. })));
    let engine = Engine::open(&config).await.unwrap();
    assert_eq!(count(&engine, ADA).await, 1);
    engine.close().await;
}
