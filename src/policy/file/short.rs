//! A value that is a text in the usual case, and a table when there is more to say.

use std::{borrow::Cow, fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{self, value::MapAccessDeserializer},
};

/// A table that also has a short form.
pub trait ShortForm {
    /// What is expected, for the message about anything else.
    const EXPECTED: &'static str;
    /// The regular expression that editors hold the text against.
    const PATTERN: &'static str;
}

/// The short form, or the table.
#[derive(Debug)]
pub enum TextOr<T> {
    /// The short form.
    Text(String),
    /// The table.
    Table(T),
}

impl<'de, T: ShortForm + Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: ShortForm + Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = TextOr<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text.to_owned()))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(TextOr::Table)
            }
        }
        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

impl<T: ShortForm + JsonSchema> JsonSchema for TextOr<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("TextOr{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<T>();
        schemars::json_schema!({
            "anyOf": [
                { "type": "string", "pattern": T::PATTERN },
                table,
            ],
        })
    }
}
