//! What no single value can show: names that must exist, be unique or be consented to. A table of checks, all run.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Range,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    CronWindow, PolicyContext, Rule, Trigger,
    file::{EntitlementEntry, RuleEntry},
    lower::Draft,
};
use crate::{
    diagnostics::{Diagnostic, Report, did_you_mean, nearest},
    document::{At, Entry},
    model::{EntitlementId, Person, Target},
};

/// All projects at once.
pub(super) struct World<'a> {
    drafts: &'a [Draft],
    context: &'a PolicyContext,
    by_name: HashMap<&'a str, &'a Draft>,
    /// Whether every file tells the name of its project. Otherwise an unknown name may be in one that does not.
    complete: bool,
}

/// One check; the text is the code of its diagnostics.
type Check = fn(&'static str, &World<'_>, &mut Report);

const CHECKS: &[(&str, Check)] = &[
    ("duplicate-project", duplicate_project),
    ("unknown-parent", unknown_parent),
    ("parent-cycle", parent_cycle),
    ("duplicate-entitlement", duplicate_entitlement),
    ("owned-twice", owned_twice),
    ("unknown-delegate", unknown_delegate),
    ("duplicate-member", duplicate_member),
    ("added-by-stranger", added_by_stranger),
    ("ended", ended),
    ("unknown-entitlement", unknown_entitlement),
    ("no-consent", no_consent),
    ("unknown-source", unknown_source),
    ("unmet-training", unmet_training),
    ("duplicate-rule", duplicate_rule),
    ("never", never),
    ("overlap", overlap),
    ("clock-change", clock_change),
];

