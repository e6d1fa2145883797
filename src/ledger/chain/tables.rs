//! Which tables the chain covers, and what a change of one of their rows is called.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// A row's columns as the chain has them.
pub(in crate::ledger) type Columns = BTreeMap<String, Value>;

/// A table that the chain covers.
#[derive(Debug)]
pub(in crate::ledger) struct Table {
    /// As in the schema; its rows are numbered by `id`.
    pub(in crate::ledger) name: &'static str,
    columns: &'static [&'static str],
    /// Long texts of which the chain has the digest only.
    digested: &'static [&'static str],
    /// Rows of which this holds never change again; a chain that begins in their midst covers them by one digest.
    pub(in crate::ledger) closed: &'static str,
}

/// All of them. Left out are `board` and `read_failure`, which say how things look at the moment, `copied_at` of the
/// installation and the text of a snapshot, which changes with every read; the content that it is named by is covered.
pub(in crate::ledger) const TABLES: [Table; 10] = [
    Table {
        name: "installation",
        columns: &["owner_id", "created_at", "ledger_id"],
        digested: &[],
        closed: "0",
    },
    Table {
        name: "snapshot",
        columns: &["schedule", "first_read_at", "content"],
        digested: &[],
        closed: "0",
    },
    Table {
        name: "intent",
        columns: &[
            "kind",
            "entitlement",
            "target",
            "principal",
            "person",
            "change",
            "policy",
            "due_at",
            "created_at",
            "reference",
            "completed_at",
            "outcome",
            "detail",
        ],
        digested: &["change"],
        closed: "completed_at IS NOT NULL",
    },
    Table {
        name: "access",
        columns: &[
            "entitlement",
            "target",
            "principal",
            "person",
            "granted_at",
            "grant_intent",
            "revoked_at",
            "revoke_intent",
            "end_reason",
        ],
        digested: &[],
        closed: "revoked_at IS NOT NULL",
    },
    Table {
        name: "cause",
        columns: &["access_id", "body", "recorded_at", "ended_at"],
        digested: &[],
        closed: "ended_at IS NOT NULL",
    },
    Table {
        name: "hold",
        columns: &["subject", "guard", "since", "body"],
        digested: &[],
        closed: "0",
    },
    Table {
        name: "approval",
        columns: &["digest", "approved_at", "approved_by", "used_at", "released"],
        digested: &[],
        closed: "0",
    },
    Table {
        name: "bar",
        columns: &["person", "since", "ordered_by", "reason", "lifted_at", "lifted_by"],
        digested: &[],
        closed: "0",
    },
    Table {
        name: "restoration",
        columns: &[
            "found_at",
            "why",
            "lost_from",
            "lost_to",
            "last_intent",
            "replayed",
            "drift",
            "outstanding",
            "found",
            "gone",
        ],
        digested: &["drift"],
        closed: "0",
    },
    Table {
        name: "removed",
        columns: &["entitlement", "intervals", "body"],
        digested: &[],
        closed: "0",
    },
];

impl Table {
    /// The table of this name.
    pub(in crate::ledger) fn named(name: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.name == name)
    }

    /// SQL that makes one JSON object of the columns of a row; `of` is empty or ends in a dot.
    pub(in crate::ledger) fn json(&self, of: &str) -> String {
        let pairs: Vec<_> = self.columns.iter().map(|c| format!("'{c}', {of}{c}")).collect();
        format!("json_object({})", pairs.join(", "))
    }

    /// Reads such an object. `None` where it is none.
    pub(in crate::ledger) fn columns(&self, json: &str) -> Option<Columns> {
        let mut columns: Columns = serde_json::from_str(json).ok()?;
        for name in self.digested {
            if let Some(Value::String(text)) = columns.get_mut(*name) {
                *text = format!("sha256:{}", hex(&Sha256::digest(text.as_bytes())));
            }
        }
        Some(columns)
    }
}

/// How an event changes the row that it tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ledger) enum Op {
    /// The row is new; all its columns.
    Insert,
    /// Only the columns that changed.
    Update,
    /// It is gone.
    Delete,
    /// Nothing changed; all columns once more, because what told of them is not in the chain or not any more.
    Restate,
    /// It tells of no row.
    Note,
}

impl Op {
    pub(in crate::ledger) const ALL: [Self; 5] = [Self::Insert, Self::Update, Self::Delete, Self::Restate, Self::Note];

    pub(in crate::ledger) fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Restate => "restate",
            Self::Note => "note",
        }
    }

    pub(in crate::ledger) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.as_str() == text)
    }
}

/// What a change of a row is called.
pub(in crate::ledger) fn kind(table: &str, op: Op, columns: &Columns) -> &'static str {
    let changes = |column: &str| columns.contains_key(column);
    match (table, op) {
        (_, Op::Restate) => "row_restated",
        ("intent", Op::Insert) => "intent_begun",
        ("intent", Op::Update) if changes("outcome") => "intent_completed",
        ("intent", Op::Update) if changes("reference") => "reference_known",
        ("access", Op::Insert) => "access_begun",
        ("access", Op::Update) if changes("revoked_at") => "access_ended",
        ("access", Op::Update) => "access_renamed",
        ("cause", Op::Insert) => "cause_recorded",
        ("cause", Op::Update) => "cause_ended",
        ("hold", Op::Insert) => "hold_begun",
        ("hold", Op::Update) => "hold_changed",
        ("hold", Op::Delete) => "hold_ended",
        ("bar", Op::Insert) => "order_given",
        ("bar", Op::Update) => "order_lifted",
        ("approval", Op::Insert) => "approval_given",
        ("approval", Op::Update) => "approval_used",
        ("snapshot", Op::Insert) => "schedule_read",
        ("snapshot", Op::Delete) => "schedule_dropped",
        ("restoration", Op::Insert) => "restoration_found",
        ("restoration", Op::Update) => "restoration_settled",
        ("installation", _) => "ledger_named",
        ("removed", _) => "totals_carried",
        (_, _) => "row_changed",
    }
}

/// Lower-case hexadecimal digits.
pub(in crate::ledger) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
