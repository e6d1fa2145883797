//! What is sent: the events of the chain, and marks that tell of the chain itself.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::commands::audit::ocsf;
use crate::config::SinkFormat;
use crate::ledger::ExportedEvent;

/// Something that a sink is sent.
pub(super) enum Record {
    /// An event of the chain.
    Event(Box<ExportedEvent>),
    /// Something about the chain.
    Mark(Mark),
}

/// Something about the chain that is no event of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Mark {
    pub(super) kind: MarkKind,
    pub(super) time: Timestamp,
    /// The event that it tells of: the head, the last one before a gap, the last one that was sent of another chain.
    pub(super) seq: i64,
    /// The hash of that event.
    pub(super) hash: String,
    /// When the head was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) recorded: Option<Timestamp>,
    /// How many events cannot be sent any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) events: Option<i64>,
    /// In words.
    pub(super) detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MarkKind {
    /// The end of the chain at this time; everything before it was sent.
    Head,
    /// Events were removed by retention, or by another hand, before the sink took them.
    StreamGap,
    /// The chain is not the one that was sent before; it is sent from its beginning.
    StreamRestarted,
}

impl MarkKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::StreamGap => "stream_gap",
            Self::StreamRestarted => "stream_restarted",
        }
    }
}

#[derive(Serialize)]
struct Named<'a, T> {
    #[serde(flatten)]
    record: &'a T,
    ledger: &'a str,
}

impl Record {
    /// Where a sink stands that confirmed it, unless it is a mark.
    pub(super) fn position(&self) -> Option<(i64, &str)> {
        match self {
            Self::Event(event) => Some((event.seq, &event.hash)),
            Self::Mark(_) => None,
        }
    }

    pub(super) fn kind(&self) -> &str {
        match self {
            Self::Event(event) => &event.kind,
            Self::Mark(mark) => mark.kind.as_str(),
        }
    }

    pub(super) fn time(&self) -> Timestamp {
        match self {
            Self::Event(event) => event.time,
            Self::Mark(mark) => mark.time,
        }
    }

    pub(super) fn seq_and_hash(&self) -> (i64, &str) {
        match self {
            Self::Event(event) => (event.seq, &event.hash),
            Self::Mark(mark) => (mark.seq, &mark.hash),
        }
    }

    /// One JSON object on one line; `None` where the format has no place for it.
    pub(super) fn json(&self, format: SinkFormat, ledger: &str) -> Option<String> {
        let text = match (format, self) {
            (SinkFormat::Ocsf, Self::Event(event)) => ocsf::event(event, ledger)?.to_string(),
            (SinkFormat::Ocsf, Self::Mark(mark)) => mark.ocsf(ledger).to_string(),
            (_, Self::Event(record)) => crate::ledger::write_json(&Named {
                record: &**record,
                ledger,
            }),
            (_, Self::Mark(record)) => crate::ledger::write_json(&Named { record, ledger }),
        };
        Some(text)
    }
}

impl Mark {
    /// OCSF's Base Event, <https://schema.ocsf.io/1.5.0/classes/base_event>, because no class is made for it.
    fn ocsf(&self, ledger: &str) -> Value {
        json!({
            "class_uid": 0,
            "class_name": "Base Event",
            "category_uid": 0,
            "category_name": "Uncategorized",
            "activity_id": 99,
            "activity_name": self.kind.as_str(),
            "type_uid": 99,
            "severity_id": if self.kind == MarkKind::Head { 1 } else { 4 },
            "severity": if self.kind == MarkKind::Head { "Informational" } else { "High" },
            "time": self.time.as_millisecond(),
            "message": self.detail,
            "metadata": {
                "version": ocsf::VERSION,
                "product": { "name": "dutybound", "vendor_name": "dutybound", "version": env!("CARGO_PKG_VERSION") },
                "log_name": ledger,
                "uid": format!("{ledger}:{}:{}:{}", self.kind.as_str(), self.seq, self.time.as_millisecond()),
                "sequence": self.seq,
                "event_code": self.kind.as_str(),
                "logged_time": self.time.as_millisecond(),
            },
            "unmapped": { "hash": self.hash, "recorded": self.recorded, "events": self.events },
        })
    }
}
