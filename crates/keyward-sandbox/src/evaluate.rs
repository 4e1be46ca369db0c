//! Values and conditions against a request, a row and the data.

use std::borrow::Cow;

use keyward_core::base62;
use keyward_core::id::{ID_DIGITS, RequestId, TenantId};
use keyward_core::{Clock, Error, ErrorCode, Timestamp};
use serde_json::{Map, Value, json};

use crate::canonical;
use crate::declare::{
    Assignments, CallerFact, Collection, Condition, Expr, Match, Plan, Subject, Test, Where,
};
use crate::space::{Row, Space};

/// Who calls, from the verified assertion.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) key_id: String,
    pub(crate) actor: String,
    pub(crate) role: String,
    pub(crate) tenant: TenantId,
    pub(crate) environment: keyward_core::environment::Environment,
    pub(crate) request_id: String,
}

impl Caller {
    fn fact(&self, fact: CallerFact) -> Value {
        match fact {
            CallerFact::KeyId => Value::from(self.key_id.as_str()),
            CallerFact::Actor => Value::from(self.actor.as_str()),
            CallerFact::Role => Value::from(self.role.as_str()),
            CallerFact::Tenant => Value::from(self.tenant.to_string()),
            CallerFact::Environment => Value::from(self.environment.as_str()),
            CallerFact::RequestId => Value::from(self.request_id.as_str()),
        }
    }
}

/// What one request says, before any data is looked at.
pub(crate) struct Request<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) caller: &'a Caller,
    pub(crate) params: &'a [(String, String)],
    pub(crate) query: &'a [(String, String)],
    pub(crate) body: &'a Map<String, Value>,
    pub(crate) now: Timestamp,
    pub(crate) clock: &'a dyn Clock,
}

impl Request<'_> {
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(param, _)| param == name).map(|(_, value)| value.as_str())
    }
}

/// A row that the request refers to.
#[derive(Clone, Debug)]
pub(crate) struct Linked {
    pub(crate) collection: String,
    /// The link was a list, so its value is one too.
    pub(crate) many: bool,
    pub(crate) ids: Vec<String>,
}

/// What a value can see where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) request: Option<&'a Request<'a>>,
    pub(crate) row: Option<(&'a Collection, &'a Row)>,
    pub(crate) space: Option<&'a Space>,
    pub(crate) linked: &'a [Linked],
    pub(crate) now: Timestamp,
}

impl<'a> Scope<'a> {
    /// A row alone, at an instant: no request is there.
    pub(crate) const fn of_row(collection: &'a Collection, row: &'a Row, now: Timestamp) -> Self {
        Self { request: None, row: Some((collection, row)), space: None, linked: &[], now }
    }

    /// A request and the data it sees.
    pub(crate) const fn of_request(
        request: &'a Request<'a>,
        space: &'a Space,
        linked: &'a [Linked],
    ) -> Self {
        Self { request: Some(request), row: None, space: Some(space), linked, now: request.now }
    }

    /// The same with a row at hand.
    pub(crate) const fn with_row(self, collection: &'a Collection, row: &'a Row) -> Self {
        Self { row: Some((collection, row)), ..self }
    }

    /// The fields a `set` gives; those whose value is nothing are left out.
    pub(crate) fn assign(&self, set: &Assignments) -> Map<String, Value> {
        let values = set.iter().map(|(field, value)| (field.clone(), self.value(value)));
        values.filter_map(|(field, value)| Some((field, value?))).collect()
    }

    /// What a value stands for, or nothing.
    pub(crate) fn value(&self, expr: &Expr) -> Option<Value> {
        match expr {
            Expr::Const(value) => Some(value.clone()),
            Expr::Body(name) => self.request?.body.get(name).cloned(),
            Expr::Param(name) => self.request?.param(name).map(Value::from),
            Expr::Caller(fact) => Some(self.request?.caller.fact(*fact)),
            Expr::Now(span) => Some(Value::from(self.now.plus_ms(span.ms).to_string())),
            Expr::NewId(prefix) => Some(Value::from(new_id(prefix, self.request?.clock))),
            Expr::Sha256(name) => {
                self.request?.body.get(name).map(canonical::sha256).map(Value::from)
            }
            Expr::Field(name) => {
                let (collection, row) = self.row?;
                row.field(collection, name, self.now).map(Cow::into_owned)
            }
            Expr::Choose(choose) => {
                let on = self.value(&choose.on).map(|value| text(&value)).unwrap_or_default();
                let case = choose.cases.get(&on).or(choose.otherwise.as_ref())?;
                self.value(case)
            }
            Expr::Linked(linked) => self.linked(&linked.collection, linked.field.as_deref()),
            Expr::Count(count) => {
                let rows = self.rows(&count.collection, &count.only)?;
                Some(self.count(&count.collection, &rows, count.by.as_deref()))
            }
            Expr::Percent(percent) => {
                let among = self.rows(&percent.collection, &percent.of)?;
                let collection = self.request?.plan.collections.get(&percent.collection)?;
                let hits = among.iter().filter(|row| self.selects(collection, row, &percent.only));
                Some(percentage(hits.count(), among.len()))
            }
            Expr::Latest(latest) => {
                let rows = self.rows(&latest.collection, &latest.only)?;
                let texts = rows.iter().filter_map(|row| row.fields.get(&latest.field)?.as_str());
                Some(texts.max().map_or(Value::Null, Value::from))
            }
        }
    }

