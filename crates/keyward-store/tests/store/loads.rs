//! What a node loads at its start: page by page, every row once, each page found by its index.

use std::sync::Arc;

use keyward_core::id::{KeyId, TenantId};
use keyward_store::{Chain, Change, Statement, Store, all_statements};
use keyward_testkit::TestDatabase;

use super::fixture::{ADA, BOB, CountingClock, HASH, OWNER, author, entry, key, prepare};

/// Statements that read one page of everything.
const LOADS: [&str; 4] =
    ["authority::KEYS", "authority::MEMBERS", "authority::TENANTS", "admin_tokens::ALL_AUTHORITY"];

fn loads() -> Vec<&'static Statement> {
    let is_load = |it: &&Statement| LOADS.iter().any(|load| it.name().ends_with(load));
    let loads: Vec<&Statement> = all_statements().filter(is_load).collect();
    assert_eq!(loads.len(), LOADS.len());
    loads
}

/// A store with seven keys of one tenant, and two of another whose ids lie between them.
async fn filled(database: &TestDatabase) -> Store {
    let clock = Arc::new(CountingClock::default());
    let store = Store::open(&database.config(), clock).await.unwrap();
    prepare(&store).await;
    let mut tx = store.write_system("test", Chain::Tenant(BOB), author()).await.unwrap();
    let at = tx.at();
    assert!(tx.insert_member(BOB, OWNER, "owner", at).await.unwrap());
    tx.finish(Change::new((), entry("member.added", &OWNER))).await.unwrap();
    let tenants = [(ADA, [2, 4, 6, 8, 10, 12, 14].as_slice()), (BOB, [3, 5].as_slice())];
    for (tenant, ids) in tenants {
        let mut tx = store.write(tenant, author()).await.unwrap();
        let at = tx.at();
        for id in ids {
            let mut key = key(*id, at);
            key.tenant = tenant;
            tx.insert_key(&key, &HASH, 1).await.unwrap();
        }
        tx.finish(Change::new((), entry("api_key.created", &tenant))).await.unwrap();
    }
    store
}

async fn pages(store: &Store, limit: u32) -> Vec<Vec<(TenantId, KeyId)>> {
    let mut tx = store.read_system("test").await.unwrap();
    let (mut pages, mut after) = (Vec::new(), Default::default());
    loop {
        let mut page = tx.key_authorities(after, limit).await.unwrap();
        let last = page.last.take();
        pages.push(page.into_facts().into_iter().map(|key| (key.tenant, key.id)).collect());
        match last {
            Some(last) => after = last,
            None => return pages,
        }
    }
}

#[tokio::test]
async fn every_key_is_on_one_page_whatever_their_size() {
    for database in TestDatabase::every().await {
        let store = filled(&database).await;
        let of = |tenant, id| (tenant, KeyId::from_bits(id));
        let mut expected: Vec<_> = [2, 4, 6, 8, 10, 12, 14].map(|id| of(ADA, id)).into();
        expected.extend([3, 5].map(|id| of(BOB, id)));
        for limit in [1, 2, 3, 9, 10] {
            let pages = pages(&store, limit).await;
            assert!(pages.iter().all(|page| page.len() <= limit as usize), "{limit}");
            assert_eq!(pages.concat(), expected, "{limit} on {}", database.engine_name());
        }
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_read_stops_no_page() {
    for database in TestDatabase::every().await {
        let store = filled(&database).await;
        // the last row of the first page of three
        let id = KeyId::from_bits(6);
        let broken = format!("UPDATE api_keys SET scopes = 'not a list' WHERE key_id = '{id}'");
        database.behind(&broken).await;
        let pages = pages(&store, 3).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 3, 3, 0]);
        assert!(!pages.concat().contains(&(ADA, id)));
    }
}

/// Every page would walk over all those before it otherwise, and a million keys never be loaded.
#[tokio::test]
async fn sqlite_finds_a_page_by_its_index() {
    let database = TestDatabase::sqlite();
    drop(filled(&database).await);
    for load in loads() {
        let plan = database.behind(&format!("EXPLAIN QUERY PLAN {}", load.sqlite())).await;
        let plan = format!("{plan:?}");
        assert!(plan.contains("SEARCH") && !plan.contains("SCAN"), "{}: {plan}", load.name());
        assert!(!plan.contains("TEMP B-TREE"), "{}: {plan}", load.name());
    }
}

#[tokio::test]
async fn postgres_finds_a_page_by_its_index() {
    let Some(database) = TestDatabase::postgres().await else { return };
    drop(filled(&database).await);
    let url = database.superuser_url().unwrap();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    // as the product's sessions plan, on tables that are too small for an index otherwise
    let settings = "SET search_path TO keyward; SET plan_cache_mode TO force_generic_plan;
                    SET enable_seqscan TO off; SET enable_bitmapscan TO off";
    client.batch_execute(settings).await.unwrap();
    for (position, load) in loads().into_iter().enumerate() {
        let name = format!("load_{position}");
        let sql = load.postgres();
        client.batch_execute(&format!("PREPARE {name} AS {sql}")).await.unwrap();
        let nulls = vec!["NULL"; (1..10).filter(|it| sql.contains(&format!("${it}"))).count()];
        let explain = format!("EXPLAIN EXECUTE {name} ({})", nulls.join(", "));
        let plan: Vec<String> =
            client.query(&explain, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("Index Cond:"), "{}:\n{plan}", load.name());
        assert!(!plan.contains("Sort"), "{}:\n{plan}", load.name());
    }
}
