//! The lists of headers in the samples, beside what Keyward reads, sets and has taken away. Most of
//! these proxies are not booted anywhere, so nothing else would see that a name is missing in a
//! list, or misspelt.

use std::collections::BTreeSet;

use keyward_gateway::FAILURE_BURST;

use super::sample_text;
use crate::forward_auth::{As, Asking, asking};

/// What the decision and the log read of a client's request, beside its method, address and host.
const READ: [&str; 10] = [
    "authorization",
    "content-type",
    "idempotency-key",
    "origin",
    "referer",
    "sec-fetch-site",
    "traceparent",
    "user-agent",
    "x-api-key",
    "x-forwarded-for",
];
/// What speaks of a caller beside the names of the gateway's own list: those of its prefixes that
/// APIs are known to read.
const OF_PREFIXES: [&str; 12] = [
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-user",
    "x-original-host",
    "x-original-method",
    "x-user-email",
    "x-user-groups",
    "x-user-id",
    "x-user-name",
    "x-user-role",
    "x-user-roles",
];
/// What proxies say to Keyward, and an API should not see.
const PROXY_TOKEN: &str = "keyward-proxy-token";
/// The most names in a list of the Gateway API.
const MOST_REMOVED: usize = 16;

type Names = BTreeSet<String>;

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> Names {
    names.into_iter().map(str::to_ascii_lowercase).collect()
}

fn without(all: &Names, gone: &[&str]) -> Names {
    all.iter().filter(|name| !gone.contains(&name.as_str())).cloned().collect()
}

/// The names in each list below this key of a sample. Lists are read as the samples write them: an
/// entry a line, further in than the key.
fn lists(text: &str, key: &str) -> Vec<Names> {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let key = format!("{key}:");
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().starts_with('#')).collect();
    let at = lines.iter().enumerate().filter(|(_, line)| line.trim() == key);
    at.map(|(at, head)| {
        let entries = lines[at + 1..].iter().take_while(|line| depth(line) > depth(head));
        names(entries.filter(|line| line.trim() != "patterns:").map(|line| entry(line)))
    })
    .collect()
}

fn list(text: &str, key: &str) -> Names {
    let mut found = lists(text, key);
    assert_eq!(found.len(), 1, "lists of {key}");
    found.remove(0)
}

