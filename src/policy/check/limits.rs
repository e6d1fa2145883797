//! What stands below a project stays inside the limits of its `[project.children]`.

use std::ops::Range;

use super::{Draft, World};
use crate::{
    diagnostics::{Diagnostic, Report},
    document::{At, Entry},
    model::Target,
    policy::{
        Excluded, Limits, Member, Rule,
        file::{ChildrenSection, EntitlementEntry, MemberEntry, RuleEntry},
    },
    text::span,
};

pub(super) fn beyond(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts {
        let above = world.lineage(draft);
        for bound in Bound::all(code, world, &above[1..]) {
            bound.owned(draft, report);
            bound.granted(draft, report);
            bound.members(draft, report);
            for (entry, rule) in draft.rules() {
                bound.key(draft, entry, rule, report);
            }
        }
        for (entry, rule) in draft.rules().filter(|(_, r)| r.entitlement.project != draft.name) {
            let Some(owner) = world.by_name.get(rule.entitlement.project.0.as_str()) else {
                continue;
            };
            // Limits above the rule's own project have been looked at, and nobody is bound by those of his own subtree.
            let elsewhere = world.lineage(owner).into_iter().skip(1).filter(|limiter| {
                let same = |d: &&Draft| std::ptr::eq(*d, *limiter);
                let below = || world.lineage(limiter).iter().any(|d| std::ptr::eq(*d, draft));
                !above.iter().any(same) && !below()
            });
            for bound in Bound::all(code, world, &elsewhere.collect::<Vec<_>>()) {
                bound.key(draft, entry, rule, report);
                bound.borrowed(draft, entry, rule, report);
            }
        }
    }
}

/// A child's limits are only ever stricter: what they seem to allow beyond those above is pointed out.
pub(super) fn idle(code: &'static str, world: &World<'_>, report: &mut Report) {
    for draft in world.drafts {
        let lineage = world.lineage(draft);
        let Some(own) = Bound::all(code, world, &lineage[..1]).pop() else {
            continue;
        };
        for above in Bound::all(code, world, &lineage[1..]) {
            own.wider(&above, report);
        }
    }
}

/// The limits of one project, and the project.
struct Bound<'a> {
    code: &'static str,
    world: &'a World<'a>,
    by: &'a Draft,
    limits: &'a Limits,
    written: &'a ChildrenSection,
}