/// Runs every check. `complete` says whether every file of the directory is among the drafts.
pub(super) fn run(drafts: &[Draft], complete: bool, context: &PolicyContext, report: &mut Report) {
    let mut by_name = HashMap::new();
    for draft in drafts {
        by_name.entry(draft.name.0.as_str()).or_insert(draft);
    }
    let world = World {
        drafts,
        context,
        complete: complete && drafts.iter().all(|d| !d.name.0.is_empty() && !d.holes.broken()),
        by_name,
    };
    for (code, check) in CHECKS {
        check(code, &world, report);
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

fn duplicate_project(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts.iter().filter(|d| !d.name.0.is_empty()) {
        let first = world.by_name[draft.name.0.as_str()];
        if !std::ptr::eq(first, draft) {
            let message = format!(
                "the project `{}` is already defined at {}",
                draft.name,
                first.place(&first.name_span())
            );
            let hint = "rename one, or remove the file that should not be there";
            report.push(draft.error(code, &draft.name_span(), message).hint(hint));
        }
    }
}

fn unknown_project(code: &'static str, world: &World<'_>, draft: &Draft, name: &At<String>, report: &mut Report) {
    if world.complete && !world.by_name.contains_key(name.value.as_str()) {
        let hint = did_you_mean(&name.value, world.by_name.keys().copied())
            .unwrap_or_else(|| "a project is a file of this directory with that name under [project]".to_owned());
        let message = format!("there is no project `{}`", name.value);
        report.push(draft.error(code, name.span(), message).hint(hint));
    }
}

fn unknown_parent(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts {
        if let Some(parent) = draft.parent() {
            unknown_project(code, world, draft, parent, report);
        }
    }
}

fn parent_cycle(code: &'static str, world: &World<'_>, report: &mut Report) {
    let mut told: HashSet<&str> = HashSet::new();
    for draft in world.drafts {
        let mut path = vec![draft.name.0.as_str()];
        let mut at = draft;
        while let Some(parent) = at.parent() {
            if parent.value == draft.name.0 {
                if path.iter().all(|name| !told.contains(name)) {
                    told.extend(&path);
                    path.push(&draft.name.0);
                    let message = format!("the projects are in a circle: {}", path.join(" -> "));
                    let span = draft.parent().map_or(0..0, |p| p.span().clone());
                    let hint = "a parent cannot stand below its own child; remove one of these `parent` lines";
                    report.push(draft.error(code, &span, message).hint(hint));
                }
                break;
            }
            match world.by_name.get(parent.value.as_str()) {
                Some(next) if !path.contains(&next.name.0.as_str()) => {
                    path.push(&next.name.0);
                    at = next;
                }
                _ => break,
            }
        }
    }
}

fn duplicate_entitlement(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts {
        let mut first: HashMap<&str, &At<String>> = HashMap::new();
        for name in draft.entitlement_names() {
            if let Some(first) = first.get(name.value.as_str()) {
                let message = format!("the entitlement `{}` is already defined", name.value);
                let hint = format!("the first is at {}; rename one", draft.place(first.span()));
                report.push(draft.error(code, name.span(), message).hint(hint));
            } else {
                first.insert(&name.value, name);
            }
        }
    }
}

fn owned_twice(code: &'static str, world: &World<'_>, report: &mut Report) {
    let mut first: HashMap<&Target, (&EntitlementId, String)> = HashMap::new();
    for draft in world.drafts {
        for (entry, entitlement) in draft.file.entitlement.iter().zip(&draft.entitlements) {
            let Some(entitlement) = entitlement else { continue };
            if let Some((owner, place)) = first.get(&entitlement.target) {
                let message = format!("{} is already owned, as `{owner}`", entitlement.target);
                let hint = format!(
                    "one entitlement has one owner: remove this one, and let {place} delegate it with \
                     delegate_to = [\"{}\"] if this project needs it",
                    draft.name
                );
                report.push(draft.error(code, entry.span(), message).hint(hint));
            } else {
                first.insert(&entitlement.target, (&entitlement.id, draft.place(entry.span())));
            }
        }
    }
}

fn unknown_delegate(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts {
        let lists = draft.file.entitlement.iter().flat_map(|e| &e.value.delegate_to);
        for name in lists.flat_map(|list| &list.value) {
            if name.value == draft.name.0 {
                let message = "a project need not delegate to itself";
                report.push(draft.error(code, name.span(), message).hint("remove it"));
            } else {
                unknown_project(code, world, draft, name, report);
            }
        }
    }
}

fn duplicate_member(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts {
        let mut first: HashMap<&Person, String> = HashMap::new();
        for (entry, member) in draft.file.member.iter().zip(&draft.members) {
            let (Some(member), Some(email)) = (member, &entry.value.email) else {
                continue;
            };
            if let Some(place) = first.get(&member.person) {
                let message = format!("{} is already a member", member.person);
                let hint = format!("the first entry is at {place}; keep one");
                report.push(draft.error(code, email.span(), message).hint(hint));
            } else {
                first.insert(&member.person, draft.place(email.span()));
            }
        }
    }
}

/// The owners of a project and of all projects above it.
fn owners_upwards<'a>(world: &World<'a>, draft: &'a Draft) -> HashSet<&'a Person> {
    let mut owners: HashSet<&Person> = HashSet::new();
    let mut seen: HashSet<&str> = HashSet::new();
    let mut at = Some(draft);
    while let Some(draft) = at
        && seen.insert(&draft.name.0)
    {
        owners.extend(&draft.owners);
        at = draft
            .parent()
            .and_then(|parent| world.by_name.get(parent.value.as_str()).copied());
    }
    owners
}

fn added_by_stranger(code: &'static str, world: &World<'_>, report: &mut Report) {
    if !world.complete {
        return;
    }
    for draft in world.drafts.iter().filter(|d| !d.owners.is_empty()) {
        let owners = owners_upwards(world, draft);
        for (entry, member) in draft.file.member.iter().zip(&draft.members) {
            let (Some(member), Some(at)) = (member, &entry.value.added_by) else {
                continue;
            };
            if let Some(added_by) = &member.added_by
                && !owners.contains(added_by)
            {
                let message = format!("{added_by} owns neither {} nor a project above it", draft.name);
                let hint = format!("have an owner vouch for {}, or make {added_by} an owner", member.person);
                report.push(draft.warning(code, at.span(), message).hint(hint));
            }
        }
    }
}

fn ended(code: &'static str, world: &World<'_>, report: &mut Report) {
    let Some(now) = world.context.now else { return };
    for draft in world.drafts {
        for (entry, member) in draft.file.member.iter().zip(&draft.members) {
            let (Some(member), Some(at)) = (member, &entry.value.until) else {
                continue;
            };
            if member.until.is_some_and(|until| until <= now) {
                let message = format!("the membership of {} has ended", member.person);
                report.push(
                    draft
                        .warning(code, at.span(), message)
                        .hint("extend it, or remove the entry"),
                );
            }
        }
        for (entry, rule) in draft.rules() {
            if let (Some(at), Some(until)) = (&entry.value.until, rule.until)
                && until <= now
            {
                let message = "this rule has ended";
                report.push(
                    draft
                        .warning(code, at.span(), message)
                        .hint("extend it, or remove the rule"),
                );
            }
        }
    }
}

/// What the entitlement that a rule names turns out to be.
enum Named<'a> {
    /// The project's own, or delegated to it.
    Allowed,
    /// It exists and its owner has not delegated it.
    Refused(&'a Draft, usize),
    /// It does not exist.
    Unknown,
    /// Some other mistake prevents an answer.
    Undecided,
}

fn named<'a>(world: &World<'a>, draft: &Draft, rule: &Rule) -> Named<'a> {
    let Some(owner) = world.by_name.get(rule.entitlement.project.0.as_str()) else {
        return if world.complete {
            Named::Unknown
        } else {
            Named::Undecided
        };
    };
    let mut entries = owner.file.entitlement.iter();
    let wanted = |e: &Entry<EntitlementEntry>| {
        e.value
            .name
            .as_ref()
            .is_some_and(|name| name.value == rule.entitlement.name)
    };
    let Some(index) = entries.position(wanted) else {
        return if owner.has_nameless_entitlement() {
            Named::Undecided
        } else {
            Named::Unknown
        };
    };
    let delegate_to = owner.file.entitlement[index].value.delegate_to.as_ref();
    let delegated = delegate_to.is_some_and(|list| list.value.iter().any(|project| project.value == draft.name.0));
    if owner.name == draft.name || delegated {
        Named::Allowed
    } else if owner.holes.explain(owner.file.entitlement[index].span(), "delegate_to") {
        Named::Undecided
    } else {
        Named::Refused(owner, index)
    }
}

