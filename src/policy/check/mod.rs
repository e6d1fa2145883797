//! What no single value can show: names that must exist, be unique or be consented to. A table of checks, all run.

use std::{collections::HashMap, ops::Range};

use super::{
    PolicyContext, Rule,
    file::RuleEntry,
    lower::Draft,
    training::{Completions, List},
};
use crate::{
    diagnostics::{Diagnostic, Report},
    document::{At, Entry},
    model::Person,
    side_by_side,
};

mod bundles;
mod delegations;
mod invariants;
mod limits;
mod people;
mod rules;
mod trainings;
mod tree;
mod windows;

/// All projects at once.
pub(super) struct World<'a> {
    drafts: &'a [Draft],
    context: &'a PolicyContext,
    /// Lists of trainings.
    lists: &'a [List],
    /// What they say.
    trained: &'a Completions,
    by_name: HashMap<&'a str, &'a Draft>,
    /// Whether every file tells the name of its project. Otherwise an unknown name may be in one that does not.
    complete: bool,
}

/// One check; the text is the code of its diagnostics.
type Check = fn(&'static str, &World<'_>, &mut Report);

const CHECKS: &[(&str, Check)] = &[
    ("unknown-parent", tree::unknown_parent),
    ("not-a-root", tree::not_a_root),
    ("parent-cycle", tree::parent_cycle),
    ("duplicate-entitlement", tree::duplicate_entitlement),
    ("owned-twice", tree::owned_twice),
    ("unknown-delegate", tree::unknown_delegate),
    ("duplicate-member", people::duplicate_member),
    ("added-by-stranger", people::added_by_stranger),
    ("look-alike", people::look_alike),
    ("ended", people::ended),
    ("unknown-entitlement", rules::unknown_entitlement),
    ("no-consent", rules::no_consent),
    ("outside-delegation", delegations::outside),
    ("ended", delegations::ended),
    ("ends-soon", delegations::ends_soon),
    ("unused-delegation", delegations::unused),
    ("beyond-limits", limits::beyond),
    ("idle-limit", limits::idle),
    ("unknown-source", rules::unknown_source),
    ("no-escalation-policies", rules::no_escalation_policies),
    ("unmet-training", rules::unmet_training),
    ("said-twice", trainings::said_twice),
    ("unknown-person", trainings::unknown_person),
    ("unknown-training", trainings::unknown_training),
    ("duplicate-rule", rules::duplicate_rule),
    ("unknown-entitlement", invariants::unknown_entitlement),
    ("outside-subtree", invariants::outside_subtree),
    ("duplicate-invariant", invariants::duplicate),
    ("no-room", invariants::no_room),
    ("unmet-training", invariants::unmet_training),
    ("breaks-invariant", invariants::broken_by_rules),
    ("never", windows::never),
    ("overlap", windows::overlap),
    ("clock-change", windows::clock_change),
    ("group-would-do", bundles::group_would_do),
];

/// The checks of fewer projects than this are done before a thread has begun.
const MANY: usize = 64;

/// Runs every check. `complete` says whether every file of the directory is among the drafts.
pub(super) fn run(
    drafts: &[Draft],
    lists: &[List],
    trained: &Completions,
    complete: bool,
    context: &PolicyContext,
    report: &mut Report,
) {
    let mut by_name = HashMap::new();
    for draft in drafts {
        by_name.entry(draft.name.0.as_str()).or_insert(draft);
    }
    let world = World {
        drafts,
        context,
        lists,
        trained,
        complete: complete && drafts.iter().all(|d| !d.name.0.is_empty() && !d.holes.broken()),
        by_name,
    };
    let checks_for_a_thread = if drafts.len() < MANY { CHECKS.len() } else { 1 };
    let run = |(code, check): (&'static str, Check)| {
        let mut report = Report::default();
        check(code, &world, &mut report);
        report
    };
    for found in side_by_side::map(CHECKS.to_vec(), checks_for_a_thread, run) {
        report.extend(found.into_diagnostics());
    }
}

