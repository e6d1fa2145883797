//! One message of syslog, RFC 5424.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::config::{Facility, SinkFormat};
use crate::ledger::{ExportedCause, ExportedEvent};
use crate::stream::record::{Mark, MarkKind, Record};
use crate::text::clean;

/// No message is longer in bytes: rsyslog takes so much by default (`maxMessageSize`), and most others more.
const LONGEST: usize = 8192;
/// No value of structured data is longer in bytes, so that all of them together fit.
const LONGEST_VALUE: usize = 224;
/// 32473 is the number that RFC 5612 keeps for use by those who have none of their own.
const SD_ID: &str = "dutybound@32473";
/// RFC 5424, section 6.4: text in UTF-8 begins with it.
const BOM: char = '\u{feff}';

const ERROR: u8 = 3;
const WARNING: u8 = 4;
const NOTICE: u8 = 5;
const INFORMATIONAL: u8 = 6;

/// What all messages of a sink have in common.
#[derive(Debug)]
pub(in crate::stream) struct Header {
    facility: Facility,
    host: String,
    process: u32,
}

impl Header {
    pub(in crate::stream) fn new(facility: Facility) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            facility,
            host: token(&host, 255),
            process: std::process::id(),
        }
    }

    /// The message without a frame; `None` where the format has no place for the record.
    pub(in crate::stream) fn message(&self, record: &Record, format: SinkFormat, ledger: &str) -> Option<String> {
        let mut out = format!(
            "<{}>1 {} {} dutybound {} {} ",
            self.facility as u8 * 8 + severity(record),
            instant(record.time()),
            self.host,
            self.process,
            token(record.kind(), 32),
        );
        if format == SinkFormat::Structured {
            structured(&mut out, record, ledger);
            return Some(out);
        }
        let json = ascii(&record.json(format, ledger)?);
        out.push_str("- ");
        if out.len() + json.len() <= LONGEST {
            out.push_str(&json);
        } else {
            out.push_str(&ascii(&shortened(record, ledger).to_string()));
        }
        Some(out)
    }
}

/// With milliseconds, RFC 5424, section 6.2.3; years beyond four digits have no place there.
fn instant(t: Timestamp) -> String {
    let text = t.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
    if text.len() == 24 { text } else { "-".to_owned() }
}

/// Printable ASCII without spaces, as the header's fields have it.
fn token(text: &str, most: usize) -> String {
    let token: String = text.chars().filter(char::is_ascii_graphic).take(most).collect();
    if token.is_empty() { "-".to_owned() } else { token }
}

fn severity(record: &Record) -> u8 {
    match record {
        Record::Mark(mark) if mark.kind == MarkKind::Head => INFORMATIONAL,
        Record::Mark(_) => ERROR,
        Record::Event(event) => match (event.kind.as_str(), event.outcome.as_deref()) {
            ("intent_completed", Some(outcome)) if outcome != "succeeded" => WARNING,
            ("restoration_found", _) => WARNING,
            ("access_begun" | "access_ended" | "order_given" | "order_lifted" | "approval_given", _) => NOTICE,
            _ => INFORMATIONAL,
        },
    }
}

/// What is too long for a message whole: which event it is, and that it has to be looked up.
fn shortened(record: &Record, ledger: &str) -> Value {
    let (seq, hash) = record.seq_and_hash();
    json!({
        "ledger": ledger, "seq": seq, "hash": hash, "time": record.time(), "kind": record.kind(), "shortened": true,
    })
}

/// JSON has characters beyond ASCII inside texts only, where an escape means the same; so no byte order mark is needed,
/// which most readers of JSON do not expect.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

fn structured(out: &mut String, record: &Record, ledger: &str) {
    let (seq, hash) = record.seq_and_hash();
    out.push_str(&format!("[{SD_ID}"));
    let mut put = |name: &str, value: &str| {
        out.push_str(&format!(" {name}=\""));
        escape(out, value);
        out.push('"');
    };
    put("ledger", ledger);
    put("seq", &seq.to_string());
    put("hash", hash);
    let words = match record {
        Record::Event(event) => {
            for (name, value) in fields(event) {
                if let Some(value) = value {
                    put(name, &value);
                }
            }
            words(event)
        }
        Record::Mark(mark) => {
            mark_fields(mark, &mut put);
            mark.detail.clone()
        }
    };
    out.push_str("] ");
    out.push(BOM);
    for c in clean(&words).chars() {
        if LONGEST < out.len() + c.len_utf8() {
            break;
        }
        out.push(c);
    }
}

