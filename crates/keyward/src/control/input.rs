//! Reading what a request carries, with errors that name what to fix.

use keyward_api::Bounded;
use keyward_core::{Error, ErrorCode, Result};
use serde::de::DeserializeOwned;

use crate::config::did_you_mean;

/// What a handler reads from a request.
pub(crate) trait Input: Sized + Send + 'static {
    /// Reads and checks it.
    fn read(query: Option<&str>, body: &[u8]) -> Result<Self>;
}

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

/// The query string.
pub(crate) struct Query<T>(pub(crate) T);

/// Nothing: a body or query is refused, so that nobody believes it had an effect.
pub(crate) struct Nothing;

impl<T: DeserializeOwned + Bounded + Send + 'static> Input for Json<T> {
    fn read(query: Option<&str>, body: &[u8]) -> Result<Self> {
        refuse_query(query)?;
        if body.is_empty() {
            let text = "The request needs a JSON body; send an object with content-type \
                        application/json";
            return Err(Error::new(ErrorCode::InvalidRequest, text));
        }
        // a list would be taken for the fields in their order
        if body.trim_ascii_start().starts_with(b"[") {
            return Err(Error::validation("body", "The body is a list; send an object"));
        }
        let value: T = serde_json::from_slice(body).map_err(|e| json_error(&e))?;
        value.check()?;
        Ok(Self(value))
    }
}

impl<T: DeserializeOwned + Bounded + Send + 'static> Input for Query<T> {
    fn read(query: Option<&str>, body: &[u8]) -> Result<Self> {
        refuse_body(body)?;
        read_query(query.unwrap_or_default()).map(Self)
    }
}

/// Reads and checks a query string.
pub(crate) fn read_query<T: DeserializeOwned + Bounded>(query: &str) -> Result<T> {
    let uri: http::Uri = format!("/?{query}")
        .parse()
        .map_err(|_| Error::validation("query", "The query string is not well-formed"))?;
    let axum::extract::Query(value) = axum::extract::Query::<T>::try_from_uri(&uri)
        .map_err(|e| field_error(ErrorCode::ValidationFailed, &source_text(&e)))?;
    value.check()?;
    Ok(value)
}

impl Input for Nothing {
    fn read(query: Option<&str>, body: &[u8]) -> Result<Self> {
        refuse_query(query)?;
        // an empty object is what many clients send for "nothing"
        if body.trim_ascii() == b"{}" {
            return Ok(Self);
        }
        refuse_body(body)?;
        Ok(Self)
    }
}

/// What to add to the refusal of a name that is not known.
pub(super) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    did_you_mean(name, known).map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

fn refuse_query(query: Option<&str>) -> Result<()> {
    match query {
        None | Some("") => Ok(()),
        Some(_) => Err(Error::validation("query", "This operation takes no query parameters")),
    }
}

fn refuse_body(body: &[u8]) -> Result<()> {
    if body.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorCode::InvalidRequest, "This operation takes no body"))
}

fn source_text(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn json_error(error: &serde_json::Error) -> Error {
    match error.classify() {
        serde_json::error::Category::Data => {
            field_error(ErrorCode::ValidationFailed, &error.to_string())
        }
        _ => Error::new(ErrorCode::InvalidRequest, format!("The body is not JSON: {error}")),
    }
}

/// Turns the deserializer's words into ours, with the nearest name for a misspelt field.
fn field_error(code: ErrorCode, text: &str) -> Error {
    // positions in the body help with a hand-written request only
    let text = text.split(" at line ").next().unwrap_or(text);
    if let Some(rest) = text.split("unknown field `").nth(1) {
        let mut quoted = rest.split('`');
        let field = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.skip(1).step_by(2).collect();
        let public = match did_you_mean(field, known.iter().copied()) {
            Some(near) => format!("There is no field {field:?}; did you mean {near:?}?"),
            None => format!("There is no field {field:?}; known are {}", known.join(", ")),
        };
        return Error::new(code, public).with("field", field);
    }
    let error = Error::new(code, format!("The request cannot be read: {text}"));
    match text.split("missing field `").nth(1).and_then(|rest| rest.split('`').next()) {
        Some(field) => error.with("field", field),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use keyward_api::keys::{CreateKey, ListKeysQuery};

    use super::*;

    fn refusal(body: &str) -> (ErrorCode, String) {
        let error = Json::<CreateKey>::read(None, body.as_bytes()).err().unwrap();
        (error.code(), error.public().to_owned())
    }

    #[test]
    fn unknown_fields_get_the_nearest_name() {
        let (code, text) = refusal(r#"{"nmae":"worker"}"#);
        assert_eq!(code, ErrorCode::ValidationFailed);
        assert_eq!(text, r#"There is no field "nmae"; did you mean "name"?"#);
        let (_, text) = refusal(r#"{"colour":"red"}"#);
        assert!(text.contains("known are name, description"), "{text}");
        let query = Query::<ListKeysQuery>::read(Some("stat=active"), b"").err().unwrap();
        assert!(query.public().contains("did you mean \"state\""), "{}", query.public());
    }

    #[test]
    fn what_is_not_json_is_not_called_invalid_fields() {
        assert_eq!(refusal("{").0, ErrorCode::InvalidRequest);
        assert_eq!(refusal("").0, ErrorCode::InvalidRequest);
        assert!(refusal("{}").1.contains("name"));
    }

    #[test]
    fn nothing_means_nothing() {
        assert!(Nothing::read(None, b"").is_ok());
        assert!(Nothing::read(None, b" {} ").is_ok());
        assert!(Nothing::read(None, br#"{"force":true}"#).is_err());
        assert!(Nothing::read(Some("force=true"), b"").is_err());
    }
}
