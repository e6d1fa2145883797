//! What Slack takes and what it says: blocks, and the codes of its errors. Pure.

use std::time::Duration;

use serde_json::{Value, json};

use super::render::Words;
use super::send::Failure;
use crate::text::clean;

/// A text section of Slack takes 3000 characters, <https://docs.slack.dev/reference/block-kit/blocks/section-block>.
const SECTION: usize = 2800;
/// Of this many sections none is refused, 50 being the most.
const SECTIONS: usize = 12;

/// What Slack's error codes mean for what waits; those of `chat.postMessage` and `users.lookupByEmail`.
pub(super) fn refused(error: &str, wait: Option<Duration>) -> Failure {
    let error = said(error);
    match error.as_str() {
        "channel_not_found" | "not_in_channel" => Failure::Lane(format!(
            "Slack says {error}: check the channel's name, and invite the app there (/invite)"
        )),
        "is_archived" => Failure::Lane("Slack says is_archived: name another channel".to_owned()),
        "users_not_found" => Failure::Message("Slack knows nobody with this address".to_owned()),
        "restricted_action" | "restricted_action_read_only_channel" => Failure::Lane(format!(
            "Slack says {error}: the app may not post there; ask the workspace's administrators"
        )),
        "invalid_blocks" | "invalid_blocks_format" | "msg_too_long" | "no_text" | "invalid_arguments" => {
            Failure::Message(format!("Slack refuses it: {error}"))
        }
        "missing_scope" => Failure::Destination(
            "Slack says missing_scope: give the app chat:write, im:write and users:read.email, and install it again"
                .to_owned(),
            wait,
        ),
        "invalid_auth" | "not_authed" | "token_revoked" | "token_expired" | "account_inactive" => {
            Failure::Destination(format!("Slack says {error}: give a valid bot token (xoxb-...)"), wait)
        }
        _ => Failure::Destination(format!("Slack says {error}"), wait),
    }
}

/// Somebody else's word, short and harmless.
pub(super) fn said(text: &str) -> String {
    clean(text).chars().take(100).collect()
}

/// The text for notifications and the blocks; all of it is escaped, so that nothing in it mentions, links or formats.
pub(super) fn blocks(words: &Words) -> Value {
    let mut sections = vec![format!("*{}*", escape(&words.title))];
    for line in &words.lines {
        let line = escape(line);
        let line: String = if line.chars().count() <= SECTION {
            line
        } else {
            line.chars().take(SECTION).chain(['…']).collect()
        };
        match sections.last_mut() {
            Some(last) if last.chars().count() + line.chars().count() < SECTION => {
                last.push('\n');
                last.push_str(&line);
            }
            _ => sections.push(line),
        }
    }
    sections.truncate(SECTIONS);
    let blocks: Vec<Value> = sections
        .into_iter()
        .map(|text| json!({ "type": "section", "text": { "type": "mrkdwn", "text": text, "verbatim": true } }))
        .collect();
    json!({ "text": escape(&words.title), "blocks": blocks })
}

/// Slack's three control characters as entities, <https://docs.slack.dev/messaging/formatting-message-text#escaping>, and
/// its marks for bold and struck text kept from pairing up.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // The look-alikes of Unicode mean nothing to Slack.
            '*' => out.push('∗'),
            '~' => out.push('∼'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slacks_errors_stop_as_little_as_they_mean() {
        assert!(matches!(refused("channel_not_found", None), Failure::Lane(why) if why.contains("/invite")));
        assert!(matches!(refused("users_not_found", None), Failure::Message(_)));
        assert!(matches!(refused("invalid_blocks", None), Failure::Message(_)));
        let wait = Some(Duration::from_secs(7));
        assert!(matches!(refused("ratelimited", wait), Failure::Destination(_, Some(w)) if w.as_secs() == 7));
        assert!(matches!(refused("token_revoked", None), Failure::Destination(why, _) if why.contains("xoxb")));
        let evil = format!("\u{1b}[2J{}", "x".repeat(500));
        assert!(
            matches!(refused(&evil, None), Failure::Destination(why, _) if why.len() < 150 && !why.contains('\u{1b}'))
        );
    }

    #[test]
    fn long_messages_become_blocks_that_slack_takes() {
        let words = Words {
            title: "<t>".to_owned(),
            lines: (0..30)
                .map(|n| format!("{n} {}", "é<".repeat(700)))
                .chain(["&".repeat(9000)])
                .collect(),
        };
        let body = blocks(&words);
        assert_eq!(body["text"], "&lt;t&gt;");
        let blocks = body["blocks"].as_array().unwrap();
        assert!((2..=50).contains(&blocks.len()));
        for block in blocks {
            let text = block["text"]["text"].as_str().unwrap();
            assert!(
                text.chars().count() <= 3000 && !text.contains('<'),
                "{}",
                text.chars().count()
            );
        }
    }
}
