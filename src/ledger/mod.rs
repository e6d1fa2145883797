//! The record of what was read, decided and confirmed: a SQLite file with one writer and any number of readers.

use std::fs::File;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use sqlx::{SqliteConnection, SqlitePool};

mod access;
mod authorship;
mod board;
pub mod chain;
mod damage;
mod ended;
mod error;
mod export;
pub mod history;
mod intents;
mod measured;
mod moment;
mod open;
pub mod orders;
mod owned;
mod reads;
mod redo;
mod replay;
pub mod restored;
mod retention;
pub mod snapshots;
mod taken_over;
mod totals;
pub mod tries;
mod trouble;
mod unheld;
mod written;

pub use access::HeldSpan;
pub use board::{Board, DriftSummary, HeldSummary, HoldRow};
pub use chain::{Finding, Head, PolicyInForce, PublishedHead, Verdict};
pub use ended::EndedChange;
pub use error::LedgerError;
pub use export::{Export, ExportedCause, ExportedEvent, Stretch};
pub use history::{AccessRow, Neighbours, RecordedCause};
pub use intents::{OpenIntent, Opened, Outcome};
pub use measured::OnDuty;
pub use moment::Moment;
pub use orders::{Approval, Bar};
pub use owned::{OwnedIndex, Touched};
pub use reads::{Failures, LastReads};
pub use restored::{Adopted, Gone, Outstanding, Restoration};
pub use retention::Removed;
pub use snapshots::{Accepted, KnownSchedules, ReadFailure, StoredSnapshots};
pub use totals::{Counted, Total};
pub use tries::{FailedTry, LastTries, LastTry, TryThen};
pub use trouble::Trouble;
pub use unheld::UnheldMark;

/// An open ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    pool: SqlitePool,
    /// Held for as long as the writer lives: the promise of one writer.
    _lock: Option<Arc<File>>,
    /// Every change once more; only the writer has it open.
    redo: Option<Arc<redo::Redo>>,
    /// See [`Ledger::reads_back_to`].
    reads_back_to: Arc<Mutex<Option<Timestamp>>>,
}

/// The sequence numbers of the oldest and the newest event that are kept, 0 where there is none. Asked for together, without
/// a query for each, SQLite would go through all of them.
async fn ends_of_chain(db: &mut SqliteConnection) -> Result<(i64, i64), sqlx::Error> {
    let both = "SELECT COALESCE((SELECT MIN(seq) FROM event), 0), COALESCE((SELECT MAX(seq) FROM event), 0)";
    sqlx::query_as(both).fetch_one(db).await
}

/// Tells texts apart in less space than they take.
fn digest(texts: &[&str]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    let whole: [u8; 32] = hash.finalize().into();
    std::array::from_fn(|place| whole[place])
}

/// Our own types always serialise; a failure would be a bug and yields a text that does not read back.
pub(crate) fn write_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(
    text: &str,
    what: impl Fn() -> String,
) -> Result<T, LedgerError> {
    serde_json::from_str(text).map_err(|_| LedgerError::Damaged { what: what() })
}

pub(crate) fn parse<T: TryFrom<String>>(text: String, what: impl Fn() -> String) -> Result<T, LedgerError> {
    T::try_from(text).map_err(|_| LedgerError::Damaged { what: what() })
}

pub(crate) fn instant(ms: i64, what: impl Fn() -> String) -> Result<Timestamp, LedgerError> {
    Timestamp::from_millisecond(ms).map_err(|_| LedgerError::Damaged { what: what() })
}
