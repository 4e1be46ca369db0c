//! Who calls: an address, a credential, and what came back.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::Client;
use serde_json::{Value, json};

/// Where errors are explained, as every error says.
const DOCS: &str = "/docs/errors/";

/// Somebody who calls one plane with one credential, or with none.
#[derive(Clone)]
pub(crate) struct Actor {
    client: Client,
    base: String,
    credential: Option<String>,
    headers: Vec<(&'static str, String)>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Actor {
    pub(crate) fn new(client: &Client, base: &str, credential: Option<&str>) -> Self {
        Self {
            client: client.clone(),
            base: base.to_owned(),
            credential: credential.map(str::to_owned),
            headers: Vec::new(),
        }
    }

    /// The same caller at another address.
    pub(crate) fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// The same caller with one more header.
    pub(crate) fn with(&self, name: &'static str, value: &str) -> Self {
        let mut other = self.clone();
        other.headers.push((name, value.to_owned()));
        other
    }

    /// The secret the caller presents.
    pub(crate) fn secret(&self) -> &str {
        self.credential.as_deref().expect("an actor with a credential")
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Got {
        self.send(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Got {
        self.send(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Got {
        self.send(Method::DELETE, path, None).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Got {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(credential) = &self.credential {
            request = request.bearer_auth(credential);
        }
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().unwrap();
            request = request.header(name, HeaderValue::from_str(value).unwrap());
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        Got {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }

    /// Asks every page of a list for all of its entries.
    pub(crate) async fn all(&self, path: &str) -> Vec<Value> {
        let sign = if path.contains('?') { '&' } else { '?' };
        let (mut found, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let target = match cursor.as_str() {
                None => format!("{path}{sign}limit=100"),
                Some(cursor) => format!("{path}{sign}limit=100&cursor={cursor}"),
            };
            let mut page = self.get(&target).await.is(200);
            let Value::Array(entries) = page["data"].take() else { panic!("{path} is no list") };
            found.extend(entries);
            cursor = page["nextCursor"].take();
            if cursor.is_null() {
                return found;
            }
        }
    }
}

impl Got {
    /// The body of an answer with this status.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.text).unwrap_or_else(|_| json!(self.text))
    }

    /// The error of Keyward's own refusal with this status and code.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        let error = self.refused_by_product(status, code);
        let explained =
            error["details"]["docUrl"].as_str().is_some_and(|url| url.starts_with(DOCS));
        assert!(explained, "{}", self.text);
        error
    }

    /// The error of the product behind the gateway, in the same envelope.
    #[track_caller]
    pub(crate) fn refused_by_product(&self, status: u16, code: &str) -> Value {
        let error = self.envelope();
        let got = (self.status, error["code"].as_str().unwrap());
        assert_eq!(got, (status, code), "{}", self.text);
        error
    }

    /// The error of a refusal whose first failed check was this one.
    #[track_caller]
    pub(crate) fn refused_at(&self, status: u16, code: &str, failed: &str) -> Value {
        let error = self.refused(status, code);
        assert_eq!(error["details"]["failed"], failed, "{}", self.text);
        error
    }

    /// The error of whatever refusal this is.
    #[track_caller]
    pub(crate) fn envelope(&self) -> Value {
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        check_envelope(self.status, &self.text, &header)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What must hold of every error of every plane.
#[track_caller]
pub(crate) fn check_envelope<'h>(
    status: u16,
    text: &str,
    header: &dyn Fn(&str) -> Option<&'h str>,
) -> Value {
    let body: Value = serde_json::from_str(text)
        .unwrap_or_else(|_| panic!("status {status} without an envelope: {text:?}"));
    assert_eq!(header("content-type"), Some("application/json"), "{text}");
    let members: Vec<_> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["error"], "{text}");
    let error = &body["error"];
    for member in error.as_object().unwrap().keys() {
        assert!(["code", "message", "details", "requestId"].contains(&member.as_str()), "{text}");
    }
    assert!(!error["message"].as_str().unwrap().is_empty(), "{text}");
    assert!(error["requestId"].as_str().unwrap().starts_with("req_"), "{text}");
    assert_eq!(header("x-request-id"), error["requestId"].as_str(), "{text}");
    let challenged = header("www-authenticate").is_some();
    assert!(challenged || status != 401, "{text}");
    assert!(!challenged || status == 401 || status == 403, "{text}");
    error.clone()
}