fn mark_fields(mark: &Mark, put: &mut impl FnMut(&str, &str)) {
    if let Some(recorded) = mark.recorded {
        put("recorded", &recorded.to_string());
    }
    if let Some(events) = mark.events {
        put("events", &events.to_string());
    }
}

fn fields(event: &ExportedEvent) -> [(&'static str, Option<String>); 17] {
    let said = |column: &str| event.says.get(column).and_then(Value::as_str).map(str::to_owned);
    let causes = |of: &dyn Fn(&ExportedCause) -> Option<String>| {
        let all: Vec<String> = event.causes.iter().flat_map(of).collect();
        Some(all.join("; ")).filter(|all| !all.is_empty())
    };
    [
        ("person", event.person.clone()),
        ("entitlement", event.entitlement.clone()),
        ("principal", event.principal.clone()),
        ("account", event.account.clone()),
        ("permissionSet", event.permission_set_arn.clone()),
        ("group", event.group_id.clone()),
        ("intent", event.intent.map(|intent| intent.to_string())),
        ("asked", event.asked.clone()),
        ("reference", event.reference.clone()),
        ("outcome", event.outcome.clone()),
        ("detail", event.detail.clone()),
        ("policy", event.policy.clone()),
        ("context", event.context.clone()),
        ("basis", causes(&|cause| Some(cause.basis.to_owned()))),
        ("schedule", causes(&|cause| cause.schedule.clone())),
        ("rule", causes(&|cause| Some(cause.rule.clone()))),
        ("reason", said("reason")),
    ]
}

fn words(event: &ExportedEvent) -> String {
    let mut words = event.kind.replace('_', " ");
    for part in [&event.person, &event.entitlement, &event.outcome]
        .into_iter()
        .flatten()
    {
        words.push_str(&format!(" {part}"));
    }
    words
}

/// RFC 5424, section 6.3.3: a quotation mark, a backslash and a closing bracket are escaped. Control characters are made
/// visible before, because a receiver may write each message on a line.
fn escape(out: &mut String, value: &str) {
    let end = out.len() + LONGEST_VALUE;
    for c in clean(value).chars() {
        if end < out.len() + c.len_utf8() + "\\...".len() {
            out.push_str("...");
            return;
        }
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            facility: Facility::Authpriv,
            host: "host".to_owned(),
            process: 42,
        }
    }

    fn mark(detail: &str) -> Record {
        Record::Mark(Mark {
            kind: MarkKind::Head,
            time: Timestamp::from_millisecond(1_700_000_000_007).unwrap(),
            seq: 7,
            hash: "ab".to_owned(),
            recorded: None,
            events: None,
            detail: detail.to_owned(),
        })
    }

    #[test]
    fn a_message_has_the_parts_that_the_rfc_names() {
        let message = header().message(&mark("gone"), SinkFormat::Structured, "a]b\"c\\d\ne");
        assert_eq!(
            message.unwrap(),
            "<86>1 2023-11-14T22:13:20.007Z host dutybound 42 head \
             [dutybound@32473 ledger=\"a\\]b\\\"c\\\\d\\\\u{a}e\" seq=\"7\" hash=\"ab\"] \u{feff}gone"
        );
    }

    #[test]
    fn json_is_ascii_and_reads_back() {
        let message = header().message(&mark("Zoë 🦀\n"), SinkFormat::Jsonl, "l").unwrap();
        assert!(message.is_ascii());
        let json: Value = serde_json::from_str(message.split_once(" - ").unwrap().1).unwrap();
        assert_eq!(
            (json["detail"].as_str(), json["kind"].as_str()),
            (Some("Zoë 🦀\n"), Some("head"))
        );
    }

    #[test]
    fn no_message_is_too_long_and_each_stays_whole() {
        let long = "ü]".repeat(20_000);
        let text = header().message(&mark(&long), SinkFormat::Structured, &long).unwrap();
        assert!(text.len() <= LONGEST, "{}", text.len());
        assert!(text.contains("...\" seq=\"7\""));
        for format in [SinkFormat::Jsonl, SinkFormat::Ocsf] {
            let text = header().message(&mark(&long), format, "l").unwrap();
            assert!(text.len() <= LONGEST);
            let json: Value = serde_json::from_str(text.split_once(" - ").unwrap().1).unwrap();
            assert_eq!(
                (json["shortened"].as_bool(), json["seq"].as_i64()),
                (Some(true), Some(7))
            );
        }
    }

    #[test]
    fn what_has_no_place_in_a_header_is_left_out() {
        assert_eq!(token("a b\n\u{e9}c", 2), "ab");
        assert_eq!(token("\u{e9}", 9), "-");
        assert_eq!(instant(Timestamp::MIN), "-");
    }
}