/// Takes out every project whose name another one has already: what the checks would say of it may be about the other.
/// Returns whether there was any.
pub(super) fn take_out_duplicates(drafts: &mut Vec<Draft>, report: &mut Report) -> bool {
    let mut first: HashMap<String, String> = HashMap::new();
    let before = drafts.len();
    drafts.retain(|draft| {
        if draft.name.0.is_empty() {
            return true;
        }
        let place = draft.place(&draft.name_span());
        let Some(earlier) = first.get(draft.name.0.as_str()) else {
            first.insert(draft.name.0.to_string(), place);
            return true;
        };
        let message = format!("the project `{}` is already defined at {earlier}", draft.name);
        let hint = "rename one, or remove the file that should not be there";
        report.push(draft.error("duplicate-project", &draft.name_span(), message).hint(hint));
        false
    });
    drafts.len() < before
}

impl<'a> World<'a> {
    /// The project and those above it, the nearest first; a circle is walked once.
    fn lineage(&self, draft: &'a Draft) -> Vec<&'a Draft> {
        let mut line: Vec<&Draft> = vec![draft];
        let mut at = draft;
        while let Some(parent) = at.parent()
            && let Some(above) = self.by_name.get(parent.value.as_str()).copied()
            && line.iter().all(|known| !std::ptr::eq(*known, above))
        {
            line.push(above);
            at = above;
        }
        line
    }

    /// The owners of a project, and those of the projects above, who own it too: `mira@… or max@… (or above them cto@…)`.
    fn whom_to_ask(&self, draft: &'a Draft) -> String {
        let mut named: Vec<&Person> = Vec::new();
        let mut texts = Vec::new();
        for owners in [
            draft.owners.iter().collect::<Vec<_>>(),
            self.lineage(draft).iter().skip(1).flat_map(|d| &d.owners).collect(),
        ] {
            let mut fresh = Vec::new();
            for owner in owners {
                if !named.contains(&owner) {
                    named.push(owner);
                    fresh.push(owner.as_str());
                }
            }
            texts.push(fresh.join(" or "));
        }
        match texts.as_slice() {
            [own, above] if !above.is_empty() => format!("{own} (or above them {above})"),
            [own, ..] => own.clone(),
            [] => String::new(),
        }
    }
}

impl Draft {
    fn place(&self, span: &Range<usize>) -> String {
        let (line, column) = self.source.position(span.start);
        format!("{}:{line}:{column}", self.source.name())
    }

    fn error(&self, code: &'static str, span: &Range<usize>, message: impl AsRef<str>) -> Diagnostic {
        Diagnostic::error(code, &self.source, span.clone(), message)
    }

    fn warning(&self, code: &'static str, span: &Range<usize>, message: impl AsRef<str>) -> Diagnostic {
        Diagnostic::warning(code, &self.source, span.clone(), message)
    }

    fn name_span(&self) -> Range<usize> {
        let project = self.file.project.as_ref();
        let name = project.and_then(|p| p.value.name.as_ref());
        name.map_or(0..0, |name| name.span().clone())
    }

    fn parent(&self) -> Option<&At<String>> {
        self.file.project.as_ref()?.value.parent.as_ref()
    }

    fn entitlement_names(&self) -> impl Iterator<Item = &At<String>> {
        self.file.entitlement.iter().flat_map(|e| &e.value.name)
    }

    /// Whether some entitlement's name could not be read, so that an unknown name may be that one.
    fn has_nameless_entitlement(&self) -> bool {
        self.holes.broken() || self.file.entitlement.iter().any(|e| e.value.name.is_none())
    }

    /// Rules with their entries.
    fn rules(&self) -> impl Iterator<Item = (&Entry<RuleEntry>, &Rule)> {
        let pairs = self.file.rule.iter().zip(&self.rules);
        pairs.flat_map(|(entry, rule)| rule.as_ref().map(|rule| (entry, rule)))
    }
}
