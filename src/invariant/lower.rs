//! Turns an entry into a statement, and reports every value that cannot be part of one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use jiff::SignedDuration;

use super::file::InvariantEntry;
use super::{Condition, Invariant};
use crate::diagnostics::SourceFile;
use crate::document::{At, Entry, Findings, unprintable};
use crate::model::{EntitlementId, Origin, ProjectName};

/// Bounds of `longest_access` and `break`.
const SHORTEST: SignedDuration = SignedDuration::from_secs(1);
const LONGEST: SignedDuration = SignedDuration::from_hours(3660 * 24);

/// The keys of which a statement has exactly one.
const CONDITIONS: [&str; 5] = ["max_holders", "never_together", "requires", "domains", "longest_access"];

/// A statement with the places of what it names, to be held against the policy.
#[derive(Debug, Clone)]
pub struct Written {
    pub(crate) source: Arc<SourceFile>,
    pub(crate) project: Option<ProjectName>,
    pub(crate) span: Range<usize>,
    /// Where the condition stands.
    pub(crate) condition: Range<usize>,
    pub(crate) name: Option<(Range<usize>, String)>,
    pub(crate) entitlements: Vec<(Range<usize>, EntitlementId)>,
    pub(crate) trainings: Vec<(Range<usize>, String)>,
    /// Whether it may name what the policy at hand does not have.
    pub(crate) lenient: bool,
    /// `None` when something in it was not understood; then there is an error.
    pub(crate) invariant: Option<Invariant>,
}

impl Written {
    /// The same for a policy other than the one in force, which may lack what the statement names.
    #[must_use]
    pub fn for_another_policy(self) -> Self {
        Self { lenient: true, ..self }
    }
}

/// Reads the entry of a project, or without one of the operator.
pub(crate) fn lower(
    found: &mut Findings<'_>,
    entry: &Entry<InvariantEntry>,
    project: Option<&ProjectName>,
    origin_file: &str,
) -> Written {
    let at = entry.span();
    let e = &entry.value;
    let name = found.required(e.name.as_ref(), at, "[[invariant]]", "name", "\"one-admin\"");
    let name = name.filter(|name| found.name(&name.value, name.span()).is_some());
    let example = "\"Never more than one administrator at a time.\"";
    let statement = found.required(e.statement.as_ref(), at, "[[invariant]]", "statement", example);
    let statement = statement.and_then(|text| said(found, text));
    let (entitlements, listed) = listed(found, e, project);
    let mut trainings = Vec::new();
    let condition = condition(found, entry, &mut trainings);
    if let (Some((Condition::NeverTogether, span)), Some(Some(listed))) = (&condition, &listed)
        && listed.len() == 1
    {
        let hint = "list at least two, or leave `entitlements` out for all";
        let message = "one entitlement alone is never held together with another of the list";
        found.error("idle-key", span, message, hint);
    }
    let origin = Origin {
        file: origin_file.into(),
        line: u32::try_from(found.source.line(at.start)).unwrap_or(u32::MAX),
    };
    let span = condition.as_ref().map_or_else(|| at.clone(), |(_, span)| span.clone());
    let invariant = match (name, statement, listed, condition) {
        (Some(name), Some(statement), Some(listed), Some((condition, _))) => Some(Invariant {
            project: project.cloned(),
            name: name.value.clone(),
            statement,
            listed,
            condition,
            origin,
            covers: BTreeSet::new(),
            trained: BTreeMap::new(),
        }),
        _ => None,
    };
    Written {
        source: Arc::clone(found.source),
        project: project.cloned(),
        span: at.clone(),
        condition: span,
        name: name.map(|name| (name.span().clone(), name.value.clone())),
        entitlements,
        trainings,
        lenient: false,
        invariant,
    }
}

