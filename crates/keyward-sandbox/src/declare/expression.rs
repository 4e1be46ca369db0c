//! Values, conditions, filters and durations as documents write them.

use std::collections::BTreeMap;

use keyward_core::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Field names with the value each is given.
pub(crate) type Assignments = BTreeMap<String, Expr>;
/// Field names with what each must be.
pub(crate) type Where = BTreeMap<String, Match>;

/// A length of time, written as one number and one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) ms: i64,
}

impl Span {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (count, unit) = text.split_at(digits);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => SECOND_MS,
            "m" => MINUTE_MS,
            "h" => HOUR_MS,
            "d" => DAY_MS,
            _ => return None,
        };
        // 9 digits keep every product far from overflow
        if count.is_empty() || count.len() > 9 {
            return None;
        }
        Some(Self { ms: count.parse::<i64>().ok()? * unit_ms })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is not a duration such as 500ms, 5m, 90d"))
        })
    }
}

/// A fact of the caller, from the assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum CallerFact {
    KeyId,
    Actor,
    Role,
    Tenant,
    Environment,
    RequestId,
}

impl CallerFact {
    /// The word of the document.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::KeyId => "keyId",
            Self::Actor => "actor",
            Self::Role => "role",
            Self::Tenant => "tenant",
            Self::Environment => "environment",
            Self::RequestId => "requestId",
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Const(Value),
    Body(String),
    Param(String),
    Caller(CallerFact),
    Now(Span),
    NewId(String),
    Sha256(String),
    Field(String),
    Choose(Box<Choose>),
    Linked(Linked),
    Count(Count),
    Percent(Percent),
    Latest(Latest),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choose {
    pub(crate) on: Expr,
    pub(crate) cases: BTreeMap<String, Expr>,
    #[serde(rename = "else")]
    pub(crate) otherwise: Option<Expr>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Linked {
    #[serde(rename = "linked")]
    pub(crate) collection: String,
    pub(crate) field: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Count {
    #[serde(rename = "count")]
    pub(crate) collection: String,
    pub(crate) by: Option<String>,
    #[serde(default, rename = "where")]
    pub(crate) only: Where,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Percent {
    #[serde(rename = "percent")]
    pub(crate) collection: String,
    #[serde(default)]
    pub(crate) of: Where,
    #[serde(rename = "where")]
    pub(crate) only: Where,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Latest {
    #[serde(rename = "latest")]
    pub(crate) collection: String,
    pub(crate) field: String,
    #[serde(default, rename = "where")]
    pub(crate) only: Where,
}

/// The values with one member each.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Single {
    Const(Value),
    Body(String),
    Param(String),
    Caller(CallerFact),
    Now(Span),
    NewId(String),
    Sha256(String),
    Field(String),
    Choose(Box<Choose>),
}

impl From<Single> for Expr {
    fn from(single: Single) -> Self {
        match single {
            Single::Const(value) => Self::Const(value),
            Single::Body(name) => Self::Body(name),
            Single::Param(name) => Self::Param(name),
            Single::Caller(fact) => Self::Caller(fact),
            Single::Now(span) => Self::Now(span),
            Single::NewId(prefix) => Self::NewId(prefix),
            Single::Sha256(name) => Self::Sha256(name),
            Single::Field(name) => Self::Field(name),
            Single::Choose(choose) => Self::Choose(choose),
        }
    }
}

impl<'de> Deserialize<'de> for Expr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fn part<T: DeserializeOwned, E: serde::de::Error>(value: Value) -> Result<T, E> {
            serde_json::from_value(value).map_err(E::custom)
        }
        let value = Value::deserialize(deserializer)?;
        let Value::Object(members) = &value else {
            return match value {
                Value::Array(_) => Err(D::Error::custom("write a list as { const: [...] }")),
                scalar => Ok(Self::Const(scalar)),
            };
        };
        if members.contains_key("linked") {
            part(value).map(Self::Linked)
        } else if members.contains_key("count") {
            part(value).map(Self::Count)
        } else if members.contains_key("percent") {
            part(value).map(Self::Percent)
        } else if members.contains_key("latest") {
            part(value).map(Self::Latest)
        } else {
            part::<Single, _>(value).map(Self::from)
        }
    }
}

/// What a field must be in a `where`.
#[derive(Clone, Debug)]
pub(crate) enum Match {
    OneOf(Vec<Value>),
    Param(String),
}

impl<'de> Deserialize<'de> for Match {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Param {
            param: String,
        }
        match Value::deserialize(deserializer)? {
            Value::Array(values) => Ok(Self::OneOf(values)),
            object @ Value::Object(_) => serde_json::from_value::<Param>(object)
                .map(|part| Self::Param(part.param))
                .map_err(D::Error::custom),
            scalar => Ok(Self::OneOf(vec![scalar])),
        }
    }
}

/// What a condition looks at.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    Field(String),
    Caller(CallerFact),
    Body(String),
}

/// What a condition asks of its subject.
#[derive(Clone, Debug)]
pub(crate) enum Test {
    In(Vec<Value>),
    Present(bool),
}

/// Something that must hold, where `when` holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ConditionMembers")]
pub(crate) struct Condition {
    pub(crate) subject: Subject,
    pub(crate) test: Test,
    pub(crate) when: Option<Box<Condition>>,
    pub(crate) message: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionMembers {
    field: Option<String>,
    caller: Option<CallerFact>,
    body: Option<String>,
    #[serde(rename = "in")]
    one_of: Option<Vec<Value>>,
    present: Option<bool>,
    when: Option<Box<Condition>>,
    message: Option<String>,
}

impl TryFrom<ConditionMembers> for Condition {
    type Error = &'static str;

    fn try_from(members: ConditionMembers) -> Result<Self, Self::Error> {
        let subject = match (members.field, members.caller, members.body) {
            (Some(field), None, None) => Subject::Field(field),
            (None, Some(fact), None) => Subject::Caller(fact),
            (None, None, Some(name)) => Subject::Body(name),
            _ => return Err("a condition has exactly one of `field`, `caller`, `body`"),
        };
        let test = match (members.one_of, members.present) {
            (Some(values), None) => Test::In(values),
            (None, Some(present)) => Test::Present(present),
            _ => return Err("a condition has exactly one of `in`, `present`"),
        };
        Ok(Self { subject, test, when: members.when, message: members.message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_have_one_number_and_one_unit() {
        assert_eq!(Span::parse("400ms").map(|s| s.ms), Some(400));
        assert_eq!(Span::parse("90d").map(|s| s.ms), Some(90 * DAY_MS));
        for text in ["", "5", "m", "1h30m", "-1s", "1.5s", "9999999999d", "5 m", "é"] {
            assert!(Span::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn values_have_exactly_one_meaning() {
        let read = |value| serde_json::from_value::<Expr>(value);
        assert!(matches!(read(json!("queued")).unwrap(), Expr::Const(_)));
        assert!(matches!(
            read(json!({"linked": "reports", "field": "id"})).unwrap(),
            Expr::Linked(_)
        ));
        for bad in [json!([]), json!({}), json!({"body": "a", "const": 1}), json!({"script": "x"})]
        {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
        let both = json!({"field": "a", "body": "b", "present": true});
        assert!(serde_json::from_value::<Condition>(both).is_err());
    }
}
