//! Every way to another tenant's rows that a table offers, tried on every table of the catalogue
//! by every role that may touch one, under a genuine context and under made-up ones.

mod attacks;
mod catalogue;
mod contexts;

use std::collections::BTreeSet;
use std::pin::pin;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use keyward_testkit::TestDatabase;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::isolation::raw;
use attacks::{Attack, Body, attacks, questions};
use catalogue::{ADA, BOB, Catalogue, FOREIGN, Table};
use contexts::made_up;
pub(crate) use contexts::sign;

/// The errors that end an attack as it should end. Any other one is a mistake of the attack.
const REFUSALS: [&str; 9] = [
    // no right, no context, refused by a policy
    "42501", // a foreign, unique or not-null key; a check
    "23503", "23505", "23502", "23514",
    // a temporary table's foreign key, a view of several tables
    "42P16", "42809",
    // a row that was changed twice by one command; a subselect of two rows
    "21000", "27000",
];

/// The attacks made under every spelling of a context; all are made under each kind.
const VARIED: [&str; 5] = ["select", "exists", "update all", "delete all", "insert new"];

/// What an attack came back with.
struct Answer {
    rows: Vec<String>,
    refusal: Option<(String, String)>,
}

/// The database under attack.
struct Field {
    database: TestDatabase,
    superuser: Client,
    catalogue: Catalogue,
    roles: Vec<String>,
    others: Vec<String>,
    /// Each table's name, whether the rows are ADA's, and what they are.
    before: Vec<(String, bool, String)>,
}

/// The roles with a right to anything in the schema; of several with the same rights, one.
const ROLES: &str = "WITH granted AS (
        SELECT relname || ' ' || privilege_type AS what, grantee
            FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'keyward'::regnamespace
        UNION SELECT relname || '.' || attname || ' ' || privilege_type, grantee
            FROM pg_class c JOIN pg_attribute ON attrelid = c.oid, aclexplode(attacl)
            WHERE relnamespace = 'keyward'::regnamespace),
    held AS (SELECT grantee, string_agg(what, ',' ORDER BY what) AS rights FROM granted
        WHERE grantee NOT IN (SELECT relowner FROM pg_class
            WHERE relnamespace = 'keyward'::regnamespace) GROUP BY grantee)
    SELECT min(r.rolname)::text FROM held JOIN pg_roles r ON r.oid = grantee
    GROUP BY rights ORDER BY 1";
const OTHER_ROLES: &str = "SELECT rolname::text FROM pg_roles WHERE rolsuper OR rolname IN
    ('pg_read_all_data', 'pg_write_all_data') OR rolname LIKE 'keyward%' ORDER BY 1";

impl Field {
    async fn new() -> Option<Self> {
        let database = TestDatabase::postgres_with(crate::probed()).await?;
        let superuser = raw(&database.superuser_url().unwrap()).await;
        let catalogue = Catalogue::furnish(&superuser).await.unwrap_or_else(|e| panic!("{e}"));
        superuser.batch_execute(&format!("ANALYZE; {}", catalogue.keep())).await.unwrap();
        let roles = names(&superuser, ROLES).await;
        let others = names(&superuser, OTHER_ROLES).await;
        let before = contents(&superuser, &catalogue).await;
        Some(Self { database, superuser, catalogue, roles, others, before })
    }

    /// The role that a node with every task has.
    fn application(&self) -> String {
        let config: tokio_postgres::Config = self.database.url().parse().unwrap();
        config.get_user().unwrap().to_owned()
    }

    async fn connect(&self, role: &str) -> Client {
        raw(&self.database.url_of_role(role).unwrap()).await
    }

    /// What changed for others than ADA. Whatever changed is put back.
    async fn effects(&self) -> Vec<String> {
        let after = contents(&self.superuser, &self.catalogue).await;
        if after == self.before {
            return Vec::new();
        }
        self.superuser.batch_execute(&self.catalogue.restore()).await.unwrap();
        let foreign = |lines: &[(String, bool, String)]| -> Vec<_> {
            lines.iter().filter(|(_, own, _)| !own).cloned().collect()
        };
        let (before, after) = (foreign(&self.before), foreign(&after));
        before.into_iter().filter(|line| !after.contains(line)).map(|(name, ..)| name).collect()
    }

