//! Planted secrets are looked for everywhere, in every form, and found nowhere.

use std::collections::{BTreeSet, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use keyward_testkit::TestDatabase;
use serde_json::{Value, json};

use crate::harness::{LAGOS_PAY, PROFILE, Process, Site, migrate_url_file, minted};

/// Secrets that are planted.
const PLANTED: usize = 1_000;
/// Bytes by which two texts are compared first; a whole comparison follows.
const WINDOW: usize = 24;
/// A trace that some caller is in.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What is looked for: every form of every secret, found by its first bytes.
struct Wanted {
    forms: Vec<Vec<u8>>,
    starts: HashSet<Vec<u8>>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn url_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"))
}

impl Wanted {
    fn new(tokens: &[String]) -> Self {
        let mut forms = BTreeSet::new();
        for token in tokens {
            // the secret alone is what must not be seen: behind prefix, word and id
            let id_and_secret = token.rsplit('_').next().unwrap();
            let secret = &id_and_secret[id_and_secret.len() - 43..];
            for text in [token.as_str(), id_and_secret, secret] {
                forms.insert(text.as_bytes().to_vec());
                forms.insert(hex(text.as_bytes()).into_bytes());
                forms.insert(hex(text.as_bytes()).to_uppercase().into_bytes());
                forms.insert(url_encoded(text).into_bytes());
                forms.insert(url_encoded(text).to_lowercase().into_bytes());
                for alphabet in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
                    // at each of the three places where it can lie in an encoded text
                    for before in 0..3 {
                        let shifted = [&b"xx"[..before], text.as_bytes()].concat();
                        let encoded = alphabet.encode(shifted).into_bytes();
                        forms.insert(encoded[4..encoded.len() - 4].to_vec());
                    }
                }
            }
        }
        let forms: Vec<_> = forms.into_iter().collect();
        let starts = forms.iter().map(|form| form[..WINDOW].to_vec()).collect();
        Self { forms, starts }
    }

    /// The first secret in the text, as the text has it.
    fn find(&self, text: &[u8]) -> Option<String> {
        let mut windows = text.windows(WINDOW).enumerate();
        let at = windows.find_map(|(at, window)| {
            let here = self.starts.contains(window)
                && self.forms.iter().any(|form| text[at..].starts_with(form));
            here.then_some(at)
        })?;
        Some(String::from_utf8_lossy(&text[at..(at + 80).min(text.len())]).into_owned())
    }
}

#[test]
fn the_search_finds_what_it_is_for() {
    let token = format!("asiri_live_{}{}", "0123456789abcdef012345", "Zz9".repeat(20));
    let wanted = Wanted::new(std::slice::from_ref(&token));
    let secret = &token[token.len() - 43..];
    for text in [
        token.clone(),
        format!("cut off in front {secret} and behind"),
        hex(token.as_bytes()),
        STANDARD.encode(format!("{{\"key\":\"{token}\"}}")),
        URL_SAFE_NO_PAD.encode(format!("a{token}")),
        format!("q={}", url_encoded(&token)),
    ] {
        assert!(wanted.find(text.as_bytes()).is_some(), "{text}");
    }
    assert_eq!(wanted.find(b"asiri_live_0123456789abcdef012345 and nothing more"), None);
}

/// Starts the real binary on this database, with everything logged that can be.
async fn start(database: &TestDatabase) -> Process {
    let migrate_url = migrate_url_file(database).map(|path| path.display().to_string());
    let (data_dir, url) = (database.data_dir().display().to_string(), database.url());
    let mut arguments = vec![
        "--profile",
        PROFILE,
        "--data-dir",
        &data_dir,
        "--store-url",
        &url,
        "--gateway-listen",
        "127.0.0.1:0",
        "--control-listen",
        "127.0.0.1:0",
        "--internal-listen",
        "127.0.0.1:0",
        "--sandbox-listen",
        "127.0.0.1:0",
        "--log-level",
        "trace",
        "--log-format",
        "json",
        "--log-requests=true",
    ];
    if let Some(path) = &migrate_url {
        arguments.extend(["--store-migrate-url-file", path]);
    }
    Process::dev(&arguments).await
}

