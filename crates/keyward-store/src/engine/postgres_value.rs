//! Values and rows on PostgreSQL's wire.

use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type};

use super::postgres::classify;
use super::row::{Field, RowBuilder};
use super::{Row, Statement, StoreError, Value};

/// The type under which a value is sent when nobody has asked the server what it expects. Every
/// parameter of the program is one of these; the server finds out what a null is.
pub(super) const fn type_of(value: &Value) -> Type {
    match value {
        Value::Null => Type::UNKNOWN,
        Value::Int(_) => Type::INT8,
        Value::Text(_) => Type::TEXT,
        Value::Blob(_) => Type::BYTEA,
    }
}

/// The number of values that a text binds.
pub(super) fn bound_by(sql: &str) -> usize {
    let numbers = sql.split('$').skip(1).filter_map(|rest| {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        rest.get(..digits)?.parse().ok()
    });
    numbers.max().unwrap_or(0)
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(value) if *ty == Type::INT4 => i32::try_from(*value)?.to_sql(ty, out),
            Self::Int(value) if *ty == Type::INT8 => value.to_sql(ty, out),
            Self::Text(value) if <&str as ToSql>::accepts(ty) => value.to_sql(ty, out),
            Self::Blob(value) if *ty == Type::BYTEA => value.to_sql(ty, out),
            _ => Err(format!("the value does not fit a parameter of type {ty}").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

/// Reads a row into `rows`, whose next row it is.
pub(super) fn read(
    statement: &'static Statement,
    row: &tokio_postgres::Row,
    rows: &mut RowBuilder,
) -> Result<Row, StoreError> {
    for (column, described) in row.columns().iter().enumerate() {
        let ty = described.type_();
        let field = if *ty == Type::INT8 {
            row.try_get::<_, Option<i64>>(column).map(|value| value.map(Field::Int))
        } else if *ty == Type::INT4 {
            row.try_get::<_, Option<i32>>(column).map(|value| value.map(|it| Field::Int(it.into())))
        } else if *ty == Type::BOOL {
            row.try_get::<_, Option<bool>>(column)
                .map(|value| value.map(|it| Field::Int(it.into())))
        } else if *ty == Type::BYTEA {
            row.try_get::<_, Option<&[u8]>>(column).map(|value| value.map(Field::Blob))
        } else if [Type::TEXT, Type::VARCHAR, Type::NAME, Type::UNKNOWN].contains(ty) {
            row.try_get::<_, Option<&str>>(column).map(|value| value.map(Field::Text))
        } else {
            let problem = format!("its type is {ty}: cast it to BIGINT, TEXT or BYTEA");
            return Err(StoreError::Corrupt { statement: statement.name(), column, problem });
        };
        let field = field.map_err(|error| classify(statement.name(), &error))?;
        rows.push(field.unwrap_or(Field::Null));
    }
    Ok(rows.row())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_a_text_are_counted_by_their_greatest_number() {
        let texts = [("SELECT 1", 0), ("a = $1 OR b = $1", 1), ("$10, $2", 10), ("'$' || $1", 1)];
        for (sql, count) in texts {
            assert_eq!(bound_by(sql), count, "{sql}");
        }
    }
}
