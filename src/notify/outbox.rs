//! The queue on disk: a SQLite file of its own beside the ledger.
//!
//! SQLite, because what was taken in from the ledger, what people know already and what they are still to be told must
//! change together: each look is one transaction, so that a kill between any two steps neither loses nor repeats anything.
//! A file of its own, because a queue that is full, damaged or deleted must not touch the record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::message::{Access, Matter, Message};

/// How long what ended keeps its key.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What can go wrong with the queue; it concerns messages only.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// SQLite could not read or write the file.
    #[error("the queue of messages cannot be used")]
    Sql(#[from] sqlx::Error),
    /// What is in it is not what was written.
    #[error("the queue of messages is damaged; move the file away, and what people were told before may be told again")]
    Damaged,
}

/// The open queue. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Outbox {
    pool: SqlitePool,
    /// How many messages may wait for one destination.
    most: u32,
    /// How old a message may become.
    max_age: SignedDuration,
}

/// A message on its way to one destination.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The row.
    pub id: i64,
    /// To whom at the destination.
    pub lane: String,
    /// How often it was tried in vain.
    pub tries: u32,
    /// What it says.
    pub message: Message,
}

/// What is so, as remembered from look to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Since when.
    pub since: Timestamp,
    /// When people were told; `None` while it may still pass by itself.
    pub told_at: Option<Timestamp>,
    /// What it is.
    pub matter: Matter,
}

/// Access that waits to be told with others.
#[derive(Debug, Clone)]
pub struct Event {
    /// The row.
    pub id: i64,
    /// A person or a project, see [`super::look`].
    pub audience: String,
    /// When it was recorded.
    pub at: Timestamp,
    /// What came or went.
    pub access: Access,
}

/// Everything that one look changes, all of it or nothing.
#[derive(Debug, Default)]
pub struct Batch {
    /// Messages with their destination and lane.
    pub messages: Vec<(String, String, Message)>,
    /// New events: audience, time and what.
    pub events: Vec<(String, Timestamp, Access)>,
    /// Events that are in messages now.
    pub told_events: Vec<i64>,
    /// Conditions that began or were told.
    pub conditions: BTreeMap<String, Condition>,
    /// Conditions that are over.
    pub over: Vec<String>,
    /// Changes taken in.
    pub taken: Vec<(i64, Timestamp)>,
    /// Marks that moved.
    pub marks: BTreeMap<String, Timestamp>,
}

impl Batch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.events.is_empty()
            && self.told_events.is_empty()
            && self.conditions.is_empty()
            && self.over.is_empty()
            && self.taken.is_empty()
            && self.marks.is_empty()
    }
}

