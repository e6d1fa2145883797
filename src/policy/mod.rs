//! The validated access policy: projects in a tree, the entitlements they own, their members and rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    config::Provider,
    diagnostics::{Diagnostic, Report, SourceFile},
    document,
    invariant::{Condition, Invariant, Written},
    model::{
        EntitlementId, Interval, Origin, Person, ProjectName, ScheduleKey, SourceName, Target,
        spans::{common, merged},
    },
};

pub mod bundles;
mod check;
mod delegation;
mod directory;
pub mod file;
mod limits;
mod lower;
mod query;
pub use query::RulesByEntitlement;
mod training;
pub mod window;

pub use delegation::{Delegation, RuleKind};
pub use limits::{Excluded, Limits, Pattern};
pub(crate) use lower::DEFAULT_PRIORITY;
pub use training::Completion;
pub use window::CronWindow;

/// Everything under `access.d/`, checked. Only a policy without a single error exists as a value of this type.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// SHA-256 over the files' names and contents, in hex: which policy was in force.
    pub revision: String,
    /// The Git commit whose files these are, where somebody asked: [`crate::checkout::commit_of`].
    pub commit: Option<String>,
    /// By name.
    pub projects: BTreeMap<ProjectName, Project>,
    /// The statements of the operator, then those of the projects, in the order of their files.
    pub invariants: Vec<Invariant>,
}

/// A node of the ownership tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Unique in the policy.
    pub name: ProjectName,
    /// The parent, whose owners own everything below it too.
    pub parent: Option<ProjectName>,
    /// Who consents; never empty.
    pub owners: Vec<Person>,
    /// The owner's warning, shown wherever an entitlement of the project is shown.
    pub context: Option<String>,
    /// The Slack channel that is told of it.
    pub channel: Option<String>,
    /// The IANA name of the zone of times in messages about it; checked.
    pub zone: Option<String>,
    /// What the projects below may own and grant.
    pub children: Option<Limits>,
    /// By name within the project.
    pub entitlements: BTreeMap<String, Entitlement>,
    /// By person.
    pub members: BTreeMap<Person, Member>,
    /// In file order.
    pub rules: Vec<Rule>,
    /// Where `[project]` stands.
    pub origin: Origin,
}

/// Something grantable.
#[derive(Debug, Clone, PartialEq)]
pub struct Entitlement {
    /// Project and name.
    pub id: EntitlementId,
    /// What it grants in AWS.
    pub target: Target,
    /// Everybody who holds it without a cause is removed, whoever granted it.
    pub exclusive: bool,
    /// No revoke takes it below this many holders.
    pub min_holders: u32,
    /// From 1, whose changes go first where AWS's limits keep some waiting, to 9.
    pub priority: u8,
    /// Consent that rules of other projects name it, in file order.
    pub delegate_to: Vec<Delegation>,
    /// Where it stands.
    pub origin: Origin,
}

/// A person who belongs to a project.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Who.
    pub person: Person,
    /// Who vouched.
    pub added_by: Option<Person>,
    /// Why, in the words of who added them.
    pub reason: Option<String>,
    /// The first instant at which the membership holds; `None` is always. A date in the file means the start of that day.
    pub since: Option<Timestamp>,
    /// The first instant at which the membership no longer holds; a date in the file means through the end of that day in UTC.
    pub until: Option<Timestamp>,
    /// Trainings and other prerequisites met, by name, from the entry itself and from lists; none is empty.
    pub completed: BTreeMap<String, Vec<Completion>>,
    /// Where it stands.
    pub origin: Origin,
}

/// Binds an entitlement to a cause.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Own or delegated; consent was checked.
    pub entitlement: EntitlementId,
    /// What earns it.
    pub trigger: Trigger,
    /// The rule demands membership of its own project (the second key). Always true for membership rules.
    pub member: bool,
    /// Prerequisites that the member must have completed, as long as they count.
    pub trainings: BTreeSet<String>,
    /// Granted this long before duty starts.
    pub lead: SignedDuration,
    /// Kept this long after duty ends.
    pub linger: SignedDuration,
    /// The first instant at which the rule no longer holds, by its own `until` or because its delegation ends.
    pub until: Option<Timestamp>,
    /// What a rule for another project's entitlement rests on; `None` for the project's own.
    pub delegation: Option<Delegation>,
    /// Where it stands.
    pub origin: Origin,
}

/// What earns a rule's entitlement.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "rules are made once for each load and then only borrowed"
)]
pub enum Trigger {
    /// Being on call.
    OnCall(OnCall),
    /// Being a member of the rule's project, always or inside windows.
    Members {
        /// When; `None` is always.
        during: Option<CronWindow>,
    },
}

/// The on-call condition of a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct OnCall {
    /// Schedule or escalation policy.
    pub schedule: ScheduleKey,
    /// Levels that count, for escalation policies; `None` is every level.
    pub levels: Option<BTreeSet<u32>>,
    /// Whether standing targets of an escalation policy (without a schedule) count. Off unless the rule says so.
    pub permanent: bool,
}

/// What a policy is checked against.
#[derive(Debug, Clone, Default)]
pub struct PolicyContext {
    /// The on-call sources of the configuration, with the API where it is known; `None` when they are not known, which
    /// is no mistake of the policy.
    pub sources: Option<BTreeMap<SourceName, Option<Provider>>>,
    /// The only projects that may stand without a parent; `None` is any.
    pub roots: Option<BTreeSet<ProjectName>>,
    /// The statements of the operator, as the configuration has them.
    pub invariants: Vec<Written>,
    /// The present, for warnings about what has ended and about coming changes of clocks. It never decides whether a
    /// policy loads.
    pub now: Option<Timestamp>,
}

/// Reads and checks every `*.toml` directly in `dir`, each a project, and every `*.csv`, each a list of completed
/// trainings, as they stood together at one moment.
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
    for file in files {
        let path = file.path.display().to_string();
        match file.content.and_then(|bytes| document::decode(&path, bytes)) {
            Ok(text) if let directory::Kind::Trainings(format) = file.kind => {
                let origin = format!("{folder}/{}", file.name);
                lists.push(training::read(path, &text, format, &origin, &mut trained, &mut report));
            }
            Ok(text) => {
                let source = Arc::new(SourceFile::new(path, &text, &[]));
                let parsed = document::parse(source, &text, &mut report);
                drafts.push(lower::lower(parsed, format!("{folder}/{}", file.name), &mut report));
            }
            Err(mistakes) => {
                complete = false;
                report.extend(mistakes.into_diagnostics());
            }
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
            context: section.context.map(|context| context.value),
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

#[cfg(test)]
mod tests;
