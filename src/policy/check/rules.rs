//! Rules name entitlements that exist and whose owner consents, sources that exist, and trainings somebody has.

use std::collections::{BTreeMap, BTreeSet};

use super::{Draft, World};
use crate::{
    config::Provider,
    diagnostics::{Report, did_you_mean, nearest},
    document::Entry,
    model::{EntitlementId, ScheduleKey, ScheduleKind},
    policy::{
        Rule,
        file::{EntitlementEntry, RuleEntry},
    },
};

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

fn named<'a>(world: &World<'a>, draft: &Draft, wanted: &EntitlementId) -> Named<'a> {
    let Some(owner) = world.by_name.get(wanted.project.0.as_str()) else {
        return if world.complete {
            Named::Unknown
        } else {
            Named::Undecided
        };
    };
    let mut entries = owner.file.entitlement.iter();
    let same_name = |e: &Entry<EntitlementEntry>| e.value.name.as_ref().is_some_and(|name| name.value == wanted.name);
    let Some(index) = entries.position(same_name) else {
        return if owner.has_nameless_entitlement() {
            Named::Undecided
        } else {
            Named::Unknown
        };
    };
    let entry = &owner.file.entitlement[index];
    let delegate_to = || entry.value.delegate_to.iter().flat_map(|list| &list.value);
    let delegated = delegate_to().any(|to| to.project().is_some_and(|(name, _)| name == draft.name.0));
    if owner.name == draft.name || delegated {
        Named::Allowed
    } else if owner.holes.explain(entry.span(), "delegate_to") || delegate_to().any(|to| to.project().is_none()) {
        Named::Undecided
    } else {
        Named::Refused(owner, index)
    }
}

pub(super) fn unknown_entitlement(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts.iter().filter(|d| !d.name.0.is_empty()) {
        for (at, wanted) in &draft.mentions.entitlements {
            if !matches!(named(world, draft, wanted), Named::Unknown) {
                continue;
            }
            // As the author wrote it: an own entitlement has no project in front.
            let text = if wanted.project == draft.name {
                wanted.name.clone()
            } else {
                wanted.to_string().into()
            };
            let own = draft.entitlement_names().map(|name| name.value.clone());
            let others = world.drafts.iter().flat_map(|d| {
                let names = d.entitlement_names();
                names.map(move |name| format!("{}/{}", d.name, name.value))
            });
            let elsewhere: Vec<String> = others.collect();
            let same = elsewhere
                .iter()
                .find(|id| id.split_once('/').is_some_and(|(_, name)| *name == *text));
            let known: Vec<String> = own.chain(elsewhere.iter().cloned()).collect();
            let hint = match (same, nearest(&text, known.iter().map(String::as_str))) {
                (Some(same), _) => format!("`{same}` exists; name it with its project if that is meant"),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => format!("{} owns {}", draft.name, owned(draft)),
            };
            let message = format!("there is no entitlement `{wanted}`");
            report.push(draft.error(code, at, message).hint(hint));
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

pub(super) fn no_consent(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts.iter().filter(|d| !d.name.0.is_empty()) {
        for (at, wanted) in &draft.mentions.entitlements {
            let Named::Refused(owner, index) = named(world, draft, wanted) else {
                continue;
            };
            let entry = &owner.file.entitlement[index];
            let list = match &entry.value.delegate_to {
                Some(list) if !list.value.is_empty() => format!("to add \"{}\" to delegate_to", draft.name),
                _ => format!("to write delegate_to = [\"{}\"]", draft.name),
            };
            let message = format!(
                "`{wanted}` belongs to {}, which has not delegated it to {}",
                owner.name, draft.name
            );
            let hint = format!(
                "ask {} {list} in the entitlement at {}",
                world.whom_to_ask(owner),
                owner.place(entry.span())
            );
            report.push(
                draft
                    .error(code, at, message)
                    .label("needs the owner's consent")
                    .hint(hint),
            );
        }
    }
}

pub(super) fn unknown_source(code: &'static str, world: &World<'_>, report: &mut Report) {
    let Some(sources) = &world.context.sources else { return };
    for draft in world.drafts {
        for (at, ScheduleKey { source, .. }) in &draft.mentions.schedules {
            if !sources.contains_key(source) {
                let known: Vec<&str> = sources.keys().map(|s| s.0.as_str()).collect();
                let hint = did_you_mean(&source.0, known.iter().copied()).unwrap_or_else(|| match known.as_slice() {
                    [] => "the configuration has no [source.NAME] yet".to_owned(),
                    known => format!("the configuration has {}", known.join(", ")),
                });
                let message = format!("there is no on-call source `{source}`");
                report.push(draft.error(code, at, message).hint(hint));
            }
        }
    }
}

pub(super) fn no_escalation_policies(code: &'static str, world: &World<'_>, report: &mut Report) {
    let Some(sources) = &world.context.sources else { return };
    for draft in world.drafts {
        for (at, ScheduleKey { source, kind, .. }) in &draft.mentions.schedules {
            let opsgenie = sources.get(source) == Some(&Some(Provider::Opsgenie));
            if opsgenie && *kind == ScheduleKind::EscalationPolicy {
                let message =
                    format!("`{source}` is Opsgenie, which does not tell who is on call for an escalation policy");
                let hint = "name the schedules that the policy uses, one rule for each";
                report.push(draft.error(code, at, message).hint(hint));
            }
        }
    }
}

pub(super) fn unmet_training(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts.iter().filter(|d| !d.holes.broken()) {
        let mut completed: BTreeSet<&str> = BTreeSet::new();
        for member in draft.members.iter().flatten() {
            let listed = world.trained.get(&member.person);
            let listed = listed.into_iter().flat_map(|trainings| trainings.keys());
            completed.extend(member.completed.keys().chain(listed).map(String::as_str));
        }
        let undecided = draft.members.iter().any(Option::is_none);
        for (at, training) in draft.mentions.trainings.iter().filter(|_| !undecided) {
            if !completed.contains(training.as_str()) {
                let message = format!("no member of {} has completed `{training}`", draft.name);
                let hint = did_you_mean(training, completed.iter().copied().chain(["member"]))
                    .unwrap_or_else(|| "so nobody earns this; list it under a member's `completed`".to_owned());
                report.push(draft.warning(code, at, message).hint(hint));
            }
        }
    }
}

pub(super) fn duplicate_rule(code: &'static str, world: &World<'_>, report: &mut Report) {
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
