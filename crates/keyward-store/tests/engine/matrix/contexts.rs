//! Contexts that nobody signed for the backend that carries them.

use tokio_postgres::Client;

use super::Field;
use super::catalogue::{ADA, BOB};

/// The context that a node would give a connection: what only who knows the key can make.
pub(crate) async fn sign(superuser: &Client, client: &Client, name: &str) -> String {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
    sign_for(superuser, row.get(0), name).await
}

async fn sign_for(superuser: &Client, backend: i32, name: &str) -> String {
    let sql = "SELECT encode(sha256(outer_pad || sha256(inner_pad ||
        convert_to($1::int4 || ':' || $2::text, 'UTF8'))), 'hex') || $2
        FROM keyward_private.context_key";
    superuser.query_one(sql, &[&backend, &name]).await.unwrap().get(0)
}

/// Contexts that must open nothing: the name, the text, and whether it is one of many spellings.
pub(super) async fn made_up(
    field: &Field,
    role: &str,
    client: &Client,
) -> Vec<(&'static str, Option<String>, bool)> {
    let own = sign(&field.superuser, client, ADA).await;
    let mac = own.get(..64).unwrap();
    let neighbour = field.connect(role).await;
    let theirs = sign(&field.superuser, &neighbour, BOB).await;
    let system = sign(&field.superuser, &neighbour, "*").await;
    let genuine = sign(&field.superuser, client, BOB).await;
    let gone = field.connect(role).await;
    let old = sign(&field.superuser, &gone, BOB).await;
    drop(gone);
    let zeros = "0".repeat(64);
    let fullwidth: String = genuine
        .chars()
        .map(|c| match c {
            '0'..='9' => char::from_u32(u32::from(c) - 0x30 + 0xFF10).unwrap(),
            other => other,
        })
        .collect();
    let kinds = [
        ("the name alone", BOB.to_owned()),
        ("the star alone", "*".to_owned()),
        ("one's own sum, another's name", mac.to_owned() + BOB),
        ("one's own sum and the star", mac.to_owned() + "*"),
        ("of another backend", theirs),
        ("of another backend, over tenants", system),
        ("of a backend that is gone", old),
    ];
    let spellings = [
        ("empty", String::new()),
        ("a space", " ".to_owned()),
        ("the word null", "NULL".to_owned()),
        ("zeros and the name", zeros.clone() + BOB),
        ("zeros and the star", zeros + "*"),
        ("spaces and the name", " ".repeat(64) + BOB),
        ("the sum alone", mac.to_owned()),
        ("another's name behind one's own", own.clone() + BOB),
        ("another's name before one's own", mac.to_owned() + BOB + ADA),
        ("in capitals", genuine.to_uppercase()),
        ("with a space before", format!(" {genuine}")),
        ("with a space behind", format!("{genuine} ")),
        ("with a line end behind", format!("{genuine}\n")),
        ("with nothing to see behind", format!("{genuine}\u{200b}")),
        ("with a letter that looks alike", genuine.replace('o', "\u{43e}")),
        ("in digits of full width", fullwidth),
        ("with the direction turned", format!("\u{202e}{genuine}")),
        ("very long", genuine.repeat(200)),
    ];
    let mut all = vec![("none", None, false)];
    all.extend(kinds.map(|(name, text)| (name, Some(text), false)));
    all.extend(spellings.map(|(name, text)| (name, Some(text), true)));
    all
}
