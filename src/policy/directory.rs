//! Reads the policy directory as it stood at one moment, and names that state by a hash.

use std::{fs, io, path::Path, path::PathBuf};

use sha2::{Digest as _, Sha256};

use super::training::Format;
use crate::{
    diagnostics::{self, Diagnostic, Report},
    document, side_by_side,
};

/// One policy file, or why it cannot be read.
pub(super) struct RawFile {
    /// As a person would write it after the directory's path.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) content: Result<Vec<u8>, Report>,
}

/// What a file in the policy directory holds, by how its name ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `.toml`: a project.
    Project,
    /// `.csv` or `.json`: completed trainings.
    Trainings(Format),
}

impl Kind {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?;
        let kinds = [
            ("toml", Self::Project),
            ("csv", Self::Trainings(Format::Csv)),
            ("json", Self::Trainings(Format::Json)),
        ];
        let kind = kinds.into_iter().find(|(end, _)| extension.eq_ignore_ascii_case(end));
        kind.map(|(_, kind)| kind)
    }

    /// The largest file that is read, in bytes: a list has a line for each of 20,000 people and each of their trainings.
    fn most_bytes(self) -> u64 {
        match self {
            Self::Project => document::MAX_FILE_BYTES,
            Self::Trainings(_) => 16 << 20,
        }
    }
}

/// A warning for each file whose name looks like a slip, so that it is not read as what it was meant to be. Names that
/// look like nothing of ours, such as `README.md` or `payments.toml.disabled`, are left alone on purpose.
pub(super) fn slips(dir: &Path) -> Vec<Diagnostic> {
    let mut names: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| Kind::of(path).is_none() && path.is_file())
        .collect();
    names.sort();
    let slip = |path: PathBuf| {
        let name = path.file_name()?.to_str()?;
        let meant = diagnostics::nearest(path.extension()?.to_str()?, ["toml", "csv", "json"])?;
        let shown = path.display().to_string();
        let message = format!("this file is not read, because its name does not end in .{meant}");
        let warning = Diagnostic::whole_file("not-read", &shown, message).into_warning();
        (!name.starts_with('.')).then(|| warning.hint("rename it, or move it out of the policy directory"))
    };
    names.into_iter().filter_map(slip).collect()
}

/// What identifies one version of a file without reading it.
type Stamp = (u64, u64, u64, i128, i128);

/// Fewer files than this are read before a thread has begun.
const FILES_FOR_A_THREAD: usize = 64;

/// How often a directory that changes while it is read is read again.
const ATTEMPTS: usize = 5;

/// All policy files, sorted by name: every `*.toml`, `*.csv` and `*.json` directly in `dir`, whether file or symbolic link.
/// Hidden names, such as editors' locks and Kubernetes' `..data`, are no policy files.
pub(super) fn read(dir: &Path) -> Result<Vec<RawFile>, Report> {
    for _ in 0..ATTEMPTS {
        let before = list(dir)?;
        let read = |(path, kind, _): &(PathBuf, Kind, _)| RawFile {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            path: path.clone(),
            kind: *kind,
            content: document::read_up_to(path, kind.most_bytes()),
        };
        let files = side_by_side::map(before.iter().collect(), FILES_FOR_A_THREAD, read);
        if before == list(dir)? {
            return Ok(files);
        }
    }
    let message = format!("the directory changed each of the {ATTEMPTS} times that it was read");
    Err(
        Diagnostic::whole_file("unreadable", &dir.display().to_string(), message)
            .hint("find out what keeps writing to it, or try again")
            .into(),
    )
}

fn list(dir: &Path) -> Result<Vec<(PathBuf, Kind, Option<Stamp>)>, Report> {
    let shown = dir.display().to_string();
    let failed = |error: io::Error| {
        let (message, hint) = match error.kind() {
            io::ErrorKind::NotFound => (
                "the policy directory does not exist".to_owned(),
                "create it with one TOML file per project, or correct `policy_dir` in the configuration",
            ),
            io::ErrorKind::NotADirectory => (
                "this is not a directory".to_owned(),
                "`policy_dir` names the directory that holds one TOML file per project",
            ),
            _ => (
                format!("cannot read the policy directory: {error}"),
                "let the user that dutybound runs as list and read it",
            ),
        };
        Report::from(Diagnostic::whole_file("unreadable", &shown, message).hint(hint))
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if let (false, Some(kind)) = (hidden, Kind::of(&path)) {
            // A stamp that cannot be taken is no reason to leave the file out: reading it will say why.
            let stamp = fs::metadata(&path).map(|metadata| stamp(&metadata)).ok();
            found.push((path, kind, stamp));
        }
    }
    if found.iter().all(|(_, kind, _)| *kind != Kind::Project) {
        return Err(
            Diagnostic::whole_file("no-policy", &shown, "there is no policy file in this directory")
                .hint(
                    "an empty policy would take everybody's access away, so it is never read as one; \
                 add a file such as payments.toml",
                )
                .into(),
        );
    }
    found.sort();
    Ok(found)
}

#[cfg(unix)]
fn stamp(metadata: &fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        nanos(metadata.mtime(), metadata.mtime_nsec()),
        nanos(metadata.ctime(), metadata.ctime_nsec()),
    )
}

#[cfg(not(unix))]
fn stamp(metadata: &fs::Metadata) -> Stamp {
    let modified = metadata
        .modified()
        .map(|time| jiff::Timestamp::try_from(time).map_or(0, |t| t.as_nanosecond()))
        .unwrap_or_default();
    (0, 0, metadata.len(), modified, 0)
}

/// SHA-256 over names and contents, in hex. A file that cannot be read has no content and no hash.
pub(super) fn revision(files: &[RawFile]) -> Result<String, Report> {
    let mut report = Report::default();
    let mut hash = Sha256::new();
    for file in files {
        match &file.content {
            Ok(bytes) => {
                // Lengths in front, so that no two different directories feed the hash the same bytes.
                for part in [
                    file.path.file_name().unwrap_or_default().as_encoded_bytes(),
                    bytes.as_slice(),
                ] {
                    hash.update((part.len() as u64).to_be_bytes());
                    hash.update(part);
                }
            }
            Err(mistakes) => report.extend(mistakes.clone().into_diagnostics()),
        }
    }
    if report.has_errors() {
        return Err(report);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
