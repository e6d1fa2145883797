//! The words of the TOML parser and of serde, in the words of people who edit files.

use std::{collections::HashSet, ops::Range, sync::Arc};

use super::MOST_MISTAKES;
use crate::diagnostics::{Diagnostic, SourceFile, did_you_mean};

/// What breaks TOML's syntax: the first error of each line, without those that only follow from an open bracket.
pub(super) struct Syntax<'a> {
    text: &'a str,
    /// Where each line begins.
    line_starts: Vec<usize>,
    errors: Vec<(Range<usize>, String)>,
    /// The lines that have an error.
    lines: HashSet<usize>,
    beyond_recovery: bool,
    truncated: bool,
}

impl<'a> Syntax<'a> {
    pub(super) fn new(text: &'a str, found: &[toml::de::Error]) -> Self {
        let mut errors: Vec<(Range<usize>, String)> = found
            .iter()
            .map(|e| (e.span().unwrap_or(0..0), e.message().to_owned()))
            .collect();
        errors.sort_by_key(|(span, _)| (span.start, span.end));
        let unclosed = errors.iter().position(|(_, message)| message.starts_with("unclosed"));
        let endless = |(_, message): &(Range<usize>, String)| message.starts_with("invalid multi-line");
        let beyond_recovery = unclosed.is_some()
            || errors.iter().any(endless)
            || errors
                .iter()
                .any(|(span, _)| line_of(text, span.start).trim_start().starts_with(['[', '<', '>']));
        if let Some(unclosed) = unclosed {
            // Everything between the missing comma and the place where the parser gave up is a consequence.
            let first = errors[..=unclosed]
                .iter()
                .position(|(_, message)| message.starts_with("missing comma") || message.starts_with("unclosed"));
            let end = errors[unclosed].0.clone();
            let first = first.unwrap_or(unclosed);
            let start = errors[first].0.start;
            let what = errors[unclosed].1.clone();
            errors[first].1 = what;
            // The bracket is missing after the last value, not where the next line begins.
            let after = text[..start].trim_end().len();
            errors[first].0 = after..after;
            let kept = errors[first].clone();
            errors.retain(|(span, _)| span.start < start || span.start > end.start);
            errors.push(kept);
            errors.sort_by_key(|(span, _)| (span.start, span.end));
        }
        let line_starts: Vec<usize> = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        let line = |offset: usize| line_starts.partition_point(|start| *start <= offset);
        errors.dedup_by_key(|(span, _)| line(span.start));
        let truncated = errors.len() > MOST_MISTAKES;
        errors.truncate(MOST_MISTAKES);
        Self {
            text,
            lines: errors.iter().map(|(span, _)| line(span.start)).collect(),
            line_starts,
            errors,
            beyond_recovery: beyond_recovery || truncated,
            truncated,
        }
    }

