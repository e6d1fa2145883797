//! The values under `[project]`: its name, its owners, and the limits for the projects below.

use jiff::SignedDuration;

use super::{
    super::{
        Limits, Pattern,
        file::{ChildrenSection, PolicyFile},
    },
    Lowering,
};
use crate::{
    document::{At, Entry, unprintable},
    model::Person,
};

/// Bounds of the longest membership: less is a shift, more is no limit.
const SHORTEST_LIMIT: SignedDuration = SignedDuration::from_hours(24);
const LONGEST_LIMIT: SignedDuration = SignedDuration::from_hours(3660 * 24);

impl Lowering<'_> {
    pub(super) fn project(&mut self, file: &PolicyFile) -> Vec<Person> {
        let example = "a policy file begins with [project], name = \"payments\" and owners = [\"mira@example.com\"]";
        let Some(section) = &file.project else {
            if !self.found.holes.explain(&(0..0), "project") {
                self.found
                    .error("missing-key", &(0..0), "the file has no [project]", example);
            }
            return Vec::new();
        };
        let at = section.span().clone();
        let project = &section.value;
        if let Some(name) = self
            .found
            .required(project.name.as_ref(), &at, "[project]", "name", "\"payments\"")
        {
            self.found.name(&name.value, name.span());
        }
        self.text(project.context.as_ref());
        self.text(project.channel.as_ref());
        if let Some(zone) = &project.zone {
            self.found.zone(zone);
        }
        let mut owners = Vec::new();
        let list = self.found.required(
            project.owners.as_ref(),
            &at,
            "[project]",
            "owners",
            "[\"mira@example.com\"]",
        );
        if let Some(list) = list {
            if list.value.is_empty() && !self.found.holes.explain(list.span(), "") {
                let hint = "name at least one person who consents to what this project grants";
                self.found
                    .error("no-owner", list.span(), "a project needs an owner", hint);
            }
            for owner in &list.value {
                if let Some(person) = self.found.person(owner)
                    && !owners.contains(&person)
                {
                    owners.push(person);
                }
            }
        }
        owners
    }

    pub(super) fn children(&mut self, entry: &Entry<ChildrenSection>) -> Limits {
        let c = &entry.value;
        let bounds = SHORTEST_LIMIT..=LONGEST_LIMIT;
        Limits {
            // One that was not understood may be any; then there is an error, and the limit refuses nothing besides.
            accounts: c.accounts.as_ref().and_then(|list| {
                let accounts: Vec<_> = list.value.iter().map(|account| self.account(account)).collect();
                accounts.into_iter().collect()
            }),
            permission_sets: self.patterns(c.permission_sets.as_ref()),
            groups: self.patterns(c.groups.as_ref()),
            longest_membership: c
                .longest_membership
                .as_ref()
                .and_then(|text| self.found.duration(text, bounds)),
            may_drop_member: c.may_drop_member.as_ref().is_none_or(|may| may.value),
            origin: self.origin(entry.span()),
        }
    }

    fn patterns(&mut self, list: Option<&At<Vec<At<String>>>>) -> Option<Vec<Pattern>> {
        list.map(|list| list.value.iter().map(|text| self.pattern(text)).collect())
    }

    fn pattern(&mut self, text: &At<String>) -> Pattern {
        if text.value.trim().is_empty() || unprintable(&text.value) {
            let hint = "write a name, in which * stands for any characters, such as \"ReadOnly*\"";
            self.found
                .error("bad-pattern", text.span(), "nothing has such a name", hint);
        }
        Pattern(text.value.clone())
    }
}
