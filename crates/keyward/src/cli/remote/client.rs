//! The HTTP client of the commands: one try, bounded in time and size, no redirects, no proxies.

use std::net::IpAddr;
use std::time::Duration;

use keyward_api::Operation;
use keyward_api::error::Envelope;
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::cli::exit::{Done, Exit, Failure};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer read, in bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Whether a token may travel without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// TLS, or this machine.
    Safe,
    /// Anything: the person says that the network is trusted.
    AnyHttp,
}

/// A connection to one server.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Zeroizing<String>>,
}

/// One call of one operation.
pub(crate) struct Call {
    operation: &'static Operation,
    parameters: Vec<(&'static str, String)>,
    query: Vec<(String, String)>,
    body: Option<Zeroizing<Vec<u8>>>,
}

impl Call {
    /// A call without parameters.
    pub(crate) const fn to(operation: &'static Operation) -> Self {
        Self { operation, parameters: Vec::new(), query: Vec::new(), body: None }
    }

    /// Fills in a variable segment of the path.
    #[must_use]
    pub(crate) fn at(mut self, name: &'static str, value: &dyn std::fmt::Display) -> Self {
        self.parameters.push((name, value.to_string()));
        self
    }

    /// Adds the members of a query that are there.
    pub(crate) fn query<T: Serialize>(mut self, query: &T) -> Done<Self> {
        let Value::Object(members) = to_value(query)? else { return Ok(self) };
        for (name, value) in members {
            match value {
                Value::Null => {}
                Value::String(text) => self.query.push((name, text)),
                other => self.query.push((name, other.to_string())),
            }
        }
        Ok(self)
    }

    /// Sends a body.
    pub(crate) fn body<T: Serialize>(mut self, body: &T) -> Done<Self> {
        let bytes = serde_json::to_vec(body);
        let bytes = bytes.map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
        self.body = Some(Zeroizing::new(bytes));
        Ok(self)
    }

