//! Completed trainings and other prerequisites: from members' entries, and from lists that another system writes.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use jiff::Timestamp;

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

const COLUMNS: &str = "the first line names the columns: email,training and, if wanted, since,until";

/// Reads a list: comma-separated values with a first line of names, among them `email` and `training`, and maybe
/// `since` and `until`, which are dates as in policy files. Other columns are for others. People who are members of
/// nothing may be in it.
///
/// A list that ends in the middle of a line or names nobody is refused, because half a list would take access away.
pub(super) fn read(name: String, text: &str, origin_file: &str, into: &mut Completions, report: &mut Report) {
    let source = Arc::new(SourceFile::new(name, text, &[]));
    let mut list = List {
        source: &source,
        text,
        report,
    };
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let columns = match reader.headers() {
        Ok(headers) => {
            let column = |wanted: &str| headers.iter().position(|name| name == wanted);
            (column("email"), column("training"), column("since"), column("until"))
        }
        Err(error) => return list.error(0, error.to_string(), COLUMNS),
    };
    let (Some(email), Some(training), since, until) = columns else {
        return list.error(0, "this is no list of completed trainings", COLUMNS);
    };
    if !text.ends_with('\n') {
        let hint = "another system may still be writing it; have it write a new file and rename that into place";
        return list.error(text.trim_end().len(), "the list ends in the middle of a line", hint);
    }
    let mut rows = 0;
    let mut record = csv::StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                let at = error.position().map_or(0, csv::Position::byte);
                return list.error(place(at), "this line has another number of values than the first", "");
            }
        }
        rows += 1;
        let at = begin(text, place(record.position().map_or(0, csv::Position::byte)));
        let cell = |column: usize| record.get(column).unwrap_or_default();
        let optional = |column: Option<usize>| column.map(cell).filter(|text| !text.is_empty());
        let person = Person::parse(cell(email)).map_err(|error| list.error(at, error.to_string(), ""));
        if cell(training).is_empty() || cell(training).chars().any(char::is_control) {
            list.error(at, "this is not the name of a training", "");
        }
        let dates = (
            optional(since).map_or(Ok(Timestamp::MIN), |text| Since::parse(text)?.instant()),
            optional(until).map_or(Ok(Timestamp::MAX), |text| Until::parse(text)?.instant()),
        );
        let valid = match dates {
            (Ok(since), Ok(until)) => Interval::new(since, until).ok_or("this training ends before it begins"),
            (Err(message), _) | (_, Err(message)) => Err(message),
        };
        let valid = valid.map_err(|message| list.error(at, message, ""));
        if let (Ok(person), Ok(valid)) = (person, valid) {
            let line = u32::try_from(source.line(at)).unwrap_or(u32::MAX);
            let origin = Origin {
                file: origin_file.into(),
                line,
            };
            let trainings = into.entry(person).or_default().entry(cell(training).to_owned());
            trainings.or_default().push(Completion { valid, origin });
        }
    }
    if rows == 0 {
        let hint = "an empty list would take access away, so it is never read as one; remove the file if that is meant";
        list.error(0, "the list names nobody", hint);
    }
}

fn place(byte: u64) -> usize {
    usize::try_from(byte).unwrap_or(usize::MAX)
}

/// Where a record begins: its position may be that of the line breaks before it.
fn begin(text: &str, at: usize) -> usize {
    let rest = &text[text.floor_char_boundary(at)..];
    text.len() - rest.trim_start_matches(['\r', '\n']).len()
}

struct List<'a> {
    source: &'a Arc<SourceFile>,
    text: &'a str,
    report: &'a mut Report,
}

impl List<'_> {
    /// Points at a whole line.
    fn error(&mut self, at: usize, message: impl AsRef<str>, hint: &str) {
        let start = begin(self.text, at);
        let end = self.text[start..]
            .find(['\r', '\n'])
            .map_or(self.text.len(), |n| start + n);
        let span: Range<usize> = start..end;
        let error = Diagnostic::error("bad-training", self.source, span, message);
        self.report
            .push(error.hint_if((!hint.is_empty()).then(|| hint.to_owned())));
    }
}
