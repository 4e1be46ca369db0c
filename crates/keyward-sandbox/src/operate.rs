//! Operations on the data: each looks first, then commits all its changes or none.

mod create;
mod links;
mod list;
mod on_row;
pub(crate) mod row;

use serde_json::{Map, Value};

use keyward_core::{Error, ErrorCode};

use crate::declare::{Action, Collection, Operation, Presign};
use crate::evaluate::{Request, Scope};
use crate::presign::{Grant, UrlSigner};
use crate::reply::Answer;
use crate::space::{Row, Space};

/// One operation at work: what is asked, on whose data.
pub(crate) struct Work<'a> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) operation: &'a Operation,
    pub(crate) signer: &'a UrlSigner,
}

impl Work<'_> {
    /// Does what the operation says.
    pub(crate) fn run(&self, space: &mut Space) -> Result<Answer, Error> {
        if !matches!(self.operation.action, Action::List(_))
            && let Some((name, _)) = self.request.query.first()
        {
            return Err(unknown_query(name, &[]));
        }
        match &self.operation.action {
            Action::Create(create) => self.create(create, space),
            Action::List(list) => self.list(list, space),
            Action::Get(on) => self.get(on, space),
            Action::Patch(on) => self.patch(on, space),
            Action::Delete(on) => self.delete(on, space),
            Action::Act(on) => self.act(on, space),
            Action::Summary(summary) => {
                let linked = self.links(space)?;
                let scope = Scope::of_request(self.request, space, &linked);
                Ok(self.answer(Value::Object(scope.assign(&summary.set))))
            }
        }
    }

    fn answer(&self, body: Value) -> Answer {
        Answer { status: self.operation.status, body, next_cursor: None }
    }

    fn collection(&self, name: &str) -> Result<&Collection, Error> {
        let collection = self.request.plan.collections.get(name);
        collection.ok_or_else(|| Error::internal(format!("no collection `{name}`")))
    }

    /// The members a `presign` adds to an answer: a signed URL to the bytes of this row.
    fn signed(
        &self,
        asked: Presign,
        name: &str,
        id: &str,
        row: &Row,
    ) -> Result<(&'static str, Value), Error> {
        let files = self.collection(name)?.files.as_ref();
        let files = files.ok_or_else(|| Error::internal("presign without files"))?;
        let expires = self.request.now.plus_ms(files.url_ttl.ms);
        let method = match asked {
            Presign::Upload if row.content.is_some() => {
                return Err(Error::conflict("The bytes of this row are there already"));
            }
            Presign::Download if row.content.is_none() => {
                return Err(Error::conflict("This row has no bytes yet"));
            }
            Presign::Upload => "PUT",
            Presign::Download => "GET",
        };
        let url = self.signer.url(&Grant {
            method: method.to_owned(),
            tenant: self.request.caller.tenant,
            environment: self.request.caller.environment,
            collection: name.to_owned(),
            id: id.to_owned(),
            expires_ms: expires.as_millis(),
        })?;
        let mut signed = Map::new();
        signed.insert("method".to_owned(), Value::from(method));
        signed.insert("url".to_owned(), Value::from(url));
        signed.insert("expiresAt".to_owned(), Value::from(expires.to_string()));
        if asked == Presign::Download {
            return Ok(("download", Value::Object(signed)));
        }
        let kind = row.fields.get(&files.type_field).cloned();
        let kind = kind.unwrap_or_else(|| Value::from(row::DEFAULT_TYPE));
        signed.insert("headers".to_owned(), serde_json::json!({ "content-type": kind }));
        signed.insert("maxBytes".to_owned(), Value::from(files.max_bytes));
        Ok(("upload", Value::Object(signed)))
    }

    /// The answer that shows a row, with a signed URL if one is asked for.
    fn shown(
        &self,
        name: &str,
        row: &Row,
        fields: Option<&[String]>,
        presign: Option<Presign>,
    ) -> Result<Answer, Error> {
        let collection = self.collection(name)?;
        let mut body = row.shown(collection, fields, self.request.now);
        if let Some(asked) = presign {
            let id = row.fields.get(&collection.id_field).and_then(Value::as_str);
            let (member, signed) = self.signed(asked, name, id.unwrap_or_default(), row)?;
            body.insert(member.to_owned(), signed);
        }
        Ok(self.answer(Value::Object(body)))
    }
}

fn unknown_query(name: &str, known: &[&str]) -> Error {
    let text = format!("Unknown query parameter `{name}`");
    Error::new(ErrorCode::InvalidRequest, text)
        .with("parameter", name)
        .with("known", known.iter().map(|name| Value::from(*name)).collect::<Vec<_>>())
}

/// No such row, for this caller.
fn no_row(collection: &str) -> Error {
    Error::new(ErrorCode::NotFound, format!("No such row in `{collection}`"))
}
