//! The record of what was read, decided and confirmed: a SQLite file with one writer and any number of readers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};

use crate::identity_center::ChangeKind;
use crate::model::{Cause, Person, PrincipalId};
use crate::plan::{Change, Kept, Key, Owned};

pub mod history;
pub mod orders;
pub mod snapshots;
pub mod tries;
mod trouble;

pub use history::{AccessRow, Board, HoldRow};
pub use orders::{Approval, Bar};
pub use snapshots::{Accepted, ReadFailure, StoredSnapshots};
pub use tries::{FailedTry, LastTry};
pub use trouble::Trouble;

/// How long a write waits for its turn among our own: some thirty changes at once, on a very slow disk.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a statement waits for a lock that another program holds, such as a person's order beside the daemon.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// An open ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    pool: SqlitePool,
    /// Held for as long as the writer lives: the promise of one writer.
    _lock: Option<std::sync::Arc<File>>,
}

/// Why the ledger cannot be used. `Display` names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process writes to it.
    #[error(
        "another dutybound already uses the ledger {path}; stop it first, or give this one its own `ledger` and `owner_id`"
    )]
    Locked {
        /// The ledger.
        path: PathBuf,
    },
    /// It belongs to another installation.
    #[error(
        "the ledger {path} belongs to owner_id {found:?}, the configuration says {expected:?}; correct one of them"
    )]
    Foreign {
        /// The ledger.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who we are.
        expected: String,
    },
    /// There is none yet.
    #[error("there is no ledger at {path} yet; `dutybound run` or `dutybound apply` creates it")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file or its directory cannot be opened.
    #[error("cannot open the ledger {path}; check that the directory exists and that this user may write there")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("{trouble}")]
    Database {
        /// What that means.
        trouble: Trouble,
        /// What SQLite said.
        #[source]
        source: sqlx::Error,
    },
    /// The file is from another version of the program, or its schema was edited.
    #[error(
        "the schema of the ledger does not fit this version of dutybound, and nothing is changed in AWS without it; run the version \
         that wrote it, or restore a copy made by `dutybound backup`"
    )]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// It could not be opened for one of the other reasons.
    #[error("the ledger {path} cannot be used")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<LedgerError>,
    },
    /// SQLite's own check found damage.
    #[error("{} ({found})", Trouble::Damaged)]
    Corrupt {
        /// The first finding.
        found: String,
    },
    /// A row does not read back as what was written.
    #[error("the ledger is damaged: {what} cannot be read back; restore it from a backup")]
    Damaged {
        /// Which row.
        what: String,
    },
}

impl From<sqlx::Error> for LedgerError {
    fn from(source: sqlx::Error) -> Self {
        Self::Database {
            trouble: Trouble::of(&source),
            source,
        }
    }
}

impl LedgerError {
    /// Names the file where the error itself does not.
    fn at(self, path: &Path) -> Self {
        // What the migrations meet is the disk's trouble as often as the schema's.
        let source = match self {
            Self::Schema(sqlx::migrate::MigrateError::Execute(error)) => Self::from(error),
            Self::Schema(sqlx::migrate::MigrateError::ExecuteMigration(error, _)) => Self::from(error),
            other => other,
        };
        match source {
            Self::Database { .. } | Self::Schema(_) | Self::Corrupt { .. } | Self::Damaged { .. } => Self::Unusable {
                path: path.to_owned(),
                source: Box::new(source),
            },
            named => named,
        }
    }
}

/// A change that was begun and of which the record does not say how it ended.
#[derive(Debug, Clone)]
pub struct OpenIntent {
    /// The row.
    pub id: i64,
    /// What was asked for.
    pub change: Change,
    /// When it was written down, just before the call.
    pub created_at: Timestamp,
    /// AWS's request id, if its answer came.
    pub reference: Option<String>,
}

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// AWS confirmed it, or live state shows it.
    Succeeded,
    /// AWS refused it, or live state shows that it did not happen.
    Failed,
    /// It was not in force when we looked, but AWS may still carry it out.
    Unknown,
}

impl Outcome {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl Ledger {
    /// Opens or creates the ledger as its one writer.
    ///
    /// # Errors
    /// [`LedgerError`]; notably `Locked` when another process writes to it and `Foreign` when it is somebody else's.
    pub async fn open(path: &Path, owner_id: &str, now: Timestamp) -> Result<Self, LedgerError> {
        let io = |source| LedgerError::Io {
            path: path.to_owned(),
            source,
        };
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LedgerError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        restrict(path).map_err(io)?;
        let pool = prepare(path, owner_id, now).await.map_err(|error| error.at(path))?;
        let ledger = Self {
            pool,
            _lock: Some(std::sync::Arc::new(lock)),
        };
        ledger.check_owner(path, owner_id).await?;
        Ok(ledger)
    }

