//! Reads the policy's files into one [`Policy`], or says everything that is wrong with them.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    Delegation, Entitlement, Member, Policy, PolicyContext, Project, Rule, check, delegation, directory, lower,
    training,
};
use crate::{
    diagnostics::{Diagnostic, Report, SourceFile},
    document,
    invariant::{Condition, Invariant, Written},
    model::{
        EntitlementId, Interval, Person, ProjectName,
        spans::{common, merged},
    },
    side_by_side,
};

/// Fewer files than this are understood before a thread has begun.
const FILES_FOR_A_THREAD: usize = 16;

/// Reads and checks every `*.toml` directly in `dir`, each a project, and every `*.csv` and `*.json`, each a
/// list of completed trainings, as they stood together at one moment.
///
/// Returns the policy with the warnings about it.
///
/// # Errors
/// A [`Report`] of every mistake in every file, with the warnings. A directory that is missing, unreadable or without
/// a policy file is an error and never an empty policy.
pub fn load(dir: &Path, context: &PolicyContext) -> Result<(Policy, Vec<Diagnostic>), Report> {
    let (policy, mut warnings) = understand(dir, directory::read(dir)?, context)?;
    warnings.extend(directory::slips(dir));
    Ok((policy, warnings))
}

/// Whether [`load`] reads a file of this name.
#[must_use]
pub fn is_policy_file(name: &str) -> bool {
    !name.starts_with('.') && directory::Kind::of(Path::new(name)).is_some()
}

/// Like [`load`], but of files that are in memory, each with its name and content: reads nothing.
///
/// # Errors
/// A [`Report`] of every mistake in every file, with the warnings.
pub fn parse(
    dir: &Path,
    files: Vec<(String, Vec<u8>)>,
    context: &PolicyContext,
) -> Result<(Policy, Vec<Diagnostic>), Report> {
    understand(dir, in_memory(dir, files), context)
}

/// The [`Policy::revision`] of files that are in memory.
///
/// # Errors
/// None, because every file has its content; the type is that of files on disk.
pub fn revision_of(dir: &Path, files: Vec<(String, Vec<u8>)>) -> Result<String, Report> {
    directory::revision(&in_memory(dir, files))
}

fn in_memory(dir: &Path, mut files: Vec<(String, Vec<u8>)>) -> Vec<directory::RawFile> {
    files.sort();
    let raw = |(name, content): (String, Vec<u8>)| directory::RawFile {
        path: dir.join(&name),
        kind: directory::Kind::of(Path::new(&name)).unwrap_or(directory::Kind::Project),
        name,
        content: Ok(content),
    };
    files.into_iter().map(raw).collect()
}

fn understand(
    dir: &Path,
    files: Vec<directory::RawFile>,
    context: &PolicyContext,
) -> Result<(Policy, Vec<Diagnostic>), Report> {
    let mut report = Report::default();
    let revision = directory::revision(&files);
    let folder = dir
        .file_name()
        .map_or_else(|| dir.to_string_lossy(), |name| name.to_string_lossy());
    let mut drafts = Vec::new();
    let mut trained = training::Completions::new();
    let mut lists = Vec::new();
    let mut complete = true;
    for (file, found) in side_by_side::map(files, FILES_FOR_A_THREAD, |file| open(file, &folder)) {
        report.extend(found.into_diagnostics());
        match file {
            Opened::Project(draft) => drafts.push(*draft),
            Opened::Trainings(format, path, origin, text) => {
                lists.push(training::read(path, &text, format, &origin, &mut trained, &mut report));
            }
            Opened::Unreadable => complete = false,
        }
    }
    complete &= !check::take_out_duplicates(&mut drafts, &mut report);
    check::run(&drafts, &lists, &trained, complete, context, &mut report);
    report.sort();
    if report.has_errors() {
        return Err(report);
    }
    match revision.map(|revision| assemble(revision, drafts, &context.invariants, &trained)) {
        Ok(Some(policy)) => Ok((policy, report.into_diagnostics())),
        Ok(None) => {
            let message = "an entry was not understood, and the reason was lost: this is a defect of dutybound";
            report.push(Diagnostic::whole_file("defect", &dir.display().to_string(), message));
            Err(report)
        }
        Err(report) => Err(report),
    }
}

/// What one file turned out to be.
enum Opened {
    /// A project, with the values that make sense.
    Project(Box<lower::Draft>),
    /// A list of trainings in this format, its path, its name and what it says.
    Trainings(training::Format, String, String, String),
    Unreadable,
}

/// Goes as far as one file alone can be understood, with what is wrong in it.
fn open(file: directory::RawFile, folder: &str) -> (Opened, Report) {
    let (path, origin) = (file.path.display().to_string(), format!("{folder}/{}", file.name));
    let mut report = Report::default();
    let opened = match file.content.and_then(|bytes| document::decode(&path, bytes)) {
        Ok(text) => match file.kind {
            directory::Kind::Trainings(format) => Opened::Trainings(format, path, origin, text),
            directory::Kind::Project => {
                let source = Arc::new(SourceFile::new(path, &text, &[]));
                let parsed = document::parse(source, &text, &mut report);
                Opened::Project(Box::new(lower::lower(parsed, origin, &mut report)))
            }
        },
        Err(mistakes) => {
            report = mistakes;
            Opened::Unreadable
        }
    };
    (opened, report)
}

