//! How far a sink has confirmed the chain, in a small file beside the ledger.
//!
//! It is no part of the ledger, so that neither its writers nor its chain nor its log of changes know of it. Losing it
//! costs that everything kept is sent once more.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The last event that a sink confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// Of which ledger.
    pub(super) ledger: String,
    pub(super) seq: i64,
    /// Its hash, which tells whether the chain is still the one that was sent.
    pub(super) hash: String,
}

/// Where the cursor of a sink is kept; a sink's name has no characters that mean something in a path.
pub(super) fn path_of(ledger: &Path, sink: &str) -> PathBuf {
    let mut path = ledger.as_os_str().to_owned();
    path.push(format!(".sink-{sink}"));
    path.into()
}

/// What is kept there; `None` where there is none yet.
pub(super) fn read(path: &Path) -> io::Result<Option<Cursor>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces it, so that after a power cut either the old or the new one is there.
pub(super) fn write(path: &Path, cursor: &Cursor) -> io::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(&serde_json::to_vec(cursor)?)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    File::open(
        path.parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new(".")),
    )?
    .sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_a_damaged_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(&dir.path().join("ledger.db"), "siem");
        assert_eq!(path.file_name().unwrap(), "ledger.db.sink-siem");
        assert_eq!(read(&path).unwrap(), None);
        let cursor = Cursor {
            ledger: "a".into(),
            seq: 7,
            hash: "b".into(),
        };
        write(&path, &cursor).unwrap();
        assert_eq!(read(&path).unwrap(), Some(cursor));
        fs::write(&path, "{\"seq\":7").unwrap();
        assert!(read(&path).is_err());
    }
}