    /// Whether a condition holds, or does not apply.
    pub(crate) fn holds(&self, condition: &Condition) -> bool {
        if condition.when.as_ref().is_some_and(|when| !self.holds(when)) {
            return true;
        }
        let subject = match &condition.subject {
            Subject::Field(name) => {
                self.row.and_then(|(collection, row)| row.field(collection, name, self.now))
            }
            Subject::Caller(fact) => self.request.map(|r| Cow::Owned(r.caller.fact(*fact))),
            Subject::Body(name) => self.request.and_then(|r| r.body.get(name)).map(Cow::Borrowed),
        };
        let subject = subject.filter(|value| !value.is_null());
        match &condition.test {
            Test::Present(wanted) => subject.is_some() == *wanted,
            Test::In(values) => subject.is_some_and(|value| values.contains(&value)),
        }
    }

    /// The first condition that does not hold, as the answer it is.
    pub(crate) fn require(&self, conditions: &[Condition]) -> Result<(), Error> {
        let Some(failed) = conditions.iter().find(|condition| !self.holds(condition)) else {
            return Ok(());
        };
        let (code, kind, name) = match &failed.subject {
            Subject::Field(name) => (ErrorCode::Conflict, "field", name.clone()),
            Subject::Body(name) => (ErrorCode::ValidationFailed, "field", name.clone()),
            Subject::Caller(fact) => (ErrorCode::RbacDenied, "caller", fact.as_str().to_owned()),
        };
        let text =
            failed.message.clone().unwrap_or_else(|| format!("`{name}` does not allow this"));
        Err(Error::new(code, text).with(kind, name))
    }

    /// Whether a row is inside a `where`.
    pub(crate) fn selects(&self, collection: &Collection, row: &Row, only: &Where) -> bool {
        only.iter().all(|(name, wanted)| {
            let Some(value) = row.field(collection, name, self.now) else {
                return false;
            };
            match wanted {
                Match::OneOf(values) => values.iter().any(|wanted| is_or_contains(&value, wanted)),
                Match::Param(param) => {
                    let param = self.request.and_then(|request| request.param(param));
                    param.is_some_and(|param| has_text(&value, param))
                }
            }
        })
    }

    fn rows(&self, name: &str, only: &Where) -> Option<Vec<&'a Row>> {
        let collection = self.request?.plan.collections.get(name)?;
        let rows = self.space?.table(name).ok()?.rows();
        Some(rows.filter(|row| self.selects(collection, row, only)).collect())
    }

    fn count(&self, name: &str, rows: &[&Row], by: Option<&str>) -> Value {
        let Some(by) = by else {
            return Value::from(rows.len());
        };
        let collection = self.request.and_then(|r| r.plan.collections.get(name));
        let Some(collection) = collection else {
            return Value::Null;
        };
        let mut counts = Map::new();
        for row in rows {
            let Some(value) = row.field(collection, by, self.now) else {
                continue;
            };
            let values = match value.as_ref() {
                Value::Array(values) => values.as_slice(),
                single => std::slice::from_ref(single),
            };
            for value in values {
                let slot = counts.entry(text(value)).or_insert_with(|| json!(0));
                *slot = json!(slot.as_u64().unwrap_or(0) + 1);
            }
        }
        Value::Object(counts)
    }

    fn linked(&self, name: &str, field: Option<&str>) -> Option<Value> {
        let link = self.linked.iter().find(|link| link.collection == name)?;
        let collection = self.request?.plan.collections.get(name)?;
        let table = self.space?.table(name).ok()?;
        let mut values =
            link.ids.iter().filter_map(|id| table.get(id)).filter_map(|row| match field {
                Some(field) => row.field(collection, field, self.now).map(Cow::into_owned),
                None => Some(Value::Object(row.shown(collection, None, self.now))),
            });
        if link.many { Some(Value::Array(values.collect())) } else { values.next() }
    }
}

/// A new random id of 128 bits behind a prefix.
pub(crate) fn new_id(prefix: &str, clock: &dyn Clock) -> String {
    let mut bits = [0_u8; 16];
    clock.fill_random(&mut bits);
    let digits = base62::encode::<ID_DIGITS>(&bits);
    prefix.chars().chain(digits.into_iter().map(char::from)).collect()
}

/// An id for a request that came without one.
pub(crate) fn new_request_id(clock: &dyn Clock) -> String {
    RequestId::generate(clock).to_string()
}

/// Tenths of a percent, so that the figure has one decimal.
fn percentage(part: usize, whole: usize) -> Value {
    if whole == 0 {
        return Value::Null;
    }
    let tenths = (part * 1_000 + whole / 2) / whole;
    if tenths.is_multiple_of(10) {
        return json!(tenths / 10);
    }
    let text = format!("{}.{}", tenths / 10, tenths % 10);
    text.parse::<f64>().map_or(Value::Null, Value::from)
}

/// A scalar as a query string or a map key writes it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a value, or one element of an array, reads like this.
pub(crate) fn has_text(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| text(item) == wanted),
        Value::String(same) => same == wanted,
        other => text(other) == wanted,
    }
}

fn is_or_contains(value: &Value, wanted: &Value) -> bool {
    value == wanted || value.as_array().is_some_and(|items| items.contains(wanted))
}
