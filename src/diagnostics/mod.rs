//! Mistakes in files that people wrote: collected, sorted, and shown with file, line, column and a caret.

use std::{cmp::Ordering, fmt, ops::Range, sync::Arc};

use crate::text::hides;

mod render;

/// Whether a mistake prevents loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The file does not load.
    Error,
    /// The file loads; a person should look at it.
    Warning,
}

/// A file as it may be shown: the same byte offsets as the file itself, with secrets and control characters replaced.
pub struct SourceFile {
    name: String,
    shown: String,
    masked: Vec<Range<usize>>,
    line_starts: Vec<usize>,
}

impl SourceFile {
    /// Keeps `text` for display. The bytes in `masked` are replaced by asterisks, because they may be a secret.
    #[must_use]
    pub fn new(name: impl Into<String>, text: &str, masked: &[Range<usize>]) -> Self {
        let name = escape(&name.into());
        let shown = match masked.is_empty() && text.bytes().all(is_plain) {
            true => text.to_owned(),
            false => covered(text, masked),
        };
        let newlines = shown.match_indices('\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(newlines).collect();
        Self {
            name,
            shown,
            masked: masked.to_vec(),
            line_starts,
        }
    }

    /// A file of which nothing could be read.
    #[must_use]
    pub fn unread(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self::new(name, "", &[]))
    }

    /// The path as given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether some of these bytes may belong to a secret, so that no message may repeat them.
    #[must_use]
    pub fn hides(&self, span: &Range<usize>) -> bool {
        let overlaps = |masked: &Range<usize>| masked.start < span.end && span.start < masked.end;
        self.masked.iter().any(overlaps)
    }

    /// Line and column of a byte offset, both counted from 1, columns in characters.
    #[must_use]
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let before = self.shown.get(self.line_starts[line - 1]..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    /// The line of a byte offset, counted from 1.
    #[must_use]
    pub fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).max(1)
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFile")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// One mistake, in one place.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// Whether it prevents loading.
    pub severity: Severity,
    /// A stable name of the kind of mistake, for machines.
    pub code: &'static str,
    /// The file.
    pub source: Arc<SourceFile>,
    /// The bytes that are wrong; `None` when the file as a whole is.
    pub span: Option<Range<usize>>,
    /// What is wrong, in one sentence fragment.
    pub message: String,
    /// A few words under the caret.
    pub label: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    #[must_use]
    pub fn error(code: &'static str, source: &Arc<SourceFile>, span: Range<usize>, message: impl AsRef<str>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            source: Arc::clone(source),
            span: Some(span),
            message: escape(message.as_ref()),
            label: None,
            hint: None,
        }
    }

    /// A warning at a place.
    #[must_use]
    pub fn warning(code: &'static str, source: &Arc<SourceFile>, span: Range<usize>, message: impl AsRef<str>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, source, span, message)
        }
    }

    /// An error about a file or directory as a whole.
    #[must_use]
    pub fn whole_file(code: &'static str, path: &str, message: impl AsRef<str>) -> Self {
        Self {
            span: None,
            ..Self::error(code, &SourceFile::unread(path), 0..0, message)
        }
    }

    /// The same as a warning.
    #[must_use]
    pub fn into_warning(self) -> Self {
        Self {
            severity: Severity::Warning,
            ..self
        }
    }

    /// Adds the words under the caret.
    #[must_use]
    pub fn label(mut self, label: impl AsRef<str>) -> Self {
        self.label = Some(escape(label.as_ref()));
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = Some(escape(hint.as_ref()));
        self
    }

    /// Adds what to do next, where there is something to say.
    #[must_use]
    pub fn hint_if(self, hint: Option<String>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// `file:line:column`, or the file alone.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.span {
            None => self.source.name().to_owned(),
            Some(span) => {
                let (line, column) = self.source.position(span.start);
                format!("{}:{line}:{column}", self.source.name())
            }
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        let key = |d: &Self| (d.span.as_ref().map(|s| (s.start, s.end)), d.severity, d.code);
        let files = self.source.name().cmp(other.source.name());
        files
            .then_with(|| key(self).cmp(&key(other)))
            .then_with(|| self.message.cmp(&other.message))
    }
}

/// Every mistake of one run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Adds many.
    pub fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        self.diagnostics.extend(diagnostics);
    }

    /// Sorts by file and position, and drops what was said twice.
    pub fn sort(&mut self) {
        self.diagnostics.sort_by(Diagnostic::order);
        self.diagnostics
            .dedup_by(|a, b| a.order(b) == Ordering::Equal && a.hint == b.hint);
    }

    /// In the order in which they are shown, once sorted.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Gives the diagnostics away.
    #[must_use]
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics
    }

    /// How many errors and how many warnings.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let errors = self
            .diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error)
            .count();
        (errors, self.diagnostics.len() - errors)
    }

    /// Whether anything prevents loading.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.counts().0 > 0
    }

    /// As text for people, each with its line and a caret. ANSI colours only when asked for.
    #[must_use]
    pub fn to_text(&self, colour: bool) -> String {
        render::text(&self.diagnostics, colour)
    }

    /// As a JSON array, one object for each, for CI annotations.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.diagnostics.iter().map(render::json).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (errors, _) = self.counts();
        let first = self.diagnostics.iter().find(|d| d.severity == Severity::Error);
        match first {
            None => f.write_str("no mistakes"),
            Some(d) if errors == 1 => write!(f, "{}: {}", d.place(), d.message),
            Some(d) => write!(f, "{errors} mistakes, the first at {}: {}", d.place(), d.message),
        }
    }
}

