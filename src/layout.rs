//! Lays text out for people: like things together, long lines broken between words for a terminal.

use std::collections::BTreeMap;

use unicode_width::UnicodeWidthStr;

/// How wide lines are where no terminal says how wide it is.
pub const NO_TERMINAL: usize = 100;

/// Narrower than this nothing can be laid out; such a terminal breaks lines itself.
const NARROWEST: usize = 40;

/// A label further to the right than this is no label.
const WIDEST_LABEL: usize = 24;

/// Puts items of the same key together, in the order in which keys appear first.
pub fn group<K: Ord + Clone, V>(items: impl IntoIterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut places: BTreeMap<K, usize> = BTreeMap::new();
    let mut groups: Vec<(K, Vec<V>)> = Vec::new();
    for (key, value) in items {
        let place = *places.entry(key.clone()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, values)) => values.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups
}

/// Names in lines of at most `width` columns, all lines but the first indented by `indent`. Longer lines than fit
/// everywhere are hard to read, however wide the terminal.
#[must_use]
pub fn list(names: &[String], indent: usize, width: Option<usize>) -> String {
    let width = width.unwrap_or(NO_TERMINAL).min(NO_TERMINAL);
    let mut out = String::new();
    let mut column = indent;
    for (number, name) in names.iter().enumerate() {
        let comma = if number + 1 < names.len() { "," } else { "" };
        if 0 < number && width < column + 1 + name.width() + comma.len() {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if 0 < number {
            out.push(' ');
            column += 1;
        }
        out.push_str(name);
        out.push_str(comma);
        column += name.width() + comma.len();
    }
    out
}

/// Breaks lines longer than `width` between words. What follows hangs below the text of its line. Commands in backticks
/// stay whole where they fit, so that they can be copied. Escape sequences of styles take no room.
#[must_use]
pub fn wrap(text: &str, width: Option<usize>) -> String {
    let Some(width) = width.filter(|width| NARROWEST <= *width) else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        if shown(line) <= width {
            out.push_str(line);
        } else {
            wrap_line(&mut out, line, width);
        }
        out.push_str(end);
    }
    out
}

fn wrap_line(out: &mut String, line: &str, width: usize) {
    let indent = line.len() - line.trim_start_matches(' ').len();
    let hang = hang(line, indent);
    let (mut column, mut between) = (indent, "");
    out.push_str(&line[..indent]);
    for word in words(&line[indent..], width - hang) {
        let wide = shown(word);
        if width < column + between.len() + wide && hang < column {
            out.push('\n');
            out.push_str(&" ".repeat(hang));
            column = hang;
        } else {
            out.push_str(between);
            column += between.len();
        }
        out.push_str(word);
        column += wide;
        between = " ";
    }
}

/// Below the text that follows a label and two spaces, or a little to the right of the line's own start.
fn hang(line: &str, indent: usize) -> usize {
    let rest = &line[indent..];
    let label = rest.find("  ").map(|gap| {
        let text = rest[gap..].trim_start_matches(' ');
        indent + rest.len() - text.len()
    });
    label
        .filter(|column| *column <= WIDEST_LABEL && rest.is_ascii())
        .unwrap_or(indent + 2)
}

/// Words with what is in backticks kept together if it is no wider than `widest`. A run of spaces stays with the word
/// before it, but for one.
fn words(text: &str, widest: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let plain = space_after(rest, 0);
        let quoted = rest.find('`').filter(|open| *open < plain).and_then(|open| {
            let close = open + 1 + rest[open + 1..].find('`')?;
            let end = space_after(rest, close);
            (shown(&rest[..end]) <= widest).then_some(end)
        });
        let end = quoted.unwrap_or(plain);
        words.push(&rest[..end]);
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    words
}

/// Where the run of spaces after `from` has its last one, or the end of the text.
fn space_after(text: &str, from: usize) -> usize {
    let Some(space) = text[from..].find(' ').map(|at| from + at) else {
        return text.len();
    };
    let run = text[space..].len() - text[space..].trim_start_matches(' ').len();
    space + run - 1
}

/// How many columns a text takes on a terminal.
fn shown(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().width()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_nothing_is_broken() {
        let long = "word ".repeat(100);
        assert_eq!(wrap(&long, None), long);
        assert_eq!(wrap(&long, Some(3)), long);
    }

    #[test]
    fn lines_hang_below_their_text() {
        let text = "  obstacle  one two three four five six seven eight nine ten\n  short\n";
        let wrapped = "  obstacle  one two three four five six\n            seven eight nine ten\n  short\n";
        assert_eq!(wrap(text, Some(42)), wrapped);
        let text = "  change_failed: one two three four five six seven";
        assert_eq!(
            wrap(text, Some(40)),
            "  change_failed: one two three four five\n    six seven"
        );
    }

    #[test]
    fn no_line_is_longer_and_no_word_is_lost() {
        let text =
            "  a: Žofie 李 \u{1b}[33mheld back\u{1b}[0m until `dutybound apply --approve 0123` says so, and then some";
        let wrapped = wrap(text, Some(40));
        assert!(wrapped.lines().all(|line| shown(line) <= 40), "{wrapped}");
        assert!(wrapped.contains("`dutybound apply --approve 0123`"), "{wrapped}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&wrapped), words(text));
        let unbreakable = format!("  {}", "x".repeat(60));
        assert_eq!(wrap(&unbreakable, Some(40)), unbreakable);
    }

    #[test]
    fn names_fill_their_lines() {
        let names: Vec<String> = ["aa", "bb", "cc", "dd"].map(str::to_owned).into();
        assert_eq!(list(&names, 2, Some(9)), "aa, bb,\n  cc, dd");
        assert_eq!(list(&names[..1], 2, None), "aa");
    }

    #[test]
    fn like_things_come_together_in_their_order() {
        let grouped = group([("b", 1), ("a", 2), ("b", 3)]);
        assert_eq!(grouped, [("b", vec![1, 3]), ("a", vec![2])]);
    }
}
