//! Reads a TOML file into its parsed type and reports every mistake in it, not only the first.
//!
//! serde stops at the first key it does not understand. So the key at fault is reported, cut out, and the rest is
//! read again, until what is left fits; [`Holes`] remembers the cuts, so that nobody is told that a key is missing
//! which is merely wrong.

use std::{ops::Range, sync::Arc};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::diagnostics::{Report, SourceFile};

mod explain;
mod findings;
mod read;
mod values;

pub use findings::Findings;
pub use read::{MAX_FILE_BYTES, decode, read, read_up_to};
pub use values::{AccountId, At, Entry, Since, Until, duration, identity_store_id, unprintable};

/// More mistakes than this in one file are not worth reading.
const MOST_MISTAKES: usize = 200;

/// A file as its author wrote it.
#[derive(Debug)]
pub struct Parsed<T> {
    /// For pointing at places in it.
    pub source: Arc<SourceFile>,
    /// What could be understood.
    pub value: T,
    /// What could not.
    pub holes: Holes,
}

/// The keys that were cut out because they were wrong.
#[derive(Debug, Default)]
pub struct Holes {
    keys: Vec<(Range<usize>, String)>,
    /// The file breaks TOML's syntax, so what seems to be missing may stand in the part that was not understood.
    broken: bool,
}

impl Holes {
    /// Whether a mistake already reported explains why the table at `table` lacks `key`.
    #[must_use]
    pub fn explain(&self, table: &Range<usize>, key: &str) -> bool {
        self.broken
            || self
                .keys
                .iter()
                .any(|(place, cut)| place == table && (cut == key || strsim::jaro_winkler(cut, key) > 0.8))
    }

    /// Whether the file breaks TOML's syntax.
    #[must_use]
    pub fn broken(&self) -> bool {
        self.broken
    }
}

/// Reads `text` as far as it can be understood, and reports the rest.
pub fn parse<T: DeserializeOwned + Default>(source: Arc<SourceFile>, text: &str, report: &mut Report) -> Parsed<T> {
    let (table, syntax) = DeTable::parse_recoverable(text);
    let syntax = explain::Syntax::new(text, &syntax);
    report.extend(syntax.diagnostics(&source));
    let mut holes = Holes {
        keys: Vec::new(),
        broken: syntax.any(),
    };
    if syntax.beyond_recovery() {
        return Parsed {
            source,
            value: T::default(),
            holes,
        };
    }
    // Most files are right, so no copy is made for one that is not: that is taken apart anew.
    if let Ok(value) = T::deserialize(toml::Deserializer::from(table)) {
        return Parsed { source, value, holes };
    }
    let (mut table, _) = DeTable::parse_recoverable(text);
    for _ in 0..MOST_MISTAKES {
        let error = match T::deserialize(toml::Deserializer::from(table.clone())) {
            Ok(value) => return Parsed { source, value, holes },
            Err(error) => error,
        };
        let at = error.span().unwrap_or(0..0);
        let root = table.span();
        let cut = cut(table.get_mut(), &root, "the file", &at);
        let place = cut.as_ref().map_or("the file", |cut| cut.place.as_str());
        if !syntax.covers(at.start) {
            report.push(explain::structural(&source, at, error.message(), place));
        }
        match cut {
            Some(cut) => holes.keys.push((cut.table, cut.key)),
            // The error names no place, so nothing more can be learnt from this file.
            None => {
                holes.broken = true;
                return Parsed {
                    source,
                    value: T::default(),
                    holes,
                };
            }
        }
    }
    report.push(explain::too_many(&source));
    holes.broken = true;
    Parsed {
        source,
        value: T::default(),
        holes,
    }
}

struct Cut {
    table: Range<usize>,
    key: String,
    /// The table's name, for people.
    place: String,
}

/// Removes the innermost key or array element whose span is `at`.
fn cut(table: &mut DeTable<'_>, span: &Range<usize>, place: &str, at: &Range<usize>) -> Option<Cut> {
    for (key, value) in table.iter_mut() {
        let inner = value.span();
        let name = key.get_ref().to_string();
        if let Some(cut) = cut_value(value.get_mut(), &inner, &nested(place, &name), at) {
            return Some(cut);
        }
    }
    let key = table
        .iter()
        .find(|(key, value)| key.span() == *at || value.span() == *at)
        .map(|(key, _)| key.get_ref().to_string())?;
    table.remove(key.as_str());
    Some(Cut {
        table: span.clone(),
        key,
        place: place.to_owned(),
    })
}

fn cut_value(value: &mut DeValue<'_>, span: &Range<usize>, place: &str, at: &Range<usize>) -> Option<Cut> {
    match value {
        DeValue::Table(table) => cut(table, span, &format!("[{place}]"), at),
        DeValue::Array(array) => {
            let found = array.iter_mut().find_map(|element: &mut Spanned<DeValue<'_>>| {
                let inner = element.span();
                cut_value(element.get_mut(), &inner, &format!("[{place}]"), at)
            });
            if found.is_some() {
                return found;
            }
            array.iter().position(|element| element.span() == *at)?;
            *array = array.iter().filter(|element| element.span() != *at).cloned().collect();
            Some(Cut {
                table: span.clone(),
                key: String::new(),
                place: format!("[{place}]"),
            })
        }
        _ => None,
    }
}

