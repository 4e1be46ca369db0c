//! `x-sandbox`: what an operation does.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::expression::{Assignments, Condition, Expr, Where};
use super::read_part;
use crate::SandboxError;
use crate::parameters::Parameters;
use crate::schema::BodySchema;

/// One operation of the product's API.
#[derive(Debug)]
pub(crate) struct Operation {
    /// `POST /v1/reports`, for logs.
    pub(crate) name: String,
    /// The parameters of the path template, in order.
    pub(crate) params: Vec<String>,
    /// What its query and headers must fit.
    pub(crate) parameters: Parameters,
    /// The status of a success.
    pub(crate) status: http::StatusCode,
    /// The body the operation reads, if it reads one.
    pub(crate) body: Option<BodySchema>,
    /// Whether the response schema is a bare array.
    pub(crate) bare: bool,
    pub(crate) action: Action,
}

#[derive(Debug)]
pub(crate) enum Action {
    Create(Create),
    List(List),
    Get(OnRow),
    Patch(OnRow),
    Delete(OnRow),
    Act(OnRow),
    Summary(Summary),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    pub(crate) collection: String,
    #[serde(default)]
    pub(crate) set: Assignments,
    #[serde(default)]
    pub(crate) links: Vec<Link>,
    #[serde(default)]
    pub(crate) require: Vec<Condition>,
    pub(crate) presign: Option<Presign>,
    pub(crate) content: Option<Expr>,
    pub(crate) fields: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct List {
    pub(crate) collection: String,
    #[serde(default)]
    pub(crate) links: Vec<Link>,
    #[serde(default)]
    pub(crate) filter: Vec<String>,
    #[serde(default, rename = "where")]
    pub(crate) only: Where,
    pub(crate) max_limit: Option<usize>,
    pub(crate) fields: Option<Vec<String>>,
}

/// An operation on one row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OnRow {
    pub(crate) collection: String,
    pub(crate) param: Option<String>,
    pub(crate) by: Option<String>,
    #[serde(default, rename = "where")]
    pub(crate) only: Where,
    #[serde(default)]
    pub(crate) require: Vec<Condition>,
    #[serde(default)]
    pub(crate) links: Vec<Link>,
    pub(crate) from: Option<Vec<String>>,
    pub(crate) to: Option<Expr>,
    #[serde(default)]
    pub(crate) set: Assignments,
    pub(crate) presign: Option<Presign>,
    pub(crate) fields: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Summary {
    #[serde(default)]
    pub(crate) links: Vec<Link>,
    pub(crate) set: Assignments,
}

/// Rows that a request refers to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Link {
    pub(crate) collection: String,
    pub(crate) id: Expr,
    #[serde(default)]
    pub(crate) require: Vec<Condition>,
    #[serde(default)]
    pub(crate) set: Assignments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Presign {
    Upload,
    Download,
}

impl Action {
    /// Reads `x-sandbox` at this pointer.
    pub(crate) fn read(declared: &Value, pointer: &str) -> Result<Self, SandboxError> {
        const WORDS: &str = "one of create, list, get, patch, delete, act, summary";
        let mistake = |at: &str, text: &str| Err(SandboxError::document(at, text));
        let Value::Object(members) = declared else {
            return mistake(pointer, "must be an object with `does`");
        };
        let mut rest = members.clone();
        let does_pointer = format!("{pointer}/does");
        match rest.remove("does").as_ref().and_then(Value::as_str) {
            Some("create") => part(rest, pointer).map(Self::Create),
            Some("list") => part(rest, pointer).map(Self::List),
            Some("get") => on_row(rest, pointer, &["from", "to", "set"]).map(Self::Get),
            Some("patch") => on_row(rest, pointer, &["from", "to", "presign"]).map(Self::Patch),
            Some("delete") => {
                let others = ["from", "to", "set", "presign", "links", "fields"];
                on_row(rest, pointer, &others).map(Self::Delete)
            }
            Some("act") => on_row(rest, pointer, &[]).map(Self::Act),
            Some("summary") => part(rest, pointer).map(Self::Summary),
            _ => mistake(&does_pointer, &format!("must be {WORDS}")),
        }
    }

    /// The collection the operation is on, if it is on one.
    pub(crate) fn collection(&self) -> Option<&str> {
        match self {
            Self::Create(create) => Some(&create.collection),
            Self::List(list) => Some(&list.collection),
            Self::Get(row) | Self::Patch(row) | Self::Delete(row) | Self::Act(row) => {
                Some(&row.collection)
            }
            Self::Summary(_) => None,
        }
    }

    /// The rows the request refers to.
    pub(crate) fn links(&self) -> &[Link] {
        match self {
            Self::Create(create) => &create.links,
            Self::List(list) => &list.links,
            Self::Get(row) | Self::Patch(row) | Self::Delete(row) | Self::Act(row) => &row.links,
            Self::Summary(summary) => &summary.links,
        }
    }

    /// Whether the operation changes data.
    pub(crate) const fn writes(&self) -> bool {
        !matches!(self, Self::Get(_) | Self::List(_) | Self::Summary(_))
    }
}

fn on_row(
    members: Map<String, Value>,
    pointer: &str,
    refused: &[&str],
) -> Result<OnRow, SandboxError> {
    if let Some(member) = refused.iter().find(|member| members.contains_key(**member)) {
        let at = format!("{pointer}/{member}");
        return Err(SandboxError::document(at, "this operation does not take this member"));
    }
    part(members, pointer)
}

fn part<T: DeserializeOwned>(
    members: Map<String, Value>,
    pointer: &str,
) -> Result<T, SandboxError> {
    read_part(Value::Object(members), pointer)
}
