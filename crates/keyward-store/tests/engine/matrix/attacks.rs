//! What somebody with SQL of their own in ADA's transaction might try on a table.

use super::catalogue::{BOB, Catalogue, Table, Values, literal};

/// How an attack reaches the server.
pub(super) enum Body {
    /// Statements, in one message.
    Sql(String),
    /// A `COPY … TO STDOUT`.
    CopyOut(String),
    /// A `COPY … FROM STDIN` and the line it is sent.
    CopyIn(String, String),
}

pub(super) struct Attack {
    pub(super) name: String,
    /// Run in BOB's own transaction before, on the same connection.
    pub(super) before: Option<String>,
    /// Made under a genuine context only: what refuses it looks at no context, or another attack
    /// stands for it under the others.
    pub(super) once: bool,
    pub(super) body: Body,
}

impl Attack {
    pub(super) fn text(&self) -> &str {
        match &self.body {
            Body::Sql(sql) | Body::CopyOut(sql) | Body::CopyIn(sql, _) => sql,
        }
    }
}

fn sql(name: &str, sql: String) -> Attack {
    body(name, Body::Sql(sql))
}

fn body(name: &str, body: Body) -> Attack {
    Attack { name: name.to_owned(), before: None, once: false, body }
}

fn once(attacks: Vec<Attack>) -> impl Iterator<Item = Attack> {
    attacks.into_iter().map(|attack| Attack { once: true, ..attack })
}

/// The attacks on one table. `roles` are the other roles of the server.
pub(super) fn attacks(table: &Table, catalogue: &Catalogue, roles: &[String]) -> Vec<Attack> {
    let target = Target::new(table);
    let mut all = target.reads();
    all.extend(target.reads_through_code());
    all.extend(target.reads_past_the_context());
    all.extend(target.reads_with_settings());
    all.extend(once(target.reads_as(roles)));
    all.extend(target.reads_with_what_another_left());
    all.extend(once(target.schema_changes()));
    all.extend(target.changes());
    all.extend(once(target.changes_of_columns()));
    if table.kind != "shared" {
        all.extend(target.insertions());
        all.extend(target.conflicts());
        all.extend(target.references(catalogue));
    }
    all
}

/// The texts that attacks are put together from.
struct Target<'t> {
    table: &'t Table,
    /// The name with its schema.
    name: String,
    /// True of BOB's row only.
    theirs: String,
    columns: String,
    /// `column = column` for each.
    unchanged: String,
}

impl<'t> Target<'t> {
    fn new(table: &'t Table) -> Self {
        let unchanged: Vec<_> =
            table.columns.iter().map(|c| format!("{0} = t.{0}", c.name)).collect();
        Self {
            table,
            name: format!("keyward.{}", table.name),
            theirs: if table.kind == "shared" {
                "true".to_owned()
            } else {
                table.condition(&table.bob)
            },
            columns: table.column_list(),
            unchanged: unchanged.join(", "),
        }
    }

