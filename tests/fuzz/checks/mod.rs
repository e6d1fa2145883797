//! What fuzzing demands of each parser: one function for each target, which panics when the input shows a mistake.
//!
//! Shared by the fuzz targets, which invent inputs, and by tests/it/corpus.rs, which replays those in corpus/. An oracle
//! here reads an input in another way than the program does, so that a person who is dropped on the way is missed.

mod files;
mod providers;
mod time;
mod values;

/// Panics when the input shows a mistake.
type Check = fn(&[u8]);

/// Every target with its check.
pub(crate) const CHECKS: &[(&str, Check)] = &[
    ("config", files::config),
    ("instant", time::instant),
    ("normalise", time::normalise),
    ("opsgenie_oncalls", providers::opsgenie_oncalls),
    ("opsgenie_timeline", providers::opsgenie_timeline),
    ("pagerduty_layers", providers::pagerduty_layers),
    ("pagerduty_oncalls", providers::pagerduty_oncalls),
    ("pagerduty_shifts", providers::pagerduty_shifts),
    ("policy", files::policy),
    ("text", values::text),
    ("users", providers::users),
    ("window", time::window),
];

/// One line of a provider's text: 200 characters, each of which may become `\u{10ffff}`, and an ellipsis.
const LONGEST_LINE: usize = 200 * 10 + 1;

/// Text that people see drives no terminal and does not look like other text.
fn assert_harmless(shown: &str) {
    let harmful = shown.chars().find(|c| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    });
    assert_eq!(harmful, None, "in {shown:?}");
}
