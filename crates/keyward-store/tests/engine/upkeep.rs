//! Work on a database that is not open: its schema, a copy of it, a copy put back.

use keyward_store::{
    Engine, Restored, Staged, StoreConfig, StoreError, back_up, migrations, schema_status,
    snapshot, unpack_backup, verify_backup,
};
use keyward_testkit::TestDatabase;

use crate::{ADA, PROBE, add_note, count, probed, refusal};

/// A restore that changes nothing in the backup.
async fn restore(config: &StoreConfig, from: &std::path::Path) -> Result<Restored, StoreError> {
    Staged::begin(config, from).await?.put_in_place().await
}

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
    assert!(!config.data_dir.join("keyward.db.restoring").exists());
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

#[tokio::test]
async fn a_staged_backup_can_be_changed_and_leaves_nothing_when_it_is_given_up() {
    let database = TestDatabase::sqlite_with(probed());
    let config = database.config();
    let engine = Engine::open(&config).await.unwrap();
    add_note(&engine, ADA, "first").await;
    let copy = config.data_dir.join("copy.db");
    back_up(&config, &copy).await.unwrap();
    add_note(&engine, ADA, "second").await;
    engine.close().await;

    let staged = Staged::begin(&config, &copy).await.unwrap();
    assert_eq!(staged.replaced().unwrap().incarnation, 1);
    assert!(Engine::open(&config).await.is_err(), "nobody opens the database meanwhile");
    let mut inner = database.config();
    staged.point(&mut inner);
    let engine = Engine::open(&inner).await.unwrap();
    add_note(&engine, ADA, "third").await;
    engine.close().await;
    drop(staged);
    assert!(!config.data_dir.join("keyward.db.restoring").exists());
    let engine = Engine::open(&config).await.unwrap();
    assert_eq!(count(&engine, ADA).await, 2, "given up");
    engine.close().await;

    let staged = Staged::begin(&config, &copy).await.unwrap();
    let engine = Engine::open(&inner).await.unwrap();
    assert_eq!(count(&engine, ADA).await, 1, "the backup as it was");
    for note in ["third", "fourth"] {
        add_note(&engine, ADA, note).await;
    }
    engine.close().await;
    staged.put_in_place().await.unwrap();
    let engine = Engine::open(&config).await.unwrap();
    assert_eq!(count(&engine, ADA).await, 3);
    engine.close().await;
}

#[tokio::test]
async fn a_database_that_cannot_be_read_any_more_is_replaced_and_kept_as_it_is() {
    let database = TestDatabase::sqlite_with(probed());
    let config = database.config();
    let engine = Engine::open(&config).await.unwrap();
    add_note(&engine, ADA, "first").await;
    let copy = config.data_dir.join("copy.db");
    back_up(&config, &copy).await.unwrap();
    engine.close().await;
    let file = config.data_dir.join("keyward.db");
    let wreck = b"no database any more".repeat(500);
    std::fs::write(&file, &wreck).unwrap();

    let staged = Staged::begin(&config, &copy).await.unwrap();
    assert_eq!(staged.replaced(), None);
    let replaced = staged.put_in_place().await.unwrap().replaced.unwrap();
    assert_eq!(std::fs::read(replaced).unwrap(), wreck);
    let engine = Engine::open(&config).await.unwrap();
    assert_eq!(count(&engine, ADA).await, 1);
    engine.close().await;
}

#[tokio::test]
async fn copies_to_look_at_are_made_of_backups_and_of_databases_in_use() {
    let database = TestDatabase::sqlite_with(probed());
    let config = database.config();
    let engine = Engine::open(&config).await.unwrap();
    add_note(&engine, ADA, "first").await;
    let copy = config.data_dir.join("copy.db");
    back_up(&config, &copy).await.unwrap();
    add_note(&engine, ADA, "second").await;

    let folder = config.data_dir.join("look");
    let live = snapshot(&config, &folder).await.unwrap();
    let look = Engine::open(&live).await.unwrap();
    assert_eq!(count(&look, ADA).await, 2);
    look.close().await;
    let (packed, report) = unpack_backup(&copy, &folder, probed(), config.now).await.unwrap();
    assert_eq!((report.schema, report.summed, report.reached.epoch), (9_000, true, 0));
    let look = Engine::open(&packed).await.unwrap();
    assert_eq!(count(&look, ADA).await, 1);
    look.close().await;
    let newer = unpack_backup(&copy, &folder, migrations(), config.now).await.err();
    assert!(matches!(newer, Some(StoreError::NewerSchema { found: 9_000, .. })));
    engine.close().await;
}

#[tokio::test]
async fn with_its_sum_every_changed_byte_of_a_backup_shows() {
    let database = TestDatabase::sqlite_with(probed());
    let config = database.config();
    let engine = Engine::open(&config).await.unwrap();
    add_note(&engine, ADA, "a text in the middle of a page").await;
    let copy = config.data_dir.join("copy.db");
    back_up(&config, &copy).await.unwrap();
    engine.close().await;
    assert!(verify_backup(&copy).await.unwrap().summed);
    let whole = std::fs::read(&copy).unwrap();
    let places = (0..whole.len()).step_by(whole.len() / 97);
    for place in places {
        let mut changed = whole.clone();
        changed[place] ^= 0x20;
        std::fs::write(&copy, changed).unwrap();
        let text = refusal(verify_backup(&copy).await);
        assert!(text.contains("is not a usable backup: its SHA-256"), "{place}: {text}");
    }
    std::fs::write(&copy, &whole).unwrap();
    let sum = config.data_dir.join("copy.db.sha256");
    let text = std::fs::read_to_string(&sum).unwrap();
    assert!(text.ends_with("  copy.db\n") && text.len() == 64 + 10, "{text}");
    std::fs::remove_file(sum).unwrap();
    assert!(!verify_backup(&copy).await.unwrap().summed, "and without it the rest is checked");
}

#[tokio::test]
async fn copies_made_under_writes_are_whole_and_each_is_of_one_instant() {
    let database = TestDatabase::sqlite_with(probed());
    let config = database.config();
    let engine = Engine::open(&config).await.unwrap();
    let writing = async {
        for note in 0..150 {
            add_note(&engine, ADA, &format!("note {note}")).await;
        }
    };
    let copying = async {
        let mut sizes = Vec::new();
        for number in 0..6 {
            let copy = config.data_dir.join(format!("copy-{number}.db"));
            back_up(&config, &copy).await.unwrap();
            let folder = config.data_dir.join("look");
            let (packed, report) =
                unpack_backup(&copy, &folder, probed(), config.now).await.unwrap();
            assert!(report.summed);
            let look = Engine::open(&packed).await.unwrap();
            sizes.push(count(&look, ADA).await);
            look.close().await;
        }
        sizes
    };
    let ((), sizes) = tokio::join!(writing, copying);
    assert!(sizes.is_sorted() && sizes.last() <= Some(&150), "{sizes:?}");
    engine.close().await;
}