fn nested(place: &str, key: &str) -> String {
    let outer = place.trim_matches(['[', ']']);
    if place.starts_with('[') {
        format!("{outer}.{key}")
    } else {
        key.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        name: Option<At<String>>,
        #[serde(default)]
        rule: Vec<Entry<Rule>>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        on: Option<At<bool>>,
        levels: Option<At<Vec<At<u32>>>>,
        inner: Option<Entry<Inner>>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        a: Option<At<String>>,
    }

    fn read(text: &str) -> (Parsed<File>, Vec<String>) {
        let source = Arc::new(SourceFile::new("f.toml", text, &[]));
        let mut report = Report::default();
        let parsed = parse(source, text, &mut report);
        report.sort();
        let lines = report
            .diagnostics()
            .iter()
            .map(|d| format!("{} {} | {}", d.place(), d.message, d.hint.as_deref().unwrap_or("")))
            .collect();
        (parsed, lines)
    }

    #[test]
    fn every_structural_mistake_is_reported_at_once() {
        let (parsed, lines) = read(concat!(
            "nme = 'x'\n",
            "[[rule]]\non = 'yes'\nlevels = [1, 'two', -3]\ninner = { a = 1, b = 2 }\n",
            "[[rule]]\nonn = true\ninner = ['x']\n[rule.levels]\n",
            "[other]\n",
        ));
        assert_eq!(
            lines,
            [
                "f.toml:1:1 unknown key `nme` | did you mean `name`?",
                "f.toml:3:6 expected true or false, found the text \"yes\" | ",
                "f.toml:4:14 expected a whole number, found the text \"two\" | ",
                "f.toml:4:21 expected a whole number, found the number `-3` | ",
                "f.toml:5:15 expected text in quotes, found the number `1` | write it in quotes, \"1\"; a length of time has its unit too, such as \"1m\"",
                "f.toml:5:18 unknown key `b` | the only key of [rule.inner] is `a`",
                "f.toml:7:1 unknown key `onn` | did you mean `on`?",
                "f.toml:8:9 expected a table, found an array | ",
                "f.toml:9:1 expected an array, found a table | ",
                "f.toml:10:2 unknown key `other` | the keys of the file are `name`, `rule`",
            ]
        );
        assert_eq!(parsed.value.rule.len(), 2);
        assert!(parsed.holes.explain(&(0..0), "name"));
        let second = &parsed.value.rule[1];
        assert!(parsed.holes.explain(second.span(), "on") && parsed.holes.explain(second.span(), "inner"));
        assert!(!parsed.holes.explain(parsed.value.rule[0].span(), "name"));
    }

    #[test]
    fn syntax_errors_do_not_hide_each_other_or_the_rest() {
        let (parsed, lines) = read("name = tru\n[[rule]]\non = yes\nlevels = 'x'\n[[rule]]\nlevels = [1\n");
        assert_eq!(
            lines,
            [
                "f.toml:1:8 `tru` is not a value | text needs quotes; otherwise write true, false, a number or a date",
                "f.toml:3:6 `yes` is not a value | text needs quotes; otherwise write true, false, a number or a date",
                "f.toml:6:12 unclosed array, expected `]` | the rest of this file is checked once this is fixed",
            ]
        );
        assert!(parsed.holes.broken() && parsed.value == File::default());

        let (_, lines) = read("name = tru\n[[rule]]\non = 5\n");
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].starts_with("f.toml:3:6 expected true or false"), "{lines:?}");
    }

    #[test]
    fn a_half_written_array_is_one_mistake() {
        let (_, lines) = read("[[rule]]\nlevels = [1, 2\non = true\n[[rule]]\non = true\n");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("f.toml:2:15 "), "{lines:?}");
        let (_, lines) = read("[[rule]\non = true\nlevels = [1]\nfoo = 1");
        assert_eq!(
            lines,
            ["f.toml:1:8 unclosed array table, expected `]` | the rest of this file is checked once this is fixed"]
        );
    }

    #[test]
    fn a_file_that_is_all_mistakes_is_cut_short() {
        for line in ["[[rule]]\nfoo = 1\n", "\nname = tru", "[[rule\n"] {
            let (_, lines) = read(&line.repeat(300));
            assert!((2..=201).contains(&lines.len()), "{}", lines.len());
            assert!(
                lines[0].starts_with("f.toml:1:1 the file has more than 200 mistakes"),
                "{}",
                lines[0]
            );
        }
    }

    #[test]
    fn a_merge_conflict_is_named() {
        let (_, lines) = read("<<<<<<< HEAD\nname = 'x'\n=======\nname = 'y'\n>>>>>>> topic\n");
        assert!(lines.iter().any(|l| l.contains("merge conflict")), "{lines:?}");
    }
}
