//! Projects form a tree, and what is owned is owned once.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use super::{Draft, World};
use crate::{
    diagnostics::{Report, did_you_mean},
    document::At,
    model::{EntitlementId, Target},
};

fn unknown_project(
    code: &'static str,
    world: &World<'_>,
    draft: &Draft,
    (name, at): (&str, &Range<usize>),
    report: &mut Report,
) {
    if world.complete && !world.by_name.contains_key(name) {
        let hint = did_you_mean(name, world.by_name.keys().copied())
            .unwrap_or_else(|| "a project is a file of this directory with that name under [project]".to_owned());
        let message = format!("there is no project `{name}`");
        report.push(draft.error(code, at, message).hint(hint));
    }
}

pub(super) fn unknown_parent(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts {
        if let Some(parent) = draft.parent() {
            unknown_project(code, world, draft, (&parent.value, parent.span()), report);
        }
    }
}

pub(super) fn not_a_root(code: &'static str, world: &World<'_>, report: &mut Report) {
    let Some(roots) = &world.context.roots else { return };
    for draft in world.drafts.iter().filter(|d| d.parent().is_none()) {
        let section = draft.file.project.as_ref();
        let explained = section.is_none_or(|section| draft.holes.explain(section.span(), "parent"));
        if !explained && !draft.name.0.is_empty() && !roots.contains(&draft.name) {
            let message = format!(
                "{} has no parent and is not one of the `roots` in the configuration",
                draft.name
            );
            let hint =
                "name the project that it stands below as its `parent`, or ask the operator to add it to `roots`";
            report.push(draft.error(code, &draft.name_span(), message).hint(hint));
        }
    }
}

pub(super) fn parent_cycle(code: &'static str, world: &World<'_>, report: &mut Report) {
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

pub(super) fn duplicate_entitlement(code: &'static str, world: &World<'_>, report: &mut Report) {
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

pub(super) fn owned_twice(code: &'static str, world: &World<'_>, report: &mut Report) {
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

pub(super) fn unknown_delegate(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts {
        let lists = draft.file.entitlement.iter().flat_map(|e| &e.value.delegate_to);
        for (name, at) in lists.flat_map(|list| &list.value).flat_map(At::project) {
            if name == draft.name.0 {
                let message = "a project need not delegate to itself";
                report.push(draft.error(code, at, message).hint("remove it"));
            } else {
                unknown_project(code, world, draft, (name, at), report);
            }
        }
    }
}
