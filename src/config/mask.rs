//! Finds text in a configuration file that may be a secret written there by mistake, before anything shows the file.

use std::ops::Range;

/// Sections in which nobody keeps secrets.
const HARMLESS_SECTIONS: &[&str] = &["identity_center", "identity", "timing", "limits", "http"];

/// Keys of a source whose values are no secrets. Any other key there may be a misspelt one that holds a secret.
const HARMLESS_KEYS: &[&str] = &[
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
];

/// The bytes of `text` that must not be shown. Works on lines and not on parsed values, because a file that does not
/// parse is shown as well, and covers more than it must.
pub(super) fn mask(text: &str) -> Vec<Range<usize>> {
    let mut masked = Vec::new();
    let mut start = 0;
    let mut in_source = false;
    for line in text.split_inclusive('\n') {
        if let Some(header) = line.trim_start().strip_prefix('[') {
            let name = header.trim_start_matches('[').trim_start();
            let root = &name[..name.find(|c: char| !is_key(c)).unwrap_or(name.len())];
            in_source = !HARMLESS_SECTIONS.contains(&root);
        }
        mask_line(
            text,
            start,
            line.trim_end(),
            in_source || line.contains("source"),
            &mut masked,
        );
        start += line.len();
    }
    masked
}

fn mask_line(text: &str, start: usize, line: &str, in_source: bool, masked: &mut Vec<Range<usize>>) {
    let end = start + line.len();
    let indent = line.len() - line.trim_start().len();
    let first = &line[indent..];
    let word = first.find(|c: char| !is_key(c)).unwrap_or(first.len());
    if is_secret(&first[..word]) && !first[word..].trim_start().starts_with(['=', '.', ']']) {
        masked.push(start + indent + word..end);
    }
    for (equals, _) in line.match_indices('=') {
        let key = line[..equals].trim_end();
        let key = &key[key.rfind(|c: char| !is_key(c)).map_or(0, |at| at + last_len(key, at))..];
        let value = equals + 1 + (line[equals + 1..].len() - line[equals + 1..].trim_start().len());
        let suspect = is_secret(key) || (in_source && !HARMLESS_KEYS.contains(&key.trim_matches(['"', '\''])));
        if suspect && !line[value..].starts_with('{') {
            masked.push(start + value..value_end(text, start + value, end));
        }
    }
    // A password inside a URL.
    if let Some(scheme) = line.find("://")
        && let Some(at) = line[scheme..].rfind('@')
    {
        masked.push(start + scheme + 3..start + scheme + at);
    }
}

fn last_len(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(1, char::len_utf8)
}

fn is_key(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '"' | '\'')
}

/// Where a value ends: at its closing quotes, which may be lines away, or with its line.
fn value_end(text: &str, value: usize, line_end: usize) -> usize {
    for quotes in ["\"\"\"", "'''"] {
        if let Some(rest) = text[value..].strip_prefix(quotes) {
            return rest.find(quotes).map_or(text.len(), |close| value + 3 + close + 3);
        }
    }
    line_end
}

fn is_secret(key: &str) -> bool {
    let key = key.trim_matches(['"', '\'']).to_lowercase();
    let names_one = ["token", "key", "secret", "pass", "pwd", "auth"];
    names_one.iter().any(|part| key.contains(part)) && key != "token_url"
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
            "base_url = \"https://user:hunter2@example.com\"",
            "ü_token = \"hunter2\"",
            "[source.pd]\ntoken = { value = \"hunter2\" }",
            "[source.pd.token]\nvalue = \"hunter2\"",
            "[pagerduty]\nvalue = \"hunter2\"",
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
