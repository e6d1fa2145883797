//! The redo log: every change once more in a file of its own, from which an older copy of the ledger is brought up to date.
//!
//! One JSON document a line, appended after the ledger has committed and, for what is asked of AWS, before it is asked.
//! The log is never ahead of the ledger that it belongs to. A ledger that is behind it is an older copy.

use std::sync::Arc;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Take, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Bar, LedgerError, write_json};
use crate::model::{Cause, EntitlementId, Person};
use crate::plan::Change;

/// How far back the log reaches at least: a copy that is older is restored from what schedules and AWS tell.
const KEPT: SignedDuration = SignedDuration::from_hours(35 * 24);
/// A log larger than this, in bytes, loses what is older than [`KEPT`].
const LARGE: u64 = 64 * 1024 * 1024;
/// How much more than [`KEPT`] a large log holds before it is written anew while it is in use.
const SPARE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How much of the end of the log, in bytes, is read to learn where it ends.
const TAIL: u64 = 1024 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// The first line: whose log this is. It holds every intent with an id above `after`.
    Of { ledger: String, after: i64, at: Timestamp },
    /// An intent was opened.
    Asked {
        id: i64,
        change: Box<Change>,
        policy: String,
        at: Timestamp,
    },
    /// AWS gave it a reference.
    Answered { id: i64, reference: String, at: Timestamp },
    /// An intent was completed.
    Ended {
        id: i64,
        outcome: String,
        detail: Option<String>,
        effective: Timestamp,
        at: Timestamp,
    },
    /// Access turned out to be gone; `grant` is the intent that began it.
    Gone {
        grant: i64,
        reason: String,
        effective: Timestamp,
        at: Timestamp,
    },
    /// Access that stands was found to be ours; the intent was recorded with its outcome.
    Found {
        id: i64,
        change: Box<Change>,
        policy: String,
        outcome: String,
        detail: String,
        effective: Timestamp,
        at: Timestamp,
    },
    /// The causes or the names of standing access changed.
    Kept {
        grant: i64,
        entitlement: EntitlementId,
        person: Person,
        ended: Vec<Arc<Cause>>,
        begun: Vec<Arc<Cause>>,
        at: Timestamp,
    },
    /// All orders in force.
    Orders { bars: Vec<Bar>, at: Timestamp },
}

impl Entry {
    pub(super) fn at(&self) -> Timestamp {
        match self {
            Self::Of { at, .. }
            | Self::Asked { at, .. }
            | Self::Answered { at, .. }
            | Self::Ended { at, .. }
            | Self::Gone { at, .. }
            | Self::Found { at, .. }
            | Self::Kept { at, .. }
            | Self::Orders { at, .. } => *at,
        }
    }

    /// The intent that the line adds.
    pub(super) fn intent(&self) -> Option<i64> {
        match self {
            Self::Asked { id, .. } | Self::Found { id, .. } => Some(*id),
            _ => None,
        }
    }
}

/// The log of an open ledger.
#[derive(Debug)]
pub(super) struct Redo {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    length: u64,
    /// Nothing is older, except the orders in force and the first line.
    oldest: Timestamp,
    bars: Option<Vec<Bar>>,
}

/// What the first and the last lines say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// Whose log it is.
    pub(super) ledger: String,
    /// It holds every intent with a higher id.
    pub(super) after: i64,
    /// The last intent; `after` where there is none.
    pub(super) last: i64,
    /// When that was written down.
    pub(super) last_at: Timestamp,
}

/// Where the log of a ledger is.
pub(super) fn path_of(ledger: &Path) -> PathBuf {
    let mut path = ledger.as_os_str().to_owned();
    path.push(".redo");
    PathBuf::from(path)
}

