//! One verifier behind every entrance: the same credential gets the same verdict, code and step at
//! the gateway, at verify, and from a proxy's question in every contract.

use serde_json::{Value, json};

use keyward_core::Timestamp;
use keyward_core::authority::KeyAuthority;
use keyward_core::environment::Environment;
use keyward_core::key::{Keyring, Pepper, SecretKind, TagKey};

use crate::forward_auth::{As, Asking, asking_before, refusal};
use crate::support::*;

const TARGET: &str = "/v1/reports";

/// Keys in every state.
fn known(world: &World) -> Vec<String> {
    let instant = Some(Timestamp::from_millis(1));
    let later = Some(Timestamp::from_millis(START_MS + 1));
    let changes: [fn(&mut KeyAuthority); 6] = [
        |_| {},
        |key| key.scopes = vec!["reports:write".to_owned()],
        |key| key.scopes.clear(),
        |key| key.tenant = OTHER_TENANT,
        |key| key.pepper_version = 9,
        |key| key.ip_allowlist = keyward_core::ip::IpAllowlist::parse(&["10.9.8.7"]).unwrap(),
    ];
    let mut tokens = Vec::new();
    for change in changes {
        for environment in [Environment::Live, Environment::Test] {
            for (revoked, expires, suspect) in [
                (None, None, None),
                (instant, None, None),
                (None, instant, None),
                (None, later, None),
                (None, None, instant),
                (instant, instant, instant),
            ] {
                tokens.push(world.key_with(environment, |key| {
                    change(key);
                    key.revoked_at = revoked;
                    key.expires_at = expires;
                    key.suspect_since = suspect;
                }));
            }
        }
    }
    tokens
}

/// Keys that are whole and that nobody has: of this deployment, and of another.
fn unknown(world: &World) -> Vec<String> {
    let format = profile().token_format();
    let stranger =
        Keyring::new(format, TagKey::new(&[7; 32]), Pepper::new(1, &[2; 32]), Vec::new());
    let kinds =
        [SecretKind::Api(Environment::Live), SecretKind::Api(Environment::Test), SecretKind::Admin];
    let mut tokens = Vec::new();
    for keyring in [&*world.keyring, &stranger] {
        for kind in kinds {
            for _ in 0..6 {
                let minted = keyring.mint(kind, world.clock.as_ref());
                tokens.push(minted.secret.expose().to_owned());
            }
        }
    }
    tokens
}

/// Texts that are nearly a key.
fn mangled(token: &str) -> Vec<String> {
    let other = |byte: u8| if byte == b'x' { b'y' } else { b'x' };
    let mut texts = Vec::new();
    for at in 0..token.len() {
        let (head, tail) = token.split_at(at);
        let (byte, rest) = (tail.as_bytes()[0], &tail[1..]);
        texts.push(format!("{head}{}{rest}", char::from(other(byte))));
        texts.push(format!("{head}{rest}"));
        texts.push(format!("{head}{}{tail}", char::from(byte)));
        if byte.is_ascii_alphabetic() {
            texts.push(format!("{head}{}{rest}", char::from(byte ^ 0x20)));
        }
        if at > 0 {
            texts.push(head.to_owned());
            texts.push(tail.to_owned());
        }
    }
    for added in ["_", "=", ".", ",", "%20", "a", "0", " x", "\"", "'"] {
        texts.push(format!("{token}{added}"));
        texts.push(format!("{}{token}", added.trim()));
    }
    texts.push(token.repeat(2));
    texts.push(format!("{token},{token}"));
    texts.push(token.replace("live", "test"));
    texts.push(token.replace("acme", "Acme"));
    texts
}

/// The code and the step of a verdict.
type Verdict = (String, String);

fn verdict(code: &Value, failed: &Value) -> Verdict {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    (text(code), text(failed))
}

async fn at_gateway(asking: &Asking, token: &str, client: &str) -> Verdict {
    let head = format!(
        "GET {TARGET} HTTP/1.1\r\nhost: api.test\r\nx-forwarded-for: {client}\r\n\
         authorization: Bearer {token}\r\n\r\n"
    );
    let answer = raw(asking.gateway.local_addr(), head.as_bytes()).await;
    if answer.status == 200 {
        return verdict(&json!("valid"), &Value::Null);
    }
    let error = answer.json()["error"].take();
    verdict(&error["code"], &error["details"]["failed"])
}

async fn at_verify(asking: &Asking, caller: &str, token: &str, client: &str) -> Verdict {
    let question = json!({
        "key": token, "method": "GET", "path": TARGET, "environment": "live", "ip": client,
    });
    let body = question.to_string();
    let request = format!(
        "POST /v1/verify HTTP/1.1\r\nhost: internal\r\nauthorization: Bearer {caller}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let told = raw(asking.internal.local_addr(), request.as_bytes()).await.json();
    verdict(&told["code"], &told["failed"])
}

#[tokio::test]
async fn every_entrance_gives_every_credential_the_same_verdict() {
    let upstream = Upstream::start().await;
    let asking = asking_before(vec![upstream_at(upstream.address)], None);
    let world = &asking.world;
    let caller = world.admin_token(&["verify"], None);
    let mut tokens = known(world);
    tokens.extend(unknown(world));
    tokens.extend(mangled(&world.token));
    tokens.push(caller.clone());
    tokens.sort();
    tokens.dedup();
    assert!(tokens.len() >= 500, "{} credentials", tokens.len());
    let mut verdicts = std::collections::BTreeMap::<Verdict, usize>::new();
    for (number, token) in tokens.iter().enumerate() {
        // a caller each, so that nobody is held back
        let client = format!("198.18.{}.{}", number / 250, number % 250 + 1);
        let decided = at_gateway(&asking, token, &client).await;
        assert_eq!(at_verify(&asking, &caller, token, &client).await, decided, "{token}");
        for proxy in [As::Caddy, As::Nginx, As::Envoy, As::EnvoyGrpc] {
            let bearer = format!("Authorization: Bearer {token}\r\n");
            let answer = asking.ask_for(proxy, &client, "GET", TARGET, &bearer).await;
            let told = if answer.status == 200 {
                verdict(&json!("valid"), &Value::Null)
            } else {
                let (_, error) = refusal(proxy, &answer);
                verdict(&error["code"], &error["details"]["failed"])
            };
            assert_eq!(told, decided, "{proxy:?} {token}");
        }
        *verdicts.entry(decided).or_default() += 1;
    }
    // the variants lead to every end that a credential can have
    let seen: Vec<String> = verdicts.keys().map(|(code, step)| format!("{code} {step}")).collect();
    let all = [
        "environment_mismatch environment",
        "expired_api_key state",
        "forbidden scope",
        "invalid_api_key credential",
        "invalid_api_key lookup",
        "ip_not_allowed ip",
        "rbac_denied role",
        "unauthorized state",
        "valid -",
    ];
    assert_eq!(seen, all, "{verdicts:?}");
}