fn entry(line: &str) -> &str {
    let between = |text: &'static str, end: &str| line.split_once(text)?.1.trim().strip_suffix(end);
    let name = between("- { exact:", " }")
        .or_else(|| between("- remove:", ""))
        .or_else(|| between("- ", ""))
        .or_else(|| line.trim().strip_suffix(": \"\""));
    let name = name.unwrap_or_else(|| panic!("no entry: {line}")).trim();
    assert!(name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-'), "{line}");
    name
}

/// Whether a header is taken away by a list in which `*` stands for anything.
fn takes(list: &Names, name: &str) -> bool {
    list.iter().any(|it| match (it.strip_prefix('*'), it.strip_suffix('*')) {
        (Some(_), Some(_)) => name.contains(it.trim_matches('*')),
        (None, Some(start)) => name.starts_with(start),
        _ => it == name,
    })
}

/// That a list takes away what it should, in both spellings if it has patterns, and names nothing
/// that nobody knows.
fn check_removed(sample: &str, list: &Names, wanted: &Names) {
    let left: Vec<&String> = wanted.iter().filter(|name| !takes(list, name)).collect();
    assert!(left.is_empty(), "{sample} lets {left:?} through");
    let mut known = wanted.clone();
    known.extend(names(["keyward-decision", "keyward-*", "x-user-*", "x-original-*", "*_*"]));
    let unknown: Vec<&String> = list.difference(&known).collect();
    assert!(unknown.is_empty(), "{sample} takes {unknown:?} away, which nobody knows");
}

/// Names in the answers of Keyward, and what it has Envoy take away.
struct Said {
    identity: Names,
    refused: Names,
    removed: Names,
}

impl Said {
    async fn by(asking: &Asking) -> Self {
        let bearer = format!("Authorization: Bearer {}\r\n", asking.world.token);
        let ask = async |method: &str, headers: &str| {
            let answer = asking.ask(As::Envoy, method, "/v1/reports", headers).await;
            let lines = answer.head.lines().skip(1);
            let said = names(lines.filter_map(|line| Some(line.split_once(':')?.0)));
            (answer, said)
        };
        let (allowed, said) = ask("GET", &bearer).await;
        assert_eq!(allowed.status, 200, "{allowed:?}");
        let ours = said.into_iter().filter(|name| name.starts_with("keyward-")).collect();
        let identity = without(&ours, &["keyward-decision", "keyward-accepted-scopes"]);
        let removed = allowed.header("x-envoy-auth-headers-to-remove").unwrap();
        let removed = names(removed.split(','));
        let mut refused = names(["keyward-accepted-scopes"]);
        for (method, status) in [("PATCH", 405), ("GET", 401)] {
            let (answer, said) = ask(method, if status == 401 { "" } else { &bearer }).await;
            assert_eq!(answer.status, status, "{answer:?}");
            refused.extend(said);
        }
        for _ in 0..=FAILURE_BURST {
            ask("GET", "Authorization: Bearer wrong\r\n").await;
        }
        let (answer, said) = ask("GET", &bearer).await;
        assert_eq!(answer.status, 429, "{answer:?}");
        refused.extend(said);
        // of the connection, or for Envoy alone
        let not_passed = ["connection", "content-length", "date", "x-envoy-auth-headers-to-remove"];
        Self { identity, refused: without(&refused, &not_passed), removed }
    }

    /// Everything that speaks of a caller.
    fn of_callers(&self) -> Names {
        let beside = names(OF_PREFIXES.into_iter().chain([PROXY_TOKEN]));
        self.removed.union(&beside).cloned().collect()
    }
}

#[tokio::test]
async fn the_identity_is_passed_on_whole() {
    let said = Said::by(&asking()).await;
    assert_eq!(said.identity.len(), 9, "{:?}", said.identity);
    let mut set = said.identity.clone();
    set.insert("keyward-decision".to_owned());
    assert_eq!(list(&sample_text("apisix/apisix.yaml"), "upstream_headers"), set);
    let envoy = sample_text("envoy/http.yaml");
    assert_eq!(list(&envoy, "allowed_upstream_headers"), said.identity);
    let route = sample_text("gateway-api/httproute.yaml");
    assert_eq!(list(&route, "allowedResponseHeaders"), said.identity);
    let pattern = pattern_of_traefik(&sample_text("traefik/dynamic.yaml"));
    let left: Vec<&String> = said.identity.iter().filter(|name| !takes(&pattern, name)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_question_holds_all_that_is_read() {
    // what a proxy sends by itself needs no name
    let read = names(READ);
    let apisix = list(&sample_text("apisix/apisix.yaml"), "request_headers");
    assert_eq!(apisix, without(&read, &["x-forwarded-for"]));
    let envoy = list(&sample_text("envoy/http.yaml"), "allowed_headers");
    assert_eq!(envoy, without(&read, &["authorization"]));
    let route = list(&sample_text("gateway-api/httproute.yaml"), "allowedHeaders");
    assert_eq!(route, without(&read, &["authorization"]));
}

#[tokio::test]
async fn a_refusal_keeps_its_headers() {
    let said = Said::by(&asking()).await;
    assert_eq!(list(&sample_text("apisix/apisix.yaml"), "client_headers"), said.refused);
    let envoy = sample_text("envoy/http.yaml");
    assert_eq!(list(&envoy, "allowed_client_headers"), said.refused);
    let on_success = list(&envoy, "allowed_client_headers_on_success");
    assert_eq!(on_success, names(["keyward-accepted-scopes"]));
}

/// The pattern of headers that Traefik takes from a request, one name for each alternative.
fn pattern_of_traefik(text: &str) -> Names {
    let pattern = text.lines().find_map(|line| {
        line.trim().strip_prefix("authResponseHeadersRegex: ")?.strip_prefix("(?i)")
    });
    let plain = |name: &str| name.bytes().all(|it| it.is_ascii_alphabetic() || b"-_".contains(&it));
    let alternative = |part: &str| {
        let start = part.strip_prefix('^');
        assert!(plain(start.unwrap_or(part)), "{part} is more than this test reads");
        start.map_or_else(|| format!("*{part}*"), |start| format!("{}*", start.to_lowercase()))
    };
    pattern.unwrap().split('|').map(alternative).collect()
}

/// What the function in the sample for APISIX takes from a request.
fn removed_by_apisix(text: &str) -> Names {
    let listed = text.split("[\"").skip(1).filter_map(|rest| rest.split_once("\"] = true"));
    let mut removed = names(listed.map(|(name, _)| name));
    let begins = text.lines().find_map(|line| line.trim().strip_prefix("local begins = "));
    let begins = begins.unwrap().split('"').skip(1).step_by(2);
    removed.extend(begins.map(|prefix| format!("{prefix}*")));
    assert!(text.contains("name:find(\"_\", 1, true)"));
    removed.insert("*_*".to_owned());
    removed
}

/// What the filter in a sample for Envoy takes from a request.
fn removed_by_envoy(text: &str) -> Names {
    let of_filter = |line: &&str| line.trim().starts_with("- remove");
    let (patterns, plain): (Vec<&str>, Vec<&str>) =
        text.lines().filter(of_filter).partition(|line| line.contains("remove_on_match"));
    let prefixes = patterns.into_iter().map(|line| {
        let prefix = line.split_once("{ key_matcher: { prefix: ").unwrap().1;
        format!("{}*", prefix.strip_suffix(" } }").unwrap())
    });
    let mut removed: Names = prefixes.collect();
    removed.extend(names(plain.into_iter().map(entry)));
    assert!(text.contains("headers_with_underscores_action: DROP_HEADER"));
    removed.insert("*_*".to_owned());
    removed
}

#[tokio::test]
async fn what_speaks_of_a_caller_is_taken_away_by_every_sample() {
    let said = Said::by(&asking()).await;
    let wanted = said.of_callers();
    let traefik = sample_text("traefik/dynamic.yaml");
    let mut removed = list(&traefik, "customRequestHeaders");
    removed.extend(pattern_of_traefik(&traefik));
    check_removed("Traefik", &removed, &wanted);
    let removed = removed_by_apisix(&sample_text("apisix/apisix.yaml"));
    check_removed("APISIX", &removed, &wanted);
    // Envoy is told by every answer what the gateway's own list holds
    let beside = without(&wanted, &said.removed.iter().map(String::as_str).collect::<Vec<_>>());
    let removed = removed_by_envoy(&sample_text("envoy/http.yaml"));
    check_removed("Envoy over HTTP", &removed, &beside);
    // and over gRPC also what begins so
    let begins_so = |name: &String| ["x-user-", "keyward-"].iter().any(|it| name.starts_with(it));
    let unsaid: Names = beside.iter().filter(|name| !begins_so(name)).cloned().collect();
    let removed = removed_by_envoy(&sample_text("envoy/grpc.yaml"));
    check_removed("Envoy over gRPC", &removed, &unsaid);
    let nginx = sample_text("nginx/keyward.conf");
    let emptied = nginx
        .lines()
        .filter_map(|line| line.trim().strip_prefix("proxy_set_header ")?.strip_suffix(" \"\";"));
    let emptied = without(&names(emptied), &["connection", "content-length"]);
    check_removed("nginx", &emptied, &wanted);
    assert!(nginx.contains("underscores_in_headers off;"));
    let route = lists(&sample_text("gateway-api/httproute.yaml"), "remove");
    assert!(route.iter().all(|list| list.len() <= MOST_REMOVED), "{route:?}");
    // over gRPC Keyward says what is removed
    assert_eq!(unsaid, Names::new());
    let [of_rule, of_backend] = route.as_slice() else { panic!("{route:?}") };
    let over_http: Names = of_rule.union(of_backend).cloned().collect();
    check_removed("the Gateway API over HTTP", &over_http, &wanted);
    // the question needs the key and the tenant header, wherever the rule's list comes
    let early: Vec<&String> = of_rule.iter().filter(|name| READ.contains(&name.as_str())).collect();
    assert!(early.is_empty() && !of_rule.contains("x-tenant-id"), "{early:?}");
}
