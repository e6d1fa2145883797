//! What Git knows of the policy directory, asked of the `git` of this machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::policy;
use crate::text::clean;

/// The commit that is checked out, where the policy files stand there exactly as a policy with this content hash has them.
/// `None` too where the directory is no checkout or `git` does not answer: then the content hash alone names the policy.
#[must_use]
pub fn commit_of(revision: &str, policy_dir: &Path) -> Option<String> {
    let (commit, files) = at_revision("HEAD", policy_dir).ok()?;
    (policy::revision_of(policy_dir, files).ok()? == revision).then_some(commit)
}

/// The policy files of a revision and the commit that it names.
///
/// # Errors
/// When `git` cannot be run, knows no such revision, or it holds no ordinary policy file.
pub fn at_revision(revision: &str, policy_dir: &Path) -> anyhow::Result<(String, Vec<(String, Vec<u8>)>)> {
    let what = || {
        format!(
            "{revision:?} is no directory, and no Git revision of {}",
            policy_dir.display()
        )
    };
    let commit = format!("{revision}^{{commit}}");
    let commit = git(
        policy_dir,
        &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit],
    )
    .with_context(what)?;
    let commit = String::from_utf8_lossy(&commit).trim().to_owned();
    let listing = git(policy_dir, &["ls-tree", "-z", &commit]).with_context(what)?;
    let mut files = Vec::new();
    for entry in listing.split(|b| *b == 0).filter(|entry| !entry.is_empty()) {
        let entry = std::str::from_utf8(entry).context("Git lists a file whose name is not UTF-8")?;
        let (about, name) = entry.split_once('\t').context("Git lists something not understood")?;
        if !policy::is_policy_file(name) {
            continue;
        }
        let mut about = about.split(' ');
        match (about.next(), about.next(), about.next()) {
            (Some("100644" | "100755"), Some("blob"), Some(id)) => {
                files.push((name.to_owned(), git(policy_dir, &["cat-file", "blob", id])?));
            }
            _ => bail!(
                "{} is no ordinary file at {revision:?}, so what it held cannot be told",
                clean(name)
            ),
        }
    }
    if files.is_empty() {
        bail!("{} held no policy file at {revision:?}", policy_dir.display());
    }
    Ok((commit, files))
}

fn git(dir: &Path, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(arguments)
        .output()
        .context("git cannot be run; install it, or give a directory that holds the former policy")?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    match said.trim() {
        "" => bail!("git {} found nothing", arguments[0]),
        said => bail!("git {}: {}", arguments[0], clean(said)),
    }
}