    /// Opens an existing ledger for reading only, beside the daemon that writes it.
    ///
    /// # Errors
    /// [`LedgerError`]; `Missing` when there is none yet.
    pub async fn open_read_only(path: &Path, owner_id: &str) -> Result<Self, LedgerError> {
        if !path.try_exists().map_err(|source| LedgerError::Io {
            path: path.to_owned(),
            source,
        })? {
            return Err(LedgerError::Missing { path: path.to_owned() });
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(LOCK_PATIENCE)
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(2)
            .acquire_timeout(PATIENCE)
            .connect_with(options)
            .await
            .map_err(|error| LedgerError::from(error).at(path))?;
        let ledger = Self { pool, _lock: None };
        ledger.check_owner(path, owner_id).await?;
        Ok(ledger)
    }

    /// Opens the ledger beside the daemon that writes it, to leave a person's order there and nothing else.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn open_beside(path: &Path, owner_id: &str) -> Result<Self, LedgerError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(LOCK_PATIENCE)
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .connect_with(options)
            .await
            .map_err(|error| LedgerError::from(error).at(path))?;
        let ledger = Self { pool, _lock: None };
        ledger.check_owner(path, owner_id).await?;
        Ok(ledger)
    }

    /// Writes a consistent copy to a file that does not exist yet, beside whoever writes the ledger.
    ///
    /// # Errors
    /// [`LedgerError`], also when the file exists.
    pub async fn backup(&self, to: &Path) -> Result<(), LedgerError> {
        if to.exists() {
            return Err(LedgerError::Io {
                path: to.to_owned(),
                source: std::io::ErrorKind::AlreadyExists.into(),
            });
        }
        restrict(to).map_err(|source| LedgerError::Io {
            path: to.to_owned(),
            source,
        })?;
        sqlx::query("VACUUM INTO ?")
            .bind(to.to_string_lossy().into_owned())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Whether nobody is using or waiting for the file at this moment, so that a simulation may let time go on.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        u32::try_from(self.pool.num_idle()) == Ok(self.pool.size())
    }

    /// Closes the file, and with the last user of it moves its log into it. Dropping does the same a moment later.
    pub async fn close(self) {
        self.pool.close().await;
    }

    async fn check_owner(&self, path: &Path, owner_id: &str) -> Result<(), LedgerError> {
        let found: String = sqlx::query_scalar("SELECT owner_id FROM installation")
            .fetch_one(&self.pool)
            .await
            .map_err(|error| LedgerError::from(error).at(path))?;
        if found == owner_id {
            return Ok(());
        }
        Err(LedgerError::Foreign {
            path: path.to_owned(),
            found,
            expected: owner_id.to_owned(),
        })
    }