/// What the log says of itself; `None` where there is none.
pub(super) fn extent(path: &Path) -> io::Result<Option<Extent>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let length = file.metadata()?.len();
    let mut lines = Lines::new(file);
    let Some(Entry::Of { ledger, after, at }) = lines.next().transpose()? else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it does not begin like a redo log",
        ));
    };
    let mut extent = Extent {
        ledger,
        after,
        last: after,
        last_at: at,
    };
    let begins_at = length.saturating_sub(TAIL);
    if lines.read < begins_at {
        let mut tail = File::open(path)?;
        tail.seek(SeekFrom::Start(begins_at))?;
        let mut tail = BufReader::new(tail.take(u64::MAX));
        let mut cut = Vec::new();
        tail.read_until(b'\n', &mut cut)?;
        let mut end = Lines { input: tail, read: 0 };
        if extent.follow(&mut end)? {
            return Ok(Some(extent));
        }
    }
    extent.follow(&mut lines)?;
    Ok(Some(extent))
}

impl Extent {
    /// Goes on through these lines. Returns whether there was an intent among them.
    fn follow(&mut self, lines: &mut Lines) -> io::Result<bool> {
        let mut any = false;
        for entry in lines {
            let entry = entry?;
            if let Some(id) = entry.intent() {
                (self.last, self.last_at, any) = (id, entry.at(), true);
            }
        }
        Ok(any)
    }
}

/// The whole lines of a log. What follows the last line break was being written when the power went.
pub(super) struct Lines {
    input: BufReader<Take<File>>,
    read: u64,
}

impl Lines {
    fn new(file: File) -> Self {
        Self::within(file, u64::MAX)
    }

    /// Those in the first `length` bytes.
    fn within(file: File, length: u64) -> Self {
        Self {
            input: BufReader::new(file.take(length)),
            read: 0,
        }
    }

    /// All lines of the file.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::open(path)?))
    }
}

impl Iterator for Lines {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        match self.input.read_until(b'\n', &mut line) {
            Err(error) => return Some(Err(error)),
            Ok(_) if line.last() != Some(&b'\n') => return None,
            Ok(read) => self.read += read as u64,
        }
        Some(serde_json::from_slice(&line).map_err(io::Error::from))
    }
}

impl Redo {
    /// Goes on with an existing log, after its last whole line.
    pub(super) fn resume(path: &Path, now: Timestamp) -> io::Result<Self> {
        if LARGE < fs::metadata(path)?.len() {
            let since = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
            write_new(path, later(path, u64::MAX, since)?)?;
        }
        let mut lines = Lines::of(path)?;
        let (mut bars, mut oldest) = (None, now);
        for entry in &mut lines {
            match entry? {
                Entry::Orders { bars: found, .. } => bars = Some(found),
                Entry::Of { .. } => {}
                entry => oldest = oldest.min(entry.at()),
            }
        }
        let length = lines.read;
        let mut file = OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.len() != length {
            file.set_len(length)?;
        }
        file.seek(SeekFrom::End(0))?;
        Ok(Self::with(path, file, length, oldest, bars))
    }

    /// Begins a log for a ledger whose last intent is `after`.
    pub(super) fn begin(path: &Path, ledger: &str, after: i64, now: Timestamp) -> io::Result<Self> {
        let first = Entry::Of {
            ledger: ledger.to_owned(),
            after,
            at: now,
        };
        let (file, length) = write_new(path, std::iter::once(Ok(first)))?;
        Ok(Self::with(path, file, length, now, None))
    }

    fn with(path: &Path, file: File, length: u64, oldest: Timestamp, bars: Option<Vec<Bar>>) -> Self {
        Self {
            path: path.to_owned(),
            state: Mutex::new(State {
                file,
                length,
                oldest,
                bars,
            }),
        }
    }

    /// Whether it is larger than it has to be; see [`Self::shorten`].
    pub(super) fn is_long(&self, now: Timestamp) -> bool {
        let state = self.state();
        LARGE < state.length && KEPT + SPARE < state.oldest.duration_until(now)
    }

    /// Drops what is older than is to be kept, while others append: they wait only for what was appended meanwhile to be
    /// copied.
    ///
    /// # Errors
    /// [`LedgerError::Redo`]; the log is as it was, or has been shortened and is not yet safe from a power cut.
    pub(super) fn shorten(&self, now: Timestamp) -> Result<(), LedgerError> {
        let since = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
        self.shorten_to(since).map_err(|source| LedgerError::Redo {
            path: self.path.clone(),
            source,
        })
    }

