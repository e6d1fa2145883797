//! Completed trainings and other prerequisites: from members' entries, and from lists that another system writes.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    diagnostics::{Diagnostic, Report, SourceFile},
    document::{Since, Until},
    model::{Interval, Origin, Person},
};

/// That somebody completed a training, and when it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// From when until when. Several of the same training add up.
    pub valid: Interval,
    /// Where it stands.
    pub origin: Origin,
}

/// Completions by person and training.
pub(super) type Completions = BTreeMap<Person, BTreeMap<String, Vec<Completion>>>;

/// A list as another system wrote it.
pub(super) struct List {
    pub(super) source: Arc<SourceFile>,
    /// What of it makes sense.
    pub(super) rows: Vec<Row>,
}

/// One line of a list that makes sense.
pub(super) struct Row {
    pub(super) at: Range<usize>,
    pub(super) person: Person,
    pub(super) training: String,
    pub(super) valid: Interval,
}

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    /// Comma-separated values with a first line of names.
    Csv,
    /// An array of objects.
    Json,
}

const COLUMNS: &str = "the first line names the columns: email,training and, if wanted, since,until";
const OBJECTS: &str = "a list is an array of objects such as \
    { \"email\": \"alice@example.com\", \"training\": \"pci\", \"until\": \"2027-03-31\" }";
const HALF: &str = "another system may still be writing it; have it write a new file and rename that into place";

/// What one line or object says, not yet understood.
#[derive(Deserialize)]
struct Said {
    email: Option<String>,
    training: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

/// Reads a list of who completed what, each with `email` and `training` and maybe `since` and `until`, which are dates as
/// in policy files. What else it says is for others. People who are members of nothing may be in it.
///
/// A list that ends in the middle or names nobody is refused, because half a list would take access away.
pub(super) fn read(
    name: String,
    text: &str,
    format: Format,
    origin_file: &str,
    into: &mut Completions,
    report: &mut Report,
) -> List {
    let mut reading = Reading {
        list: List {
            source: Arc::new(SourceFile::new(name, text, &[])),
            rows: Vec::new(),
        },
        text,
        origin_file,
        into,
        report,
    };
    let read = match format {
        Format::Csv => reading.csv(),
        Format::Json => reading.json(),
    };
    if read == Some(0) {
        let hint = "an empty list would take access away, so it is never read as one; remove the file if that is meant";
        reading.error(0, "the list names nobody", hint);
    }
    reading.list
}

struct Reading<'a> {
    list: List,
    text: &'a str,
    origin_file: &'a str,
    into: &'a mut Completions,
    report: &'a mut Report,
}

