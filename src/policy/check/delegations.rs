//! Rules stay inside what was delegated, and delegations are used and have not run out unnoticed.

use std::ops::Range;

use jiff::{SignedDuration, Timestamp};

use super::{Draft, World};
use crate::{
    diagnostics::Report,
    policy::{Rule, delegation::longest, lower::DelegationMention},
    text::instant,
};

/// How long ahead an end is pointed out: time enough to ask and to merge.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Calls `tell` for each rule that names another project's entitlement, with the owner and its delegations to the rule's
/// project, of which there is at least one.
fn each_borrowed<'a>(
    world: &World<'a>,
    mut tell: impl FnMut(&'a Draft, (&Range<usize>, &'a Rule), &'a Draft, &[&'a DelegationMention]),
) {
    for draft in world.drafts {
        for (entry, rule) in draft.rules().filter(|(_, r)| r.entitlement.project != draft.name) {
            let Some(owner) = world.by_name.get(rule.entitlement.project.0.as_str()) else {
                continue;
            };
            let lent: Vec<&DelegationMention> = owner
                .mentions
                .delegations
                .iter()
                .filter(|m| m.entitlement == rule.entitlement && m.delegation.project == draft.name)
                .collect();
            if let (Some(at), false) = (&entry.value.entitlement, lent.is_empty()) {
                tell(draft, (at.span(), rule), owner, &lent);
            }
        }
    }
}

pub(super) fn outside(code: &'static str, world: &World<'_>, report: &mut Report) {
    each_borrowed(world, |draft, (at, rule), owner, lent| {
        if lent.iter().any(|m| m.delegation.allows(&rule.trigger)) {
            return;
        }
        let scopes: Vec<String> = lent.iter().map(|m| m.delegation.scope()).collect();
        let message = format!(
            "`{}` is delegated to {} for {} only",
            rule.entitlement,
            draft.name,
            scopes.join(" and ")
        );
        let hint = format!(
            "ask {} to widen the delegation at {}",
            world.whom_to_ask(owner),
            owner.place(&lent[0].span)
        );
        let error = draft.error(code, at, message).label("outside the delegation");
        report.push(error.hint(hint));
    });
}

pub(super) fn ended(code: &'static str, world: &World<'_>, report: &mut Report) {
    let Some(now) = world.context.now else { return };
    ending(code, world, report, |until| {
        (until <= now).then(|| ("has ended".to_owned(), ""))
    });
}

pub(super) fn ends_soon(code: &'static str, world: &World<'_>, report: &mut Report) {
    let Some(now) = world.context.now else { return };
    let soon = now.checked_add(SOON).unwrap_or(Timestamp::MAX);
    ending(code, world, report, |until| {
        (now < until && until <= soon).then(|| (format!("ends at {}", instant(until)), " if that is too early"))
    });
}

/// Tells of delegations for whose end `words` has any, to their owner and to the owners of the rules that rest on them.
fn ending(
    code: &'static str,
    world: &World<'_>,
    report: &mut Report,
    words: impl Fn(Timestamp) -> Option<(String, &'static str)>,
) {
    for draft in world.drafts {
        for mention in &draft.mentions.delegations {
            if let Some((ends, when)) = mention.delegation.until.and_then(&words) {
                let message = format!(
                    "the delegation of `{}` to {} {ends}",
                    mention.entitlement, mention.delegation.project
                );
                let hint = format!("extend it{when}, or remove it");
                report.push(draft.warning(code, &mention.until, message).hint(hint));
            }
        }
    }
    each_borrowed(world, |draft, (at, rule), owner, lent| {
        let all = lent.iter().map(|m| &m.delegation);
        let Some(longest) = longest(all, &draft.name, &rule.trigger) else {
            return;
        };
        if let Some((ends, when)) = longest.until.and_then(&words) {
            let place = lent
                .iter()
                .find(|m| m.delegation == *longest)
                .map_or_else(String::new, |m| owner.place(&m.span));
            let message = format!(
                "the delegation of `{}` that this rule rests on {ends}",
                rule.entitlement
            );
            let hint = format!(
                "ask {} to extend it at {place}{when}, or remove the rule",
                world.whom_to_ask(owner)
            );
            report.push(draft.warning(code, at, message).hint(hint));
        }
    });
}

pub(super) fn unused(code: &'static str, world: &World<'_>, report: &mut Report) {
    if !world.complete {
        return;
    }
    for draft in world.drafts {
        for mention in &draft.mentions.delegations {
            let to = &mention.delegation.project;
            let Some(other) = world.by_name.get(to.0.as_str()).filter(|d| d.name != draft.name) else {
                continue;
            };
            // A rule that was not understood may be the one that uses it, and one outside it has its own message.
            let undecided = other.rules.iter().any(Option::is_none);
            let used =
                |rule: &Rule| rule.entitlement == mention.entitlement && mention.delegation.allows(&rule.trigger);
            if !undecided && !other.rules().any(|(_, rule)| used(rule)) {
                let message = format!("no rule of {to} uses this delegation of `{}`", mention.entitlement);
                let hint = format!("remove it, or ask {} what it is for", world.whom_to_ask(other));
                report.push(draft.warning(code, &mention.span, message).hint(hint));
            }
        }
    }
}