    fn shorten_to(&self, since: Timestamp) -> io::Result<()> {
        let known = self.state().length;
        let (mut file, _) = write_fresh(&self.path, later(&self.path, known, since)?)?;
        let mut state = self.state();
        let mut rest = File::open(&self.path)?;
        rest.seek(SeekFrom::Start(known))?;
        io::copy(&mut rest.take(state.length.saturating_sub(known)), &mut file)?;
        file.sync_all()?;
        let length = file.metadata()?.len();
        fs::rename(fresh(&self.path), &self.path)?;
        (state.file, state.length, state.oldest) = (file, length, since);
        drop(state);
        sync_folder(&self.path)
    }

    /// The orders on the last line that lists them.
    pub(super) fn bars(&self) -> Option<Vec<Bar>> {
        self.state().bars.clone()
    }

    /// Appends what a restart could find out by itself. A failure is logged: the ledger has it, and a copy that is
    /// restored asks AWS.
    pub(super) fn note(&self, entry: &Entry) {
        if let Err(error) = self.write(&mut self.state(), entry) {
            tracing::warn!(path = %self.path.display(), %error, "the redo log beside the ledger lacks a line");
        }
    }

    /// Appends what nothing else could tell, and returns when it is on the disk.
    ///
    /// # Errors
    /// [`LedgerError::Redo`]; the log is as it was.
    pub(super) fn insist(&self, entry: &Entry) -> Result<(), LedgerError> {
        let mut state = self.state();
        self.write(&mut state, entry)
            .and_then(|()| state.file.sync_data())
            .map_err(|source| LedgerError::Redo {
                path: self.path.clone(),
                source,
            })
    }

    /// Appends the orders in force where they differ from those on the last line that lists them.
    ///
    /// # Errors
    /// [`LedgerError::Redo`].
    pub(super) fn keep_orders(&self, bars: &[Bar], now: Timestamp) -> Result<(), LedgerError> {
        let known = self.state().bars.clone();
        if known.as_deref().unwrap_or_default() == bars {
            return Ok(());
        }
        self.insist(&Entry::Orders {
            bars: bars.to_vec(),
            at: now,
        })?;
        self.state().bars = Some(bars.to_vec());
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, state: &mut State, entry: &Entry) -> io::Result<()> {
        let mut line = write_json(entry).into_bytes();
        line.push(b'\n');
        // A line that a full disk cut short before must not run into this one.
        state.file.set_len(state.length)?;
        state.file.seek(SeekFrom::Start(state.length))?;
        state.file.write_all(&line)?;
        state.length += line.len() as u64;
        Ok(())
    }
}

/// Writes a log beside the old one and puts it in its place, so that there is always a whole one.
fn write_new(path: &Path, entries: impl Iterator<Item = io::Result<Entry>>) -> io::Result<(File, u64)> {
    let written = write_fresh(path, entries)?;
    fs::rename(fresh(path), path)?;
    sync_folder(path)?;
    Ok(written)
}

/// Writes a log beside the old one.
fn write_fresh(path: &Path, entries: impl Iterator<Item = io::Result<Entry>>) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(fresh(path))?;
    let mut file = BufWriter::new(file);
    let mut length = 0;
    for entry in entries {
        let line = write_json(&entry?) + "\n";
        file.write_all(line.as_bytes())?;
        length += line.len() as u64;
    }
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok((file, length))
}