fn ms(at: i64) -> Result<Timestamp, OutboxError> {
    Timestamp::from_millisecond(at).map_err(|_| OutboxError::Damaged)
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, OutboxError> {
    serde_json::from_str(text).map_err(|_| OutboxError::Damaged)
}

fn write<T: serde::Serialize>(value: &T) -> Result<String, OutboxError> {
    serde_json::to_string(value).map_err(|_| OutboxError::Damaged)
}

impl Outbox {
    /// Opens or creates the queue.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub async fn open(path: &Path, most: u32, max_age: SignedDuration) -> Result<Self, OutboxError> {
        restrict(path).map_err(sqlx::Error::Io)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .busy_timeout(Duration::from_secs(5))
            .journal_mode(SqliteJournalMode::Wal)
            // A power cut may take the last moments back, all together; they are then taken in anew from the ledger.
            .synchronous(SqliteSynchronous::Normal);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        sqlx::raw_sql(include_str!("outbox.sql")).execute(&pool).await?;
        Ok(Self { pool, most, max_age })
    }

    /// Writes what a look brought. Returns how many messages had to go, by destination, because too many wait there.
    ///
    /// # Errors
    /// [`OutboxError`]; nothing is written then.
    pub async fn write(&self, batch: &Batch, now: Timestamp) -> Result<BTreeMap<String, u64>, OutboxError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for (destination, lane, message) in &batch.messages {
            sqlx::query(
                "INSERT INTO message (destination, lane, key, created_at, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(destination)
            .bind(lane)
            .bind(&message.key)
            .bind(message.at.as_millisecond())
            .bind(write(message)?)
            .execute(&mut *tx)
            .await?;
        }
        for (audience, at, access) in &batch.events {
            sqlx::query("INSERT INTO event (audience, at, body) VALUES (?, ?, ?)")
                .bind(audience)
                .bind(at.as_millisecond())
                .bind(write(access)?)
                .execute(&mut *tx)
                .await?;
        }
        for id in &batch.told_events {
            sqlx::query("DELETE FROM event WHERE id = ?")
                .bind(id)
                .execute(&mut *tx)
                .await?;
        }
        for (subject, condition) in &batch.conditions {
            sqlx::query("INSERT OR REPLACE INTO condition (subject, since, told_at, body) VALUES (?, ?, ?, ?)")
                .bind(subject)
                .bind(condition.since.as_millisecond())
                .bind(condition.told_at.map(Timestamp::as_millisecond))
                .bind(write(&condition.matter)?)
                .execute(&mut *tx)
                .await?;
        }
        for subject in &batch.over {
            sqlx::query("DELETE FROM condition WHERE subject = ?")
                .bind(subject)
                .execute(&mut *tx)
                .await?;
        }
        for (id, at) in &batch.taken {
            sqlx::query("INSERT INTO taken (change_id, at) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(id)
                .bind(at.as_millisecond())
                .execute(&mut *tx)
                .await?;
        }
        for (name, at) in &batch.marks {
            set_mark(&mut tx, name, *at).await?;
        }
        let mut dropped = BTreeMap::new();
        for destination in batch.messages.iter().map(|(name, _, _)| name).collect::<BTreeSet<_>>() {
            let too_many = sqlx::query(
                "UPDATE message SET ended_at = ?1, body = '' WHERE id IN (SELECT id FROM message \
                 WHERE destination = ?2 AND ended_at IS NULL ORDER BY id DESC LIMIT -1 OFFSET ?3)",
            )
            .bind(now.as_millisecond())
            .bind(destination)
            .bind(self.most)
            .execute(&mut *tx)
            .await?;
            if 0 < too_many.rows_affected() {
                dropped.insert(destination.clone(), too_many.rows_affected());
            }
        }
        tx.commit().await?;
        Ok(dropped)
    }

    /// Takes away what has grown too old. Returns how many messages nobody got, by destination.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub async fn tidy(&self, now: Timestamp) -> Result<BTreeMap<String, u64>, OutboxError> {
        let ago = |span| now.checked_sub(span).unwrap_or(Timestamp::MIN).as_millisecond();
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM message WHERE ended_at < ?")
            .bind(ago(REMEMBERED))
            .execute(&mut *tx)
            .await?;
        let old = sqlx::query(
            "UPDATE message SET ended_at = ?, body = '' WHERE ended_at IS NULL AND created_at < ? RETURNING destination",
        )
        .bind(now.as_millisecond())
        .bind(ago(self.max_age))
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        let mut dropped = BTreeMap::new();
        for row in old {
            *dropped.entry(row.try_get(0)?).or_default() += 1;
        }
        Ok(dropped)
    }

    /// The message that is to go next to a destination: the first of its lane, and the oldest that may be tried now.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub async fn next(&self, destination: &str, now: Timestamp) -> Result<Option<Waiting>, OutboxError> {
        let row = sqlx::query(
            "SELECT id, lane, tries, body FROM message m WHERE destination = ?1 AND ended_at IS NULL AND not_before <= ?2 \
             AND id = (SELECT MIN(id) FROM message WHERE destination = ?1 AND lane = m.lane AND ended_at IS NULL) \
             ORDER BY id LIMIT 1",
        )
        .bind(destination)
        .bind(now.as_millisecond())
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            Ok(Waiting {
                id: row.try_get(0)?,
                lane: row.try_get(1)?,
                tries: row.try_get(2)?,
                message: read(row.try_get(3)?)?,
            })
        })
        .transpose()
    }

    /// When the first message that was put off may be tried again.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub async fn next_try(&self, destination: &str) -> Result<Option<Timestamp>, OutboxError> {
        let at: Option<i64> = sqlx::query_scalar(
            "SELECT MIN(not_before) FROM message WHERE destination = ? AND ended_at IS NULL AND 0 < not_before",
        )
        .bind(destination)
        .fetch_one(&self.pool)
        .await?;
        at.map(ms).transpose()
    }

    /// Marks a message as delivered, or as given up.
    ///
    /// # Errors
    /// [`OutboxError`]; it is then sent again.
    pub async fn ended(&self, id: i64, now: Timestamp) -> Result<(), OutboxError> {
        sqlx::query("UPDATE message SET ended_at = ?, body = '' WHERE id = ?")
            .bind(now.as_millisecond())
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Puts a message off.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub async fn put_off(&self, id: i64, until: Timestamp) -> Result<(), OutboxError> {
        sqlx::query("UPDATE message SET tries = tries + 1, not_before = ? WHERE id = ?")
            .bind(until.as_millisecond())
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// How many messages wait, by destination.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub async fn waiting(&self) -> Result<BTreeMap<String, u64>, OutboxError> {
        let rows = sqlx::query("SELECT destination, COUNT(*) FROM message WHERE ended_at IS NULL GROUP BY destination")
            .fetch_all(&self.pool)
            .await?;
        let mut waiting = BTreeMap::new();
        for row in rows {
            waiting.insert(row.try_get(0)?, row.try_get::<i64, _>(1)?.unsigned_abs());
        }
        Ok(waiting)
    }

    /// Events that wait to be told, oldest first.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub async fn events(&self) -> Result<Vec<Event>, OutboxError> {
        let rows = sqlx::query("SELECT id, audience, at, body FROM event ORDER BY id")
            .fetch_all(&self.pool)
            .await?;
        let event = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Event {
                id: row.try_get(0)?,
                audience: row.try_get(1)?,
                at: ms(row.try_get(2)?)?,
                access: read(row.try_get(3)?)?,
            })
        };
        rows.iter().map(event).collect()
    }

    /// Everything that was so at the last look, by subject.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub async fn conditions(&self) -> Result<BTreeMap<String, Condition>, OutboxError> {
        let rows = sqlx::query("SELECT subject, since, told_at, body FROM condition")
            .fetch_all(&self.pool)
            .await?;
        let mut conditions = BTreeMap::new();
        for row in rows {
            let condition = Condition {
                since: ms(row.try_get(1)?)?,
                told_at: row.try_get::<Option<i64>, _>(2)?.map(ms).transpose()?,
                matter: read(row.try_get(3)?)?,
            };
            conditions.insert(row.try_get(0)?, condition);
        }
        Ok(conditions)
    }

    /// Forgets which changes before `before` were taken in, and returns the others.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub async fn taken_since(&self, before: Timestamp) -> Result<BTreeSet<(i64, Timestamp)>, OutboxError> {
        sqlx::query("DELETE FROM taken WHERE at < ?")
            .bind(before.as_millisecond())
            .execute(&self.pool)
            .await?;
        let rows = sqlx::query("SELECT change_id, at FROM taken")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, ms(row.try_get(1)?)?)))
            .collect()
    }

    /// Every mark, by name.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub async fn marks(&self) -> Result<BTreeMap<String, Timestamp>, OutboxError> {
        let rows = sqlx::query("SELECT name, at FROM mark").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, ms(row.try_get(1)?)?)))
            .collect()
    }

    /// A mark, if it was ever set.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub async fn mark(&self, name: &str) -> Result<Option<Timestamp>, OutboxError> {
        Ok(self.marks().await?.remove(name))
    }
}

async fn set_mark(tx: &mut SqliteConnection, name: &str, at: Timestamp) -> Result<(), OutboxError> {
    sqlx::query("INSERT OR REPLACE INTO mark (name, at) VALUES (?, ?)")
        .bind(name)
        .bind(at.as_millisecond())
        .execute(tx)
        .await?;
    Ok(())
}

/// Creates the file readable by nobody else, before SQLite would create it readable by everybody.
fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}

#[cfg(test)]
mod tests;
