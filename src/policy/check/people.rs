//! Members are listed once, vouched for by an owner, and still belong.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::World;
use crate::{
    diagnostics::Report,
    model::Person,
    policy::{Member, file::TextOr},
};

pub(super) fn duplicate_member(code: &'static str, world: &World<'_>, report: &mut Report) {
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

/// Letters of other scripts may look like Latin ones, and no address that people write by hand has them.
pub(super) fn look_alike(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts {
        for (entry, member) in draft.file.member.iter().zip(&draft.members) {
            let (Some(member), Some(email)) = (member, &entry.value.email) else {
                continue;
            };
            let foreign = member.person.as_str().chars().find(|c| !c.is_ascii());
            if let Some(foreign) = foreign {
                let message = format!(
                    "{} has a character that may look like another: U+{:04X}",
                    member.person,
                    u32::from(foreign)
                );
                let hint =
                    "nobody but the person with exactly this address earns anything; type it anew if it was copied";
                report.push(draft.warning(code, email.span(), message).hint(hint));
            }
        }
    }
}

pub(super) fn added_by_stranger(code: &'static str, world: &World<'_>, report: &mut Report) {
    if !world.complete {
        return;
    }
    for draft in world.drafts.iter().filter(|d| !d.owners.is_empty()) {
        let owners: HashSet<&Person> = world.lineage(draft).iter().flat_map(|d| &d.owners).collect();
        for (entry, member) in draft.file.member.iter().zip(&draft.members) {
            let (Some(member), Some(at)) = (member, &entry.value.added_by) else {
                continue;
            };
            if let Some(added_by) = &member.entry.added_by
                && !owners.contains(added_by)
            {
                let message = format!("{added_by} owns neither {} nor a project above it", draft.name);
                let hint = format!("have an owner vouch for {}, or make {added_by} an owner", member.person);
                report.push(draft.warning(code, at.span(), message).hint(hint));
            }
        }
    }
}

pub(super) fn ended(code: &'static str, world: &World<'_>, report: &mut Report) {
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
        for (entry, member) in draft.file.member.iter().zip(&draft.members) {
            for value in entry.value.completed.iter().flat_map(|list| &list.value) {
                if let TextOr::Table(table) = &value.value
                    && let (Some(training), Some(at)) = (&table.training, &table.until)
                    && at.value.instant().is_ok_and(|until| until <= now)
                    && !member
                        .as_ref()
                        .is_some_and(|member| still_counts(world, member, &training.value, now))
                {
                    let message = format!("the training `{}` has ended", training.value);
                    let warning = draft.warning(code, at.span(), message);
                    report.push(warning.hint("extend it once it is renewed, or remove it"));
                }
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

/// Whether the member completed the training anew: by another entry or by a list, now or in time to come.
fn still_counts(world: &World<'_>, member: &Member, training: &str, now: Timestamp) -> bool {
    let listed = world.trained.get(&member.person).and_then(|all| all.get(training));
    let all = member.completed.get(training).into_iter().chain(listed).flatten();
    all.into_iter().any(|completion| now < completion.valid.end())
}
