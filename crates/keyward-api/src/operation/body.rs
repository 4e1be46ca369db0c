//! Bodies and queries of operations, as the table refers to them.

use std::borrow::Cow;
use std::fmt;

use utoipa::openapi::RefOr;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::Schema;
use utoipa::{IntoParams, ToSchema};

/// Schemas by name, as they are collected.
pub(crate) type Schemas = Vec<(String, RefOr<Schema>)>;

/// The schema of a body.
#[derive(Clone, Copy)]
pub struct BodySchema {
    name: fn() -> Cow<'static, str>,
    collect: fn(&mut Schemas),
}

impl BodySchema {
    /// The schema of this type.
    pub const fn of<T: ToSchema>() -> Self {
        Self { name: T::name, collect: collect::<T> }
    }

    /// Its name in the document.
    pub fn name(&self) -> Cow<'static, str> {
        (self.name)()
    }

    /// Adds it and all it refers to.
    pub(crate) fn collect(&self, schemas: &mut Schemas) {
        (self.collect)(schemas);
    }
}

fn collect<T: ToSchema>(schemas: &mut Schemas) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

impl fmt::Debug for BodySchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// The parameters of a query.
#[derive(Clone, Copy)]
pub struct QuerySchema(fn() -> Vec<Parameter>);

impl QuerySchema {
    /// The parameters of this type.
    pub const fn of<T: IntoParams>() -> Self {
        Self(parameters::<T>)
    }

    /// Its parameters, in the order of the fields.
    pub(crate) fn parameters(self) -> Vec<Parameter> {
        (self.0)()
    }
}

fn parameters<T: IntoParams>() -> Vec<Parameter> {
    T::into_params(|| Some(utoipa::openapi::path::ParameterIn::Query))
}

impl fmt::Debug for QuerySchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.parameters().into_iter().map(|p| p.name).collect();
        f.write_str(&names.join(" "))
    }
}