/// On one line, because it is shown in the middle of others.
fn said(found: &mut Findings<'_>, text: &At<String>) -> Option<String> {
    if unprintable(&text.value) {
        let hint = "only line breaks and tabs are allowed, because this is shown on terminals";
        let message = "this text holds a control character";
        found.error("control-character", text.span(), message, hint);
        return None;
    }
    let words: Vec<&str> = text.value.split_whitespace().collect();
    if words.is_empty() {
        let hint = "say what must be so and why; whoever it holds back reads it";
        found.error("missing-key", text.span(), "the statement says nothing", hint);
        return None;
    }
    Some(words.join(" "))
}

type Listed = Option<Option<BTreeSet<EntitlementId>>>;

/// What it names with the places, and the set; `None` for that where something was not understood.
fn listed(
    found: &mut Findings<'_>,
    e: &InvariantEntry,
    project: Option<&ProjectName>,
) -> (Vec<(Range<usize>, EntitlementId)>, Listed) {
    let Some(list) = &e.entitlements else {
        return (Vec::new(), Some(None));
    };
    let (mut mentions, mut set, mut understood) = (Vec::new(), BTreeSet::new(), true);
    for text in &list.value {
        let id = match (text.value.split_once('/'), project) {
            (Some((project, name)), _) => (ProjectName(project.into()), name),
            (None, Some(own)) => (own.clone(), text.value.as_str()),
            (None, None) => {
                let hint = "write project/name: the configuration belongs to no project";
                found.error("unknown-entitlement", text.span(), "of which project?", hint);
                understood = false;
                continue;
            }
        };
        let id = EntitlementId {
            project: id.0,
            name: id.1.into(),
        };
        mentions.push((text.span().clone(), id.clone()));
        if !set.insert(id) {
            twice(found, text);
            understood = false;
        }
    }
    if list.value.is_empty() {
        if !found.holes.explain(list.span(), "") {
            let hint = "leave `entitlements` out for all, or name at least one";
            found.error("idle-key", list.span(), "this speaks about nothing", hint);
        }
        understood = false;
    }
    (mentions, understood.then_some(Some(set)))
}

fn twice(found: &mut Findings<'_>, text: &At<String>) {
    let message = format!("`{}` is listed twice", text.value);
    found.error("listed-twice", text.span(), message, "remove one");
}

/// The one condition and its place.
fn condition(
    found: &mut Findings<'_>,
    entry: &Entry<InvariantEntry>,
    trainings: &mut Vec<(Range<usize>, String)>,
) -> Option<(Condition, Range<usize>)> {
    let at = entry.span();
    let e = &entry.value;
    let spans = [
        e.max_holders.as_ref().map(At::span),
        e.never_together.as_ref().map(At::span),
        e.requires.as_ref().map(At::span),
        e.domains.as_ref().map(At::span),
        e.longest_access.as_ref().map(At::span),
    ];
    let mut written: Vec<(&str, &Range<usize>)> = CONDITIONS
        .into_iter()
        .zip(spans)
        .flat_map(|(key, span)| span.map(|span| (key, span)))
        .collect();
    written.sort_by_key(|(_, span)| span.start);
    if let (Some(rest), None) = (&e.rest, &e.longest_access)
        && !found.holes.explain(at, "longest_access")
    {
        let hint = "add longest_access = \"12h\", or remove it";
        let message = "`break` goes with `longest_access`";
        found.error("idle-key", rest.span(), message, hint);
    }
    let mut good = true;
    for (key, span) in written.iter().skip(1) {
        let message = format!(
            "a statement has one condition, and this one has `{}` already",
            written[0].0
        );
        let hint = format!("make a statement of its own of `{key}`");
        found.error("two-conditions", span, message, hint);
        good = false;
    }
    let Some((_, span)) = written.first() else {
        if !CONDITIONS.iter().any(|key| found.holes.explain(at, key)) {
            let hint = "add one of `max_holders`, `never_together`, `requires`, `domains` or `longest_access`";
            found.error("missing-key", at, "[[invariant]] does not say what must be so", hint);
        }
        return None;
    };
    let values = [
        max_holders(found, e),
        never_together(found, e),
        requires(found, e, trainings),
        domains(found, e),
        longest_access(found, entry),
    ];
    let condition = values.into_iter().flatten().next().filter(|_| good)?;
    Some((condition, (*span).clone()))
}

