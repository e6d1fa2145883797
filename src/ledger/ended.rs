//! Changes that came about, in the order in which that was recorded: for whoever tells people of them.

use jiff::Timestamp;
use sqlx::Row;

use super::{Ledger, LedgerError, instant, read_json};
use crate::plan::Change;

/// A change that AWS confirmed.
#[derive(Debug, Clone)]
pub struct EndedChange {
    /// The intent's row.
    pub id: i64,
    /// When it was recorded as done.
    pub at: Timestamp,
    /// What was done.
    pub change: Change,
}

impl Ledger {
    /// Changes recorded as done at `since` or later, oldest first, at most `limit`. Changes run beside each other, so that
    /// one may still be recorded with a slightly earlier time than one that is there already.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn changes_done_since(&self, since: Timestamp, limit: u32) -> Result<Vec<EndedChange>, LedgerError> {
        let rows = sqlx::query(
            "SELECT id, completed_at, change FROM intent WHERE completed_at >= ? AND outcome = 'succeeded' \
             ORDER BY completed_at, id LIMIT ?",
        )
        .bind(since.as_millisecond())
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        let mut ended = Vec::with_capacity(rows.len());
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let what = || format!("intent {id}");
            ended.push(EndedChange {
                id,
                at: instant(row.try_get(1)?, what)?,
                change: read_json(row.try_get(2)?, what)?,
            });
        }
        Ok(ended)
    }
}
