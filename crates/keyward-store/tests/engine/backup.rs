//! Copies of a SQLite database, made on demand and before migrations.

use keyward_store::{Context, Engine, migrations, verify_backup};
use keyward_testkit::TestDatabase;

use crate::{ADA, INSERT, add_note, count, probed, refusal};

#[tokio::test]
async fn a_copy_holds_what_was_committed_and_opens_as_a_database() {
    let database = TestDatabase::sqlite_with(probed());
    let engine = Engine::open(&database.config()).await.unwrap();
    add_note(&engine, ADA, "kept").await;
    // A writer at work is neither waited for nor copied.
    let mut open = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
    open.execute(&INSERT, &[ADA.into(), "open".into(), 1.into()]).await.unwrap();
    let restored = TestDatabase::sqlite_with(probed());
    let copy = restored.data_dir().join("keyward.db");
    engine.backup_to(&copy).await.unwrap();
    open.commit().await.unwrap();

    let report = verify_backup(&copy).await.unwrap();
    assert_eq!(report.schema, 9000);
    assert_eq!(report.bytes, std::fs::metadata(&copy).unwrap().len());
    let names = std::fs::read_dir(restored.data_dir()).unwrap();
    assert_eq!(names.count(), 1, "a backup is one file");
    let other = Engine::open(&restored.config()).await.unwrap();
    assert_eq!((count(&engine, ADA).await, count(&other, ADA).await), (2, 1));
    let text = refusal(engine.backup_to(&copy).await);
    assert!(text.contains("exists already"), "{text}");
}

#[tokio::test]
async fn a_damaged_copy_is_told() {
    let database = TestDatabase::sqlite_with(probed());
    let engine = Engine::open(&database.config()).await.unwrap();
    for note in 0..200 {
        add_note(&engine, ADA, &format!("note {note}")).await;
    }
    let copy = database.data_dir().join("copy.db");
    engine.backup_to(&copy).await.unwrap();
    let whole = std::fs::read(&copy).unwrap();
    let mut torn = whole.clone();
    torn.truncate(whole.len() / 2);
    let mut overwritten = whole.clone();
    overwritten[4096..].fill(0xA5);
    for bytes in [torn, overwritten, b"not a database".repeat(400), Vec::new()] {
        std::fs::write(&copy, bytes).unwrap();
        let text = refusal(verify_backup(&copy).await);
        assert!(text.contains("is not a usable backup"), "{text}");
    }
    let text = refusal(verify_backup(&database.data_dir().join("none.db")).await);
    assert!(text.contains("is not a usable backup"), "{text}");
    std::fs::write(&copy, whole).unwrap();
    verify_backup(&copy).await.unwrap();
}

#[tokio::test]
async fn a_database_with_content_is_copied_before_it_is_migrated() {
    let database = TestDatabase::sqlite();
    let backups = database.data_dir().join("backups");
    Engine::open(&database.config()).await.unwrap().close().await;
    assert!(!backups.exists(), "a new database needs no copy");
    // More upgrades than copies are kept.
    let mut known = migrations();
    let first = known.last().unwrap().version().unwrap() + 1;
    for step in first..first + 15 {
        known.push(keyward_store::Migration {
            name: Box::leak(format!("V{step:04}__step").into_boxed_str()),
            sqlite: "SELECT 1",
            postgres: "SELECT 1",
        });
        let mut config = database.config();
        config.migrations.clone_from(&known);
        Engine::open(&config).await.unwrap().close().await;
        let copy = backups.join(format!("keyward-{:04}-20270115T080000000Z.db", step - 1));
        assert_eq!(verify_backup(&copy).await.unwrap().schema, step - 1);
        Engine::open(&config).await.unwrap().close().await;
    }
    let mut kept: Vec<_> = backups
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept.len(), 10);
    let oldest = format!("keyward-{:04}-", first + 15 - 1 - 10);
    assert!(kept[0].starts_with(&oldest), "{kept:?}");
}

#[tokio::test]
async fn postgres_is_backed_up_by_its_own_tools() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let engine = Engine::open(&database.config()).await.unwrap();
    let text = refusal(engine.backup_to(&database.data_dir().join("copy")).await);
    assert!(text.contains("pg_dump"), "{text}");
}
