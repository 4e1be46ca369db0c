//! The tables of the migrated database as its catalogue tells them, and a row of each tenant in
//! every one of them, made from column types and constraints alone.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

/// The tenant that attacks.
pub(super) const ADA: &str = "ten_adakey";
/// The tenant that is attacked.
pub(super) const BOB: &str = "ten_bobkey";
/// What no answer to ADA may hold: BOB's keys, BOB's other values, and a word that attacks let the
/// database say when a condition on BOB's rows holds.
pub(super) const FOREIGN: [&str; 6] =
    ["bobkey", "bobsecret", "626f626b6579", "626f62736563726574", "770077", "FOREIGN"];

/// Tables without rows of tenants that every context reads, each for a reason.
const OPEN: [&str; 1] = [
    // A change of any tenant lists the nodes it must reach.
    "nodes",
];

/// Rows tried before a table's checks count as not to be met.
const MAX_TRIED_ROWS: usize = 4_096;

pub(super) struct Column {
    pub(super) name: String,
    pub(super) ty: String,
    nullable: bool,
}

pub(super) struct ForeignKey {
    pub(super) columns: Vec<String>,
    pub(super) table: String,
    pub(super) referenced: Vec<String>,
}

struct Check {
    columns: Vec<String>,
    expression: String,
}

/// A column's value in the text form of its type, or null.
pub(super) type Values = BTreeMap<String, Option<String>>;

pub(super) struct Table {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) columns: Vec<Column>,
    /// The columns of the primary key and of every unique one.
    pub(super) keys: Vec<Vec<String>>,
    pub(super) foreign: Vec<ForeignKey>,
    checks: Vec<Check>,
    pub(super) ada: Values,
    pub(super) bob: Values,
}

impl Table {
    /// Whether its rows are nobody's secret.
    pub(super) fn is_open(&self) -> bool {
        self.kind == "shared" || OPEN.contains(&self.name.as_str())
    }

    /// Whether its rows belong to tenants.
    pub(super) fn of_tenants(&self) -> bool {
        ["tenant", "append_only"].contains(&self.kind.as_str())
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub(super) fn is_key(&self, column: &str) -> bool {
        let listed = |columns: &[String]| columns.iter().any(|name| name == column);
        self.keys.iter().any(|key| listed(key)) || self.foreign.iter().any(|f| listed(&f.columns))
    }

    pub(super) fn column_list(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
        names.join(", ")
    }

    /// The values as a row of SQL literals, each with its type.
    pub(super) fn literals(&self, values: &Values) -> String {
        let literals = self.columns.iter().map(|column| {
            let value = values.get(&column.name).and_then(Option::as_deref);
            format!("{}::{}", literal(value), column.ty)
        });
        literals.collect::<Vec<_>>().join(", ")
    }

    /// What is true of the row with these values and of no other.
    pub(super) fn condition(&self, values: &Values) -> String {
        let all = self.columns.iter().map(|column| column.name.clone()).collect();
        let key = self.keys.first().unwrap_or(&all);
        let equal = key.iter().map(|column| {
            let value = values.get(column).and_then(Option::as_deref);
            format!("{column} IS NOT DISTINCT FROM {}", literal(value))
        });
        equal.collect::<Vec<_>>().join(" AND ")
    }

    fn insert(&self, values: &Values) -> String {
        let (list, row) = (self.column_list(), self.literals(values));
        format!("INSERT INTO keyward.{} ({list}) VALUES ({row});\n", self.name)
    }
}

/// Every isolated table, those that others refer to first.
pub(super) struct Catalogue {
    pub(super) tables: Vec<Table>,
}

impl Catalogue {
    /// Reads the tables and puts a row of each tenant into each; or says which table it cannot
    /// cover, and why.
    pub(super) async fn furnish(superuser: &Client) -> Result<Self, String> {
        let mut rest = tables(superuser).await?;
        let mut done: Vec<Table> = Vec::new();
        while !rest.is_empty() {
            let known: BTreeSet<String> = done.iter().map(|table| table.name.clone()).collect();
            let ready = |table: &Table| {
                table.foreign.iter().all(|f| f.table == table.name || known.contains(&f.table))
            };
            let Some(next) = rest.iter().position(ready) else {
                let names: Vec<_> = rest.iter().map(|table| table.name.as_str()).collect();
                return Err(format!("foreign keys go in a circle: {}", names.join(", ")));
            };
            let mut table = rest.swap_remove(next);
            if table.kind != "shared" {
                table.ada = values(superuser, &table, &done, "ada").await?;
                table.bob = values(superuser, &table, &done, "bob").await?;
                let insert = table.insert(&table.ada) + &table.insert(&table.bob);
                let inserted = superuser.batch_execute(&insert).await;
                inserted.map_err(|e| format!("no rows for `{}`: {e:?}: {insert}", table.name))?;
            }
            done.push(table);
        }
        Ok(Self { tables: done })
    }

