//! What is wrong with the database, in words that say how to go on.

use std::fmt;

/// `SQLITE_IOERR_DATA` and `SQLITE_IOERR_CORRUPTFS`.
const DATA: u32 = 8202;
const CORRUPT_FS: u32 = 8458;

/// What SQLite's refusal means to the person who has to mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The file's content is not what SQLite wrote there.
    Damaged,
    /// No space is left.
    Full,
    /// The file, its directory or the file system may not be written.
    ReadOnly,
    /// Another program keeps it locked.
    Busy,
    /// The file cannot be opened or made.
    Unopened,
    /// The disk failed, or a limit on the size of files was met.
    Disk,
    /// Something else.
    Other,
}

impl Trouble {
    /// By SQLite's primary result code, <https://www.sqlite.org/rescode.html>.
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Self {
        let code = match error {
            sqlx::Error::Database(error) => error.code().and_then(|code| code.parse::<u32>().ok()),
            // The one connection is in use for all that time: the disk answers next to nothing.
            sqlx::Error::PoolTimedOut => return Self::Busy,
            _ => None,
        };
        // Errors of the disk by which the file system, or SQLite's own checksums, say that the content is another.
        if let Some(DATA | CORRUPT_FS) = code {
            return Self::Damaged;
        }
        // An extended code carries the primary one in its low byte.
        match code.map(|code| code & 0xff) {
            Some(5 | 6) => Self::Busy,
            Some(8) => Self::ReadOnly,
            Some(10) => Self::Disk,
            Some(11 | 26) => Self::Damaged,
            Some(13) => Self::Full,
            Some(14) => Self::Unopened,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Damaged => {
                "the ledger is damaged; stop dutybound, move the file away together with those beside it whose names end in \
                 -wal and -shm, but not the one in .redo, put the latest copy made by `dutybound backup` in its place, and start again: it \
                 brings the copy up to date from the redo log"
            }
            Self::Full => "the disk of the ledger is full; free some space there, and the next try goes on by itself",
            Self::ReadOnly => {
                "the ledger cannot be written; make the file, its directory and its file system writable for this user"
            }
            Self::Busy => {
                "another program keeps the ledger locked; end it (a shell of sqlite3, a backup of the file system) and try again"
            }
            Self::Unopened => {
                "the ledger cannot be opened; check that its directory exists and that this user may write there"
            }
            Self::Disk => {
                "the disk of the ledger fails, or a limit on the size of files is met; look at the system's log, \
                 raise the limit or move the ledger"
            }
            Self::Other => {
                "the ledger cannot be used; if that stays so, put a copy made by `dutybound backup` in its place"
            }
        };
        write!(f, "{what}. Nothing is changed in AWS without it")
    }
}
