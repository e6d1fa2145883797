//! `codeowners`: the file that makes Git ask the owners of a project, or of one above it, about each policy file.
//!
//! In CODEOWNERS the last pattern that matches decides alone, so each line names everybody who may answer. Spaces are
//! escaped with a backslash; what GitHub's documentation says does not work in patterns (`#`, ranges in brackets), and
//! wildcards that would match other files, are refused. Comments stand on lines of their own, because GitHub takes them
//! nowhere else.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

use crate::model::Person;
use crate::policy::{Policy, Project};
use crate::text::{clean, hides};

const HEAD: &str = "\
# Printed by `dutybound codeowners`; print it again when owners, parents or files change.
# The last line that matches a file decides. Whoever is named may answer: the owners of the project and of those above.
";

/// Prints the file for the policy in `policy_dir`, with paths from `root`, which is the Git working tree around the
/// directory when left out.
///
/// # Errors
/// When there is no such tree, the directory is outside it, or a path or address cannot be written in CODEOWNERS.
pub fn codeowners(policy: &Policy, policy_dir: &Path, root: Option<&Path>) -> anyhow::Result<String> {
    let dir = real(policy_dir)?;
    let root = match root {
        Some(root) => real(root)?,
        None => working_tree(&dir).with_context(|| {
            format!(
                "{} is in no Git working tree; name the repository's directory with --root",
                policy_dir.display()
            )
        })?,
    };
    let Ok(inside) = dir.strip_prefix(&root) else {
        bail!("{} is not inside {}", policy_dir.display(), root.display());
    };
    // Files that nobody owns yet, such as a new project's, fall to the owners of the roots.
    let roots = policy.projects.values().filter(|p| p.parent.is_none());
    let everything = match pattern(inside)?.as_str() {
        "" => "*".to_owned(),
        path => format!("{path}/"),
    };
    let mut text = format!("{HEAD}{everything} {}\n", owners(roots)?);
    let mut lines = Vec::new();
    for project in policy.projects.values() {
        let name = project.origin.file.rsplit('/').next().unwrap_or_default();
        let owners = owners(policy.lineage(&project.name))?;
        lines.push(format!("{} {owners}", pattern(&inside.join(name))?));
        // A link's target is where its content changes.
        let target = real(&dir.join(name))?;
        if target != dir.join(name)
            && let Ok(elsewhere) = target.strip_prefix(&root)
        {
            lines.push(format!("{} {owners}", pattern(elsewhere)?));
        }
    }
    lines.sort();
    lines.dedup();
    for line in lines {
        text += &line;
        text.push('\n');
    }
    Ok(text)
}

fn real(path: &Path) -> anyhow::Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))
}

fn working_tree(dir: &Path) -> Option<PathBuf> {
    // A file in worktrees and submodules, a directory otherwise.
    dir.ancestors()
        .find(|above| above.join(".git").exists())
        .map(Path::to_owned)
}

/// The path from the root as a pattern that matches nothing else; empty for the root itself.
fn pattern(path: &Path) -> anyhow::Result<String> {
    let mut pattern = String::new();
    for part in path.components() {
        let Component::Normal(part) = part else { continue };
        let name = part.to_str().filter(|name| {
            let cannot =
                |c: char| c != ' ' && (c.is_control() || c.is_whitespace() || hides(c) || r"*?[]#\".contains(c));
            !name.chars().any(cannot)
        });
        let Some(name) = name else {
            bail!(
                "CODEOWNERS cannot name {}; rename it without wildcards, brackets, #, backslashes and invisible characters",
                clean(&path.to_string_lossy())
            );
        };
        pattern.push('/');
        pattern += &name.replace(' ', "\\ ");
    }
    Ok(pattern)
}

/// The owners of these projects, each once, the first project's first.
fn owners<'a>(projects: impl Iterator<Item = &'a Project>) -> anyhow::Result<String> {
    let mut owners: Vec<&Person> = Vec::new();
    for owner in projects.flat_map(|project| &project.owners) {
        if owner.as_str().chars().any(|c| c == '#' || hides(c)) {
            bail!("CODEOWNERS cannot name the owner {}", clean(owner.as_str()));
        }
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    }
    Ok(owners.iter().map(|owner| owner.as_str()).collect::<Vec<_>>().join(" "))
}