fn unknown_entitlement(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts.iter().filter(|d| !d.name.0.is_empty()) {
        for (entry, rule) in rules_with_entitlement(draft) {
            if !matches!(named(world, draft, rule), Named::Unknown) {
                continue;
            }
            let own = draft.entitlement_names().map(|name| name.value.clone());
            let others = world.drafts.iter().flat_map(|d| {
                let names = d.entitlement_names();
                names.map(move |name| format!("{}/{}", d.name, name.value))
            });
            let elsewhere: Vec<String> = others.collect();
            let same = elsewhere
                .iter()
                .find(|id| id.split_once('/').is_some_and(|(_, name)| name == entry.value));
            let known: Vec<String> = own.chain(elsewhere.iter().cloned()).collect();
            let hint = match (same, nearest(&entry.value, known.iter().map(String::as_str))) {
                (Some(same), _) => format!("`{same}` exists; name it with its project if that is meant"),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => format!("{} owns {}", draft.name, owned(draft)),
            };
            let message = format!("there is no entitlement `{}`", rule.entitlement);
            report.push(draft.error(code, entry.span(), message).hint(hint));
        }
    }
}

fn owned(draft: &Draft) -> String {
    let names: Vec<String> = draft
        .entitlement_names()
        .map(|name| format!("`{}`", name.value))
        .collect();
    if names.is_empty() {
        "no entitlement".to_owned()
    } else {
        names.join(", ")
    }
}

fn rules_with_entitlement(draft: &Draft) -> impl Iterator<Item = (&At<String>, &Rule)> {
    draft
        .rules()
        .flat_map(|(entry, rule)| entry.value.entitlement.as_ref().map(|at| (at, rule)))
}

fn no_consent(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts.iter().filter(|d| !d.name.0.is_empty()) {
        for (at, rule) in rules_with_entitlement(draft) {
            let Named::Refused(owner, index) = named(world, draft, rule) else {
                continue;
            };
            let entry = &owner.file.entitlement[index];
            let already = entry.value.delegate_to.iter().flat_map(|list| &list.value);
            let mut delegates: Vec<String> = already.map(|p| format!("\"{}\"", p.value)).collect();
            delegates.push(format!("\"{}\"", draft.name));
            let owners: Vec<&str> = owner.owners.iter().map(Person::as_str).collect();
            let message = format!(
                "`{}` belongs to {}, which has not delegated it to {}",
                rule.entitlement, owner.name, draft.name
            );
            let hint = format!(
                "ask {} to write delegate_to = [{}] in the entitlement at {}",
                owners.join(" or "),
                delegates.join(", "),
                owner.place(entry.span())
            );
            report.push(
                draft
                    .error(code, at.span(), message)
                    .label("needs the owner's consent")
                    .hint(hint),
            );
        }
    }
}

fn unknown_source(code: &'static str, world: &World<'_>, report: &mut Report) {
    let Some(sources) = &world.context.sources else { return };
    for draft in world.drafts {
        for (entry, rule) in draft.file.rule.iter().zip(&draft.rules) {
            let (
                Some(Rule {
                    trigger: Trigger::OnCall(on_call),
                    ..
                }),
                Some(at),
            ) = (rule, &entry.value.on_call)
            else {
                continue;
            };
            let source = &on_call.schedule.source;
            if !sources.contains(source) {
                let known: Vec<&str> = sources.iter().map(|s| s.0.as_str()).collect();
                let hint = did_you_mean(&source.0, known.iter().copied()).unwrap_or_else(|| match known.as_slice() {
                    [] => "the configuration has no [source.NAME] yet".to_owned(),
                    known => format!("the configuration has {}", known.join(", ")),
                });
                let message = format!("there is no on-call source `{source}`");
                report.push(draft.error(code, at.span(), message).hint(hint));
            }
        }
    }
}

