//! What every validation of a file does: report at a place, demand a key, read an address or a length of time.

use std::{
    ops::{Range, RangeInclusive},
    sync::Arc,
};

use jiff::{SignedDuration, tz::TimeZone};

use super::{At, Holes, duration};
use crate::{
    diagnostics::{Diagnostic, Report, SourceFile, did_you_mean},
    model::Person,
};

/// Collects the mistakes of one file while its values are read.
pub struct Findings<'a> {
    /// The file.
    pub source: &'a Arc<SourceFile>,
    /// What in it was not understood already.
    pub holes: &'a Holes,
    /// Where mistakes go.
    pub report: &'a mut Report,
}

impl Findings<'_> {
    /// Reports an error with what to do next, which may be empty where the message says it all.
    pub fn error(&mut self, code: &'static str, span: &Range<usize>, message: impl AsRef<str>, hint: impl AsRef<str>) {
        let hint = (!hint.as_ref().is_empty()).then(|| hint.as_ref().to_owned());
        let diagnostic = Diagnostic::error(code, self.source, span.clone(), message);
        self.report.push(diagnostic.hint_if(hint));
    }

    /// The value under a required key. Reports a missing one, unless a mistake already reported explains it.
    pub fn required<'v, T>(
        &mut self,
        value: Option<&'v T>,
        table: &Range<usize>,
        place: &str,
        key: &str,
        example: &str,
    ) -> Option<&'v T> {
        if value.is_none() && !self.holes.explain(table, key) {
            let message = format!("{place} has no `{key}`");
            self.error("missing-key", table, message, format!("add {key} = {example}"));
        }
        value
    }

    /// A name: up to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit.
    pub fn name<'v>(&mut self, name: &'v str, at: &Range<usize>) -> Option<&'v str> {
        let valid = name.len() <= 64
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !valid {
            self.error(
                "bad-name",
                at,
                "this is not a name",
                "a name has up to 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit",
            );
        }
        valid.then_some(name)
    }

    /// A person by e-mail address.
    pub fn person(&mut self, email: &At<String>) -> Option<Person> {
        match Person::parse(&email.value) {
            Ok(person) => Some(person),
            Err(error) => {
                let hint = "write an address such as \"alice@example.com\"";
                self.error("bad-email", email.span(), error.to_string(), hint);
                None
            }
        }
    }

    /// A time zone by its IANA name.
    pub fn zone(&mut self, name: &At<String>) -> Option<TimeZone> {
        let zone = TimeZone::get(&name.value).ok();
        if zone.is_none() {
            let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
            let hint = did_you_mean(&name.value, known.iter().map(String::as_str));
            let hint = hint.unwrap_or_else(|| "give an IANA name, such as \"Europe/Berlin\" or \"UTC\"".to_owned());
            self.error("unknown-zone", name.span(), "there is no such time zone", hint);
        }
        zone
    }

    /// A length of time within bounds.
    pub fn duration(&mut self, text: &At<String>, bounds: RangeInclusive<SignedDuration>) -> Option<SignedDuration> {
        let (least, most) = (*bounds.start(), *bounds.end());
        let message = match duration(&text.value) {
            Ok(length) if bounds.contains(&length) => return Some(length),
            Ok(length) if length < least => format!("{} is too short", text.value),
            Ok(_) => format!("{} is too long", text.value),
            Err(hint) => {
                self.error("bad-duration", text.span(), "this is not a length of time", hint);
                return None;
            }
        };
        let hint = format!("write between {least:#} and {most:#}");
        self.error("bad-duration", text.span(), message, hint);
        None
    }
}
