//! The record as it was at one moment, for whoever asks more than one question of it.

use sqlx::{Sqlite, Transaction};

use super::{Ledger, LedgerError};

/// Every question is answered as of the first one, whatever is written meanwhile. While it lives SQLite cannot shorten its log.
#[derive(Debug)]
pub struct Moment(pub(super) Transaction<'static, Sqlite>);

impl Ledger {
    /// A moment that begins with its first question.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn moment(&self) -> Result<Moment, LedgerError> {
        Ok(Moment(self.pool.begin().await?))
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::accounting::fixtures::{id, person, span, t};
    use crate::ledger::OnDuty;

    /// Found by a review: between two questions a name came and went, and whose duty was without access was not read again.
    #[tokio::test]
    async fn what_is_written_between_two_questions_is_in_neither() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("ledger.sqlite");
        let writer = Ledger::open(&path, "test", t(0)).await.unwrap();
        let reader = Ledger::open_read_only(&path, "test").await.unwrap();
        let mut moment = reader.moment().await.unwrap();
        let last = moment.access_after(0, |_| {}).await.unwrap();
        let on_duty = OnDuty {
            entitlement: id("payments/admin"),
            person: person("alice@example.com"),
            duty: span(0, 600),
            why: "granting".into(),
        };
        writer.note_unheld(&[on_duty], false, t(1)).await.unwrap();
        assert_eq!(moment.unheld_mark().await.unwrap().newest(), 0);
        assert!(moment.open_unheld().await.unwrap().is_empty());
        assert_eq!(moment.unheld_since(0, &[]).await.unwrap(), []);
        assert_eq!(moment.access_after(0, |_| {}).await.unwrap(), last);
        drop(moment);
        let mut later = reader.moment().await.unwrap();
        assert_eq!(later.unheld_since(0, &[]).await.unwrap().len(), 1);
        assert!(later.unheld_since(1, &[]).await.unwrap().is_empty());
    }
}
