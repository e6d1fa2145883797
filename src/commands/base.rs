//! `diff --base`: compares the policy with a former one under the same schedules, without asking AWS anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::accounting::standing;
use crate::compare::{Comparison, Side, compare};
use crate::config::Config;
use crate::diagnostics::Report;
use crate::forecast::forecast;
use crate::ledger::StoredSnapshots;
use crate::model::Interval;
use crate::policy::{self, Policy, PolicyContext};
use crate::poll::{self, Sources};
use crate::text::clean;

/// Why there is nothing to compare with.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// Git did not give it.
    #[error("{0:#}")]
    Git(anyhow::Error),
    /// It has mistakes.
    #[error("the policy to compare with cannot be used")]
    Policy(Report),
}

/// Loads the policy to compare with: a directory, or the policy directory as it was at a revision of its Git repository.
///
/// # Errors
/// [`BaseError`].
pub fn load(base: &str, policy_dir: &Path, context: &PolicyContext) -> Result<Policy, BaseError> {
    let loaded = if Path::new(base).is_dir() {
        policy::load(Path::new(base), context)
    } else {
        let files = at_revision(base, policy_dir).map_err(BaseError::Git)?;
        policy::parse(policy_dir, files, context)
    };
    loaded.map(|(policy, _)| policy).map_err(BaseError::Policy)
}

/// The policy files of a revision, read by the `git` of this machine.
fn at_revision(revision: &str, policy_dir: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
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
    Ok(files)
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

/// Compares what both policies lead to. Schedules are read from the providers unless `sources` is `None`; where they
/// cannot be, what is stored stands in, and the returned lines say so.
pub async fn look(
    config: &Config,
    before: &Policy,
    after: &Policy,
    sources: Option<&Sources>,
    mut stored: StoredSnapshots,
    period: Interval,
) -> (Comparison, Vec<String>) {
    let now = period.start();
    let mut schedules = before.schedules();
    schedules.extend(after.schedules());
    let mut notes = Vec::new();
    if let Some(sources) = sources {
        let window = poll::window(now, period.duration(), None);
        notes = poll::read_into(&mut stored, sources, &schedules, window, now).await;
    }
    let snapshots = stored.newest(&schedules);
    for unread in schedules.iter().filter(|key| !snapshots.contains_key(*key)) {
        notes.push(format!("{unread} is not known, so nobody gains or loses by it here"));
    }
    notes.sort();
    let outlook = |policy| forecast(policy, &snapshots, &config.identities, &None, period);
    let could = |policy| -> BTreeMap<_, _> { standing(policy, &snapshots, &config.identities, period) };
    let (old, new) = (outlook(before), outlook(after));
    let (could_before, could_after) = (could(before), could(after));
    let comparison = compare(
        Side {
            policy: before,
            forecast: &old,
            standing: &could_before,
        },
        Side {
            policy: after,
            forecast: &new,
            standing: &could_after,
        },
    );
    (comparison, notes)
}