    /// Everything that we granted and did not revoke.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn owned(&self) -> Result<BTreeMap<Key, Owned>, LedgerError> {
        let rows = sqlx::query(
            "SELECT a.id, a.entitlement, a.target, a.principal, a.person, a.granted_at, c.body \
             FROM access a LEFT JOIN cause c ON c.access_id = a.id AND c.ended_at IS NULL \
             WHERE a.revoked_at IS NULL ORDER BY a.id, c.id",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut owned: BTreeMap<Key, Owned> = BTreeMap::new();
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let what = || format!("access {id}");
            let key = (read_json(row.try_get(2)?, what)?, PrincipalId(row.try_get(3)?));
            let entry = owned.entry(key);
            let owned = match entry {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Owned {
                    access_id: id,
                    entitlement: parse(row.try_get::<String, _>(1)?, what)?,
                    person: parse(row.try_get::<String, _>(4)?, what)?,
                    causes: Vec::new(),
                }),
            };
            if let Some(body) = row.try_get::<Option<&str>, _>(6)? {
                owned.causes.push(read_json(body, what)?);
            }
        }
        Ok(owned)
    }

    /// Keys of grants since `since` whose outcome was never learnt and that no later change settled.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn unknown_grants(&self, since: Timestamp) -> Result<BTreeSet<Key>, LedgerError> {
        let rows = sqlx::query(
            "SELECT i.id, i.target, i.principal FROM intent i WHERE i.outcome = 'unknown' AND i.kind = 'grant' AND i.created_at >= ? \
             AND NOT EXISTS (SELECT 1 FROM intent j WHERE j.target = i.target AND j.principal = i.principal AND j.id > i.id \
             AND j.outcome = 'succeeded')",
        )
        .bind(since.as_millisecond())
        .fetch_all(&self.pool)
        .await?;
        let mut keys = BTreeSet::new();
        for row in rows {
            let id: i64 = row.try_get(0)?;
            keys.insert((
                read_json(row.try_get(1)?, || format!("intent {id}"))?,
                PrincipalId(row.try_get(2)?),
            ));
        }
        Ok(keys)
    }

    /// What AWS confirmed since `since`, the last word for each key. Reads that AWS answers from a lagging copy may
    /// not show it yet.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn confirmed_since(&self, since: Timestamp) -> Result<BTreeMap<Key, ChangeKind>, LedgerError> {
        let rows = sqlx::query(
            "SELECT id, kind, target, principal FROM intent WHERE outcome = 'succeeded' AND completed_at >= ? ORDER BY completed_at, id",
        )
        .bind(since.as_millisecond())
        .fetch_all(&self.pool)
        .await?;
        let mut confirmed = BTreeMap::new();
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let kind = if row.try_get::<&str, _>(1)? == "grant" {
                ChangeKind::Grant
            } else {
                ChangeKind::Revoke
            };
            let target = read_json(row.try_get(2)?, || format!("intent {id}"))?;
            confirmed.insert((target, PrincipalId(row.try_get(3)?)), kind);
        }
        Ok(confirmed)
    }

    /// Writes down what is about to be asked of AWS.
    ///
    /// # Errors
    /// [`LedgerError`]; without this row the call must not be made.
    pub async fn open_intent(
        &self,
        change: &Change,
        policy_revision: &str,
        now: Timestamp,
    ) -> Result<i64, LedgerError> {
        let kind = match change.kind {
            ChangeKind::Grant => "grant",
            ChangeKind::Revoke => "revoke",
        };
        let done = sqlx::query(
            "INSERT INTO intent (kind, entitlement, target, principal, person, change, policy, due_at, created_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(kind)
        .bind(change.entitlement.to_string())
        .bind(write_json(&change.target))
        .bind(&change.principal.0)
        .bind(change.person.as_ref().map(Person::as_str))
        .bind(write_json(change))
        .bind(policy_revision)
        .bind(change.due.as_millisecond())
        .bind(now.as_millisecond())
        .execute(&self.pool)
        .await?;
        Ok(done.last_insert_rowid())
    }

    /// Keeps AWS's request id, so that a restart can ask how the operation stands.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn note_reference(&self, intent: i64, reference: &str) -> Result<(), LedgerError> {
        sqlx::query("UPDATE intent SET reference = ? WHERE id = ? AND completed_at IS NULL")
            .bind(reference)
            .bind(intent)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Completes an intent and, where it succeeded, begins or ends the interval of access in the same transaction: at
    /// `effective`, which lies before `now` where the answer was lost.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn complete(
        &self,
        intent: i64,
        change: &Change,
        outcome: Outcome,
        detail: Option<&str>,
        effective: Timestamp,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let done = sqlx::query(
            "UPDATE intent SET completed_at = ?, outcome = ?, detail = ? WHERE id = ? AND completed_at IS NULL",
        )
        .bind(now.as_millisecond())
        .bind(outcome.as_str())
        .bind(detail)
        .bind(intent)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 1 && outcome == Outcome::Succeeded {
            match (change.kind, &change.person) {
                (ChangeKind::Grant, Some(person)) => {
                    let begun = sqlx::query(
                        "INSERT INTO access (entitlement, target, principal, person, granted_at, grant_intent) VALUES (?, ?, ?, ?, ?, ?) \
                         ON CONFLICT (target, principal) WHERE revoked_at IS NULL DO NOTHING",
                    )
                    .bind(change.entitlement.to_string())
                    .bind(write_json(&change.target))
                    .bind(&change.principal.0)
                    .bind(person.as_str())
                    .bind(effective.as_millisecond())
                    .bind(intent)
                    .execute(&mut *tx)
                    .await?;
                    if begun.rows_affected() == 1 {
                        let access = begun.last_insert_rowid();
                        for cause in &change.causes {
                            insert_cause(&mut tx, access, cause, now).await?;
                        }
                    }
                }
                (ChangeKind::Grant, None) => {}
                (ChangeKind::Revoke, _) => {
                    end_access(&mut tx, &change.key(), Some(intent), "revoked", effective).await?;
                }
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// Ends the record of access that somebody else took away.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn close_lost(&self, key: &Key, now: Timestamp) -> Result<(), LedgerError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        end_access(&mut tx, key, None, "removed by somebody else", now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Brings the record of standing grants up to date, all in one transaction: causes that hold no longer end, new ones
    /// begin, and a renamed entitlement or person is noted.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn update_kept(&self, kept: &[Kept], now: Timestamp) -> Result<(), LedgerError> {
        let news: Vec<_> = kept
            .iter()
            .map(|k| {
                (
                    k,
                    k.recorded.iter().collect::<BTreeSet<_>>(),
                    k.causes.iter().collect::<BTreeSet<_>>(),
                )
            })
            .filter(|(kept, old, new)| kept.renamed || old != new)
            .collect();
        if news.is_empty() {
            return Ok(());
        }
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for (kept, old, new) in news {
            if kept.renamed {
                sqlx::query("UPDATE access SET entitlement = ?, person = ? WHERE id = ?")
                    .bind(kept.entitlement.to_string())
                    .bind(kept.person.as_str())
                    .bind(kept.access_id)
                    .execute(&mut *tx)
                    .await?;
            }
            for cause in old.difference(&new) {
                sqlx::query("UPDATE cause SET ended_at = ? WHERE access_id = ? AND body = ? AND ended_at IS NULL")
                    .bind(now.as_millisecond())
                    .bind(kept.access_id)
                    .bind(write_json(cause))
                    .execute(&mut *tx)
                    .await?;
            }
            for cause in new.difference(&old) {
                insert_cause(&mut tx, kept.access_id, cause, now).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// Intents without an outcome, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn open_intents(&self) -> Result<Vec<OpenIntent>, LedgerError> {
        let rows =
            sqlx::query("SELECT id, change, created_at, reference FROM intent WHERE completed_at IS NULL ORDER BY id")
                .fetch_all(&self.pool)
                .await?;
        let mut intents = Vec::with_capacity(rows.len());
        for row in rows {
            let id: i64 = row.try_get(0)?;
            let what = || format!("intent {id}");
            intents.push(OpenIntent {
                id,
                change: read_json(row.try_get(1)?, what)?,
                created_at: instant(row.try_get(2)?, what)?,
                reference: row.try_get(3)?,
            });
        }
        Ok(intents)
    }
}

async fn insert_cause(
    tx: &mut sqlx::SqliteConnection,
    access: i64,
    cause: &Cause,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO cause (access_id, body, recorded_at) VALUES (?, ?, ?)")
        .bind(access)
        .bind(write_json(cause))
        .bind(now.as_millisecond())
        .execute(tx)
        .await?;
    Ok(())
}

async fn end_access(
    tx: &mut sqlx::SqliteConnection,
    key: &Key,
    intent: Option<i64>,
    reason: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let target = write_json(&key.0);
    sqlx::query(
        "UPDATE cause SET ended_at = ?1 WHERE ended_at IS NULL AND access_id IN \
         (SELECT id FROM access WHERE target = ?2 AND principal = ?3 AND revoked_at IS NULL)",
    )
    .bind(now.as_millisecond())
    .bind(&target)
    .bind(&key.1.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE access SET revoked_at = MAX(granted_at, ?), revoke_intent = ?, end_reason = ? \
         WHERE target = ? AND principal = ? AND revoked_at IS NULL",
    )
    .bind(now.as_millisecond())
    .bind(intent)
    .bind(reason)
    .bind(&target)
    .bind(&key.1.0)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Opens or creates the database, whole and with the present schema.
async fn prepare(path: &Path, owner_id: &str, now: Timestamp) -> Result<SqlitePool, LedgerError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .busy_timeout(LOCK_PATIENCE)
        .journal_mode(SqliteJournalMode::Wal)
        // An intent must survive a power cut, or a restart would not know what to settle.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true);
    // Changes that end at the same moment queue for the one connection, however slow the disk.
    let patient = SqlitePoolOptions::new().max_connections(1).acquire_timeout(PATIENCE);
    let pool = patient.connect_with(options).await?;
    // Reads touch only the pages that they need: damage elsewhere would show when an intent has been carried out already.
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&pool).await?;
    if found != "ok" {
        return Err(LedgerError::Corrupt { found });
    }
    sqlx::migrate!("src/ledger/migrations").run(&pool).await?;
    sqlx::query("INSERT INTO installation (id, owner_id, created_at) VALUES (1, ?, ?) ON CONFLICT DO NOTHING")
        .bind(owner_id)
        .bind(now.as_millisecond())
        .execute(&pool)
        .await?;
    Ok(pool)
}

/// Creates the file readable by nobody else, before SQLite would create it readable by everybody.
fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    Ok(())
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
