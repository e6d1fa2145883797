//! Opening, closing and copying the file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlitePool};

use super::replay::refuse_gone;
use super::{Ledger, LedgerError, chain, damage};

/// How long a write waits for its turn among our own: some thirty changes at once, on a very slow disk.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a statement waits for a lock that another program holds, such as a person's order beside the daemon.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// So many rows are read ahead of whoever takes them. With few, SQLite's thread and ours wake each other all the time.
const ROWS_AHEAD: usize = 1_000;

impl Ledger {
    fn with(pool: SqlitePool) -> Self {
        Self {
            pool,
            _lock: None,
            redo: None,
            reads_back_to: Arc::default(),
        }
    }

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
        refuse_gone(path)?;
        put_strange_log_aside(path).map_err(io)?;
        restrict(path).map_err(io)?;
        let pool = prepare(path, owner_id, now).await.map_err(|error| error.at(path))?;
        let mut ledger = Self::with(pool);
        ledger._lock = Some(Arc::new(lock));
        ledger.check_owner(path, owner_id).await?;
        ledger.begin_chain(now).await.map_err(|error| error.at(path))?;
        ledger.join_redo(path, now).await.map_err(|error| error.at(path))?;
        // Of a ledger of an earlier version this is everything, once.
        let counted = ledger.settle(now).await.map_err(|error| error.at(path))?;
        tracing::debug!(counted, "brought the totals up to date");
        Ok(ledger)
    }

    /// Opens an existing ledger for reading only, beside the daemon that writes it.
    ///
    /// # Errors
    /// [`LedgerError`]; `Missing` when there is none yet.
    pub async fn open_read_only(path: &Path, owner_id: &str) -> Result<Self, LedgerError> {
        refuse_gone(path)?;
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
            .row_buffer_size(ROWS_AHEAD)
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(2)
            .acquire_timeout(PATIENCE)
            .connect_with(options)
            .await
            .map_err(|error| LedgerError::from(error).at(path))?;
        let ledger = Self::with(pool);
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
        let pool = listening()
            .connect_with(options)
            .await
            .map_err(|error| LedgerError::from(error).at(path))?;
        let ledger = Self::with(pool);
        ledger.check_owner(path, owner_id).await?;
        Ok(ledger)
    }

    /// Whether this ledger, opened for reading, turns out to be an older copy or another one, in words for people.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn older_copy(&self, path: &Path, now: Timestamp) -> Result<Option<String>, LedgerError> {
        if self.knows_restorations().await? {
            self.doubt(path, now).await
        } else {
            Ok(None)
        }
    }

    /// Writes a consistent copy to a file that does not exist yet, beside whoever writes the ledger. The copy says of
    /// itself that it is one, so that it is known for what it is wherever it is put in the ledger's place.
    ///
    /// # Errors
    /// [`LedgerError`], also when the file exists.
    pub async fn backup(&self, to: &Path, now: Timestamp) -> Result<(), LedgerError> {
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
        let copy = SqliteConnectOptions::new()
            .filename(to)
            .synchronous(SqliteSynchronous::Full);
        let mut copy = copy.connect().await?;
        if self.knows_restorations().await? {
            sqlx::query("UPDATE installation SET copied_at = ?")
                .bind(now.as_millisecond())
                .execute(&mut copy)
                .await?;
        }
        copy.close().await?;
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
}

/// Opens or creates the database, whole and with the present schema.
async fn prepare(path: &Path, owner_id: &str, now: Timestamp) -> Result<SqlitePool, LedgerError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .busy_timeout(LOCK_PATIENCE)
        .row_buffer_size(ROWS_AHEAD)
        .journal_mode(SqliteJournalMode::Wal)
        // An intent must survive a power cut, or a restart would not know what to settle.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true);
    // Changes that end at the same moment queue for the one connection, however slow the disk.
    let pool = listening().connect_with(options).await?;
    damage::look(&pool).await?;
    sqlx::migrate!("src/ledger/migrations").run(&pool).await?;
    sqlx::query("INSERT INTO installation (id, owner_id, created_at) VALUES (1, ?, ?) ON CONFLICT DO NOTHING")
        .bind(owner_id)
        .bind(now.as_millisecond())
        .execute(&pool)
        .await?;
    chain::listen(&mut *pool.acquire().await?).await?;
    Ok(pool)
}

/// One connection, and whichever takes its place notes changes for the chain.
fn listening() -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PATIENCE)
        .after_connect(|connection, _| Box::pin(chain::listen(connection)))
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

/// SQLite applies a write-ahead log to whatever file lies beside it, and would mix a copy that was put in the ledger's
/// place with what is left of the ledger before it. A copy made by `backup` says in bytes 18 and 19 of its header that it
/// has no such log, <https://www.sqlite.org/fileformat.html#file_format_version_numbers>; the ledger itself says
/// otherwise from before its first one is written.
fn put_strange_log_aside(path: &Path) -> std::io::Result<()> {
    let mut header = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    if read.is_err() || header[18..] != [1, 1] {
        return Ok(());
    }
    for suffix in ["-wal", "-shm"] {
        let mut strange = path.as_os_str().to_owned();
        strange.push(suffix);
        let mut aside = strange.clone();
        aside.push(".before");
        match std::fs::rename(&strange, &aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) => {
                tracing::warn!(from = %strange.display(), to = %aside.display(), "put aside what belongs to the ledger before this copy")
            }
            Err(_) => {}
        }
    }
    Ok(())
}