    fn reads(&self) -> Vec<Attack> {
        let (t, theirs) = (&self.name, &self.theirs);
        vec![
            sql("select", format!("SELECT * FROM {t}")),
            sql("select where", format!("SELECT * FROM {t} WHERE {theirs}")),
            sql(
                "exists",
                format!("SELECT 'FOREIGN' WHERE EXISTS (SELECT FROM {t} WHERE {theirs})"),
            ),
            sql("subquery", format!("SELECT (SELECT string_agg(x::text, '|') FROM {t} x)")),
            sql("cte", format!("WITH x AS MATERIALIZED (SELECT * FROM {t}) SELECT * FROM x")),
            sql(
                "lateral",
                format!(
                    "SELECT x FROM generate_series(1, 2),
                LATERAL (SELECT * FROM {t} LIMIT 9) x"
                ),
            ),
            sql(
                "outer join",
                format!(
                    "SELECT 'FOREIGN' FROM (SELECT 1) one
                LEFT JOIN {t} ON {theirs} WHERE {t}.tableoid IS NOT NULL"
                ),
            ),
            sql("for update", format!("SELECT * FROM {t} FOR UPDATE")),
            sql("for key share", format!("SELECT * FROM {t} WHERE {theirs} FOR KEY SHARE")),
            sql("sample", format!("SELECT * FROM {t} TABLESAMPLE BERNOULLI (100)")),
            sql(
                "ctid",
                format!(
                    "SELECT * FROM {t} WHERE ctid = ANY (ARRAY(
                SELECT format('(%s,%s)', page, place)::tid
                FROM generate_series(0, 2) page, generate_series(1, 40) place))"
                ),
            ),
            sql("xml", format!("SELECT table_to_xml('{t}', true, true, '')")),
            sql(
                "statistics",
                format!(
                    "SELECT * FROM pg_stats WHERE schemaname = 'keyward'
                AND tablename = '{}'",
                    self.table.name
                ),
            ),
            sql("lock", format!("LOCK TABLE {t} IN ACCESS EXCLUSIVE MODE; SELECT * FROM {t}")),
            body("copy to", Body::CopyOut(format!("COPY {t} TO STDOUT"))),
            body(
                "copy query to",
                Body::CopyOut(format!("COPY (SELECT * FROM {t} WHERE {theirs}) TO STDOUT")),
            ),
        ]
    }

    /// Views, functions, cursors and copies that the attacker makes.
    fn reads_through_code(&self) -> Vec<Attack> {
        let t = &self.name;
        let view = |options: &str| format!("CREATE TEMP VIEW v {options} AS SELECT * FROM {t}; ");
        vec![
            sql("view", view("") + "SELECT * FROM v"),
            sql("definer's view", view("WITH (security_invoker = false)") + "SELECT * FROM v"),
            sql("copy of the table", format!("CREATE TEMP TABLE c AS SELECT * FROM {t}; TABLE c")),
            sql(
                "definer's function",
                format!(
                    "CREATE FUNCTION pg_temp.peek() RETURNS SETOF TEXT
                LANGUAGE sql SECURITY DEFINER AS 'SELECT x::text FROM {t} x';
                SELECT pg_temp.peek()"
                ),
            ),
            sql(
                "dynamic function",
                format!(
                    "CREATE FUNCTION pg_temp.peek() RETURNS TEXT
                LANGUAGE plpgsql SECURITY DEFINER AS $f$ DECLARE found TEXT; BEGIN
                EXECUTE 'SELECT string_agg(x::text, ''|'') FROM {t} x' INTO found;
                RETURN found; END $f$; SELECT pg_temp.peek()"
                ),
            ),
            sql(
                "block",
                format!(
                    "DO $f$ DECLARE found TEXT; BEGIN
                SELECT string_agg(x::text, '|') INTO found FROM {t} x;
                RAISE EXCEPTION '%', found USING ERRCODE = 'insufficient_privilege'; END $f$"
                ),
            ),
            sql(
                "leaky condition",
                format!(
                    "CREATE FUNCTION pg_temp.spy(TEXT) RETURNS BOOLEAN
                LANGUAGE plpgsql COST 0.0000001 AS $f$ BEGIN IF $1 LIKE '%bob%' THEN
                RAISE EXCEPTION '%', $1 USING ERRCODE = 'insufficient_privilege'; END IF;
                RETURN true; END $f$; SELECT * FROM {t} x WHERE pg_temp.spy(x::text)"
                ),
            ),
            sql(
                "cursor",
                format!(
                    "DECLARE c SCROLL CURSOR FOR SELECT * FROM {t};
                FETCH ALL FROM c; FETCH ABSOLUTE 1 FROM c"
                ),
            ),
            sql(
                "cursor that stays",
                format!(
                    "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM {t};
                COMMIT; BEGIN; FETCH ALL FROM c"
                ),
            ),
        ]
    }

    /// With code of the attacker's in the way of the context.
    fn reads_past_the_context(&self) -> Vec<Attack> {
        let t = &self.name;
        vec![
            sql(
                "shadow of the context",
                format!(
                    "CREATE FUNCTION pg_temp.current_tenant()
                RETURNS TEXT LANGUAGE sql AS 'SELECT ''{BOB}'''; CREATE FUNCTION
                pg_temp.current_setting(TEXT, BOOLEAN) RETURNS TEXT LANGUAGE sql AS
                'SELECT ''{BOB}'''; CREATE TEMP TABLE context_key (id INTEGER);
                SET LOCAL search_path = pg_temp, keyward, pg_catalog; SELECT * FROM {t}"
                ),
            ),
            sql(
                "context of a function",
                format!(
                    "CREATE FUNCTION pg_temp.peek()
                RETURNS SETOF TEXT LANGUAGE sql SET keyward.context = '{BOB}'
                AS 'SELECT x::text FROM {t} x'; SELECT pg_temp.peek()"
                ),
            ),
        ]
    }

    /// Under settings that the attacker chooses.
    fn reads_with_settings(&self) -> Vec<Attack> {
        let t = &self.name;
        vec![
            sql("row security off", format!("SET LOCAL row_security = off; SELECT * FROM {t}")),
            sql("replica", format!("SET LOCAL session_replication_role = replica; TABLE {t}")),
            sql(
                "savepoint",
                format!(
                    "SAVEPOINT a; SET LOCAL work_mem = '1MB'; SELECT * FROM {t};
                ROLLBACK TO a; SAVEPOINT b; RELEASE b; SELECT * FROM {t}"
                ),
            ),
            sql(
                "parallel",
                format!(
                    "SELECT FROM pg_settings, set_config(name, CASE
                WHEN name LIKE '%_cost' OR name LIKE '%_size' THEN '0'
                WHEN name LIKE 'max%' THEN '2' ELSE 'on' END, true)
                WHERE name IN ('force_parallel_mode', 'debug_parallel_query',
                'parallel_setup_cost', 'parallel_tuple_cost', 'min_parallel_table_scan_size',
                'max_parallel_workers_per_gather'); SELECT * FROM {t}"
                ),
            ),
            sql(
                "generic plans",
                format!(
                    "SET LOCAL plan_cache_mode = force_generic_plan;
                SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off;
                SELECT * FROM {t} WHERE {}",
                    self.theirs
                ),
            ),
            sql(
                "setting of the role",
                format!(
                    "ALTER ROLE CURRENT_USER SET keyward.context =
                '{BOB}'; SELECT * FROM {t}; ALTER ROLE CURRENT_USER RESET keyward.context"
                ),
            ),
            sql("setting reset", format!("RESET ALL; SELECT * FROM {t}")),
        ]
    }

    fn reads_as(&self, roles: &[String]) -> Vec<Attack> {
        let read = |role: &String| {
            let t = &self.name;
            let [set, be] = ["SET LOCAL ROLE", "SET LOCAL SESSION AUTHORIZATION"]
                .map(|how| format!("{how} {role}; SELECT * FROM {t}"));
            [sql(&format!("set role {role}"), set), sql(&format!("be {role}"), be)]
        };
        roles.iter().flat_map(read).collect()
    }

    /// With plans that BOB made on the same connection.
    fn reads_with_what_another_left(&self) -> Vec<Attack> {
        let t = &self.name;
        let run = |text: &str| format!("{text}; ").repeat(7);
        let left = |name: &str, before: String, call: &str| Attack {
            before: Some(before + &run(call)),
            ..sql(name, call.to_owned())
        };
        vec![
            left("prepared by another", format!("PREPARE p AS SELECT * FROM {t}; "), "EXECUTE p"),
            left(
                "planned by another",
                format!(
                    "CREATE FUNCTION pg_temp.peek() RETURNS SETOF TEXT LANGUAGE plpgsql
                    AS $f$ BEGIN RETURN QUERY SELECT x::text FROM {t} x; END $f$; "
                ),
                "SELECT pg_temp.peek()",
            ),
        ]
    }

    fn schema_changes(&self) -> Vec<Attack> {
        let (t, name) = (&self.name, &self.table.name);
        let mut all = self.foreign_key_to_it();
        all.extend([
            sql("truncate", format!("TRUNCATE {t}")),
            sql("truncate cascade", format!("TRUNCATE {t} CASCADE")),
            sql("disable", format!("ALTER TABLE {t} DISABLE ROW LEVEL SECURITY")),
            sql("unforce", format!("ALTER TABLE {t} NO FORCE ROW LEVEL SECURITY")),
            sql("drop policy", format!("DROP POLICY context ON {t}")),
            sql("add policy", format!("CREATE POLICY mine ON {t} USING (true)")),
            sql(
                "trigger",
                format!(
                    "CREATE TRIGGER mine BEFORE INSERT ON {t}
                EXECUTE FUNCTION suppress_redundant_updates_trigger()"
                ),
            ),
            sql("disable triggers", format!("ALTER TABLE {t} DISABLE TRIGGER USER")),
            sql("rule", format!("CREATE RULE mine AS ON INSERT TO {t} DO INSTEAD NOTHING")),
            sql("owner", format!("ALTER TABLE {t} OWNER TO CURRENT_USER")),
            sql("drop", format!("DROP TABLE {t} CASCADE")),
            sql("index", format!("CREATE INDEX ON {t} ((1))")),
            sql("heir", format!("CREATE TEMP TABLE h () INHERITS ({t})")),
            sql("view in the schema", format!("CREATE VIEW keyward.v AS SELECT * FROM {t}")),
            sql("kept copy", format!("CREATE MATERIALIZED VIEW keyward.m AS SELECT * FROM {t}")),
            sql(
                "context replaced",
                "CREATE OR REPLACE FUNCTION keyward.current_tenant()
                RETURNS TEXT LANGUAGE sql AS 'SELECT ''*'''"
                    .to_owned(),
            ),
            sql("isolate anew", format!("CALL keyward_private.isolate('{name}', 'shared')")),
            sql("read the key", "SELECT * FROM keyward_private.context_key".to_owned()),
        ]);
        all
    }

    fn foreign_key_to_it(&self) -> Vec<Attack> {
        let refer = |key: &Vec<String>| {
            let columns = self.table.columns.iter().filter(|column| key.contains(&column.name));
            let typed: Vec<_> = columns.map(|c| format!("{} {}", c.name, c.ty)).collect();
            let (t, key, typed) = (&self.name, key.join(", "), typed.join(", "));
            sql(
                "foreign key to it",
                format!(
                    "CREATE TEMP TABLE f ({typed},
                FOREIGN KEY ({key}) REFERENCES {t} ({key}))"
                ),
            )
        };
        self.table.keys.first().map(refer).into_iter().collect()
    }

    fn changes(&self) -> Vec<Attack> {
        let (t, theirs, unchanged) = (&self.name, &self.theirs, &self.unchanged);
        let first = self.table.columns.first().map_or("", |column| column.name.as_str());
        vec![
            sql("update where", format!("UPDATE {t} t SET {unchanged} WHERE {theirs} RETURNING *")),
            sql("update all", format!("UPDATE {t} t SET {unchanged} RETURNING *")),
            sql(
                "update from",
                format!(
                    "UPDATE {t} t SET {first} = t.{first} FROM {t} o
                WHERE t = o RETURNING o.*"
                ),
            ),
            sql(
                "update in a cte",
                format!(
                    "WITH u AS (UPDATE {t} t SET {first} = t.{first}
                WHERE {theirs} RETURNING *) SELECT * FROM u"
                ),
            ),
            sql(
                "update a view",
                format!(
                    "CREATE TEMP VIEW v AS SELECT * FROM {t};
                UPDATE v t SET {unchanged} WHERE {theirs} RETURNING *"
                ),
            ),
            sql("delete where", format!("DELETE FROM {t} WHERE {theirs} RETURNING *")),
            sql("delete all", format!("DELETE FROM {t} RETURNING *")),
            sql("delete using", format!("DELETE FROM {t} t USING {t} o WHERE true RETURNING o.*")),
            sql(
                "delete in a cte",
                format!(
                    "WITH d AS (DELETE FROM {t} WHERE {theirs}
                RETURNING *) SELECT * FROM d"
                ),
            ),
            sql(
                "delete from a view",
                format!(
                    "CREATE TEMP VIEW v AS SELECT * FROM {t};
                DELETE FROM v WHERE {theirs} RETURNING *"
                ),
            ),
            sql(
                "merge update",
                format!(
                    "MERGE INTO {t} t USING (SELECT 1) s ON {theirs}
                WHEN MATCHED THEN UPDATE SET {}",
                    self.spoiled()
                ),
            ),
            sql(
                "merge delete",
                format!(
                    "MERGE INTO {t} t USING (SELECT 1) s ON {theirs}
                WHEN MATCHED THEN DELETE"
                ),
            ),
        ]
    }

    /// Another value in the last column.
    fn spoiled(&self) -> String {
        let Some(last) = self.table.columns.last() else { return String::new() };
        let value = match self.table.ada.get(&last.name) {
            Some(value) => literal(value.as_deref()),
            None => format!("(COALESCE({}, 0) + 7)", last.name),
        };
        format!("{} = {value}::{}", last.name, last.ty)
    }

    /// One column at a time: BOB's value into every row one reaches, ADA's value, or another one
    /// where rows are nobody's.
    fn changes_of_columns(&self) -> Vec<Attack> {
        let (t, mut all) = (&self.name, Vec::new());
        for column in &self.table.columns {
            let (name, ty) = (&column.name, &column.ty);
            let mut set = |how: &str, value: String| {
                let update = format!("UPDATE {t} SET {name} = {value}::{ty}");
                all.push(sql(&format!("{how} {name}"), update));
            };
            if self.table.kind == "shared" {
                set("set", format!("(COALESCE({name}, 0) + 7)"));
            } else {
                let value = |values: &Values| literal(values.get(name).and_then(Option::as_deref));
                set("take", value(&self.table.bob));
                set("give", value(&self.table.ada));
            }
        }
        all
    }

    /// BOB's row once more, and a new one of BOB's.
    fn insertions(&self) -> Vec<Attack> {
        let (t, list) = (&self.name, &self.columns);
        let fresh = renamed(self.table, &self.table.bob);
        let mut all = Vec::new();
        for (which, values) in [("known", &self.table.bob), ("new", &fresh)] {
            let row = self.table.literals(values);
            let insert = format!("INSERT INTO {t} ({list}) VALUES ({row})");
            all.push(sql(&format!("insert {which}"), insert.clone()));
            all.push(sql(&format!("insert {which} returning"), insert + " RETURNING *"));
            all.push(sql(
                &format!("merge {which}"),
                format!(
                    "MERGE INTO {t} t
                USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT ({list}) VALUES ({row})"
                ),
            ));
            let view = format!(
                "CREATE TEMP VIEW v AS SELECT * FROM {t};
                INSERT INTO v ({list}) VALUES ({row})"
            );
            all.push(sql(&format!("insert {which} into a view"), view));
            let values = self.table.columns.iter().map(|column| {
                let value = values.get(&column.name).and_then(Option::as_deref);
                value.map_or_else(|| "\\N".to_owned(), |text| text.replace('\\', "\\\\"))
            });
            let line = values.collect::<Vec<_>>().join("\t") + "\n";
            let copy = format!("COPY {t} ({list}) FROM STDIN");
            let copy = body(&format!("copy {which} from"), Body::CopyIn(copy, line));
            all.push(Attack { once: true, ..copy });
        }
        all
    }

    /// `ON CONFLICT` on each unique key: with BOB's row, and with a row of ADA's that has BOB's
    /// values in all other columns.
    fn conflicts(&self) -> Vec<Attack> {
        let (t, list, unchanged) = (&self.name, &self.columns, &self.unchanged);
        let mut mixed = self.table.bob.clone();
        if self.table.of_tenants() {
            let tenant = self.table.ada.get("tenant_id").cloned().flatten();
            mixed.insert("tenant_id".to_owned(), tenant);
        }
        let mut all = Vec::new();
        for (which, values) in [("theirs", &self.table.bob), ("mixed", &mixed)] {
            let row = self.table.literals(values);
            let insert = format!("INSERT INTO {t} AS t ({list}) VALUES ({row}) ON CONFLICT");
            let named = |key: &str, what: &str| format!("conflict {which} {key} {what}");
            all.push(sql(&named("any", "nothing"), format!("{insert} DO NOTHING")));
            for key in self.table.keys.iter().map(|key| key.join(", ")) {
                all.push(sql(&named(&key, "nothing"), format!("{insert} ({key}) DO NOTHING")));
                // A mixed row would answer what the attacker sent.
                let answer = if which == "theirs" { "RETURNING t.*" } else { "" };
                let update = format!("{insert} ({key}) DO UPDATE SET {unchanged} {answer}");
                all.push(sql(&named(&key, "update"), update));
            }
        }
        all
    }

    /// A row of ADA's that refers to BOB's, by each foreign key.
    fn references(&self, catalogue: &Catalogue) -> Vec<Attack> {
        let mut all = Vec::new();
        for foreign in &self.table.foreign {
            let Some(other) = catalogue.table(&foreign.table) else { continue };
            for tenant_too in [false, true] {
                let mut values = renamed(self.table, &self.table.ada);
                for (column, referenced) in foreign.columns.iter().zip(&foreign.referenced) {
                    if tenant_too || column != "tenant_id" {
                        let value = other.bob.get(referenced).cloned().flatten();
                        values.insert(column.clone(), value);
                    }
                }
                let (t, list, row) = (&self.name, &self.columns, self.table.literals(&values));
                let name = format!("refer to {} {tenant_too}", foreign.table);
                let insert = format!("INSERT INTO {t} ({list}) VALUES ({row})");
                all.push(sql(&name, insert + "; SELECT u FROM keyward.users u"));
            }
        }
        all
    }
}

