//! The examples of `docs/assertion.md` in other languages, run as they stand there.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use keyward_core::assertion::{Claims, LIFETIME_SECONDS, SigningKey};
use keyward_testkit::{node_with, python_with};

use super::{OTHER_SECRET, SECRET, TENANT, claims, serve, signed};

const DOCUMENT: &str = include_str!("../../../../docs/assertion.md");

/// Calls the example's `caller` with each line of the standard input, and prints a line for each.
const PYTHON_DRIVER: &str = r#"
import sys
for line in sys.stdin:
    method, path, assertion, audience = line.rstrip("\n").split("\t")
    try:
        print("tenant", caller(method, path, assertion, audience)["tenant"])
    except Exception as error:
        print("refused", type(error).__name__)
"#;
const NODE_DRIVER: &str = r"
import { createInterface } from 'node:readline'
for await (const line of createInterface({ input: process.stdin })) {
  const [method, path, assertion, audience] = line.split('\t')
  try {
    console.log('tenant', (await caller(method, path, assertion, audience)).tenant)
  } catch (error) {
    console.log('refused', error.constructor.name)
  }
}
";

/// The code blocks of a language below a heading, in their order: HS256 first, EdDSA second.
fn examples(heading: &str, language: &str) -> Vec<&'static str> {
    let (_, section) = DOCUMENT.split_once(&format!("## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let opening = format!("```{language}\n");
    let blocks = section.split(&opening).skip(1);
    let blocks: Vec<&str> = blocks.map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 2, "{heading}");
    blocks
}

fn now() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "other languages read the machine's clock")]
    let now = std::time::SystemTime::now();
    i64::try_from(now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// What an example is asked, and whether it has to believe it.
fn questions(key: &SigningKey, other: &SigningKey) -> Vec<(bool, String)> {
    let now = now();
    let question = |claims: &Claims<'_>, key: &SigningKey, line: &str| {
        line.replace("TOKEN", &signed(key, claims))
    };
    let good = "GET\t/v1/reports\tTOKEN\treports";
    let late = claims(now - LIFETIME_SECONDS - 60);
    let mut torn = signed(key, &claims(now));
    torn.truncate(torn.len() - 4);
    vec![
        (true, question(&claims(now), key, good)),
        (false, question(&claims(now), key, "POST\t/v1/reports\tTOKEN\treports")),
        (false, question(&claims(now), key, "GET\t/v1/other\tTOKEN\treports")),
        (false, question(&claims(now), key, "GET\t/v1/reports\tTOKEN\tbilling")),
        (false, question(&Claims { iss: "somebody", ..claims(now) }, key, good)),
        (false, question(&late, key, good)),
        (false, question(&claims(now), other, good)),
        (false, good.replace("TOKEN", &torn)),
        (false, good.replace("TOKEN", "nonsense")),
        (true, question(&claims(now), key, good)),
    ]
}

/// Runs a script in a folder with the secret beside it.
async fn answers(
    program: &Path,
    script: &Path,
    folder: &Path,
    internal: &str,
    questions: &[(bool, String)],
) -> Vec<String> {
    let input = folder.join("questions");
    let lines: Vec<&str> = questions.iter().map(|(_, line)| line.as_str()).collect();
    std::fs::write(&input, lines.join("\n") + "\n").unwrap();
    let mut command = Command::new(program);
    command.arg(script).current_dir(folder).env("INTERNAL", internal).env("NO_PROXY", "*");
    command.stdin(Stdio::from(std::fs::File::open(&input).unwrap())).kill_on_drop(true);
    let ended = command.output().await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The internal listener of a gateway, as far as its keys go.
async fn internal(key: &SigningKey) -> String {
    let set = json!({ "keys": [key.jwk().unwrap()] });
    let router = Router::new()
        .route("/.well-known/jwks.json", get(async move || Json::<Value>(set.clone())));
    format!("http://{}", serve(router).await)
}

/// Both examples of a language, with what drives them.
async fn check(program: &Path, folder: &Path, examples: &[&str], driver: &str, name: &str) {
    let shared = SigningKey::hs256(SECRET).unwrap();
    let other = SigningKey::hs256(OTHER_SECRET).unwrap();
    let own = SigningKey::eddsa(&[1; 32]).unwrap();
    let foreign = SigningKey::eddsa(&[2; 32]).unwrap();
    let internal = internal(&own).await;
    std::fs::write(folder.join("assertion.secret"), [SECRET, b"\n"].concat()).unwrap();
    let pairs = examples.iter().zip([(&shared, &other, &own), (&own, &foreign, &shared)]);
    for (example, (key, other, crossed)) in pairs {
        let script: PathBuf = folder.join(name);
        std::fs::write(&script, format!("{example}\n{driver}")).unwrap();
        let questions = questions(key, other);
        let told = answers(program, &script, folder, &internal, &questions).await;
        assert_eq!(told.len(), questions.len(), "{told:?}");
        for ((believed, question), answer) in questions.iter().zip(&told) {
            let expected =
                if *believed { format!("tenant {TENANT}") } else { "refused".to_owned() };
            assert!(answer.starts_with(&expected), "{name}: {question}: {answer}");
        }
        // an assertion under the other algorithm is believed by neither
        let token = signed(crossed, &claims(now()));
        let question = [(false, format!("GET\t/v1/reports\t{token}\treports"))];
        let answer = answers(program, &script, folder, &internal, &question).await.concat();
        assert!(answer.starts_with("refused"), "{name}: {answer}");
    }
}

#[tokio::test]
async fn the_python_examples_believe_what_the_gateway_signs() {
    let Some(python) = python_with(&["jwt", "cryptography"]) else { return };
    let folder = TempDir::new().unwrap();
    let examples = examples("In Python", "python");
    check(&python, folder.path(), &examples, PYTHON_DRIVER, "example.py").await;
}

#[tokio::test]
async fn the_node_examples_believe_what_the_gateway_signs() {
    let Some((node, packages)) = node_with("jose") else { return };
    let folder = TempDir::new().unwrap();
    let modules = packages.canonicalize().unwrap().join("node_modules");
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
    let examples = examples("In Node", "js");
    check(&node, folder.path(), &examples, NODE_DRIVER, "example.mjs").await;
}
