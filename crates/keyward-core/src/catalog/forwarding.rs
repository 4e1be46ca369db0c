//! What a route says about the way its requests are forwarded.

use serde_json::{Map, Value};

use crate::catalog::route::Method;

/// The longest name of an upstream.
const MAX_UPSTREAM_BYTES: usize = 63;

/// How the requests of a route are forwarded, where the document says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// The name of the upstream that serves it: `x-keyward-upstream`.
    pub upstream: Option<String>,
    /// Milliseconds a whole exchange may take, from the first byte sent to the last one received;
    /// 0 is without a bound: `x-keyward-timeout-ms`. Absent, the upstream's own setting counts.
    pub timeout_ms: Option<u64>,
    /// Whether a caller may turn the connection into a WebSocket (RFC 6455):
    /// `x-keyward-upgrade: websocket`.
    pub websocket: bool,
}

impl Forwarding {
    /// Reads the members of an operation.
    pub(super) fn read(
        method: Method,
        operation: &Map<String, Value>,
    ) -> Result<Self, &'static str> {
        Ok(Self {
            upstream: upstream(operation)?,
            timeout_ms: match operation.get("x-keyward-timeout-ms") {
                None => None,
                Some(value) => {
                    let text = "x-keyward-timeout-ms is a whole number of milliseconds";
                    Some(value.as_u64().ok_or(text)?)
                }
            },
            websocket: match operation.get("x-keyward-upgrade").map(Value::as_str) {
                None => false,
                Some(Some("websocket")) if method == Method::Get => true,
                Some(Some("websocket")) => {
                    return Err("a WebSocket begins with GET: x-keyward-upgrade belongs there");
                }
                Some(_) => return Err("x-keyward-upgrade is \"websocket\""),
            },
        })
    }
}

fn upstream(operation: &Map<String, Value>) -> Result<Option<String>, &'static str> {
    let Some(value) = operation.get("x-keyward-upstream") else {
        return Ok(None);
    };
    let is_word = |name: &&str| {
        (1..=MAX_UPSTREAM_BYTES).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let name = value.as_str().filter(is_word);
    let text = "x-keyward-upstream is the name of an upstream: letters, digits, '-', '_', '.'";
    name.map(|name| Some(name.to_owned())).ok_or(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(method: Method, operation: &Value) -> Result<Forwarding, &'static str> {
        Forwarding::read(method, operation.as_object().unwrap())
    }

    #[test]
    fn a_route_says_nothing_unless_it_does() {
        assert_eq!(read(Method::Post, &json!({})), Ok(Forwarding::default()));
        let all = json!({
            "x-keyward-upstream": "billing-2", "x-keyward-timeout-ms": 120_000,
            "x-keyward-upgrade": "websocket",
        });
        let forwarding = read(Method::Get, &all).unwrap();
        assert_eq!(forwarding.upstream.as_deref(), Some("billing-2"));
        assert_eq!(forwarding.timeout_ms, Some(120_000));
        assert!(forwarding.websocket);
    }

    #[test]
    fn mistakes_are_named() {
        for (operation, what) in [
            (json!({"x-keyward-upstream": ""}), "x-keyward-upstream"),
            (json!({"x-keyward-upstream": "http://a"}), "x-keyward-upstream"),
            (json!({"x-keyward-upstream": 1}), "x-keyward-upstream"),
            (json!({"x-keyward-timeout-ms": "30s"}), "x-keyward-timeout-ms"),
            (json!({"x-keyward-timeout-ms": -1}), "x-keyward-timeout-ms"),
            (json!({"x-keyward-upgrade": "h2c"}), "x-keyward-upgrade"),
            (json!({"x-keyward-upgrade": true}), "x-keyward-upgrade"),
        ] {
            let error = read(Method::Get, &operation).unwrap_err();
            assert!(error.contains(what), "{operation}: {error}");
        }
        let error = read(Method::Post, &json!({"x-keyward-upgrade": "websocket"})).unwrap_err();
        assert!(error.contains("GET"), "{error}");
    }
}
