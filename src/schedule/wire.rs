//! Reads untrusted provider text: instants, ids, and messages that are shown to people.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::objects;
use crate::text;

/// Why a provider's answer was not understood, in a sentence fragment that is safe to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(String);

impl DecodeError {
    /// Describes what was wrong; everything that came from the provider is made safe to show.
    #[must_use]
    pub fn new(what: &str) -> Self {
        Self(one_line(what))
    }
}

/// Parses a complete JSON document.
///
/// # Errors
/// [`DecodeError`] with the place and the kind of mistake, for HTML, empty and truncated bodies alike.
pub fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, DecodeError> {
    objects::from_slice(body).map_err(|error| {
        let start = body.iter().find(|byte| !byte.is_ascii_whitespace());
        let looks = match start {
            None => "an empty body where JSON was expected".to_owned(),
            Some(b'<') => "HTML or XML where JSON was expected".to_owned(),
            Some(_) => format!("JSON of an unexpected form ({error})"),
        };
        DecodeError::new(&looks)
    })
}

/// An instant as providers write it: RFC 3339 with any offset and any number of fractional digits.
///
/// Digits past the nanosecond are cut and never rounded, so that an end is never later than what was written.
/// A time without an offset is refused, because guessing its zone could move a shift by hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub Timestamp);

impl Instant {
    /// # Errors
    /// [`DecodeError`] for anything that is not such an instant.
    pub fn parse(text: &str) -> Result<Self, DecodeError> {
        let refuse = || DecodeError::new(&format!("{text:?} is not a time with an offset"));
        if text.len() > 100 {
            return Err(refuse());
        }
        let mut kept = String::with_capacity(text.len());
        let mut digits = None;
        for c in text.chars() {
            match digits {
                Some(n) if c.is_ascii_digit() => {
                    digits = Some(n + 1);
                    if n >= 9 {
                        continue;
                    }
                }
                Some(_) => digits = None,
                None if c == '.' => digits = Some(0),
                None => {}
            }
            kept.push(c);
        }
        kept.parse().map(Self).map_err(|_| refuse())
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// A provider's id: not empty, at most 200 bytes, without white space and control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub String);

impl Id {
    /// `None` when the text is not an id.
    #[must_use]
    pub fn new(text: String) -> Option<Self> {
        let usable =
            !text.is_empty() && text.len() <= 200 && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        usable.then_some(Self(text))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(text).ok_or_else(|| de::Error::custom("an id that is empty, too long or has white space"))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text made safe to show: one line of at most 200 characters, in which nothing can steer a terminal or
/// reorder what is read.
#[must_use]
pub fn one_line(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut line = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == LONGEST {
            line.push('…');
            break;
        }
        if c.is_control() || text::hides(c) {
            line.extend(c.escape_unicode());
        } else {
            line.push(c);
        }
    }
    line
}

/// What a provider says about a refusal, where its body says anything.
///
/// PagerDuty documents `{"error":{"message","code","errors":[…]}}`; in reality `errors` has been a string, an
/// object or an array and `error` itself an array. Opsgenie sends `{"message","code"}`, OAuth servers
/// `{"error","error_description"}`. Anything else gives `None`. What stands in `secrets` is taken out, should the
/// provider echo it.
#[must_use]
pub fn refusal(body: &[u8], secrets: &[&str]) -> Option<Refusal> {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let inner = match value.get("error") {
        Some(object @ Value::Object(_)) => object,
        _ => &value,
    };
    let parts: Vec<String> = [
        inner.get("message"),
        inner.get("errors"),
        value.get("error"),
        value.get("error_description"),
    ]
    .into_iter()
    .flatten()
    .map(plain)
    .filter(|part| !part.is_empty())
    .collect();
    let code = inner.get("code").and_then(Value::as_i64);
    if parts.is_empty() && code.is_none() {
        return None;
    }
    let mut text = parts.join(": ");
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "[secret]");
    }
    Some(Refusal {
        text: one_line(&text),
        code,
    })
}

/// A provider's own words about a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its message, safe to show; may be empty.
    pub text: String,
    /// Its error code.
    pub code: Option<i64>,
}

/// The strings inside a JSON value, without the object's own "error" envelope.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(fields) if fields.contains_key("message") => String::new(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| format!("{key} {}", plain(value)))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_37_fractional_seconds_are_exact_and_never_round_up() {
        let parse = |text| Instant::parse(text).map(|i| i.0.to_string());
        assert_eq!(parse("2026-01-06T08:11:21.263Z").unwrap(), "2026-01-06T08:11:21.263Z");
        assert_eq!(
            parse("2026-01-06T08:11:21.999999999999Z").unwrap(),
            "2026-01-06T08:11:21.999999999Z"
        );
        assert_eq!(
            parse("2026-01-06T08:11:21.1234567891+05:30").unwrap(),
            "2026-01-06T02:41:21.123456789Z"
        );
    }

    #[test]
    fn case_35_offsets_do_not_matter_and_must_be_there() {
        let same = [
            "2026-03-02T09:00:00-05:00",
            "2026-03-02T14:00:00Z",
            "2026-03-02T14:00:00+00:00",
        ];
        for text in same {
            assert_eq!(
                Instant::parse(text).unwrap(),
                Instant::parse(same[1]).unwrap(),
                "{text}"
            );
        }
        for bad in ["", "2026-03-02", "2026-03-02T09:00:00", "now", "2026-13-02T09:00:00Z"] {
            assert!(Instant::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn case_48_error_bodies_of_every_seen_form_are_read() {
        let text = |body: &str| refusal(body.as_bytes(), &[]).map(|r| (r.text, r.code));
        let says = |message: &str, code| Some((message.to_owned(), code));
        assert_eq!(
            text(r#"{"error":{"message":"Invalid","code":2001,"errors":["a","b"]}}"#),
            says("Invalid: a, b", Some(2001))
        );
        assert_eq!(
            text(r#"{"error":{"message":"Invalid","errors":"only"}}"#),
            says("Invalid: only", None)
        );
        assert_eq!(
            text(r#"{"error":{"message":"Invalid","errors":{"a.b":["bad"]}}}"#),
            says("Invalid: a.b bad", None)
        );
        assert_eq!(text(r#"{"error":["bad"]}"#), says("bad", None));
        assert_eq!(
            text(r#"{"message":"No","code":40301,"took":0.1}"#),
            says("No", Some(40301))
        );
        for nothing in ["", "<html>", "{}", "null", "[]", r#"{"error":null}"#] {
            assert_eq!(text(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn shown_text_is_one_short_line() {
        assert_eq!(one_line("a\u{1b}[31mb\nc\u{202e}d"), "a\\u{1b}[31mb\\u{a}c\\u{202e}d");
        assert_eq!(one_line(&"x".repeat(5000)).chars().count(), 201);
    }
}