    fn url(&self, base: &Url) -> Done<Url> {
        let wrong = |text: &str| Failure::usage(format!("{base}: {text}"), "check --url");
        let mut url = base.clone();
        let mut path = url.path_segments_mut().map_err(|()| wrong("cannot hold a path"))?;
        path.pop_if_empty();
        for segment in self.operation.path.split('/').filter(|segment| !segment.is_empty()) {
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let value = name.and_then(|name| self.parameters.iter().find(|(n, _)| *n == name));
            path.push(value.map_or(segment, |(_, value)| value));
        }
        drop(path);
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

fn to_value<T: Serialize>(value: &T) -> Done<Value> {
    serde_json::to_value(value).map_err(|e| Failure::new(Exit::Failed, e.to_string()))
}

impl Client {
    /// A client for the server at `base`. A token is refused for an address that would carry it
    /// over a network in clear text.
    pub(crate) fn new(
        base: &str,
        token: Option<Zeroizing<String>>,
        timeout: Duration,
        transport: Transport,
    ) -> Done<Self> {
        let wrong = |e: &dyn std::fmt::Display| {
            let next = "name the server as http://127.0.0.1:8787 or https://keyward.example.com";
            Failure::usage(format!("{base:?} is not the address of a server: {e}"), next)
        };
        let url = Url::parse(base).map_err(|e| wrong(&e))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(&"the scheme must be http or https"));
        }
        let clear = url.scheme() == "http" && !is_this_machine(&url);
        if clear && token.is_some() && transport == Transport::Safe {
            let text = format!("{base} would carry the token over the network in clear text");
            let next = "use https://, or --plain-http on a network you trust";
            return Err(Failure::usage(text, next));
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .user_agent(concat!("keyward-cli/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
        Ok(Self { http, base: url, token })
    }

    /// Makes a call and reads its answer.
    pub(crate) async fn call<A: DeserializeOwned>(&self, call: Call) -> Done<A> {
        let url = call.url(&self.base)?;
        let response = self.send(&call, url).await?;
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).cloned();
        let body = read(response).await?;
        if !status.is_success() {
            return Err(refusal(&self.base, status.as_u16(), &body, retry_after.as_ref()));
        }
        serde_json::from_slice(&body).map_err(|error| {
            let text = format!("the answer to {} is not understood: {error}", call.operation.id);
            let next = "use a keyward of the server's version: keyward --version";
            Failure::new(Exit::Failed, text).advising(next)
        })
    }

    /// The status that a path without credential answers with.
    pub(crate) async fn probe(&self, path: &str) -> Done<(u16, String)> {
        let mut url = self.base.clone();
        url.set_path(path);
        let response = self.http.get(url).send().await.map_err(|e| self.unreachable(&e))?;
        let status = response.status().as_u16();
        let body = read(response).await?;
        Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
    }

    async fn send(&self, call: &Call, url: Url) -> Done<Response> {
        let method = Method::from_bytes(call.operation.method.as_str().as_bytes());
        let method = method.map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            let header = Zeroizing::new(format!("Bearer {}", token.as_str()));
            let mut value = HeaderValue::from_str(&header).map_err(|_| {
                let next = "write the admin token alone into the file";
                Failure::usage("the token holds characters that no token has", next)
            })?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(body) = &call.body {
            request = request.header("content-type", "application/json").body(body.to_vec());
        }
        request.send().await.map_err(|e| self.unreachable(&e))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let host = self.base.origin().ascii_serialization();
        let why = if error.is_timeout() { "it did not answer in time" } else { "no connection" };
        let text = format!("the server {host} cannot be reached: {why}");
        let next = "start it (keyward serve), or name another one with --url or KEYWARD_URL";
        Failure::new(Exit::Unavailable, text).advising(next)
    }
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn read(mut response: Response) -> Done<Zeroizing<Vec<u8>>> {
    let mut body = Zeroizing::new(Vec::new());
    let broken = |_| Failure::new(Exit::Unavailable, "the answer broke off");
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Failure::new(Exit::Failed, "the answer is larger than 16 MiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What an error envelope says, or what little there is without one.
fn refusal(base: &Url, status: u16, body: &[u8], retry_after: Option<&HeaderValue>) -> Failure {
    let Ok(Envelope { error }) = serde_json::from_slice::<Envelope>(body) else {
        let text = format!("the server answered {status} without saying why");
        let next = "is --url the address of Keyward's control listener?";
        return Failure::answered(status, text).advising(next);
    };
    let detail = |name: &str| error.details.get(name).and_then(Value::as_str);
    let place = detail("field").or(detail("failed")).map(|name| format!(" [{name}]"));
    let text = format!(
        "{}{} ({}, request {})",
        error.message,
        place.unwrap_or_default(),
        error.code,
        error.request_id
    );
    let next = match (status, retry_after.and_then(|value| value.to_str().ok())) {
        (_, Some(seconds)) => format!("try again in {seconds} s"),
        (401, None) => "name a file with a valid admin token: --token-file or KEYWARD_TOKEN_FILE; \
                        make one on the server: keyward admin create --with-token"
            .to_owned(),
        // the reference may be on the server itself or anywhere else
        _ => detail("docUrl")
            .and_then(|url| base.join(url).ok())
            .map_or_else(String::new, |url| format!("see {url}")),
    };
    let failure = Failure::answered(status, text);
    if next.is_empty() { failure } else { failure.advising(next) }
}

#[cfg(test)]
mod tests {
    use keyward_api::operation::{GET_KEY, LIST_KEYS};
    use keyward_api::page::PageQuery;

    use super::*;

    fn client(base: &str, token: Option<&str>) -> Done<Client> {
        let token = token.map(|text| Zeroizing::new(text.to_owned()));
        Client::new(base, token, Duration::from_secs(1), Transport::Safe)
    }

    #[test]
    fn urls_come_from_the_table_of_operations() {
        let call = Call::to(&GET_KEY).at("tenantId", &"ten_1").at("keyId", &"a/../b?");
        let url = call.url(&Url::parse("https://h/base/").unwrap()).unwrap();
        assert_eq!(url.as_str(), "https://h/base/v1/tenants/ten_1/keys/a%2F..%2Fb%3F");
        let query = PageQuery { limit: Some(5), cursor: Some("a&b".to_owned()) };
        let call = Call::to(&LIST_KEYS).at("tenantId", &"t").query(&query).unwrap();
        let url = call.url(&Url::parse("http://h").unwrap()).unwrap();
        assert_eq!(url.as_str(), "http://h/v1/tenants/t/keys?cursor=a%26b&limit=5");
    }

    #[test]
    fn a_token_does_not_cross_a_network_in_clear_text() {
        for base in
            ["http://127.0.0.1:1", "http://localhost", "http://[::1]:2", "https://k.example"]
        {
            assert!(client(base, Some("t")).is_ok(), "{base}");
        }
        for base in ["http://k.example", "http://10.0.0.1", "ftp://h", "k.example"] {
            assert_eq!(client(base, Some("t")).err().unwrap().exit(), Exit::Usage, "{base}");
        }
        assert!(client("http://k.example", None).is_ok());
    }

    #[test]
    fn refusals_tell_what_field_and_what_next() {
        let body = br#"{"error":{"code":"validation_failed","message":"Too long","requestId":"r",
            "details":{"field":"name","docUrl":"/docs/errors/validation_failed"}}}"#;
        let base = Url::parse("http://h").unwrap();
        let text = refusal(&base, 422, body, None).to_string();
        assert_eq!(
            text,
            "Too long [name] (validation_failed, request r)\n  next: see \
             http://h/docs/errors/validation_failed"
        );
        let limited = refusal(&base, 429, body, Some(&HeaderValue::from_static("7")));
        assert!(limited.to_string().ends_with("try again in 7 s"));
        assert_eq!(refusal(&base, 502, b"<html>", None).exit(), Exit::Unavailable);
    }
}