fn unmet_training(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts.iter().filter(|d| !d.holes.broken()) {
        let completed: BTreeSet<&str> = draft
            .file
            .member
            .iter()
            .flat_map(|m| &m.value.completed)
            .flat_map(|list| list.value.iter().map(|training| training.value.as_str()))
            .collect();
        for (entry, rule) in draft.rules() {
            let required = entry.value.requires.iter().flat_map(|list| &list.value);
            for training in required.filter(|training| rule.trainings.contains(&training.value)) {
                if !completed.contains(training.value.as_str()) {
                    let message = format!("no member of {} has completed `{}`", draft.name, training.value);
                    let hint = did_you_mean(&training.value, completed.iter().copied())
                        .unwrap_or_else(|| "so nobody earns this; list it under a member's `completed`".to_owned());
                    report.push(draft.warning(code, training.span(), message).hint(hint));
                }
            }
        }
    }
}

fn duplicate_rule(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts {
        let mut seen: BTreeMap<&EntitlementId, Vec<(&Entry<RuleEntry>, &Rule)>> = BTreeMap::new();
        for (entry, rule) in draft.rules() {
            let same = |other: &Rule| {
                (&other.trigger, other.member, &other.trainings) == (&rule.trigger, rule.member, &rule.trainings)
                    && (other.lead, other.linger, other.until) == (rule.lead, rule.linger, rule.until)
            };
            let earlier = seen.entry(&rule.entitlement).or_default();
            if let Some((first, _)) = earlier.iter().find(|(_, other)| same(other)) {
                let message = format!("this rule says the same as the one at {}", draft.place(first.span()));
                report.push(draft.warning(code, entry.span(), message).hint("remove one"));
            }
            earlier.push((entry, rule));
        }
    }
}

/// Searching a pattern that never fires takes tens of milliseconds, so each window is searched once, from here when
/// there is no clock. Any instant serves: an impossible date is impossible from everywhere.
const ANY_INSTANT: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// The windows of a project with the place of their pattern.
fn windows(draft: &Draft) -> impl Iterator<Item = (&At<String>, &CronWindow)> {
    draft.rules().flat_map(|(entry, rule)| {
        let at = entry.value.during.as_ref()?.value.cron.as_ref()?;
        match &rule.trigger {
            Trigger::Members { during: Some(window) } => Some((at, window)),
            _ => None,
        }
    })
}

fn never(code: &'static str, world: &World<'_>, report: &mut Report) {
    let from = world.context.now.unwrap_or(ANY_INSTANT);
    let five_years = from
        .checked_add(SignedDuration::from_hours(5 * 366 * 24))
        .unwrap_or(Timestamp::MAX);
    for draft in world.drafts {
        for (at, window) in windows(draft) {
            match window.next_start(from) {
                None => {
                    let message = "this pattern never fires: there is no such date";
                    let hint = "check day of month and month, the third and fourth field";
                    report.push(draft.error(code, at.span(), message).hint(hint));
                }
                Some(start) if start > five_years => {
                    let message = format!("this pattern fires next on {}", window.zone.to_datetime(start).date());
                    let hint = "a pattern that sleeps for more than five years is likely a mistake";
                    report.push(draft.warning(code, at.span(), message).hint(hint));
                }
                Some(_) => {}
            }
        }
    }
}

fn overlap(code: &'static str, world: &World<'_>, report: &mut Report) {
    let from = world.context.now.unwrap_or(ANY_INSTANT);
    for draft in world.drafts {
        for (at, window) in windows(draft) {
            if let Some((earlier, later)) = window.overlap(from) {
                let local = |t: Timestamp| window.zone.to_datetime(t);
                let message = format!(
                    "the window that starts {} lasts past the next start, {}",
                    local(earlier.start()),
                    local(later.start())
                );
                let hint = "the windows merge into one; shorten them if that is not meant";
                report.push(draft.warning(code, at.span(), message).hint(hint));
            }
        }
    }
}

fn clock_change(code: &'static str, world: &World<'_>, report: &mut Report) {
    let Some(now) = world.context.now else { return };
    for draft in world.drafts {
        for (entry, rule) in draft.rules() {
            let length = entry.value.during.as_ref().and_then(|d| d.value.length.as_ref());
            let (Some(at), Trigger::Members { during: Some(window) }) = (length, &rule.trigger) else {
                continue;
            };
            if let Some((changed, by_clock)) = window.next_clock_change(now) {
                let end = window.zone.to_datetime(changed.end());
                let message = format!(
                    "the clocks change during the window of {}, which ends at {} instead of {}",
                    window.zone.to_datetime(changed.start()).date(),
                    end.time().strftime("%H:%M"),
                    by_clock.time().strftime("%H:%M")
                );
                let hint = format!(
                    "`for` is elapsed time; write until = \"{}\" if the clock is meant",
                    by_clock.time().strftime("%H:%M")
                );
                report.push(draft.warning(code, at.span(), message).hint(hint));
            }
        }
    }
}