    /// Makes every attack on a table, one by one, and tells what came of those that worked.
    async fn attack(
        &self,
        (role, client): (&str, &Client),
        table: &Table,
        context: &Context,
    ) -> Vec<String> {
        let mut worked = Vec::new();
        for attack in attacks(table, &self.catalogue, &self.others) {
            let answer = match &attack.body {
                Body::CopyIn(sql, line) => self.copy_in(role, sql, line).await,
                _ => carry_out(client, context, &attack).await,
            };
            let mut problem = judge(table, &attack, &answer);
            if answer.refusal.is_none() || attack.before.is_some() {
                client.batch_execute("ROLLBACK").await.unwrap();
                client.batch_execute("DISCARD ALL").await.unwrap();
                let effects = self.effects().await;
                if !effects.is_empty() {
                    problem = Some(format!("changed {effects:?}"));
                }
            }
            if let Some(problem) = problem {
                worked.push(format!("{} on {}: {problem}", attack.name, table.name));
            }
        }
        worked
    }

    /// Makes attacks on a table in one flight.
    async fn attack_at_once(
        &self,
        client: &Client,
        table: &Table,
        context: &Context,
        all: Vec<Attack>,
    ) -> Vec<String> {
        // A message of its own each; what asks for several goes after the others.
        let (single, several): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|attack| attack.before.is_none() && matches!(attack.body, Body::Sql(_)));
        let flight = single.iter().map(|attack| carry_out(client, context, attack));
        let mut answers = join_all(flight).await;
        for attack in &several {
            answers.push(carry_out(client, context, attack).await);
            client.batch_execute("ROLLBACK; DEALLOCATE ALL").await.unwrap();
        }
        let answered = single.iter().chain(&several).zip(&answers);
        let mut worked: Vec<_> = answered
            .filter_map(|(attack, answer)| {
                let problem = judge(table, attack, answer)?;
                Some(format!("{} on {}: {problem}", attack.name, table.name))
            })
            .collect();
        client.batch_execute("ROLLBACK").await.unwrap();
        client.batch_execute("DISCARD ALL").await.unwrap();
        let effects = self.effects().await;
        if !effects.is_empty() {
            worked.push(format!("an attack on {}: changed {effects:?}", table.name));
        }
        worked
    }

    /// Makes every attack under ADA's own context.
    async fn attack_as(&self, role: &str, tables: impl IntoIterator<Item = &Table>) -> Vec<String> {
        let client = self.connect(role).await;
        let context = Context {
            tried: Some(sign(&self.superuser, &client, ADA).await),
            bob: Some(sign(&self.superuser, &client, BOB).await),
        };
        let mut worked = Vec::new();
        for table in tables {
            let found = self.attack((role, &client), table, &context).await;
            worked.extend(found.into_iter().map(|found| format!("as {role}, {found}")));
        }
        worked
    }

    /// Makes every attack under each context that nobody signed.
    async fn attack_with_made_up_contexts(
        &self,
        role: &str,
        tables: impl IntoIterator<Item = &Table> + Clone,
    ) -> Vec<String> {
        let client = self.connect(role).await;
        let bob = Some(sign(&self.superuser, &client, BOB).await);
        let mut worked = Vec::new();
        for (name, tried, variant) in made_up(self, role, &client).await {
            let context = Context { tried, bob: bob.clone() };
            for table in tables.clone() {
                let mut all = attacks(table, &self.catalogue, &self.others);
                all.retain(|attack| !attack.once && (!variant || VARIED.contains(&&*attack.name)));
                let found = self.attack_at_once(&client, table, &context, all).await;
                worked.extend(found.into_iter().map(|found| format!("{role} {name}, {found}")));
            }
        }
        worked
    }

    /// Sends a line on a connection of its own: the driver loses its place after a refusal.
    async fn copy_in(&self, role: &str, sql: &str, line: &str) -> Answer {
        let client = self.connect(role).await;
        let own = sign(&self.superuser, &client, ADA).await;
        let begin = format!("BEGIN; {}", context_sql(Some(&own)));
        client.batch_execute(&begin).await.unwrap();
        let copied = async {
            let mut sink = pin!(client.copy_in(sql).await?);
            sink.send(Bytes::from(line.to_owned())).await?;
            sink.finish().await
        };
        match copied.await {
            Ok(_) => {
                client.batch_execute("COMMIT").await.unwrap();
                Answer { rows: Vec::new(), refusal: None }
            }
            Err(error) => Answer { rows: Vec::new(), refusal: Some(refusal(&error)) },
        }
    }
}