    pub(super) fn any(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Whether a bracket or header is broken, so that keys may seem to stand where they do not.
    pub(super) fn beyond_recovery(&self) -> bool {
        self.beyond_recovery
    }

    /// Whether a syntax error was already reported for this line.
    pub(super) fn covers(&self, offset: usize) -> bool {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        self.lines.contains(&line)
    }

    pub(super) fn diagnostics(&self, source: &Arc<SourceFile>) -> Vec<Diagnostic> {
        let told = self.errors.iter().map(|(span, message)| {
            let (message, hint) = self.reword(source, span, message);
            let rest = "the rest of this file is checked once this is fixed";
            let hint = hint.or_else(|| self.beyond_recovery.then_some(rest));
            Diagnostic::error("syntax", source, span.clone(), message).hint_if(hint.map(str::to_owned))
        });
        told.chain(self.truncated.then(|| too_many(source))).collect()
    }

    fn reword(&self, source: &SourceFile, span: &Range<usize>, message: &str) -> (String, Option<&'static str>) {
        let found = self.text.get(span.clone()).unwrap_or_default();
        let quoted = if source.hides(span) {
            "this".to_owned()
        } else {
            format!("`{found}`")
        };
        let line = line_of(self.text, span.start);
        let conflict = ["<<<<<<<", "=======", ">>>>>>>"].iter().any(|m| line.starts_with(m));
        if conflict {
            (
                "a marker of an unresolved merge conflict".to_owned(),
                Some("resolve the conflict in Git"),
            )
        } else if message == "duplicate key" {
            (
                format!("{quoted} is given twice"),
                Some("keep one; a table that may repeat has double brackets, such as [[rule]]"),
            )
        } else if message.contains("leading zero") {
            (
                "a number must not begin with 0".to_owned(),
                Some("an account id is text: write it in quotes, account = \"012345678901\""),
            )
        } else if message.starts_with("string values must be quoted") && found.is_empty() {
            ("a value is missing".to_owned(), None)
        } else if message.starts_with("string values must be quoted") || message.starts_with("invalid boolean") {
            (
                format!("{quoted} is not a value"),
                Some("text needs quotes; otherwise write true, false, a number or a date"),
            )
        } else if message.starts_with("invalid basic string, expected `\"`")
            || message.starts_with("invalid literal string, expected `'`")
        {
            ("the text has no closing quote".to_owned(), None)
        } else {
            (message.to_owned(), None)
        }
    }
}

fn line_of(text: &str, offset: usize) -> &str {
    let offset = offset.min(text.len());
    let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    text[start..].lines().next().unwrap_or_default()
}

/// Says that a file has more mistakes than are shown.
pub(super) fn too_many(source: &Arc<SourceFile>) -> Diagnostic {
    let message = format!("the file has more than {MOST_MISTAKES} mistakes; only the first of them are shown");
    Diagnostic::error("too-many", source, 0..0, message).hint("is this a policy or configuration file at all?")
}

/// A key that does not exist, or a value of the wrong type.
pub(super) fn structural(source: &Arc<SourceFile>, at: Range<usize>, message: &str, place: &str) -> Diagnostic {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let mut names = rest.split('`').skip(1).step_by(2);
        let wrong = names.next().unwrap_or_default();
        let known: Vec<&str> = names.collect();
        let hint = did_you_mean(wrong, known.iter().copied()).unwrap_or_else(|| all_keys(place, &known));
        return Diagnostic::error("unknown-key", source, at, format!("unknown key `{wrong}`"))
            .label(format!("not a key of {place}"))
            .hint(hint);
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let mut names = rest.split('`').skip(1).step_by(2);
        let wrong = names.next().unwrap_or_default();
        let known: Vec<&str> = names.collect();
        let hint = did_you_mean(wrong, known.iter().copied()).unwrap_or_else(|| format!("write {}", listed(&known)));
        let message = if source.hides(&at) {
            "this value is not known here".to_owned()
        } else {
            format!("`{}` is not known here", shortened(wrong))
        };
        return Diagnostic::error("wrong-value", source, at, message).hint(hint);
    }
    let mismatch = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "));
    if let Some((found, expected)) = mismatch {
        let (hint, found) = if source.hides(&at) {
            (None, "something else".to_owned())
        } else {
            (rewritten(found, expected), given(&shortened(found)))
        };
        let text = format!("expected {}, found {found}", wanted(expected));
        return Diagnostic::error("wrong-type", source, at, text).hint_if(hint);
    }
    match message.split_once('\n') {
        Some((message, hint)) => Diagnostic::error("wrong-value", source, at, message).hint(hint),
        None => Diagnostic::error("wrong-value", source, at, message),
    }
}

/// How the value that was found is written as what was expected.
fn rewritten(found: &str, expected: &str) -> Option<String> {
    if expected.contains("datetime") {
        let is_text = found.starts_with("string");
        return is_text.then(|| "dates are written without quotes, such as 2027-03-31".to_owned());
    }
    let text = found.strip_prefix("string \"").and_then(|rest| rest.strip_suffix('"'));
    let number = found.strip_prefix("integer `").and_then(|rest| rest.strip_suffix('`'));
    match (expected, text, number) {
        ("a string", None, Some(n)) => Some(format!(
            "write it in quotes, \"{n}\"; a length of time has its unit too, such as \"{n}m\""
        )),
        ("a sequence", Some(text), None) => Some(format!("write it in brackets: [\"{}\"]", shortened(text))),
        ("u16" | "u32" | "u64" | "usize", Some(n), None) if n.parse::<u64>().is_ok() => {
            Some(format!("write it without quotes: {n}"))
        }
        ("a boolean", Some(word @ ("true" | "false")), None) => Some(format!("write it without quotes: {word}")),
        _ => None,
    }
}

/// As much of a value as helps to recognise it.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn all_keys(place: &str, known: &[&str]) -> String {
    match known {
        [] => format!("{place} has no keys"),
        [only] => format!("the only key of {place} is `{only}`"),
        many => format!("the keys of {place} are {}", listed(many)),
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

fn wanted(expected: &str) -> &str {
    match expected {
        "a string" => "text in quotes",
        "a boolean" => "true or false",
        "u16" | "u32" | "u64" | "usize" => "a whole number",
        "a sequence" => "an array",
        "a map" => "a table",
        "a TOML datetime" => "a date or a date with time and offset",
        other => other,
    }
}

fn given(found: &str) -> String {
    match found {
        "map" => "a table".to_owned(),
        "sequence" => "an array".to_owned(),
        other => other
            .replacen("string ", "the text ", 1)
            .replacen("integer ", "the number ", 1)
            .replacen("floating point ", "the number ", 1)
            .replacen("boolean ", "", 1),
    }
}