impl std::error::Error for Report {}

impl From<Diagnostic> for Report {
    fn from(diagnostic: Diagnostic) -> Self {
        Self {
            diagnostics: vec![diagnostic],
        }
    }
}

/// The known name that `wanted` was probably meant to be, as "did you mean `x`?".
#[must_use]
pub fn did_you_mean<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(wanted, known).map(|name| format!("did you mean `{name}`?"))
}

/// The known name nearest to `wanted`, if it is near at all.
pub(crate) fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wanted.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&lower, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, name)| name)
}

/// Control characters and characters that reorder text would let a file write to the reader's terminal.
fn is_unsafe(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || hides(c)
}

/// What files mostly consist of, and is shown as it is.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r' | b'\t' | b' '..=b'~')
}

/// The text with stand-ins for what must not be shown, each as long as what it stands for, so that every span still fits.
fn covered(text: &str, masked: &[Range<usize>]) -> String {
    let mut shown = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        if c != '\n' && c != '\r' && masked.iter().any(|range| range.contains(&at)) {
            shown.extend(std::iter::repeat_n('*', c.len_utf8()));
        } else if is_unsafe(c) {
            shown.push_str(match c.len_utf8() {
                1 => "?",
                2 => "\u{b7}",
                3 => "\u{fffd}",
                _ => "????",
            });
        } else {
            shown.push(c);
        }
    }
    shown
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // A line break would let a name in a file look like a line of the log.
        if c.is_control() {
            out.extend(c.escape_debug());
        } else if is_unsafe(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str, span: Range<usize>) -> Report {
        let source = Arc::new(SourceFile::new("access.d/a.toml", text, &[]));
        let mut report = Report::default();
        report.push(
            Diagnostic::error("unknown-key", &source, span, "unknown key `nam`")
                .label("not a key of [project]")
                .hint("did you mean `name`?"),
        );
        report
    }

    #[test]
    fn text_has_place_caret_label_and_hint() {
        let text = sample("# first\n[project]\nnam = 'ünü'\n", 18..21).to_text(false);
        assert_eq!(
            text,
            "error[unknown-key]: unknown key `nam`\n \
             --> access.d/a.toml:3:1\n  \
             |\n\
             3 | nam = 'ünü'\n  \
             | ^^^ not a key of [project]\n  \
             |\n  \
             = help: did you mean `name`?\n"
        );
    }

    #[test]
    fn what_is_taken_as_it_is_needs_no_cover() {
        for c in '\0'..='\u{ff}' {
            let text = format!("a{c}b");
            assert_eq!(
                SourceFile::new("a.toml", &text, &[]).shown,
                covered(&text, &[]),
                "{c:?}"
            );
        }
    }

    #[test]
    fn nothing_from_a_file_reaches_the_terminal_raw() {
        let evil = "a = '\u{1b}[31m \u{9b}31m \u{202e} \u{7} \u{e0041}'\n";
        let source = Arc::new(SourceFile::new("a\u{1b}[2J.toml", evil, &[]));
        let mut report = Report::default();
        report.push(
            Diagnostic::error("x", &source, 0..1, format!("odd {evil}"))
                .hint(evil)
                .label(evil),
        );
        let text = report.to_text(false);
        assert!(text.chars().all(|c| !is_unsafe(c)), "{text:?}");
        assert!(!report.to_string().contains('\n'), "{report}");
        assert!(report.to_json().to_string().chars().all(|c| !is_unsafe(c)));
    }

    #[test]
    fn masked_bytes_are_not_shown_and_spans_still_fit() {
        let text = "token = 'hünter2'\nnext = 1\n";
        let start = text.find('\'').unwrap();
        let end = text.find('\n').unwrap();
        let source = Arc::new(SourceFile::new("c.toml", text, std::slice::from_ref(&(start..end))));
        let next = text.find("next").unwrap();
        assert_eq!(source.position(next), (2, 1));
        let mut report = Report::default();
        report.push(Diagnostic::error("x", &source, start..end, "no"));
        assert!(!report.to_text(false).contains("nter2"));
        assert!(report.to_text(false).contains("token = *"));
    }

    #[test]
    fn sorted_by_place_and_said_once() {
        let source = Arc::new(SourceFile::new("b.toml", "one\ntwo\n", &[]));
        let other = Arc::new(SourceFile::new("a.toml", "one\n", &[]));
        let mut report = Report::default();
        report.push(Diagnostic::error("x", &source, 4..7, "second"));
        report.push(Diagnostic::warning("x", &source, 0..3, "first"));
        report.push(Diagnostic::error("x", &source, 4..7, "second"));
        report.push(Diagnostic::error("x", &other, 0..3, "other file"));
        report.sort();
        let messages: Vec<&str> = report.diagnostics().iter().map(|d| d.message.as_str()).collect();
        assert_eq!(messages, ["other file", "first", "second"]);
        assert_eq!(report.counts(), (2, 1));
        assert_eq!(report.to_string(), "2 mistakes, the first at a.toml:1:1: other file");
    }

    #[test]
    fn json_names_the_place() {
        let json = sample("# first\n[project]\nnam = 'x'\n", 18..21).to_json();
        assert_eq!(
            json,
            serde_json::json!([{
                "file": "access.d/a.toml", "line": 3, "column": 1, "end_line": 3, "end_column": 4,
                "severity": "error", "code": "unknown-key", "message": "unknown key `nam`",
                "hint": "did you mean `name`?",
            }])
        );
    }
}
