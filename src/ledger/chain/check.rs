//! Proves the chain, and that the tables say what the chain says.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{Row, SqliteConnection};

use super::super::{Ledger, LedgerError};
use super::pages::{Events, Rows};
use super::tables::{Columns, Op, TABLES, Table, hex, kind};
use super::{Event, NOTHING};

/// As many findings are kept word for word; all are counted.
const SHOWN: usize = 100;

/// Something that is not as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong, in words.
    pub what: String,
    /// The event at which it shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
    /// When that was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// What it tells of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The table that contradicts the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The row there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<i64>,
    /// What the chain says, by column; absent where it says that there is no such row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<BTreeMap<String, serde_json::Value>>,
    /// What the row says, by column; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<BTreeMap<String, serde_json::Value>>,
}

impl Finding {
    fn at(what: impl Into<String>, event: &Event) -> Self {
        Self {
            seq: Some(event.seq),
            at: Timestamp::from_millisecond(event.at).ok(),
            kind: Some(event.kind.clone()),
            ..Self::new(what)
        }
    }

    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            seq: None,
            at: None,
            kind: None,
            table: None,
            row: None,
            chain: None,
            found: None,
        }
    }
}

/// A head that was published earlier.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublishedHead {
    /// Its event, where that is known.
    pub seq: Option<i64>,
    /// Its hash, in hexadecimal digits.
    pub hash: String,
}

/// What a check of the chain found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verdict {
    /// Whether nothing is wrong.
    pub intact: bool,
    /// How many events the chain has.
    pub events: i64,
    /// The first that is kept.
    pub first: Option<i64>,
    /// The end of the chain.
    pub head: Option<super::Head>,
    /// How many rows agree with it.
    pub rows: i64,
    /// Published heads that are part of the chain.
    pub heads_found: i64,
    /// Published heads that are older than what is kept, which can be neither confirmed nor doubted.
    pub heads_older: i64,
    /// How many things are wrong.
    pub wrong: i64,
    /// The first of them.
    pub findings: Vec<Finding>,
}

impl Verdict {
    fn add(&mut self, finding: Finding) {
        self.wrong += 1;
        if self.findings.len() < SHOWN {
            self.findings.push(finding);
        }
    }
}

/// What the chain says of rows from before it began.
#[derive(Debug, Default, Deserialize)]
struct Before {
    #[serde(default)]
    before: BTreeMap<String, Covered>,
}

#[derive(Debug, Deserialize)]
struct Covered {
    rows: i64,
    last: i64,
    sha256: String,
}

/// Where the chain was cut last.
#[derive(Debug, Deserialize)]
struct Cut {
    cut: i64,
    hash: String,
}

impl Ledger {
    /// Checks the whole chain, every covered table against it, and whether published heads are part of it; all as of one
    /// instant, beside whoever writes. Memory does not grow with the ledger.
    ///
    /// # Errors
    /// [`LedgerError`] where the file cannot be read. What is wrong with the record is in the [`Verdict`].
    pub async fn check_chain(&self, heads: impl Iterator<Item = PublishedHead>) -> Result<Verdict, LedgerError> {
        let mut verdict = Verdict::default();
        if !self.has_chain().await? {
            verdict.add(Finding::new(
                "the ledger has no chain yet; it begins when this version of dutybound first opens the ledger for writing",
            ));
            return Ok(verdict);
        }
        let mut tx = self.pool.begin().await?;
        verdict.head = self.walk(&mut tx, &mut verdict).await?;
        let before = baseline(&mut tx).await?;
        for table in &TABLES {
            compare(&mut tx, table, before.get(table.name), &mut verdict).await?;
        }
        strangers(&mut tx, &mut verdict).await?;
        if verdict.wrong == 0 {
            // Where the record is wrong, its sums are, and that says nothing more.
            compare_totals(&mut tx, &mut verdict).await?;
        }
        for head in heads {
            look_up(&mut tx, &head, &mut verdict).await?;
        }
        verdict.intact = verdict.wrong == 0;
        Ok(verdict)
    }

