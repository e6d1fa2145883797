//! Turns values into text for people: harmless on any terminal, with times that can be read.

use jiff::{SignedDuration, Timestamp, Unit};

use crate::model::{Basis, Cause};

/// Makes text from outside harmless: control characters, line breaks and the marks that reorder or hide text are shown
/// as escapes, so that nothing a provider or a file says can drive a terminal or pretend to be another line.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || hides(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a character is no control character and yet changes how the text around it looks: invisible ones, line
/// separators, the marks that reorder, and tags.
pub(crate) fn hides(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Text from outside as it is to be read in Markdown: neither markup nor HTML nor a mention of anybody, also in a table.
#[must_use]
pub fn markdown(text: &str) -> String {
    let mut out = String::new();
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' => out.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// An instant to the second, in UTC; the ends of time in words.
#[must_use]
pub fn instant(t: Timestamp) -> String {
    if t == Timestamp::MAX {
        "further notice".to_owned()
    } else if t == Timestamp::MIN {
        "always".to_owned()
    } else {
        t.round(Unit::Second).unwrap_or(t).to_string()
    }
}

/// By what a shift came about, such as `through an override`. Providers tell the override's id, or only that it is one,
/// or whose calls are forwarded.
#[must_use]
pub(crate) fn through(via_override: &str) -> String {
    match via_override {
        "override" => "through an override".to_owned(),
        forwarding if forwarding.starts_with("forwarding") => format!("through {}", clean(forwarding)),
        id => format!("through override {}", clean(id)),
    }
}

/// A span in its two largest units, such as `3d 4h` or `12s`.
#[must_use]
pub fn span(duration: SignedDuration) -> String {
    let total = duration.as_secs().max(0);
    let parts = [
        (total / 86_400, "d"),
        (total / 3600 % 24, "h"),
        (total / 60 % 60, "m"),
        (total % 60, "s"),
    ];
    let shown: Vec<_> = parts
        .iter()
        .skip_while(|(n, _)| *n == 0)
        .take(2)
        .filter(|(n, _)| 0 < *n)
        .map(|(n, u)| format!("{n}{u}"))
        .collect();
    if shown.is_empty() {
        "0s".to_owned()
    } else {
        shown.join(" ")
    }
}

/// Hours with two decimals, rounded half up.
#[must_use]
pub fn hours(time: SignedDuration) -> String {
    let hundredths = (time.as_millis() + 18_000) / 36_000;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// Hours with two decimals, and commas between thousands, for tables that people read.
#[must_use]
pub fn grouped(time: SignedDuration) -> String {
    let plain = hours(time);
    let (whole, decimals) = plain.split_once('.').unwrap_or((&plain, "00"));
    format!("{}.{decimals}", thousands(whole))
}

/// Hours for a glance: three digits at least, commas between thousands.
#[must_use]
pub fn figure(time: SignedDuration) -> String {
    let (hour, ten, hundred) = (time.as_millis() / 36_000, 1_000, 10_000);
    match hour {
        hundredths if hundredths < ten => hours(time),
        hundredths if hundredths < hundred => format!("{:.1}", time.as_secs_f64() / 3600.0),
        _ => thousands(&format!("{:.0}", time.as_secs_f64() / 3600.0)),
    }
}

fn thousands(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if 0 < n && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Why, until when and by which line of which file, in one line.
#[must_use]
pub fn cause(cause: &Cause) -> String {
    let end = if cause.end_known || cause.held.end() == Timestamp::MAX {
        "until"
    } else {
        "until at least"
    };
    let (what, end) = (basis(cause), format!("{end} {}", instant(cause.held.end())));
    let delegated = cause.right.delegation.as_ref();
    let delegated = delegated
        .map(|origin| format!(", delegated by {origin}"))
        .unwrap_or_default();
    format!("{what} {end} ({}{delegated})", cause.right.rule)
}

/// Why somebody held what is taken back at `at`. A cause that should have lasted longer says so.
#[must_use]
pub fn former_cause(cause: &Cause, at: Timestamp) -> String {
    let (what, end) = (basis(cause), cause.held.end());
    let end = if end <= at {
        format!(" until {}", instant(end))
    } else if end == Timestamp::MAX {
        String::new()
    } else {
        format!(", which was to last until {}", instant(end))
    };
    format!("was {what}{end} ({})", cause.right.rule)
}

/// What earns it, in words.
#[must_use]
pub fn basis(cause: &Cause) -> String {
    match &cause.right.basis {
        Basis::OnCall {
            schedule,
            level,
            via_override,
            ..
        } => {
            let level = level.map(|l| format!(" level {l}")).unwrap_or_default();
            let through = via_override
                .as_ref()
                .map(|via| format!(" {}", through(via)))
                .unwrap_or_default();
            format!("on call in {schedule}{level}{through}")
        }
        Basis::Window => format!("member of {} in its window", cause.right.project),
        Basis::Membership => format!("member of {}", cause.right.project),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drives_a_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\nc\u{202e}d"), "a\\u{1b}[31mb\\u{a}c\\u{202e}d");
        assert_eq!(clean("Žofie 李"), "Žofie 李");
        // An Arabic letter mark reorders, a soft hyphen and tags are not seen.
        assert_eq!(clean("a\u{61c}b\u{ad}c\u{e0041}"), "a\\u{61c}b\\u{ad}c\\u{e0041}");
    }

    #[test]
    fn an_override_is_named_once() {
        assert_eq!(through("override"), "through an override");
        assert_eq!(through("PO0001"), "through override PO0001");
        assert_eq!(through("forwarding from kim"), "through forwarding from kim");
    }

    #[test]
    fn spans_show_two_units() {
        assert_eq!(span(SignedDuration::from_secs(0)), "0s");
        assert_eq!(span(SignedDuration::from_secs(3 * 86_400 + 4 * 3600 + 59)), "3d 4h");
        assert_eq!(span(SignedDuration::from_secs(3600)), "1h");
        assert_eq!(span(SignedDuration::from_secs(62)), "1m 2s");
    }
}
