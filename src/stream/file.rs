//! Appends lines to a file that other programs rotate.
//!
//! The file is opened anew for each batch, so that it may be renamed, removed or cut to nothing at any time. Only what is
//! on disk in the file that the path names afterwards counts as confirmed.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::batch::Batch;
use super::sink::{Refusal, Sink};

/// As far back as the beginning of a line that was cut off is looked for.
const LONGEST_LINE: u64 = 4 << 20;

pub(super) struct File(pub(super) PathBuf);

#[async_trait]
impl Sink for File {
    async fn send(&mut self, batch: &Batch) -> Result<(), Refusal> {
        let (path, lines) = (self.0.clone(), batch.ndjson());
        let appended = tokio::task::spawn_blocking(move || append(&path, &lines)).await;
        let appended = appended.unwrap_or_else(|error| Err(io::Error::other(error)));
        appended.map_err(|error| Refusal::soon(format!("cannot append to {}: {error}", self.0.display())))
    }
}

fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    // A pipe without a reader would never open.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut file = open(path)?;
    let begin = mend(&mut file)?;
    let written = file.write_all(lines).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // So that nobody reads a part of a line; what stays is mended next time.
        drop(file.set_len(begin));
        return Err(error);
    }
    if begin == 0 {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    let (ours, named) = (file.metadata()?, fs::metadata(path)?);
    let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
    if ours.ino() != named.ino() || ours.dev() != named.dev() || ours.len() < begin.saturating_add(length) {
        // Whoever rotates may have copied it before the lines were there.
        return Err(io::Error::other(
            "it was rotated meanwhile; the lines are written again",
        ));
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    match options.clone().create_new(true).mode(0o640).open(path) {
        Ok(file) => {
            // For the group that reads it, whatever the unit's mask is.
            file.set_permissions(fs::Permissions::from_mode(0o640))?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        Err(error) => Err(error),
    }
}

/// Makes the file end with a whole line, after a crash in the midst of one. Returns where it ends.
fn mend(file: &mut fs::File) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    let from = end.saturating_sub(LONGEST_LINE);
    if end == 0 {
        return Ok(0);
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(end - 1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok(end);
    }
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(LONGEST_LINE).read_to_end(&mut tail)?;
    let after = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let begin = from + u64::try_from(after).unwrap_or_default();
    // Only what is ours is cut off: it was never confirmed and follows once more.
    if tail.get(after) == Some(&b'{') && (after != 0 || from == 0) {
        file.set_len(begin)?;
        Ok(begin)
    } else {
        file.write_all(b"\n")?;
        Ok(end + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_is_begun_anew_and_what_others_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        for (before, after) in [
            ("", "{\"a\":1}\n"),
            ("{\"b\":2}\n", "{\"b\":2}\n{\"a\":1}\n"),
            ("{\"b\":2}\n{\"c\"", "{\"b\":2}\n{\"a\":1}\n"),
            ("{\"c\"", "{\"a\":1}\n"),
            ("a note", "a note\n{\"a\":1}\n"),
            ("{\"b\":2}\na note", "{\"b\":2}\na note\n{\"a\":1}\n"),
        ] {
            fs::write(&path, before).unwrap();
            append(&path, b"{\"a\":1}\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after, "{before:?}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(append(dir.path(), b"{}\n").is_err());
        assert!(append(&dir.path().join("none/events.jsonl"), b"{}\n").is_err());
    }
}