    pub(super) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Keeps all rows aside, in temporary tables of the connection.
    pub(super) fn keep(&self) -> String {
        let keep = self
            .tables
            .iter()
            .map(|table| format!("CREATE TEMP TABLE kept_{0} AS TABLE keyward.{0};\n", table.name));
        keep.collect()
    }

    /// Puts all rows back as they were kept. No trigger and no foreign key has a say in it.
    pub(super) fn restore(&self) -> String {
        let back = self.tables.iter().map(|table| {
            format!(
                "DELETE FROM keyward.{0}; INSERT INTO keyward.{0} TABLE kept_{0};\n",
                table.name
            )
        });
        let back: String = back.collect();
        format!("SET session_replication_role = replica; {back} RESET session_replication_role")
    }

    /// A query for what each table holds: a line for ADA's rows, and one for all that ADA has no
    /// business with.
    pub(super) fn contents(&self) -> String {
        let tables = self.tables.iter().map(|table| {
            let own = if table.of_tenants() {
                format!("(tenant_id IS NOT DISTINCT FROM '{ADA}')")
            } else {
                "false".to_owned()
            };
            format!(
                "SELECT '{name}', {own}, count(*) || ' ' ||
                 COALESCE(md5(string_agg(t::text, '|' ORDER BY t::text)), '')
                 FROM keyward.{name} t GROUP BY 2",
                name = table.name
            )
        });
        tables.collect::<Vec<_>>().join("\nUNION ALL ") + "\nORDER BY 1, 2"
    }
}

pub(super) fn literal(value: Option<&str>) -> String {
    value.map_or_else(|| "NULL".to_owned(), |text| format!("'{}'", text.replace('\'', "''")))
}

const TABLES: &str = "SELECT c.relname::text, COALESCE(l.kind, '') FROM pg_class c
    LEFT JOIN keyward_private.isolated_table l ON l.table_name = c.relname
    WHERE c.relnamespace = 'keyward'::regnamespace AND c.relkind IN ('r', 'p', 'f', 'm', 'v')
    AND c.relname <> 'schema_history' AND NOT c.relispartition ORDER BY 1";
const COLUMNS: &str = "SELECT attname::text, format_type(atttypid, atttypmod), NOT attnotnull
    FROM pg_attribute WHERE attrelid = ('keyward.' || $1::text)::regclass
    AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum";
const KEYS: &str = "SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[])
        WITH ORDINALITY AS k (number, place) JOIN pg_attribute a
        ON a.attrelid = i.indrelid AND a.attnum = k.number ORDER BY place)
    FROM pg_index i WHERE i.indrelid = ('keyward.' || $1::text)::regclass AND i.indisunique
    ORDER BY NOT i.indisprimary, i.indexrelid";
