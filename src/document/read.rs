//! Reads one file whole, within a limit, as UTF-8.

use std::{fs::File, io::Read as _, path::Path, sync::Arc};

use crate::diagnostics::{Diagnostic, Report, SourceFile};

/// The largest file that is read, in bytes. A policy or configuration file is a few thousand.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// The bytes of the regular file at `path`.
///
/// # Errors
/// A [`Report`] about the whole file when it is missing, unreadable, not a regular file or larger than
/// [`MAX_FILE_BYTES`]. The size is looked at before anything is read.
pub fn read(path: &Path) -> Result<Vec<u8>, Report> {
    read_up_to(path, MAX_FILE_BYTES)
}

/// Like [`read`], with another limit.
///
/// # Errors
/// Those of [`read`].
pub fn read_up_to(path: &Path, most: u64) -> Result<Vec<u8>, Report> {
    let name = path.display().to_string();
    let refuse =
        |code, message: &str, hint: &str| Report::from(Diagnostic::whole_file(code, &name, message).hint(hint));
    let failed = |error: std::io::Error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "check the path; a symbolic link may point at nothing",
            std::io::ErrorKind::PermissionDenied => "let the user that dutybound runs as read it",
            _ => "the daemon's user must be able to open and read it",
        };
        refuse("unreadable", &format!("cannot read the file: {}", reason(&error)), hint)
    };
    // Looked at by path before opening, because opening a pipe would wait for a writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        let hint = "move or rename the directory, or give the path of a file";
        return Err(refuse("unreadable", "this is a directory, not a file", hint));
    }
    if !metadata.is_file() {
        let hint = "only regular files are read, never pipes or devices";
        return Err(refuse("unreadable", "this is not a regular file", hint));
    }
    let mut bytes = Vec::new();
    if metadata.len() <= most {
        let file = File::open(path).map_err(failed)?;
        // The limit holds for a file that grows while it is read as well.
        file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    let size = metadata.len().max(bytes.len() as u64);
    if size > most {
        let message = format!("the file has {size} bytes, the limit is {most}");
        return Err(refuse("too-large", &message, "it was not read; remove it or split it"));
    }
    Ok(bytes)
}

/// The reason without the operating system's error number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_lowercase(),
        None => text,
    }
}

/// The text of a file, without a byte order mark.
///
/// # Errors
/// A [`Report`] at the first byte that is not UTF-8.
pub fn decode(name: &str, bytes: Vec<u8>) -> Result<String, Report> {
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => rest.to_vec(),
        None => bytes,
    };
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let hint = if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            "the file is UTF-16; save it as UTF-8"
        } else {
            "save the file as UTF-8"
        };
        // Only what precedes the bad byte is shown: the rest cannot be shown faithfully, and may be a secret.
        let before = String::from_utf8_lossy(&bytes[..at]);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let masked = line_start..at;
        let source = Arc::new(SourceFile::new(name, &format!("{before}\u{fffd}"), &[masked]));
        let message = format!("byte {at} (0x{:02x}) is not UTF-8", bytes[at]);
        Diagnostic::error("not-utf8", &source, at..at + '\u{fffd}'.len_utf8(), message)
            .hint(hint)
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_dropped_and_bad_bytes_are_placed() {
        assert_eq!(decode("a", b"\xef\xbb\xbfx = 1".to_vec()).unwrap(), "x = 1");
        let first = |bytes: &[u8]| {
            let report = decode("a.toml", bytes.to_vec()).unwrap_err();
            report.diagnostics()[0].clone()
        };
        let d = first(b"a = 1\nb = \"\xe4\"\n");
        assert_eq!(d.place(), "a.toml:2:6");
        assert_eq!(d.message, "byte 11 (0xe4) is not UTF-8");
        let d = first(b"\xff\xfea\0");
        assert_eq!(d.hint.as_deref(), Some("the file is UTF-16; save it as UTF-8"));
    }

    #[test]
    fn what_is_not_a_small_regular_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| read(path).unwrap_err().diagnostics()[0].message.clone();
        assert!(message(&dir.path().join("none")).contains("no such file"));
        assert_eq!(message(dir.path()), "this is a directory, not a file");
        assert_eq!(message(Path::new("/dev/null")), "this is not a regular file");
        let big = dir.path().join("big.toml");
        File::create(&big).unwrap().set_len(50 << 20).unwrap();
        assert_eq!(message(&big), "the file has 52428800 bytes, the limit is 1048576");
        std::fs::write(&big, vec![b'#'; 1 << 20]).unwrap();
        assert_eq!(read(&big).unwrap().len(), 1 << 20);
    }
}