impl<'a> Bound<'a> {
    fn all(code: &'static str, world: &'a World<'a>, above: &[&'a Draft]) -> Vec<Self> {
        let bound = |by: &'a Draft| {
            let section = by.file.project.as_ref()?.value.children.as_ref()?;
            Some(Self {
                code,
                world,
                by,
                limits: by.children.as_ref()?,
                written: &section.value,
            })
        };
        above.iter().copied().filter_map(bound).collect()
    }

    /// Whom to ask, and where the limit stands.
    fn ask(&self, what: &str, at: Option<&Range<usize>>) -> String {
        let place = at.map_or_else(String::new, |at| self.by.place(at));
        format!("ask {} {what} at {place}", self.world.whom_to_ask(self.by))
    }

    fn error(&self, draft: &Draft, at: &Range<usize>, message: String, hint: String) -> Diagnostic {
        let label = format!("beyond the limits of {}", self.by.name);
        draft.error(self.code, at, message).label(label).hint(hint)
    }

    /// The lists that leave the target out, each with the words for what it is and the place of the list.
    fn excluded(&self, target: &Target) -> Vec<(Excluded, String, Option<&Range<usize>>)> {
        let list = |excluded| match (excluded, target) {
            (Excluded::Account, Target::Assignment { account, .. }) => (
                format!("account {account}"),
                self.written.accounts.as_ref().map(At::span),
            ),
            (Excluded::PermissionSet, Target::Assignment { permission_set, .. }) => (
                format!("permission set {permission_set}"),
                self.written.permission_sets.as_ref().map(At::span),
            ),
            _ => (target.to_string(), self.written.groups.as_ref().map(At::span)),
        };
        let told = self.limits.exclude(target).into_iter().map(|excluded| {
            let (what, at) = list(excluded);
            (excluded, what, at)
        });
        // An element that was not understood may be the one that lets it in.
        told.filter(|(.., at)| at.is_none_or(|at| !self.by.holes.explain(at, "")))
            .collect()
    }

    fn wider(&self, above: &Bound<'_>, report: &mut Report) {
        let mut tell = |at: &Range<usize>, message: String, hint: String| {
            report.push(self.by.warning(self.code, at, message).hint(hint));
        };
        let by = &above.by.name;
        for account in self.written.accounts.iter().flat_map(|list| &list.value) {
            let known = above.limits.accounts.as_ref();
            if known.is_some_and(|known| !known.contains(&account.value.0)) {
                let message = format!(
                    "nothing below can have account {}: {by} does not allow it",
                    account.value.0
                );
                let list = above.written.accounts.as_ref().map(At::span);
                let hint = format!("remove it, or {}", above.ask("to add it to `accounts`", list));
                tell(account.span(), message, hint);
            }
        }
        if let (Some(at), Some(own), Some(longest)) = (
            &self.written.longest_membership,
            self.limits.longest_membership,
            above.limits.longest_membership,
        ) && longest < own
        {
            let message = format!("{by} already limits memberships to {}", span(longest));
            tell(at.span(), message, format!("remove it, or {}", above.ask_longest()));
        }
        if let Some(at) = self.written.may_drop_member.as_ref().filter(|may| may.value)
            && !above.limits.may_drop_member
        {
            let place = above.written.may_drop_member.as_ref().map(At::span);
            let hint = format!("remove it, or {}", above.ask("about `may_drop_member`", place));
            tell(
                at.span(),
                format!("{by} does not let on-call rules drop the membership key"),
                hint,
            );
        }
    }

    fn owned(&self, draft: &Draft, report: &mut Report) {
        for (entry, entitlement) in draft.file.entitlement.iter().zip(&draft.entitlements) {
            let Some(entitlement) = entitlement else { continue };
            for (excluded, what, list) in self.excluded(&entitlement.target) {
                let message = format!("{what} is not among those that {} allows below it", self.by.name);
                let add = self.ask(&format!("to add it to `{}`", key(excluded)), list);
                report.push(self.error(draft, &place(entry, excluded), message, add));
            }
        }
    }

    fn granted(&self, draft: &Draft, report: &mut Report) {
        for (entry, rule) in draft.rules().filter(|(_, r)| r.entitlement.project != draft.name) {
            let owner = self.world.by_name.get(rule.entitlement.project.0.as_str()).copied();
            let below = owner.is_some_and(|o| self.world.lineage(o)[1..].iter().any(|d| std::ptr::eq(*d, self.by)));
            let owned = owner.into_iter().flat_map(|o| o.entitlements.iter().flatten());
            // What stands below the limit itself is refused where it is owned.
            for entitlement in owned.filter(|e| !below && e.id == rule.entitlement) {
                for (excluded, what, list) in self.excluded(&entitlement.target) {
                    let message = format!(
                        "`{}` is {what}, which is not among those that {} allows below it",
                        rule.entitlement, self.by.name
                    );
                    let add = self.ask(&format!("to add it to `{}`", key(excluded)), list);
                    let at = entry.value.entitlement.as_ref().map_or(entry.span(), At::span);
                    report.push(self.error(draft, at, message, add));
                }
            }
        }
    }

    fn key(&self, draft: &Draft, entry: &Entry<RuleEntry>, rule: &Rule, report: &mut Report) {
        if self.limits.may_drop_member || rule.member {
            return;
        }
        let at = entry.value.requires.as_ref().map_or(entry.span(), At::span);
        let below = if rule.entitlement.project == draft.name {
            "on-call rules".to_owned()
        } else {
            format!("on-call rules such as this one for `{}`", rule.entitlement)
        };
        let message = format!("{} does not let {below} drop the membership key", self.by.name);
        let ask = self.ask(
            "about `may_drop_member`",
            self.written.may_drop_member.as_ref().map(At::span),
        );
        let hint = format!("write requires = [\"member\"], or {ask}");
        report.push(self.error(draft, at, message, hint));
    }

    /// What keeps a membership from being inside the limit: words, and where they point.
    fn too_long(&self, draft: &Draft, entry: &Entry<MemberEntry>, member: &Member) -> Option<(String, Range<usize>)> {
        let longest = self.limits.longest_membership?;
        let m = &entry.value;
        let missing: Vec<&str> = [("since", m.since.is_some()), ("until", m.until.is_some())]
            .into_iter()
            .filter(|(key, there)| !there && !draft.holes.explain(entry.span(), key))
            .map(|(key, _)| key)
            .collect();
        if !missing.is_empty() {
            let at = m.email.as_ref().map_or(entry.span(), At::span);
            return Some((format!("has no `{}`", missing.join("` and no `")), at.clone()));
        }
        let lasts = member.since?.duration_until(member.until?);
        let at = m.until.as_ref().map_or(entry.span(), At::span);
        (longest < lasts).then(|| (format!("lasts {}", span(lasts)), at.clone()))
    }

    fn ask_longest(&self) -> String {
        let at = self.written.longest_membership.as_ref().map(At::span);
        self.ask("about `longest_membership`", at)
    }

    fn members(&self, draft: &Draft, report: &mut Report) {
        for (entry, member) in draft.file.member.iter().zip(&draft.members) {
            let Some(member) = member else { continue };
            let (Some(longest), Some((why, at))) =
                (self.limits.longest_membership, self.too_long(draft, entry, member))
            else {
                continue;
            };
            let message = format!(
                "the membership of {} {why}; below {} memberships last at most {}",
                member.person,
                self.by.name,
                span(longest)
            );
            let change = if why.starts_with("has") {
                "add what is missing"
            } else {
                "shorten it"
            };
            let hint = format!("{change}, or {}", self.ask_longest());
            report.push(self.error(draft, &at, message, hint));
        }
    }

    /// A rule from outside that grants what stands below the limit must not be the way around it.
    fn borrowed(&self, draft: &Draft, entry: &Entry<RuleEntry>, rule: &Rule, report: &mut Report) {
        let Some(longest) = self.limits.longest_membership.filter(|_| rule.member) else {
            return;
        };
        let members = draft.file.member.iter().zip(&draft.members);
        let mut beyond = members.filter_map(|(entry, member)| {
            let (why, at) = self.too_long(draft, entry, member.as_ref()?)?;
            Some((member.as_ref()?, why, at))
        });
        let Some((member, why, place)) = beyond.next() else {
            return;
        };
        let more = match beyond.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let message = format!(
            "`{}` stands below {}, where memberships last at most {}; that of {} {why}{more}",
            rule.entitlement,
            self.by.name,
            span(longest),
            member.person
        );
        let at = entry.value.entitlement.as_ref().map_or(entry.span(), At::span);
        let hint = format!("correct {}, or {}", draft.place(&place), self.ask_longest());
        report.push(self.error(draft, at, message, hint));
    }
}

fn key(excluded: Excluded) -> &'static str {
    match excluded {
        Excluded::Account => "accounts",
        Excluded::PermissionSet => "permission_sets",
        Excluded::Group => "groups",
    }
}

fn place(entry: &Entry<EntitlementEntry>, excluded: Excluded) -> Range<usize> {
    let e = &entry.value;
    let written = match excluded {
        Excluded::Account => e.account.as_ref().map(At::span),
        Excluded::PermissionSet => e.permission_set.as_ref().map(At::span),
        Excluded::Group => e.group.as_ref().map(At::span),
    };
    written.unwrap_or(entry.span()).clone()
}
