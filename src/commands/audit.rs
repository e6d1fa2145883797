//! `audit`: proves the record, and shows what the proof found.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::ledger::{Finding, PublishedHead, Verdict};
use crate::text::{clean, instant};

pub mod access;
pub mod export;
pub mod ocsf;

/// Reads a head as it was published: its hash, `event:hash`, or a file of heads as `heads` under `[audit]` has them
/// written, one JSON object a line.
///
/// # Errors
/// When it is neither, or the file cannot be read.
pub fn published(head: &str) -> anyhow::Result<Vec<PublishedHead>> {
    let (seq, hash) = match head.split_once(':') {
        Some((seq, hash)) => (seq.parse().ok(), hash),
        None => (None, head),
    };
    if is_hash(hash) && (seq.is_some() || hash == head) {
        let hash = hash.to_owned();
        return Ok(vec![PublishedHead { seq, hash }]);
    }
    read_heads(Path::new(head))
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn read_heads(path: &Path) -> anyhow::Result<Vec<PublishedHead>> {
    let name = || format!("cannot read heads from {}", clean(&path.display().to_string()));
    let file = File::open(path).with_context(|| name() + "; --head takes such a file, a hash, or event:hash")?;
    let mut heads = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(name)?;
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str::<PublishedHead>(&line) {
            Ok(head) if is_hash(&head.hash) => heads.push(head),
            _ => bail!("{}: line {} is not a head", name(), number + 1),
        }
    }
    if heads.is_empty() {
        bail!("{}: it has none", name());
    }
    Ok(heads)
}

/// What the proof found, for people.
#[must_use]
pub fn text(verdict: &Verdict) -> String {
    let mut out = String::new();
    let end = verdict.head.as_ref().map_or_else(String::new, |head| {
        format!("Head: event {} of {}, {}\n", head.seq, instant(head.at), head.hash)
    });
    let since = match verdict.first {
        Some(first) if 1 < first => format!(", from event {first} on; what is older was removed by retention"),
        _ => String::new(),
    };
    if verdict.intact {
        out.push_str(&format!(
            "Intact: {} events{since}; {} rows agree with them.\n",
            verdict.events, verdict.rows
        ));
    } else {
        out.push_str(&format!(
            "BROKEN: {} findings in {} events{since}.\n",
            verdict.wrong, verdict.events
        ));
        for finding in &verdict.findings {
            out.push_str(&line(finding));
        }
        let more = verdict.wrong - i64::try_from(verdict.findings.len()).unwrap_or(i64::MAX);
        if 0 < more {
            out.push_str(&format!("  and {more} more\n"));
        }
    }
    out.push_str(&end);
    if 0 < verdict.heads_found {
        out.push_str(&format!(
            "Published heads that are part of the chain: {}\n",
            verdict.heads_found
        ));
    }
    if 0 < verdict.heads_older {
        out.push_str(&format!(
            "Published heads older than what is kept, neither confirmed nor doubted: {}\n",
            verdict.heads_older
        ));
    }
    out
}

fn line(finding: &Finding) -> String {
    let mut out = String::from("  ");
    if let (Some(table), Some(row)) = (&finding.table, finding.row) {
        out.push_str(&format!("{} {row}: ", clean(table)));
    } else if let Some(table) = &finding.table {
        out.push_str(&format!("{}: ", clean(table)));
    } else if let Some(seq) = finding.seq {
        out.push_str(&format!("event {seq}"));
        if let (Some(at), Some(kind)) = (finding.at, &finding.kind) {
            out.push_str(&format!(" ({} of {})", clean(kind), instant(at)));
        }
        out.push_str(": ");
    }
    out.push_str(&clean(&finding.what));
    out.push('\n');
    if let (Some(_), Some(seq), Some(at), Some(kind)) = (&finding.table, finding.seq, finding.at, &finding.kind) {
        out.push_str(&format!(
            "    last told of by event {seq}, {} of {}\n",
            clean(kind),
            instant(at)
        ));
    }
    let mut columns: Vec<&String> = finding
        .chain
        .iter()
        .chain(&finding.found)
        .flat_map(|c| c.keys())
        .collect();
    columns.sort();
    columns.dedup();
    for column in columns {
        let value = |side: &Option<std::collections::BTreeMap<String, Value>>| {
            side.as_ref()
                .and_then(|side| side.get(column))
                .map_or_else(|| "no row".to_owned(), shown)
        };
        let (chain, found) = (value(&finding.chain), value(&finding.found));
        match (&finding.chain, &finding.found) {
            (Some(_), Some(_)) => {
                out.push_str(&format!("    {column}: the chain says {chain}, the row {found}\n"));
            }
            (Some(_), None) => out.push_str(&format!("    {column}: {chain}\n")),
            _ => out.push_str(&format!("    {column}: {found}\n")),
        }
    }
    out
}

/// A column's value on one line, cut where it is long; JSON output has it whole.
fn shown(value: &Value) -> String {
    let text = clean(&value.to_string());
    if text.chars().count() <= 80 {
        return text;
    }
    text.chars().take(77).collect::<String>() + "..."
}