    /// Follows the hashes from the first event that is kept.
    async fn walk(&self, tx: &mut SqliteConnection, verdict: &mut Verdict) -> Result<Option<super::Head>, LedgerError> {
        let (mut expected, mut before) = match last_cut(tx).await? {
            Ok(cut) => cut,
            Err(finding) => {
                verdict.add(finding);
                (1, NOTHING.to_vec())
            }
        };
        verdict.first = Some(expected);
        let ledger: Option<String> = sqlx::query_scalar("SELECT ledger_id FROM installation")
            .fetch_one(&mut *tx)
            .await?;
        let mut head = None;
        let mut events = Events::from(i64::MIN);
        while let Some(event) = events.next(tx).await? {
            let hash = event.hash_after(&before);
            if event.seq != expected {
                let missing = event.seq.saturating_sub(1);
                let what = if expected == missing {
                    format!("event {expected} is missing; this one comes next")
                } else if expected < missing {
                    format!("events {expected} to {missing} are missing; this one comes next")
                } else {
                    "this event stands before the beginning of the chain".to_owned()
                };
                verdict.add(Finding::at(what, &event));
            } else if hash[..] != event.hash {
                let what = "the event is not what was recorded, or the one before it is not: the hashes do not fit";
                verdict.add(Finding::at(what, &event));
            }
            if let Some(what) = malformed(&event) {
                verdict.add(Finding::at(what, &event));
            }
            verdict.events += 1;
            expected = event.seq.saturating_add(1);
            head = Some(super::Head {
                seq: event.seq,
                at: Timestamp::from_millisecond(event.at).unwrap_or_default(),
                hash: hex(&event.hash),
                ledger: ledger.clone(),
            });
            before = event.hash;
        }
        if head.is_none() {
            verdict.add(Finding::new("the chain has no event at all"));
        }
        Ok(head)
    }
}

/// What no version of the program has written.
fn malformed(event: &Event) -> Option<&'static str> {
    let Some(op) = Op::parse(&event.op) else {
        return Some("it does not say what it changes");
    };
    if op == Op::Note {
        return (!event.table.is_empty() || event.row.is_some()).then_some("it tells of a row and changes none");
    }
    let (Some(table), Some(_)) = (Table::named(&event.table), event.row) else {
        return Some("it tells of a table or a row that the chain does not cover");
    };
    match serde_json::from_str::<Columns>(&event.body) {
        Err(_) => Some("its text cannot be read back"),
        Ok(columns) if kind(table.name, op, &columns) != event.kind => Some("its kind is not that of what it changes"),
        Ok(_) => None,
    }
}