fn fresh(path: &Path) -> PathBuf {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    fresh.into()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// The lines in the first `length` bytes without those from before `since`, except what the orders in force were.
fn later(path: &Path, length: u64, since: Timestamp) -> io::Result<impl Iterator<Item = io::Result<Entry>>> {
    let lines = || Ok::<_, io::Error>(Lines::within(File::open(path)?, length));
    let (mut first, mut orders) = (None, None);
    for entry in lines()? {
        let entry = entry?;
        match (&entry, &mut first) {
            (Entry::Of { .. }, _) => first = Some(entry),
            (Entry::Orders { .. }, _) if entry.at() < since => orders = Some(entry),
            (Entry::Asked { id, .. } | Entry::Found { id, .. }, Some(Entry::Of { after, .. }))
                if entry.at() < since =>
            {
                *after = *id;
            }
            _ => {}
        }
    }
    let later = lines()?.filter(move |entry| entry.as_ref().is_ok_and(|e| since <= e.at()) || entry.is_err());
    let later = later.filter(|entry| !matches!(entry, Ok(Entry::Of { .. })));
    Ok(first.into_iter().chain(orders).map(Ok).chain(later))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended(id: i64, second: i64) -> Entry {
        Entry::Ended {
            id,
            outcome: "failed".to_owned(),
            detail: None,
            effective: t(second),
            at: t(second),
        }
    }

    #[test]
    fn a_line_that_was_cut_short_is_dropped_and_the_next_one_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db.redo");
        let redo = Redo::begin(&path, "a", 0, t(0)).unwrap();
        redo.note(&ended(1, 1));
        drop(redo);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(br#"{"ended":{"id":2,"#);
        fs::write(&path, bytes).unwrap();
        let redo = Redo::resume(&path, t(2)).unwrap();
        redo.note(&ended(3, 3));
        let read: Vec<_> = Lines::of(&path).unwrap().skip(1).map(Result::unwrap).collect();
        assert_eq!(read, [ended(1, 1), ended(3, 3)]);
    }

    #[test]
    fn a_shortened_log_says_from_where_on_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db.redo");
        let redo = Redo::begin(&path, "a", 7, t(0)).unwrap();
        redo.keep_orders(&[], t(1)).unwrap();
        redo.note(&ended(8, 10));
        redo.note(&ended(9, 20));
        redo.shorten_to(t(15)).unwrap();
        let read: Vec<_> = Lines::of(&path).unwrap().map(Result::unwrap).collect();
        assert_eq!(read.last(), Some(&ended(9, 20)));
        assert_eq!(read.len(), 2, "{read:?}");
        assert_eq!(extent(&path).unwrap().unwrap().after, 7);
    }

    #[test]
    fn a_log_that_is_shortened_in_use_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db.redo");
        let redo = Redo::begin(&path, "a", 7, t(0)).unwrap();
        for second in 10..30 {
            redo.note(&ended(second, second));
        }
        std::thread::scope(|scope| {
            scope.spawn(|| (30..500).for_each(|second| redo.note(&ended(second, second))));
            (10..30).for_each(|second| redo.shorten_to(t(second)).unwrap());
        });
        redo.insist(&ended(500, 500)).unwrap();
        let read: Vec<_> = Lines::of(&path).unwrap().skip(1).map(Result::unwrap).collect();
        let expected: Vec<_> = (29..=500).map(|second| ended(second, second)).collect();
        assert_eq!(read, expected);
    }

    /// Found by a soak: a daemon that was never restarted kept every line for ever.
    #[test]
    fn a_large_log_is_long_once_it_reaches_further_back_than_has_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db.redo");
        let day = |day: i64| t(day * 24 * 3600);
        let redo = Redo::begin(&path, "a", 0, day(0)).unwrap();
        (0..70).for_each(|id| redo.note(&ended(id, id * 24 * 3600)));
        assert!(!redo.is_long(day(70)), "it is not large");
        redo.state().length = LARGE + 1;
        assert!(!redo.is_long(day(42)), "it holds little more than it has to");
        assert!(redo.is_long(day(70)));
        redo.shorten_to(day(35)).unwrap();
        redo.state().length = LARGE + 1;
        assert!(!redo.is_long(day(70)));
        assert_eq!(Lines::of(&path).unwrap().count(), 1 + 35);
        let resumed = Redo::resume(&path, day(70)).unwrap();
        assert_eq!(resumed.state().oldest, day(35));
    }
}
