use chrono::{DateTime, Utc};
use model::{PipelineName, RunId};
use sqlx::{Arguments, postgres::PgArguments, sqlite::SqliteArguments};

/// An argument of a statement. Owned, because statements are few and values small.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Integer(Option<i64>),
    Text(Option<String>),
    Boolean(bool),
    Bytes(Option<Vec<u8>>),
    Time(Option<DateTime<Utc>>),
}

macro_rules! from {
    ($($type:ty => |$value:ident| $make:expr;)*) => {
        $(impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $make
            }
        })*
    };
}

from! {
    i64 => |value| Self::Integer(Some(value));
    u32 => |value| Self::Integer(Some(value.into()));
    // Counts stay far below the limit; a larger one would be wrong anyway.
    u64 => |value| Self::Integer(Some(i64::try_from(value).unwrap_or(i64::MAX)));
    Option<i64> => |value| Self::Integer(value);
    bool => |value| Self::Boolean(value);
    String => |value| Self::Text(Some(value));
    &String => |value| Self::Text(Some(value.clone()));
    &str => |value| Self::Text(Some(value.to_owned()));
    Option<String> => |value| Self::Text(value);
    Vec<u8> => |value| Self::Bytes(Some(value));
    Option<Vec<u8>> => |value| Self::Bytes(value);
    DateTime<Utc> => |value| Self::Time(Some(value));
    Option<DateTime<Utc>> => |value| Self::Time(value);
    RunId => |value| Self::Text(Some(value.to_string()));
    Option<RunId> => |value| Self::Text(value.map(|id| id.to_string()));
    &PipelineName => |value| Self::Text(Some(value.to_string()));
}

/// Makes the arguments of a statement, in the order of `$1`, `$2`, ….
macro_rules! args {
    ($($value:expr),* $(,)?) => {
        vec![$($crate::value::Value::from($value)),*]
    };
}
pub(crate) use args;

macro_rules! arguments {
    ($($name:ident -> $arguments:ty;)*) => {
        $(pub(crate) fn $name(values: Vec<Value>) -> Result<$arguments, sqlx::Error> {
            let mut arguments = <$arguments>::default();
            for value in values {
                match value {
                    Value::Integer(value) => arguments.add(value),
                    Value::Text(value) => arguments.add(value),
                    Value::Boolean(value) => arguments.add(value),
                    Value::Bytes(value) => arguments.add(value),
                    Value::Time(value) => arguments.add(value),
                }
                .map_err(sqlx::Error::Encode)?;
            }
            Ok(arguments)
        })*
    };
}

arguments! {
    for_postgres -> PgArguments;
    for_sqlite -> SqliteArguments;
}