/// A question that a key over tenants might answer: the same statement with what BOB has, and with
/// what nobody has.
pub(super) struct Question {
    /// The table and the columns.
    pub(super) key: String,
    pub(super) known: String,
    pub(super) unknown: String,
}

/// The questions to a table's unique and foreign keys that do not hold the tenant.
pub(super) fn questions(table: &Table, catalogue: &Catalogue) -> Vec<Question> {
    let unique = table.keys.iter().map(|key| (key, key, &table.bob));
    let foreign = table.foreign.iter().filter_map(|foreign| {
        Some((&foreign.columns, &foreign.referenced, &catalogue.table(&foreign.table)?.bob))
    });
    let over_tenants = |columns: &[String]| !columns.iter().any(|column| column == "tenant_id");
    let mut all = Vec::new();
    for (columns, named, theirs) in unique.chain(foreign).filter(|(c, ..)| over_tenants(c)) {
        let mut rows = [renamed(table, &table.ada), renamed(table, &table.ada)];
        for (column, name) in columns.iter().zip(named) {
            let known = theirs.get(name).cloned().flatten();
            let unknown = known.as_ref().map(|value| unlike(value));
            for (row, value) in rows.iter_mut().zip([known, unknown]) {
                row.insert(column.clone(), value);
            }
        }
        let key = columns.join(", ");
        let [known, unknown] = rows.map(|row| asked(table, &row, columns));
        all.extend(known.into_iter().zip(unknown).map(|(known, unknown)| Question {
            key: format!("{} ({key})", table.name),
            known,
            unknown,
        }));
    }
    all
}

