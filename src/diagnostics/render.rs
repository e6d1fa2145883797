//! Diagnostics as text with carets, and as JSON.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde_json::json;

use super::{Diagnostic, Severity, SourceFile};
use crate::layout::NO_TERMINAL;

pub(super) fn text(diagnostics: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    // A longer line of a file is cut around what is wrong in it.
    let renderer = renderer.term_width(NO_TERMINAL);
    let mut out = String::new();
    for (n, diagnostic) in diagnostics.iter().enumerate() {
        if n > 0 {
            out.push('\n');
        }
        out.push_str(&one(&renderer, diagnostic));
        out.push('\n');
    }
    out
}

fn one(renderer: &Renderer, d: &Diagnostic) -> String {
    let level = match d.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(d.message.as_str()).id(d.code);
    let mut group = match &d.span {
        None => title.element(Origin::path(d.source.name())),
        Some(span) => {
            let excerpt = Excerpt::new(&d.source, span);
            title.element(
                Snippet::source(excerpt.text)
                    .path(d.source.name())
                    .line_start(excerpt.line)
                    .annotation(AnnotationKind::Primary.span(excerpt.span).label(d.label.as_deref())),
            )
        }
    };
    if let Some(hint) = &d.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    renderer.render(&[group])
}

/// The one line to show. Rendering the whole file for each mistake would cost its size times their number.
struct Excerpt<'a> {
    text: &'a str,
    line: usize,
    span: Range<usize>,
}

impl<'a> Excerpt<'a> {
    fn new(source: &'a SourceFile, span: &Range<usize>) -> Self {
        let text = source.shown.as_str();
        let at = text.floor_char_boundary(span.start);
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
        let line = text[start..end].trim_end_matches('\r');
        let stop = text.floor_char_boundary(span.end.min(start + line.len())).max(at);
        Self {
            text: line,
            line: source.line(at),
            span: (at - start).min(line.len())..(stop - start).min(line.len()),
        }
    }
}

pub(super) fn json(d: &Diagnostic) -> serde_json::Value {
    let place = d.span.as_ref().map(|span| {
        let (line, column) = d.source.position(span.start);
        let (end_line, end_column) = d.source.position(span.end.max(span.start));
        (line, column, end_line, end_column)
    });
    json!({
        "file": d.source.name(),
        "line": place.map(|p| p.0),
        "column": place.map(|p| p.1),
        "end_line": place.map(|p| p.2),
        "end_column": place.map(|p| p.3),
        "severity": d.severity,
        "code": d.code,
        "message": d.message,
        "hint": d.hint,
    })
}