/// The [`Policy::revision`] that [`load`] would give the directory now, without checking it: to notice changes,
/// whether a file was written in place, renamed into place or reached through a link that now points elsewhere.
///
/// # Errors
/// A [`Report`] when the directory or a file in it cannot be read, or there is no policy file.
pub fn fingerprint(dir: &Path) -> Result<String, Report> {
    directory::revision(&directory::read(dir)?)
}

/// `None` when an entry has no value. Its reason is in the report; here nothing is left out, because a policy without
/// one of its members or rules would take access away.
fn assemble(
    revision: String,
    drafts: Vec<lower::Draft>,
    operator: &[Written],
    trained: &training::Completions,
) -> Option<Policy> {
    let mut projects = BTreeMap::new();
    let written = operator.iter().chain(drafts.iter().flat_map(|draft| &draft.invariants));
    let invariants: Vec<Invariant> = written.map(|w| w.invariant.clone()).collect::<Option<_>>()?;
    for draft in drafts {
        let section = draft.file.project?.value;
        let entitlements: Option<Vec<Entitlement>> = draft.entitlements.into_iter().collect();
        let mut members: Vec<Member> = draft.members.into_iter().collect::<Option<_>>()?;
        for member in &mut members {
            for (training, listed) in trained.get(&member.person).into_iter().flatten() {
                let completed = member.completed.entry(training.clone()).or_default();
                completed.extend(listed.iter().cloned());
            }
        }
        let rules: Option<Vec<Rule>> = draft.rules.into_iter().collect();
        let project = Project {
            name: draft.name.clone(),
            parent: section.parent.map(|parent| ProjectName(parent.value.into())),
            owners: draft.owners,
            context: section.context.map(|context| context.value.into()),
            channel: section.channel.map(|channel| channel.value),
            zone: section.zone.map(|zone| zone.value),
            children: draft.children,
            entitlements: entitlements?.into_iter().map(|e| (e.id.name.to_string(), e)).collect(),
            members: members.into_iter().map(|m| (m.person.clone(), m)).collect(),
            rules: rules?,
            origin: draft.origin,
        };
        projects.insert(draft.name, project);
    }
    let mut policy = Policy {
        commit: None,
        revision,
        projects,
        invariants: Vec::new(),
    };
    rest_on_delegations(&mut policy)?;
    let mut invariants = invariants;
    for invariant in &mut invariants {
        resolve(invariant, &policy, trained);
    }
    policy.invariants = invariants;
    Some(policy)
}

/// Works out what a statement speaks about, and for one about trainings who has completed them when.
fn resolve(invariant: &mut Invariant, policy: &Policy, trained: &training::Completions) {
    let below = |name: &ProjectName, above: &ProjectName| policy.lineage(name).any(|project| project.name == *above);
    let within = |name: &ProjectName| invariant.project.as_ref().is_none_or(|own| below(name, own));
    invariant.covers = match &invariant.listed {
        Some(listed) => listed.clone(),
        None => policy
            .entitlements()
            .map(|e| &e.id)
            .filter(|id| within(&id.project))
            .cloned()
            .collect(),
    };
    let Condition::Requires(trainings) = &invariant.condition else {
        return;
    };
    let in_reach = |project: &&Project| {
        let above = |own: &ProjectName| below(own, &project.name);
        within(&project.name) || invariant.project.as_ref().is_none_or(above)
    };
    let members: Vec<&Member> = policy
        .projects
        .values()
        .filter(in_reach)
        .flat_map(|p| p.members.values())
        .collect();
    let mut by_person: BTreeMap<&Person, BTreeMap<&str, Vec<Interval>>> = BTreeMap::new();
    let listed = trained.iter();
    for (person, completed) in listed.chain(members.iter().map(|member| (&member.person, &member.completed))) {
        for training in trainings {
            let spans = completed
                .get(training)
                .into_iter()
                .flatten()
                .map(|completion| completion.valid);
            by_person
                .entry(person)
                .or_default()
                .entry(training)
                .or_default()
                .extend(spans);
        }
    }
    let whole = |spans: BTreeMap<&str, Vec<Interval>>| {
        let all = spans.into_values().map(merged);
        all.fold(vec![Interval::ALWAYS], |held, spans| common(&held, &spans))
    };
    let spans = by_person
        .into_iter()
        .map(|(person, spans)| (person.clone(), whole(spans)));
    invariant.trained = spans.filter(|(_, spans)| !spans.is_empty()).collect();
}

/// Gives each rule for another project's entitlement the delegation that lasts longest among those that allow it, and
/// ends the rule with it. `None` when there is none, which the checks refuse before.
fn rest_on_delegations(policy: &mut Policy) -> Option<()> {
    let lent: BTreeMap<EntitlementId, Vec<Delegation>> = policy
        .entitlements()
        .filter(|e| !e.delegate_to.is_empty())
        .map(|e| (e.id.clone(), e.delegate_to.clone()))
        .collect();
    for project in policy.projects.values_mut() {
        for rule in project
            .rules
            .iter_mut()
            .filter(|r| r.entitlement.project != project.name)
        {
            let all = lent.get(&rule.entitlement)?;
            let longest = delegation::longest(all, &project.name, &rule.trigger)?;
            rule.until = [rule.until, longest.until].into_iter().flatten().min();
            rule.delegation = Some(longest.clone());
        }
    }
    Some(())
}