/// The contexts of one attack.
struct Context {
    /// What the attacker's transaction carries.
    tried: Option<String>,
    /// A genuine one of BOB's for the same connection.
    bob: Option<String>,
}

async fn contents(superuser: &Client, catalogue: &Catalogue) -> Vec<(String, bool, String)> {
    let rows = superuser.query(&catalogue.contents(), &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

async fn names(client: &Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// What is wrong about an answer to ADA, if anything.
fn judge(table: &Table, attack: &Attack, answer: &Answer) -> Option<String> {
    // Everybody may read what belongs to no tenant.
    let rows = answer.rows.iter().filter(|_| !table.is_open());
    let leaked: Vec<_> = rows.filter(|row| FOREIGN.iter().any(|mark| row.contains(mark))).collect();
    if !leaked.is_empty() {
        return Some(format!("answered {leaked:?}"));
    }
    let (code, text) = answer.refusal.as_ref()?;
    let told = FOREIGN.iter().any(|mark| text.contains(mark) && !attack.text().contains(mark));
    if told && !table.is_open() {
        return Some(format!("told {text}"));
    }
    // row level security and COPY FROM do not go together at all
    let copied_in = matches!(attack.body, Body::CopyIn(..)) && code == "0A000";
    let known = copied_in || REFUSALS.contains(&code.as_str());
    (!known).then(|| format!("failed for another reason: {code} {text}: {}", attack.text()))
}

fn context_sql(context: Option<&str>) -> String {
    context.map_or_else(String::new, |text| {
        format!("SET LOCAL keyward.context = {};", catalogue::literal(Some(text)))
    })
}

async fn carry_out(client: &Client, context: &Context, attack: &Attack) -> Answer {
    if let Some(before) = &attack.before {
        // Without the right to it there is nothing to leave behind either.
        let left = run(client, context.bob.as_deref(), before).await;
        if left.refusal.is_some() {
            return Answer { rows: Vec::new(), ..left };
        }
    }
    match &attack.body {
        Body::CopyOut(sql) => copy(client, context.tried.as_deref(), copy_out(client, sql)).await,
        Body::Sql(sql) | Body::CopyIn(sql, _) => run(client, context.tried.as_deref(), sql).await,
    }
}

/// Runs statements in one transaction, and answers every row as text.
async fn run(client: &Client, context: Option<&str>, sql: &str) -> Answer {
    // What was refused before is taken back first: that saves a round trip for each refusal.
    let text = format!("ROLLBACK; BEGIN; {} {sql}; COMMIT", context_sql(context));
    let mut rows = Vec::new();
    match client.simple_query(&text).await {
        Ok(messages) => {
            for message in messages {
                if let SimpleQueryMessage::Row(row) = message {
                    let values = (0..row.len()).map(|column| row.get(column).unwrap_or("-"));
                    rows.push(values.collect::<Vec<_>>().join("|"));
                }
            }
            Answer { rows, refusal: None }
        }
        Err(error) => Answer { rows, refusal: Some(refusal(&error)) },
    }
}

fn refusal(error: &Error) -> (String, String) {
    let Some(answer) = error.as_db_error() else { panic!("{error:?}") };
    let parts = [Some(answer.message()), answer.detail(), answer.hint(), answer.where_()];
    let text: Vec<_> = parts.into_iter().flatten().collect();
    (answer.code().code().to_owned(), text.join(" / "))
}

async fn copy(
    client: &Client,
    context: Option<&str>,
    copied: impl Future<Output = Result<Vec<String>, Error>>,
) -> Answer {
    let begin = format!("ROLLBACK; BEGIN; {}", context_sql(context));
    client.batch_execute(&begin).await.unwrap();
    let copied = copied.await;
    let end = if copied.is_ok() { "COMMIT" } else { "ROLLBACK" };
    client.batch_execute(end).await.unwrap();
    match copied {
        Ok(rows) => Answer { rows, refusal: None },
        Err(error) => Answer { rows: Vec::new(), refusal: Some(refusal(&error)) },
    }
}

async fn copy_out(client: &Client, sql: &str) -> Result<Vec<String>, Error> {
    let mut stream = pin!(client.copy_out(sql).await?);
    let mut rows = Vec::new();
    while let Some(bytes) = stream.next().await {
        rows.push(String::from_utf8_lossy(&bytes?).into_owned());
    }
    Ok(rows)
}

#[tokio::test]
async fn no_attack_under_a_tenants_own_context_reaches_another() {
    let Some(field) = Field::new().await else { return };
    assert!(!field.roles.is_empty());
    let mut worked = Vec::new();
    for role in &field.roles {
        worked.extend(field.attack_as(role, &field.catalogue.tables).await);
    }
    assert!(worked.is_empty(), "{}", worked.join("\n"));
}

#[tokio::test]
async fn no_attack_under_a_made_up_context_reaches_anybody() {
    let Some(field) = Field::new().await else { return };
    let tables = &field.catalogue.tables;
    let attempts = field.roles.iter().map(|role| field.attack_with_made_up_contexts(role, tables));
    let worked = join_all(attempts).await.concat();
    assert!(worked.is_empty(), "{}", worked.join("\n"));
}

/// Keys that tell whether a value exists that another tenant has.
const TELLING_KEYS: [&str; 1] = [
    // Ids are random and carry a tag: nobody comes upon one.
    "api_keys (key_id)",
];

#[tokio::test]
async fn no_refusal_tells_what_another_tenant_has() {
    let Some(field) = Field::new().await else { return };
    let mut telling = BTreeSet::new();
    for role in &field.roles {
        let client = field.connect(role).await;
        let own = Some(sign(&field.superuser, &client, ADA).await);
        for table in field.catalogue.tables.iter().filter(|table| table.kind != "shared") {
            for question in questions(table, &field.catalogue) {
                let mut answers = Vec::new();
                for sql in [&question.known, &question.unknown] {
                    let answer = run(&client, own.as_deref(), sql).await;
                    answers.push((answer.rows, answer.refusal));
                    client.batch_execute("ROLLBACK").await.unwrap();
                    field.effects().await;
                }
                if answers.first() != answers.last() {
                    telling.insert(question.key);
                }
            }
        }
    }
    assert_eq!(telling, TELLING_KEYS.map(str::to_owned).into());
}

/// The names of the attacks that worked.
fn names_of(worked: &[String]) -> BTreeSet<&str> {
    worked.iter().filter_map(|found| found.split_once(", ")?.1.split(" on ").next()).collect()
}

/// What the row policies alone hold back: these work on a table whose policy lets all through. The
/// others meet grants, ownership or keys before.
const HELD_BY_POLICIES: [&str; 50] = [
    "block",
    "conflict theirs key_id update",
    "conflict theirs tenant_id, key_id update",
    "copy of the table",
    "copy query to",
    "copy to",
    "cte",
    "ctid",
    "cursor",
    "cursor that stays",
    "definer's function",
    "definer's view",
    "delete all",
    "delete from a view",
    "delete in a cte",
    "delete using",
    "delete where",
    "dynamic function",
    "exists",
    "for key share",
    "for update",
    "generic plans",
    "insert new",
    "insert new into a view",
    "insert new returning",
    "lateral",
    "leaky condition",
    "lock",
    "merge delete",
    "merge new",
    "merge update",
    "outer join",
    "parallel",
    "planned by another",
    "prepared by another",
    "refer to memberships true",
    "sample",
    "savepoint",
    "select",
    "select where",
    "setting reset",
    "shadow of the context",
    "subquery",
    "update a view",
    "update all",
    "update from",
    "update in a cte",
    "update where",
    "view",
    "xml",
];

#[tokio::test]
async fn the_attacks_work_where_the_wall_is_down() {
    let Some(field) = Field::new().await else { return };
    let open = "CREATE POLICY open ON keyward.api_keys USING (true) WITH CHECK (true)";
    field.superuser.batch_execute(open).await.unwrap();
    let (role, table) = (field.application(), field.catalogue.table("api_keys").unwrap());
    let worked = field.attack_as(&role, [table]).await;
    let columns = table.columns.iter().map(|column| column.name.as_str());
    let free = columns.filter(|name| !["tenant_id", "key_id", "owner_id"].contains(name));
    let itself = [format!("set role {role}"), format!("be {role}")];
    let given: Vec<_> = free.map(|name| format!("give {name}")).chain(itself).collect();
    let expected = HELD_BY_POLICIES.into_iter().chain(given.iter().map(String::as_str));
    assert_eq!(names_of(&worked), expected.collect());
}

#[tokio::test]
async fn a_grant_too_many_is_found() {
    let Some(field) = Field::new().await else { return };
    let (role, table) = (field.application(), field.catalogue.table("note_lines").unwrap());
    let grant = format!("GRANT TRUNCATE ON keyward.note_lines TO {role}");
    field.superuser.batch_execute(&grant).await.unwrap();
    let worked = field.attack_as(&role, [table]).await;
    assert_eq!(names_of(&worked), BTreeSet::from(["truncate", "truncate cascade"]));
}

#[tokio::test]
async fn a_context_that_is_not_signed_is_found() {
    let Some(field) = Field::new().await else { return };
    let plain = "CREATE OR REPLACE FUNCTION keyward.current_tenant() RETURNS TEXT LANGUAGE sql
        STABLE AS $$ SELECT right(current_setting('keyward.context', true), 10) $$";
    field.superuser.batch_execute(plain).await.unwrap();
    let role = field.application();
    let notes = field.catalogue.table("notes").unwrap();
    let worked = field.attack_with_made_up_contexts(&role, [notes]).await;
    for context in ["the name alone", "of another backend", "zeros and the name"] {
        let select = format!("{role} {context}, select on");
        assert!(worked.iter().any(|found| found.starts_with(&select)), "{context}: {worked:?}");
    }
}

#[tokio::test]
async fn a_table_that_cannot_be_covered_is_named() {
    let tables = [
        (
            "CREATE TABLE keyward.loose (tenant_id TEXT)",
            "`loose` is in the schema and not isolated",
        ),
        (
            "CREATE TABLE keyward.odd (tenant_id TEXT PRIMARY KEY, place POINT NOT NULL);
             CALL keyward_private.isolate('odd', 'tenant')",
            "`odd`.`place`: no value of type point is known",
        ),
        (
            "CREATE TABLE keyward.narrow (tenant_id TEXT PRIMARY KEY, word TEXT NOT NULL
                CHECK (md5(word) = 'x'));
             CALL keyward_private.isolate('narrow', 'tenant')",
            "`narrow`: no row was found that satisfies (md5(word) = 'x'::text)",
        ),
        (
            "CREATE TABLE keyward.owned (owner_id TEXT PRIMARY KEY);
             CALL keyward_private.isolate('owned', 'tenant', 'owner_id')",
            "`owned` holds rows of tenants and has no tenant_id",
        ),
    ];
    for (table, problem) in tables {
        let Some(database) = TestDatabase::postgres().await else { return };
        let superuser = raw(&database.superuser_url().unwrap()).await;
        superuser.batch_execute(table).await.unwrap();
        let Err(told) = Catalogue::furnish(&superuser).await else { panic!("{table}") };
        assert!(told.starts_with(problem), "{told}");
    }
}