impl Reading<'_> {
    /// How many lines it has; `None` where it cannot be read as a list, which is reported.
    fn csv(&mut self) -> Option<usize> {
        let text = self.text;
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let columns = match reader.headers() {
            Ok(headers) => {
                let column = |wanted: &str| headers.iter().position(|name| name == wanted);
                (column("email"), column("training"), column("since"), column("until"))
            }
            Err(error) => return self.error(0, error.to_string(), COLUMNS),
        };
        let (Some(email), Some(training), since, until) = columns else {
            return self.error(0, "this is no list of completed trainings", COLUMNS);
        };
        if !text.ends_with('\n') {
            return self.error(text.trim_end().len(), "the list ends in the middle of a line", HALF);
        }
        let mut rows = 0;
        let mut record = csv::StringRecord::new();
        loop {
            match reader.read_record(&mut record) {
                Ok(true) => {}
                Ok(false) => return Some(rows),
                Err(error) => {
                    let at = error.position().map_or(0, csv::Position::byte);
                    let message = "this line has another number of values than the first";
                    let hint = "give it a value or nothing between commas for each column; a value with a comma in it \
                                stands in quotes";
                    return self.error(place(at), message, hint);
                }
            }
            rows += 1;
            let at = begin(text, place(record.position().map_or(0, csv::Position::byte)));
            let cell = |column: usize| record.get(column).map(str::to_owned);
            self.take(
                at,
                Said {
                    email: cell(email),
                    training: cell(training),
                    since: since.and_then(cell),
                    until: until.and_then(cell),
                },
            );
        }
    }

    /// How many objects it has; `None` where it cannot be read as a list, which is reported.
    fn json(&mut self) -> Option<usize> {
        let text = self.text;
        let objects: Vec<&RawValue> = match serde_json::from_str(text) {
            Ok(objects) => objects,
            Err(error) => {
                let lines = text.split_inclusive('\n');
                let before: usize = lines.take(error.line().saturating_sub(1)).map(str::len).sum();
                return if error.is_eof() {
                    self.error(before, "the list ends in the middle", HALF)
                } else {
                    self.error(before, reason(&error), OBJECTS)
                };
            }
        };
        for object in &objects {
            // Where the object stands in the text that it is a part of.
            let at = (object.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
            match serde_json::from_str(object.get()) {
                Ok(said) => self.take(at, said),
                Err(error) => drop(self.error(at, reason(&error), OBJECTS)),
            }
        }
        Some(objects.len())
    }

    fn take(&mut self, at: usize, said: Said) {
        let email = said.email.unwrap_or_default();
        let person = Person::parse(&email).map_err(|error| {
            self.error(
                at,
                error.to_string(),
                "write the address that their [[member]] entry has",
            );
        });
        let training = said.training.unwrap_or_default();
        if training.is_empty() || training.chars().any(char::is_control) {
            let hint = "write the name by which a rule `requires` it";
            self.error(at, "this is not the name of a training", hint);
        }
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let since = given(said.since).map_or(Ok(Timestamp::MIN), |text| {
            let since = Since::parse(&text).and_then(|since| since.instant());
            since.map_err(|message| unreadable("since", &text, message))
        });
        let until = given(said.until).map_or(Ok(Timestamp::MAX), |text| {
            let until = Until::parse(&text).and_then(|until| until.instant());
            until.map_err(|message| unreadable("until", &text, message))
        });
        let valid = match (since, until) {
            (Ok(since), Ok(until)) => Interval::new(since, until).ok_or_else(|| {
                let message = "this training ends before it begins".to_owned();
                (message, "exchange `since` and `until`, or correct one".to_owned())
            }),
            (Err(wrong), _) | (_, Err(wrong)) => Err(wrong),
        };
        let valid = valid.map_err(|(message, hint)| self.error(at, message, &hint));
        if let (Ok(person), Ok(valid)) = (person, valid) {
            let line = u32::try_from(self.list.source.line(at)).unwrap_or(u32::MAX);
            let origin = Origin {
                file: self.origin_file.into(),
                line,
            };
            let trainings = self.into.entry(person.clone()).or_default();
            let completions = trainings.entry(training.clone()).or_default();
            completions.push(Completion { valid, origin });
            let at = self.line(at);
            self.list.rows.push(Row {
                at,
                person,
                training,
                valid,
            });
        }
    }

    /// Points at a whole line. `None`, which stands for no number of lines.
    fn error(&mut self, at: usize, message: impl AsRef<str>, hint: &str) -> Option<usize> {
        let error = Diagnostic::error("bad-training", &self.list.source, self.line(at), message);
        self.report
            .push(error.hint_if((!hint.is_empty()).then(|| hint.to_owned())));
        None
    }

    fn line(&self, at: usize) -> Range<usize> {
        let start = begin(self.text, at);
        let end = self.text[start..]
            .find(['\r', '\n'])
            .map_or(self.text.len(), |n| start + n);
        start..end
    }
}

/// Why a date is none, and what to write.
fn unreadable(column: &str, text: &str, message: &str) -> (String, String) {
    let mut parts = text.get(..10).unwrap_or(text).splitn(3, '-');
    let number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u16>().is_ok());
    if number(parts.next()) && number(parts.next()) && number(parts.next()) && message.contains("no date") {
        let hint = "write a day of the calendar, such as 2027-03-31";
        return (
            format!("`{column}` is {text:?}, and there is no such day"),
            hint.to_owned(),
        );
    }
    let (what, hint) = message.split_once("; ").unwrap_or((message, ""));
    (format!("`{column}` is {text:?}: {what}"), hint.to_owned())
}

/// What serde found wrong, without the place, which is shown.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

fn place(byte: u64) -> usize {
    usize::try_from(byte).unwrap_or(usize::MAX)
}

/// Where a record begins: its position may be that of the line breaks before it.
fn begin(text: &str, at: usize) -> usize {
    let rest = &text[text.floor_char_boundary(at)..];
    text.len() - rest.trim_start_matches(['\r', '\n']).len()
}