/// The event with which the chain has to begin, and the hash before it.
async fn last_cut(tx: &mut SqliteConnection) -> Result<Result<(i64, Vec<u8>), Finding>, LedgerError> {
    let query = "SELECT seq, at, kind, tbl, row, op, body, hash FROM event WHERE tbl = '' AND row IS NULL AND kind = 'retention' \
         ORDER BY seq DESC LIMIT 1";
    let Some(row) = sqlx::query(query).fetch_optional(tx).await? else {
        return Ok(Ok((1, NOTHING.to_vec())));
    };
    let event = Event::read(&row)?;
    let cut = serde_json::from_str::<Cut>(&event.body).ok();
    let cut = cut.and_then(|cut| Some((cut.cut.checked_add(1)?, unhex(&cut.hash)?)));
    Ok(cut.ok_or_else(|| Finding::at("it does not say where the chain was cut", &event)))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

async fn baseline(tx: &mut SqliteConnection) -> Result<BTreeMap<String, Covered>, LedgerError> {
    let query = "SELECT body FROM event WHERE tbl = '' AND row IS NULL AND kind = 'chain_begun' ORDER BY seq LIMIT 1";
    let body: Option<String> = sqlx::query_scalar(query).fetch_optional(tx).await?;
    let before = body.and_then(|body| serde_json::from_str::<Before>(&body).ok());
    Ok(before.unwrap_or_default().before)
}

/// What the events of one row come to.
struct Said {
    columns: Option<Columns>,
    /// The last one that told of it.
    last: Option<Event>,
}

/// Goes through a table and its events side by side.
async fn compare(
    tx: &mut SqliteConnection,
    table: &'static Table,
    covered: Option<&Covered>,
    verdict: &mut Verdict,
) -> Result<(), LedgerError> {
    let (mut rows, mut events) = (Rows::of(table, "1"), Events::of(table));
    let mut old = super::Rows::new(table);
    loop {
        let row = rows.peek(tx).await?;
        let event = events.peek(tx).await?.and_then(|event| event.row);
        let Some(id) = [row, event].into_iter().flatten().min() else {
            break;
        };
        let said = fold(tx, &mut events, id).await?;
        let found = if row == Some(id) { rows.next(tx).await? } else { None };
        let found = found.map(|(_, columns)| columns);
        match (said, found) {
            (
                Said {
                    columns: None,
                    last: None,
                },
                Some(found),
            ) => {
                if covered.is_some_and(|covered| id <= covered.last) {
                    old.add(id, &found);
                } else {
                    let what = "the row is there, and the chain knows nothing of it";
                    verdict.add(disagreement(what, table, id, None, None, Some(found)));
                }
            }
            (Said { columns: None, last }, Some(found)) => {
                let what = "the row is there, and the chain says that it is gone";
                verdict.add(disagreement(what, table, id, last.as_ref(), None, Some(found)));
            }
            (
                Said {
                    columns: Some(said),
                    last,
                },
                None,
            ) => {
                let what = "the row is gone, and the chain says that it is there";
                verdict.add(disagreement(what, table, id, last.as_ref(), Some(said), None));
            }
            (
                Said {
                    columns: Some(mut said),
                    last,
                },
                Some(mut found),
            ) => {
                found.retain(|name, _| said.contains_key(name));
                if said == found {
                    verdict.rows += 1;
                } else {
                    let same: Vec<String> = said
                        .iter()
                        .filter(|(name, value)| found.get(*name) == Some(value))
                        .map(|(name, _)| name.clone())
                        .collect();
                    said.retain(|name, _| !same.contains(name));
                    found.retain(|name, _| !same.contains(name));
                    let what = "the row is not what the chain says";
                    verdict.add(disagreement(what, table, id, last.as_ref(), Some(said), Some(found)));
                }
            }
            (Said { columns: None, .. }, None) => {}
        }
    }
    if let Some(covered) = covered {
        let count = old.count;
        if count == covered.rows && old.digest() == covered.sha256 {
            verdict.rows += count;
        } else {
            let mut finding = Finding::new(format!(
                "the rows from before the chain began, up to {}, are not what they were then: there were {}, there are {count}",
                covered.last, covered.rows
            ));
            finding.table = Some(table.name.to_owned());
            verdict.add(finding);
        }
    }
    Ok(())
}

async fn fold(tx: &mut SqliteConnection, events: &mut Events, id: i64) -> Result<Said, LedgerError> {
    let mut said = Said {
        columns: None,
        last: None,
    };
    while events.peek(tx).await?.is_some_and(|event| event.row == Some(id)) {
        let Some(event) = events.next(tx).await? else { break };
        // What cannot be read back was found in the chain itself.
        let news = serde_json::from_str::<Columns>(&event.body).unwrap_or_default();
        match Op::parse(&event.op) {
            Some(Op::Insert | Op::Restate) => said.columns = Some(news),
            Some(Op::Update) => said.columns.get_or_insert_default().extend(news),
            Some(Op::Delete) => said.columns = None,
            Some(Op::Note) | None => {}
        }
        said.last = Some(event);
    }
    Ok(said)
}

fn disagreement(
    what: &str,
    table: &Table,
    id: i64,
    last: Option<&Event>,
    chain: Option<Columns>,
    found: Option<Columns>,
) -> Finding {
    let finding = last.map_or_else(|| Finding::new(what), |event| Finding::at(what, event));
    Finding {
        table: Some(table.name.to_owned()),
        row: Some(id),
        chain,
        found,
        ..finding
    }
}

/// What stands nowhere but in the chain, and what stands beside it, each has to be of a kind that is known.
async fn strangers(tx: &mut SqliteConnection, verdict: &mut Verdict) -> Result<(), LedgerError> {
    let open: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM retention)")
        .fetch_one(&mut *tx)
        .await?;
    if open {
        verdict.add(Finding::new(
            "somebody opened the ledger for removal: the table `retention` is empty except within our own transactions",
        ));
    }
    let guards = [
        "event_never_changes",
        "event_stays",
        "intent_stays",
        "intent_completes_once",
        "access_stays",
        "access_ends_once",
        "cause_stays",
        "cause_ends_once",
        "approval_stays",
        "bar_stays",
        "restoration_stays",
        "removed_stays",
    ];
    let rows = sqlx::query("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .fetch_all(tx)
        .await?;
    let names: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    for guard in guards.iter().filter(|guard| !names.iter().any(|name| name == *guard)) {
        verdict.add(Finding::new(format!(
            "the trigger `{guard}`, which keeps the record from being changed, is gone"
        )));
    }
    Ok(())
}

/// Adds up again what counters derive from.
async fn compare_totals(tx: &mut SqliteConnection, verdict: &mut Verdict) -> Result<(), LedgerError> {
    let known: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'total')")
            .fetch_one(&mut *tx)
            .await?;
    if !known {
        return Ok(());
    }
    for entitlement in super::super::totals::wrong_totals(tx).await? {
        verdict.add(Finding::new(format!(
            "the total of {entitlement}, which counters begin with, is not what its intervals on record and the removed ones add up to"
        )));
    }
    Ok(())
}

