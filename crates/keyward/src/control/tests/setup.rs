//! From nobody to the first administrator.

use serde_json::{Value, json};

use super::{Control, author, every};
use crate::setup_link;

async fn link(control: &Control) -> String {
    let link = setup_link::make(&control.store, author()).await.ok().unwrap();
    let url = link.url("http://127.0.0.1:8080/");
    let (page, token) = url.split_once('#').unwrap();
    assert_eq!(page, "http://127.0.0.1:8080/setup");
    token.to_owned()
}

fn body(token: &str) -> Value {
    json!({
        "token": token,
        "email": "Ada@Example.com",
        "name": "Ada",
        "password": "correct horse battery",
    })
}

async fn complete(control: &Control, token: &str) -> super::Answered {
    control.call("", "POST", "/v1/setup", body(token)).await
}

#[tokio::test]
async fn a_link_makes_one_administrator_once() {
    for control in every().await {
        let home = || control.call("", "GET", "/", Value::Null);
        assert!(home().await.text.contains("keyward admin setup-link"));
        let (void, token) = (link(&control).await, link(&control).await);
        complete(&control, &void).await.refused(410, "gone");
        let short = json!({ "token": token, "email": "a@b.c", "name": "A", "password": "short" });
        let answer = control.call("", "POST", "/v1/setup", short).await;
        answer.refused(422, "validation_failed");

        let done = complete(&control, &token).await;
        assert_eq!(done.status, 201);
        let done = done.ok();
        assert_eq!(done["administrator"]["email"], "ada@example.com");
        let secret = super::id(&done["secret"]);
        let whoami = control.call(&secret, "GET", "/v1/whoami", Value::Null).await.ok();
        assert_eq!(whoami["actor"]["id"], done["adminToken"]["id"]);
        complete(&control, &token).await.refused(410, "gone");
        assert!(setup_link::make(&control.store, author()).await.is_err());
        let home = home().await;
        assert!(home.text.contains("/v1/openapi.json") && !home.text.contains("setup-link"));
        let stored = "SELECT password_hash FROM users WHERE administrator = 1";
        let stored = control.database.behind(stored).await[0][0].clone().unwrap();
        assert!(stored.starts_with("$argon2id$"), "{stored}");
    }
}

#[tokio::test]
async fn an_old_link_is_gone_and_a_known_person_is_promoted() {
    for control in every().await {
        let known = json!({ "email": "ada@example.com", "name": "Ada O." });
        let known = control.post("/v1/users", known).await.ok();
        let old = link(&control).await;
        control.clock.advance_ms(setup_link::LIFETIME_MS);
        complete(&control, &old).await.refused(410, "gone");
        let done = complete(&control, &link(&control).await).await.ok();
        assert_eq!(done["administrator"], known);
    }
}

#[tokio::test]
async fn the_pages_run_nothing_but_their_own_files() {
    let control = Control::start(keyward_testkit::TestDatabase::sqlite()).await;
    for path in ["/", "/setup", "/setup.js", "/setup.css"] {
        let page = control.call("", "GET", path, Value::Null).await;
        assert_eq!(page.status, 200, "{path}");
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.headers["referrer-policy"], "no-referrer");
        if page.headers["content-type"].to_str().unwrap().starts_with("text/html") {
            assert!(page.text.contains("Asiri") && !page.text.contains("{{"), "{}", page.text);
            assert!(!page.text.contains("style=") && !page.text.contains("onclick"));
        }
    }
    let posted = control.call("", "POST", "/setup", Value::Null).await;
    posted.refused(405, "method_not_allowed");
}
