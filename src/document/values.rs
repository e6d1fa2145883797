//! Values as written in a file: each remembers where it stands.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Range};

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, civil, tz::TimeZone};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, value::MapAccessDeserializer},
};
use toml::{Spanned, value::Datetime};

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    span: Range<usize>,
    /// What is written there.
    pub value: T,
}

impl<T> At<T> {
    /// The bytes of the file that it stands for.
    pub fn span(&self) -> &Range<usize> {
        &self.span
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        Ok(Self {
            span: spanned.span(),
            value: spanned.into_inner(),
        })
    }
}

/// A table and its place. Other than serde's derived types it is never read from an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    span: Range<usize>,
    /// The table's content.
    pub value: T,
}

impl<T> Entry<T> {
    /// The bytes of the header, or of the whole inline table.
    pub fn span(&self) -> &Range<usize> {
        &self.span
    }
}

struct TableOnly<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TableOnly<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = TableOnly<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(TableOnly)
            }
        }
        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entry<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<TableOnly<T>>::deserialize(deserializer)?;
        Ok(Self {
            span: spanned.span(),
            value: spanned.into_inner().0,
        })
    }
}

macro_rules! schema_of_inner {
    ($($outer:ident),*) => {$(
        impl<T: JsonSchema> JsonSchema for $outer<T> {
            fn inline_schema() -> bool {
                T::inline_schema()
            }
            fn schema_name() -> Cow<'static, str> {
                T::schema_name()
            }
            fn schema_id() -> Cow<'static, str> {
                T::schema_id()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                T::json_schema(generator)
            }
        }
    )*};
}
schema_of_inner!(At, Entry);

/// Twelve digits in quotes. As a number an account id would lose its leading zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountId(pub String);

impl AccountId {
    /// Whether it is an account id at all.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.0.len() == 12 && self.0.bytes().all(|byte| byte.is_ascii_digit())
    }
}

impl<'de> Deserialize<'de> for AccountId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = AccountId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("twelve digits in quotes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<AccountId, E> {
                Ok(AccountId(text.to_owned()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<AccountId, E> {
                Err(E::custom(format_args!(
                    "an account id is text, not a number\nwrite it in quotes with its leading zeros: \"{number:012}\""
                )))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for AccountId {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "AccountId".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]{12}$" })
    }
}

/// A TOML date, meaning through the end of that day in UTC, or a date and time with an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Until(Datetime);

/// A TOML date, meaning from the start of that day in UTC, or a date and time with an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since(Datetime);

impl Until {
    /// The first instant that it excludes.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub fn instant(&self) -> Result<Timestamp, &'static str> {
        instant(&self.0, civil::Date::tomorrow)
    }
}

impl Since {
    /// The first instant that it includes.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub fn instant(&self) -> Result<Timestamp, &'static str> {
        instant(&self.0, Ok)
    }
}

/// A date alone is the midnight with which the day of `midnight_of` begins.
fn instant(
    written: &Datetime,
    midnight_of: impl Fn(civil::Date) -> Result<civil::Date, jiff::Error>,
) -> Result<Timestamp, &'static str> {
    let text = written.to_string();
    match (written.date.is_some(), written.time.is_some(), written.offset.is_some()) {
        (true, false, _) => text
            .parse::<civil::Date>()
            .and_then(midnight_of)
            .and_then(|day| day.to_zoned(TimeZone::UTC))
            .map(|midnight| midnight.timestamp())
            .map_err(|_| "this date lies outside the calendar"),
        (true, true, true) => text.parse().map_err(|_| "this instant lies outside the calendar"),
        (true, true, false) => Err("a date with a time needs an offset, such as 2027-03-31T18:00:00+02:00"),
        _ => Err("a time alone is no date; write one, such as 2027-03-31"),
    }
}

macro_rules! dates {
    ($($name:ident),*) => {$(
        impl $name {
            /// Reads it from other files than TOML, where it is written the same way.
            ///
            /// # Errors
            /// What to write instead.
            pub fn parse(text: &str) -> Result<Self, &'static str> {
                let example = "this is no date; write one such as 2027-03-31, or 2027-03-31T18:00:00+02:00";
                text.parse().map(Self).map_err(|_| example)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Datetime::deserialize(deserializer).map(Self)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "anyOf": [
                    { "type": "string", "format": "date" },
                    { "type": "string", "format": "date-time" },
                ]})
            }
        }
    )*};
}
dates!(Until, Since);

/// Reads `15m`, `1h 30m` or `14d`, where a day is 24 hours.
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<SignedDuration, String> {
    let example = "write a length of time such as \"90s\", \"15m\", \"1h30m\" or \"14d\"";
    text.parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .map_err(|_| example.to_owned())
}

/// Whether `id` has the form of an id in AWS's identity store: a UUID, with or without the store's ten hex digits in
/// front (the pattern of `ResourceId` in the Identity Store API).
#[must_use]
pub fn identity_store_id(id: &str) -> bool {
    let hex = |text: &str, len: usize| text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = id.split('-').collect();
    let uuid = match parts.as_slice() {
        [store, rest @ ..] if parts.len() == 6 && hex(store, 10) => rest,
        all => all,
    };
    uuid.len() == 5 && uuid.iter().zip([8, 4, 4, 4, 12]).all(|(part, len)| hex(part, len))
}

/// Whether `text` holds a control character other than a line break or a tab, which a terminal would obey.
#[must_use]
pub fn unprintable(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_days_of_24_hours() {
        assert_eq!(duration("14d"), Ok(SignedDuration::from_hours(14 * 24)));
        assert_eq!(duration("1h 30m"), Ok(SignedDuration::from_mins(90)));
        assert_eq!(duration("0s"), Ok(SignedDuration::ZERO));
        for bad in ["", "15", "1 month", "soon", "999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn identity_store_ids_have_two_forms() {
        for good in [
            "906670e2f1-6b0e1b3c-1111-2222-3333-444455556666",
            "6b0e1b3c-1111-2222-3333-444455556666",
        ] {
            assert!(identity_store_id(good), "{good}");
        }
        for bad in [
            "payments-prod-readers",
            "906670e2f1-6b0e1b3c-1111-2222-3333",
            "",
            "906670e2f1",
        ] {
            assert!(!identity_store_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_date_lasts_through_its_day_in_utc() {
        let at = |text: &str| {
            #[derive(Deserialize)]
            struct T {
                u: Until,
            }
            toml::from_str::<T>(&format!("u = {text}"))
                .unwrap()
                .u
                .instant()
                .map(|t| t.to_string())
        };
        assert_eq!(at("2027-03-31").unwrap(), "2027-04-01T00:00:00Z");
        assert_eq!(at("2027-03-31T18:00:00+02:00").unwrap(), "2027-03-31T16:00:00Z");
        assert_eq!(at("2027-12-31").unwrap(), "2028-01-01T00:00:00Z");
        assert!(at("2027-03-31T18:00:00").is_err() && at("18:00:00").is_err());
        let since: Since =
            toml::from_str::<std::collections::BTreeMap<String, Since>>("s = 2027-03-31").unwrap()["s"].clone();
        assert_eq!(since.instant().unwrap().to_string(), "2027-03-31T00:00:00Z");
    }
}