async fn look_up(tx: &mut SqliteConnection, head: &PublishedHead, verdict: &mut Verdict) -> Result<(), LedgerError> {
    let wanted = head.hash.to_ascii_lowercase();
    let known = match head.seq {
        Some(seq) => sqlx::query("SELECT seq, hash FROM event WHERE seq = ?").bind(seq),
        None => sqlx::query("SELECT seq, hash FROM event WHERE hash = ?").bind(unhex(&wanted)),
    };
    let known = known.fetch_optional(&mut *tx).await?;
    let known = known.map(|row| row.try_get::<Vec<u8>, _>(1)).transpose()?;
    let older = head.seq.zip(verdict.first).is_some_and(|(seq, first)| seq < first);
    if known.is_some_and(|hash| hex(&hash) == wanted) {
        verdict.heads_found += 1;
    } else if older {
        verdict.heads_older += 1;
    } else {
        let last = verdict.head.as_ref().map_or(0, |head| head.seq);
        let what = match head.seq {
            Some(seq) if last < seq => format!(
                "the chain is cut off: it ends with event {last}, and the published head {wanted} is that of event {seq}"
            ),
            Some(seq) => format!("event {seq} is not the one whose hash was published: {wanted}"),
            None => format!("the published head {wanted} is no event of the chain"),
        };
        let restored: Option<i64> = sqlx::query_scalar("SELECT MAX(found_at) FROM restoration")
            .fetch_one(tx)
            .await?;
        let restored = restored.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let what = restored.map_or(what.clone(), |at| {
            let at = crate::text::instant(at);
            format!(
                "{what}. The ledger was restored from a copy at {at}, and heads from between the copy and then are not in its chain; \
                 `dutybound status` and the chain itself say what of that time is lost"
            )
        });
        verdict.add(Finding {
            seq: head.seq,
            ..Finding::new(what)
        });
    }
    Ok(())
}