/// Mints the secrets, and has every plane handle, refuse and misread them.
async fn plant(process: &Process) -> (Vec<String>, Vec<String>) {
    let site = &process.site;
    let path = site.path(LAGOS_PAY, "/keys");
    let body = site.key_body(LAGOS_PAY, &["reports:read"]).await;
    let (mut tokens, mut answers) = (Vec::new(), Vec::new());
    for number in 0..PLANTED {
        let mut body = body.clone();
        body["name"] = json!(format!("planted-{number}"));
        // every second answer is kept for a repetition
        let maker = match number % 2 {
            0 => site.operator().with("idempotency-key", &format!("planted-{number}")),
            _ => site.operator(),
        };
        let key = minted(&maker.post(&path, body).await);
        let caller = site.bearer(&key.secret);
        let (front, last) = key.secret.split_at(key.secret.len() - 1);
        let torn = format!("{front}{}", if last == "a" { "b" } else { "a" });
        let verify = site.operator().at(&site.internal);
        let answer = match number % 10 {
            0 => {
                caller
                    .with("traceparent", &format!("00-{TRACE}-00f067aa0ba902b7-01"))
                    .get("/v1/reports?limit=1")
                    .await
            }
            1 => caller.get("/v1/files").await,
            2 => {
                site.anonymous()
                    .at(&site.gateways[0])
                    .get(&format!("/v1/reports?key={}", key.secret))
                    .await
            }
            3 => site.anonymous().get(&format!("/v1/keys/{}", key.secret)).await,
            4 => verify.post("/v1/verify", json!({ "key": key.secret, "explain": true })).await,
            5 => verify.post("/v1/verify", json!({ "kye": key.secret })).await,
            6 => site.operator().post(&path, json!({ "name": key.secret, "scopes": [] })).await,
            7 => site.operator().post("/v1/keys/identify", json!({ "secret": torn })).await,
            8 => site.admin(&key.secret).get("/v1/whoami").await,
            _ => {
                caller
                    .with("referer", &format!("https://shop.example/?k={}", key.secret))
                    .get("/v1/reports")
                    .await
            }
        };
        answers.push(format!("{:?} {}", answer.headers, answer.text));
        tokens.push(key.secret);
    }
    plant_others(&process.site, &mut tokens).await;
    (tokens, answers)
}

/// Secrets that are not made by creating a key, and a payload that is nobody's business.
async fn plant_others(site: &Site, tokens: &mut Vec<String>) {
    let token = json!({ "name": "planted", "scopes": ["keys:read"] });
    let token = site.operator().post("/v1/admin-tokens", token).await.is(201);
    tokens.push(token["secret"].as_str().unwrap().to_owned());
    tokens.push(site.operator().secret().to_owned());
    for change in ["/rotate", "/reissue"] {
        let key = site.minted(&["reports:read"]).await;
        let path = site.key_path(&key.id, change);
        tokens.push(minted(&site.operator().post(&path, json!({})).await).secret);
    }
    let payload = "RawPayload7Qz".repeat(5);
    let item = json!({
        "sourceId": "src_lp_identity",
        "title": "Privileged access review",
        "collectedAt": "2026-01-01T00:00:00Z",
        "controlMappings": ["ctl_lp_iam02"],
        "riskLevel": "low",
        "rawPayload": { "planted": payload },
    });
    site.demo_key(LAGOS_PAY).post("/v1/evidence/items", item).await.is(201);
    tokens.push(payload);
}

#[tokio::test]
async fn ap9_a_thousand_planted_secrets_are_found_nowhere() {
    for database in TestDatabase::every().await {
        eprintln!("on {}", database.engine_name());
        let process = start(&database).await;
        let (tokens, answers) = plant(&process).await;
        let site = &process.site;
        let metrics = site.anonymous().at(&site.internal).get("/metrics").await;
        let trail = site.audit(LAGOS_PAY, "").await;
        assert!(metrics.text.contains("keyward"), "{}", metrics.text);
        assert!(trail.len() > PLANTED);
        // while it runs, with the log of the database beside it, and after it has stopped
        let running = database.at_rest().await;
        let finished = process.stop().await;
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        let wanted = Wanted::new(&tokens);
        let mut texts = vec![
            ("log".to_owned(), finished.stderr.clone().into_bytes()),
            ("metrics".to_owned(), metrics.text.into_bytes()),
            ("audit trail".to_owned(), json!(trail).to_string().into_bytes()),
        ];
        let answers = answers.into_iter().enumerate();
        texts.extend(answers.map(|(at, text)| (format!("answer {at}"), text.into_bytes())));
        texts.extend(running);
        texts.extend(database.at_rest().await);
        let found = texts.iter().filter_map(|(place, text)| Some((place, wanted.find(text)?)));
        let found: Vec<_> = found.take(20).collect();
        assert!(found.is_empty(), "{found:#?}");
        check_log(&finished.stderr);
    }
}

/// The lines tell what is needed to follow a request, and nothing of what it carried.
fn check_log(log: &str) {
    let lines: Vec<Value> =
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(lines.len(), log.lines().count(), "every line is JSON");
    assert!(lines.iter().any(|line| line["level"] == "TRACE" || line["level"] == "trace"));
    let traced: Vec<_> = lines.iter().filter(|line| line["trace_id"] == TRACE).collect();
    assert_eq!(traced.len(), PLANTED / 10);
    for line in &traced {
        for (field, value) in [
            ("status", json!(200)),
            ("route", json!("/v1/reports")),
            ("method", json!("GET")),
            ("env", json!("live")),
        ] {
            assert_eq!(line[field], value, "{field} in {line}");
        }
        assert!(line["request_id"].as_str().unwrap().starts_with("req_"), "{line}");
        assert!(line["integration"].as_str().unwrap().starts_with("planted-"), "{line}");
        assert!(line["key_id"].as_str().unwrap().starts_with("key_"), "{line}");
        assert_eq!(line["key_prefix"], "asiri_live_");
        assert!(line["tenant"].as_str().unwrap().starts_with("ten_"), "{line}");
        assert!(line["ts"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    let refused = lines
        .iter()
        .find(|line| line["error_code"] == "rbac_denied" || line["error_code"] == "forbidden");
    assert!(refused.is_some_and(|line| line["status"] == 403), "refusals are logged too");
}