const FOREIGN_KEYS: &str = "SELECT
        ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = number ORDER BY place),
        f.relname::text,
        ARRAY(SELECT a.attname::text FROM unnest(c.confkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = number ORDER BY place)
    FROM pg_constraint c JOIN pg_class f ON f.oid = c.confrelid
    WHERE c.conrelid = ('keyward.' || $1::text)::regclass AND c.contype = 'f' ORDER BY conname";
const CHECKS: &str = "SELECT
        ARRAY(SELECT attname::text FROM pg_attribute
            WHERE attrelid = conrelid AND attnum = ANY (conkey)),
        pg_get_expr(conbin, conrelid)
    FROM pg_constraint WHERE conrelid = ('keyward.' || $1::text)::regclass AND contype = 'c'
    ORDER BY conname";

async fn tables(superuser: &Client) -> Result<Vec<Table>, String> {
    let mut found = Vec::new();
    for row in superuser.query(TABLES, &[]).await.unwrap() {
        let (name, kind): (String, String) = (row.get(0), row.get(1));
        if kind.is_empty() {
            return Err(format!("`{name}` is in the schema and not isolated"));
        }
        let rows = async |sql: &str| superuser.query(sql, &[&name]).await.unwrap();
        let columns = rows(COLUMNS).await.into_iter().map(|row| Column {
            name: row.get(0),
            ty: row.get(1),
            nullable: row.get(2),
        });
        let keys = rows(KEYS).await.into_iter().map(|row| row.get(0));
        let foreign = rows(FOREIGN_KEYS).await.into_iter().map(|row| ForeignKey {
            columns: row.get(0),
            table: row.get(1),
            referenced: row.get(2),
        });
        let checks = rows(CHECKS)
            .await
            .into_iter()
            .map(|row| Check { columns: row.get(0), expression: row.get(1) });
        let table = Table {
            columns: columns.collect(),
            keys: keys.collect(),
            foreign: foreign.collect(),
            checks: checks.collect(),
            ada: Values::new(),
            bob: Values::new(),
            name,
            kind,
        };
        if table.of_tenants() && table.column("tenant_id").is_none() {
            return Err(format!("`{}` holds rows of tenants and has no tenant_id", table.name));
        }
        found.push(table);
    }
    Ok(found)
}

/// The values of one tenant's row. They differ from everybody else's and can be told by their
/// text wherever the constraints leave a choice.
async fn values(
    superuser: &Client,
    table: &Table,
    others: &[Table],
    whose: &str,
) -> Result<Values, String> {
    let mut values = Values::new();
    for (place, column) in table.columns.iter().enumerate() {
        let value = if column.name == "tenant_id" && table.of_tenants() {
            Some(if whose == "ada" { ADA } else { BOB }.to_owned())
        } else if let Some(Referred(value)) = referred(table, others, &column.name, whose) {
            value
        } else {
            let sort = if table.is_key(&column.name) { "key" } else { "secret" };
            let text = format!("{whose}{sort}_{}_{}", table.name, column.name);
            Some(value_of(&column.ty, &text, whose, place).ok_or_else(|| {
                let (table, name, ty) = (&table.name, &column.name, &column.ty);
                format!("`{table}`.`{name}`: no value of type {ty} is known: add it to value_of")
            })?)
        };
        values.insert(column.name.clone(), value);
    }
    satisfy(superuser, table, values).await
}

/// The value that a foreign key asks for.
struct Referred(Option<String>);

/// What a foreign key makes of a column: the value in the row of the same tenant.
fn referred(table: &Table, others: &[Table], column: &str, whose: &str) -> Option<Referred> {
    table.foreign.iter().find_map(|foreign| {
        let place = foreign.columns.iter().position(|name| name == column)?;
        let Some(other) = others.iter().find(|other| other.name == foreign.table) else {
            // A row of the same table, which is not there yet.
            return Some(Referred(None));
        };
        let row = if whose == "ada" { &other.ada } else { &other.bob };
        row.get(foreign.referenced.get(place)?).cloned().map(Referred)
    })
}

fn value_of(ty: &str, text: &str, whose: &str, place: usize) -> Option<String> {
    let number = |ada: u64, bob: u64| (if whose == "ada" { ada } else { bob }) + place as u64;
    Some(match ty.split('(').next()? {
        "text" | "character varying" | "name" => text.to_owned(),
        "bytea" => hex(text),
        "bigint" | "numeric" | "double precision" => {
            number(420_042_000_000, 770_077_000_000).to_string()
        }
        "integer" => number(420_042_000, 770_077_000).to_string(),
        "smallint" => number(4_200, 7_700).to_string(),
        "boolean" => "true".to_owned(),
        "uuid" => format!("{0:08}-0000-4000-8000-{0:012}", number(42_004_200, 77_007_700)),
        "json" | "jsonb" => format!("{{\"{text}\": 1}}"),
        "text[]" => format!("{{{text}}}"),
        "inet" | "cidr" => format!("10.77.{}.{place}", number(42, 77) - place as u64),
        "timestamp with time zone" | "timestamp without time zone" | "date" => {
            format!("{}-01-01", number(4_200, 7_700))
        }
        _ => return None,
    })
}

fn hex(text: &str) -> String {
    text.bytes().fold("\\x".to_owned(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Changes values until every check of the table holds, trying what the checks themselves name.
async fn satisfy(superuser: &Client, table: &Table, first: Values) -> Result<Values, String> {
    let broken = broken(superuser, table, &first).await?;
    if broken.is_empty() {
        return Ok(first);
    }
    let concerned: BTreeSet<&String> = broken.iter().flat_map(|check| &check.columns).collect();
    let mut rows = vec![first.clone()];
    for name in concerned {
        let Some(column) = table.column(name) else { continue };
        let tried = candidates(column, first.get(name).and_then(Option::as_deref), table);
        let with = |row: &Values, value: &Option<String>| {
            let mut row = row.clone();
            row.insert(name.clone(), value.clone());
            row
        };
        rows = rows.iter().flat_map(|row| tried.iter().map(|v| with(row, v))).collect();
        rows.truncate(MAX_TRIED_ROWS);
    }
    for row in rows {
        if self::broken(superuser, table, &row).await?.is_empty() {
            return Ok(row);
        }
    }
    let checks: Vec<_> = broken.iter().map(|check| check.expression.as_str()).collect();
    Err(format!("`{}`: no row was found that satisfies {}", table.name, checks.join(", ")))
}

async fn broken<'t>(
    superuser: &Client,
    table: &'t Table,
    row: &Values,
) -> Result<Vec<&'t Check>, String> {
    let mut broken = Vec::new();
    for check in &table.checks {
        let sql = format!(
            "SELECT ({}) IS NOT FALSE FROM (VALUES ({})) AS t ({})",
            check.expression,
            table.literals(row),
            table.column_list()
        );
        // A value that is not of the column's type breaks the check too.
        let holds = match superuser.query_one(&sql, &[]).await {
            Ok(row) => row.get(0),
            Err(error) if error.code().is_some_and(|code| code.code().starts_with("22")) => false,
            Err(error) => return Err(format!("`{}`: {error:?}: {sql}", table.name)),
        };
        if !holds {
            broken.push(check);
        }
    }
    Ok(broken)
}

/// The value itself, what the checks quote, texts of the lengths and numbers they name, and null.
fn candidates(column: &Column, value: Option<&str>, table: &Table) -> Vec<Option<String>> {
    let mut found = vec![value.map(str::to_owned)];
    for check in table.checks.iter().filter(|check| check.columns.contains(&column.name)) {
        found.extend(check.expression.split('\'').skip(1).step_by(2).map(|t| Some(t.to_owned())));
        let numbers = check.expression.split(|c: char| !c.is_ascii_digit());
        for number in numbers.filter_map(|digits| digits.parse::<usize>().ok()) {
            let text: String = value.unwrap_or("x").chars().cycle().take(number.min(256)).collect();
            found.push(Some(if column.ty == "bytea" { hex(&text) } else { text }));
            found.push(Some(number.to_string()));
            found.push(Some((number + 1).to_string()));
        }
    }
    if column.nullable {
        found.push(None);
    }
    found.sort();
    found.dedup();
    // The distinctive one is best.
    found.sort_by_key(|candidate| candidate.as_deref() != value);
    found
}