/// The ways to ask with a row.
fn asked(table: &Table, row: &Values, columns: &[String]) -> Vec<String> {
    let (t, list, literals) = (&table.name, table.column_list(), table.literals(row));
    let insert = format!("INSERT INTO keyward.{t} ({list}) VALUES ({literals})");
    let set = columns.iter().map(|column| {
        let value = row.get(column).and_then(Option::as_deref);
        format!("{column} = {}", literal(value))
    });
    let set: Vec<_> = set.collect();
    let mut all = vec![
        insert.clone(),
        format!("{insert} ON CONFLICT DO NOTHING"),
        format!("UPDATE keyward.{t} SET {}", set.join(", ")),
    ];
    if table.keys.iter().any(|key| key == columns) {
        all.push(format!("{insert} ON CONFLICT ({}) DO NOTHING", columns.join(", ")));
    }
    all
}

/// Another value of the same type.
fn unlike(value: &str) -> String {
    match value.parse::<u64>() {
        Ok(number) => (number + 1).to_string(),
        Err(_) => format!("{value}00"),
    }
}

/// The same row under keys of its own; the tenant and what refers to other rows stay.
fn renamed(table: &Table, values: &Values) -> Values {
    let mut fresh = values.clone();
    for column in table.keys.iter().flatten() {
        let refers = table.foreign.iter().any(|f| f.columns.contains(column));
        if column == "tenant_id" || refers {
            continue;
        }
        if let Some(Some(value)) = fresh.get_mut(column) {
            *value = unlike(value);
        }
    }
    fresh
}
