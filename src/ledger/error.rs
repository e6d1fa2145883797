//! Why the ledger cannot be used.

use std::path::{Path, PathBuf};

use super::Trouble;

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
    /// The ledger is not the one that the redo log beside it is about.
    #[error(
        "the ledger {path} and the redo log {redo} beside it do not belong together: {why}. Put the right ledger, or a copy made by \
         `dutybound backup`, in its place; or move the log away to go on with this ledger, or to begin a new one, for which all \
         access that stands in AWS is somebody else's and stays. Nothing is changed in AWS until then"
    )]
    Replaced {
        /// The ledger.
        path: PathBuf,
        /// The log.
        redo: PathBuf,
        /// What does not fit.
        why: &'static str,
    },
    /// The redo log cannot be read or written.
    #[error(
        "the redo log of the ledger, {path}, cannot be used; free some space on its disk and make it and its directory writable for \
         this user. Nothing is changed in AWS without it"
    )]
    Redo {
        /// The log.
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
    /// Whether the file is not what was written.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::Damaged { .. } => true,
            Self::Database { trouble, .. } => *trouble == Trouble::Damaged,
            Self::Unusable { source, .. } => source.is_damage(),
            _ => false,
        }
    }

    /// Names the file where the error itself does not.
    pub(super) fn at(self, path: &Path) -> Self {
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