fn max_holders(found: &mut Findings<'_>, e: &InvariantEntry) -> Option<Condition> {
    let most = e.max_holders.as_ref()?;
    if most.value == 0 {
        let hint = "write at least 1; what nobody is ever to hold needs no entitlement, or no rule";
        found.error("out-of-range", most.span(), "nobody could ever hold it", hint);
        return None;
    }
    Some(Condition::MaxHolders(most.value))
}

fn never_together(found: &mut Findings<'_>, e: &InvariantEntry) -> Option<Condition> {
    let never = e.never_together.as_ref()?;
    if !never.value {
        let hint = "remove the statement, or write never_together = true";
        found.error("idle-key", never.span(), "`never_together = false` says nothing", hint);
        return None;
    }
    Some(Condition::NeverTogether)
}

/// The elements that are good, or `None` where one is not.
fn elements(
    found: &mut Findings<'_>,
    list: &At<Vec<At<String>>>,
    what: &str,
    read: impl Fn(&mut Findings<'_>, &At<String>) -> Option<String>,
) -> Option<BTreeSet<String>> {
    let (mut set, mut good) = (BTreeSet::new(), true);
    for text in &list.value {
        match read(found, text) {
            Some(element) if !set.insert(element.clone()) => {
                twice(found, text);
                good = false;
            }
            Some(_) => {}
            None => good = false,
        }
    }
    if list.value.is_empty() {
        if !found.holes.explain(list.span(), "") {
            found.error(
                "idle-key",
                list.span(),
                format!("this names no {what}"),
                format!("name at least one {what}"),
            );
        }
        good = false;
    }
    good.then_some(set)
}

fn requires(
    found: &mut Findings<'_>,
    e: &InvariantEntry,
    mentions: &mut Vec<(Range<usize>, String)>,
) -> Option<Condition> {
    let list = e.requires.as_ref()?;
    let trainings = elements(found, list, "training", |found, text| {
        let name = text.value.as_str();
        let message = if name == "member" {
            "`member` is no training; that somebody is a member is for the rule to demand"
        } else if name.trim().is_empty() || name.chars().any(char::is_control) {
            "this is not the name of a training"
        } else {
            return Some(name.to_owned());
        };
        found.error(
            "bad-training",
            text.span(),
            message,
            "name a training from members' `completed`",
        );
        None
    })?;
    mentions.extend(list.value.iter().map(|text| (text.span().clone(), text.value.clone())));
    Some(Condition::Requires(trainings))
}

fn domains(found: &mut Findings<'_>, e: &InvariantEntry) -> Option<Condition> {
    let list = e.domains.as_ref()?;
    let domains = elements(found, list, "domain", |found, text| {
        let domain = text.value.as_str();
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '*' | '/' | ',');
        if domain.is_empty() || domain.starts_with('.') || domain.chars().any(odd) {
            let hint = "write what follows the @, such as \"example.com\"; each domain by itself, without *";
            found.error(
                "bad-domain",
                text.span(),
                "this is not the domain of an e-mail address",
                hint,
            );
            return None;
        }
        Some(domain.to_ascii_lowercase())
    })?;
    Some(Condition::Domains(domains))
}

fn longest_access(found: &mut Findings<'_>, entry: &Entry<InvariantEntry>) -> Option<Condition> {
    let longest = entry.value.longest_access.as_ref()?;
    let bounds = SHORTEST..=LONGEST;
    let length = found.duration(longest, bounds.clone());
    let place = "[[invariant]] with `longest_access`";
    let rest = found.required(entry.value.rest.as_ref(), entry.span(), place, "break", "\"8h\"");
    let rest = rest.and_then(|rest| found.duration(rest, bounds));
    Some(Condition::LongestAccess {
        longest: length?,
        rest: rest?,
    })
}
