//! Events as they are sent: rendered, in order, bounded.

use jiff::Timestamp;

use super::record::Record;
use super::syslog::Header;
use crate::config::{SinkConfig, SinkFormat, SinkTarget};

/// What is sent together, and where the sink stands once that is confirmed.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// May be empty, where the format has no place for any of the events.
    pub(super) lines: Vec<Line>,
    /// The last event that it stands for, with its hash; none where it has marks only.
    pub(super) end: Option<(i64, String)>,
    /// When the oldest event that it stands for was recorded.
    pub(super) oldest: Option<Timestamp>,
}

/// One event or mark.
#[derive(Debug)]
pub(super) struct Line {
    /// Without a line break, anywhere.
    pub(super) text: String,
    pub(super) seq: i64,
    hash: String,
    is_event: bool,
}

impl Batch {
    /// The number of bytes.
    pub(super) fn size(&self) -> usize {
        self.lines.iter().map(|line| line.text.len() + 1).sum()
    }

    /// How many of the lines are events.
    pub(super) fn events(&self) -> usize {
        self.lines.iter().filter(|line| line.is_event).count()
    }

    /// Each line with a line break.
    pub(super) fn ndjson(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        for line in &self.lines {
            out.extend_from_slice(line.text.as_bytes());
            out.push(b'\n');
        }
        out
    }

    /// A JSON array of the lines.
    pub(super) fn array(&self) -> Vec<u8> {
        let lines: Vec<&str> = self.lines.iter().map(|line| line.text.as_str()).collect();
        format!("[{}]", lines.join(",")).into_bytes()
    }

    /// The same for the same batch, however often it is sent, and for no other.
    pub(super) fn key(&self, ledger: &str) -> String {
        let (Some(first), Some(last)) = (self.lines.first(), self.lines.last()) else {
            return String::new();
        };
        let marks = self.lines.len() - self.events();
        let hash = last.hash.get(..16).unwrap_or_default();
        format!("{ledger}-{}-{}-{marks}-{hash}", first.seq, last.seq)
    }

    /// Keeps the first half. Returns whether there was one to stand for; marks alone move no cursor.
    pub(super) fn halve(&mut self) -> bool {
        let kept = self.lines.len() / 2;
        let Some(last) = self.lines[..kept].iter().rev().find(|line| line.is_event) else {
            return false;
        };
        self.end = Some((last.seq, last.hash.clone()));
        self.lines.truncate(kept);
        true
    }

    /// Adds a record where the format has a place for it.
    pub(super) fn push(&mut self, record: &Record, rendering: &Rendering, ledger: &str) {
        if let Some((seq, hash)) = record.position() {
            self.end = Some((seq, hash.to_owned()));
            self.oldest.get_or_insert(record.time());
        }
        if let Some(text) = rendering.render(record, ledger) {
            let (seq, hash) = record.seq_and_hash();
            self.lines.push(Line {
                text,
                seq,
                hash: hash.to_owned(),
                is_event: record.position().is_some(),
            });
        }
    }
}

/// How records become text.
#[derive(Debug)]
pub(super) enum Rendering {
    Json(SinkFormat),
    Syslog(SinkFormat, Header),
}

impl Rendering {
    pub(super) fn of(config: &SinkConfig) -> Self {
        match &config.target {
            SinkTarget::Syslog { facility, .. } => Self::Syslog(config.format, Header::new(*facility)),
            SinkTarget::File(_) | SinkTarget::Http(_) => Self::Json(config.format),
        }
    }

    fn render(&self, record: &Record, ledger: &str) -> Option<String> {
        match self {
            Self::Json(format) => record.json(*format, ledger),
            Self::Syslog(format, header) => header.message(record, *format, ledger),
        }
    }
}
