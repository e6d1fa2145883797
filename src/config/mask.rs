//! Finds text in a configuration file that may be a secret written there by mistake, before anything shows the file.
//!
//! Works on lines and not on parsed values, because a file that does not parse is shown as well. What is not known to be
//! harmless is masked: a key may be misspelt, an equals sign missing, a quote not closed.

use std::ops::Range;

/// Sections in which nobody keeps secrets.
const HARMLESS_SECTIONS: &[&str] = &["identity_center", "identity", "timing", "limits", "http"];

/// Keys elsewhere whose values are no secrets. `to` and `by` are none either, but are what a slip leaves of `token` and
/// `key`.
const HARMLESS_KEYS: &[&str] = &[
    "mode",
    "owner_id",
    "policy_dir",
    "roots",
    "ledger",
    "pause_file",
    "kind",
    "region",
    "base_url",
    "requests_per_minute",
    "timeout",
    "client_id",
    "subdomain",
    "token_url",
    "env",
    "file",
    "credential",
    "name",
    "format",
    "path",
    "facility",
    "body",
    "zone",
    "digest",
    "health_after",
    "windows",
    "max_age",
    "max_messages",
    "channel",
    "cron",
    "days",
    "directory",
];

/// The bytes of `text` that must not be shown.
pub(super) fn mask(text: &str) -> Vec<Range<usize>> {
    let mut masked = Vec::new();
    let mut start = 0;
    let mut harmless_section = false;
    for line in text.split_inclusive('\n') {
        let header = line.trim_start().strip_prefix('[');
        // With a value in the same line it is no header, but perhaps a bracket too many.
        let header = header.filter(|header| !header.contains(['=', '"', '\'']));
        if let Some(header) = header {
            let name = header.trim_start_matches('[').trim_start();
            let root = name.find(|c: char| !is_bare(c) || c == '.').unwrap_or(name.len());
            harmless_section = HARMLESS_SECTIONS.contains(&&name[..root]);
        }
        if header.is_none() && (!harmless_section || mentions_secret(line)) {
            mask_line(text, start, line.trim_end(), &mut masked);
        }
        // A password inside a URL.
        if let Some(scheme) = line.find("://")
            && let Some(at) = line[scheme..].rfind('@')
        {
            masked.push(start + scheme + 3..start + scheme + at);
        }
        start += line.len();
    }
    masked
}

/// Masks all words and quoted texts of a line but keys and the values of harmless keys.
fn mask_line(text: &str, start: usize, line: &str, masked: &mut Vec<Range<usize>>) {
    let mut key = "";
    let mut harmless_value = false;
    // A key stands at the start of the line, or after one of these.
    let mut before_key = true;
    let mut at = 0;
    while let Some(c) = line[at..].chars().next() {
        let rest = &line[at..];
        let length = match c {
            '#' => rest.len(),
            '"' | '\'' => quoted(rest, c),
            c if is_bare(c) => rest.find(|c| !is_bare(c)).unwrap_or(rest.len()),
            other => {
                if other == '=' {
                    harmless_value = HARMLESS_KEYS.contains(&key);
                } else if !other.is_whitespace() {
                    harmless_value = false;
                }
                if !other.is_whitespace() {
                    before_key = matches!(other, '{' | ',');
                }
                at += other.len_utf8();
                continue;
            }
        };
        let token = &rest[..length];
        if before_key && rest[length..].trim_start().starts_with('=') {
            let name = token.trim_matches(['"', '\'']);
            key = name.rsplit_once('.').map_or(name, |(_, last)| last);
        } else {
            key = "";
            if !harmless_value {
                let end = triple_quoted(text, start + at).unwrap_or(start + at + length);
                masked.push(start + at..end);
            }
        }
        harmless_value = false;
        before_key = false;
        at += length;
    }
}

/// The length of a quoted text with its quotes, or of the rest where they do not close.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && quote == '"' && !escaped;
    }
    text.len()
}

/// Where a text in triple quotes ends, which may be lines away.
fn triple_quoted(text: &str, at: usize) -> Option<usize> {
    let quotes = ["\"\"\"", "'''"]
        .into_iter()
        .find(|quotes| text[at..].starts_with(quotes))?;
    let inner = at + quotes.len();
    Some(
        text[inner..]
            .find(quotes)
            .map_or(text.len(), |close| inner + close + quotes.len()),
    )
}

fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

fn mentions_secret(line: &str) -> bool {
    let line = line.to_lowercase();
    let names = ["token", "key", "secret", "pass", "pwd", "auth"];
    names.iter().any(|name| line.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let masked = mask(text);
        let keep = |(at, c): (usize, char)| if masked.iter().any(|r| r.contains(&at)) { '*' } else { c };
        text.char_indices().map(keep).collect()
    }

    #[test]
    fn whatever_may_be_a_secret_is_masked_and_the_rest_is_not() {
        for secret in [
            "token = \"hunter2\"",
            "  api_key='hunter2'",
            "\"api_key\" = 'hunter2'",
            "apiToken = hunter2",
            "token \"hunter2\"",
            "token: hunter2",
            "password = \"hunter2",
            "source.pd.token = \"hunter2\"",
            "pd = { kind = \"pagerduty\", token = \"hunter2\" }",
            "oauth = { client_secret = \"hunter2\" }",
            "oauth = \"hunter2\"",
            "token = \"\"\"\nhunter2\nhunter2\"\"\"",
            "token = '''\nhunter2",
            "kind = \"pagerduty\" \"hunter2\"",
            "token = { \"hunter2\" }",
            "token = { env = \"X\" } # was hunter2",
            "token = { env = \"X\" \"hunter2\" }",
            "token = \"a\\\"hunter2\"",
            "base_url = \"https://user:hunter2@example.com\"",
            "ü_token = \"hunter2\"",
            "[source.pd]\ntoken = { value = \"hunter2\" }",
            "[source.pd.token]\nvalue = \"hunter2\"",
            "[pagerduty]\nvalue = \"hunter2\"",
            "[source.pd]\ntoken =\n\"hunter2\"",
            "source = { pd = { value = \"hunter2\" } }",
        ] {
            assert!(!shown(secret).contains("hunter2"), "{}", shown(secret));
        }
        for harmless in [
            "token = { env = \"NAME\" }",
            "oauth = { client_id = \"x\", subdomain = \"y\" }",
            "[source.pd.oauth]",
            "token_url = \"https://example.com/token\"",
            "mode = \"observe\"",
            "[source.pd]\nregion = \"eu\"\n[[identity]]\non_call = { pd = \"P1\" }",
        ] {
            assert_eq!(shown(harmless), harmless);
        }
    }
}
