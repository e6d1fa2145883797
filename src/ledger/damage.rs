//! SQLite's own look for damage: before anything is done at what decides, and beside the passes at a long past.

use std::error::Error as _;
use std::path::Path;

use sqlx::{Row, SqlitePool};

use super::{Ledger, LedgerError};

/// A larger file is not read through before the daemon starts: a year of a large organisation takes a minute and more.
const SMALL: i64 = 1 << 30;

/// Looks through a small file, and of a larger one through what decisions are made from. Reads touch only the pages that
/// they need: damage elsewhere would show when an intent has been carried out already.
pub(super) async fn look(pool: &SqlitePool) -> Result<(), LedgerError> {
    look_at(pool, SMALL).await
}

async fn look_at(pool: &SqlitePool, small: i64) -> Result<(), LedgerError> {
    if size(pool).await? <= small {
        return judge(sqlx::query("PRAGMA quick_check(1)").fetch_all(pool).await?);
    }
    let found = sqlx::query(
        "SELECT c.quick_check FROM sqlite_schema s, pragma_quick_check(s.name) c \
         WHERE s.type = 'table' AND s.name NOT IN ('event', 'intent')",
    );
    judge(found.fetch_all(pool).await?)
}

async fn size(pool: &SqlitePool) -> Result<i64, sqlx::Error> {
    let bytes = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    sqlx::query_scalar(bytes).fetch_one(pool).await
}

fn judge(found: Vec<sqlx::sqlite::SqliteRow>) -> Result<(), LedgerError> {
    for row in found {
        let found: String = row.try_get(0)?;
        if found != "ok" {
            return Err(LedgerError::Corrupt { found });
        }
    }
    Ok(())
}

fn tell_only_of_damage(found: Result<(), LedgerError>, path: &Path) -> Result<(), LedgerError> {
    match found {
        Err(error) if !error.is_damage() => {
            let why = error.source().map_or_else(|| error.to_string(), crate::chain);
            tracing::warn!(
                path = %path.display(),
                error = why,
                "the ledger's past could not be looked through for damage; the daemon goes on, and the next start looks again"
            );
            Ok(())
        }
        found => found.map_err(|error| error.at(path)),
    }
}

impl Ledger {
    /// Looks through what [`Ledger::open`] passes over in a large file: the intents and events of the past, which are most of
    /// it. Takes as long as reading them does, and keeps the connection for that time.
    ///
    /// # Errors
    /// [`LedgerError`], with the file's name, where it is damaged. What keeps this from looking is logged and nothing worse:
    /// the daemon works on, and looks again when it starts the next time.
    pub async fn look_through_the_past(&self, path: &Path) -> Result<(), LedgerError> {
        tell_only_of_damage(self.look_through(SMALL).await, path)
    }

    async fn look_through(&self, small: i64) -> Result<(), LedgerError> {
        if size(&self.pool).await? <= small {
            return Ok(());
        }
        for table in ["intent", "event"] {
            let found = sqlx::query("SELECT quick_check FROM pragma_quick_check(?)").bind(table);
            judge(found.fetch_all(&self.pool).await?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;

    use jiff::Timestamp;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;

    async fn pool(path: &Path) -> SqlitePool {
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        SqlitePool::connect_with(options).await.unwrap()
    }

    /// Overwrites the first page of each table, one after the other.
    #[tokio::test]
    async fn of_a_large_ledger_the_past_is_looked_through_later_and_all_else_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let ledger = Ledger::open(&path, "test", Timestamp::UNIX_EPOCH).await.unwrap();
        ledger.close().await;
        let good = std::fs::read(&path).unwrap();
        let tables: Vec<(String, i64)> =
            sqlx::query_as("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table' AND rootpage > 1")
                .fetch_all(&pool(&path).await)
                .await
                .unwrap();
        assert!(tables.len() > 12, "{tables:?}");
        let mut looked_through = Vec::new();
        for (table, page) in tables {
            std::fs::write(&path, &good).unwrap();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let at = u64::try_from(page - 1).unwrap() * 4096;
            file.write_all_at(&[0xa5; 4096], at).unwrap();
            let is_past = ["event", "intent"].contains(&table.as_str());
            let pool = pool(&path).await;
            assert!(look(&pool).await.is_err(), "{table}");
            assert_eq!(look_at(&pool, 0).await.is_ok(), is_past, "{table}");
            let reader = Ledger::open_read_only(&path, "test").await;
            if let (true, Ok(reader)) = (is_past, reader) {
                let found = tell_only_of_damage(reader.look_through(0).await, &path).unwrap_err();
                let told = crate::chain(&found);
                assert!(
                    told.contains("damaged") && told.contains("ledger.db"),
                    "{table}: {told}"
                );
                looked_through.push(table);
            }
        }
        looked_through.sort();
        assert_eq!(looked_through, ["event", "intent"]);
    }

    /// What passes, passes on without the daemon's end.
    #[tokio::test]
    async fn whatever_else_keeps_it_from_looking_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let ledger = Ledger::open(&path, "test", Timestamp::UNIX_EPOCH).await.unwrap();
        ledger.pool.close().await;
        let found = ledger.look_through(0).await;
        assert!(found.is_err());
        assert!(tell_only_of_damage(found, &path).is_ok());
    }
}
