//! What a project lets the projects below it own and grant.

use std::{collections::BTreeSet, fmt};

use jiff::SignedDuration;
use serde::{Serialize, Serializer};

use crate::{
    model::{Origin, Target},
    text::span,
};

/// The limits under `[project.children]`, for everything below the project and not for the project itself. Limits of
/// several ancestors hold together, so that a child can only be stricter than what is above it.
///
/// They bind what the subtree owns, what its rules grant, and also rules elsewhere that grant what the subtree owns,
/// because a delegation would otherwise be the way around them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limits {
    /// The only AWS accounts, twelve digits each; `None` is any.
    pub accounts: Option<BTreeSet<String>>,
    /// The only permission sets; `None` is any.
    pub permission_sets: Option<Vec<Pattern>>,
    /// The only groups; `None` is any.
    pub groups: Option<Vec<Pattern>>,
    /// The longest time from a member's `since` to its `until`; `None` lets both be left out.
    #[serde(rename = "longest_membership_seconds", serialize_with = "seconds")]
    pub longest_membership: Option<SignedDuration>,
    /// Whether an on-call rule may do without the membership key.
    pub may_drop_member: bool,
    /// Where `[project.children]` stands.
    pub origin: Origin,
}

/// As every other length of time is shown.
fn seconds<S: Serializer>(length: &Option<SignedDuration>, serializer: S) -> Result<S::Ok, S::Error> {
    length.map(|length| length.as_secs()).serialize(serializer)
}

/// A name, in which each `*` stands for any characters or none. Upper and lower case differ, as they do in AWS. A target
/// is compared as its owner wrote it: an ARN with ARNs, a name with names, so that a policy loads without asking AWS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Pattern(pub String);

impl Pattern {
    /// Whether the whole of `text` fits.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The list of `[project.children]` that leaves a target out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excluded {
    /// `accounts`
    Account,
    /// `permission_sets`
    PermissionSet,
    /// `groups`
    Group,
}

impl Limits {
    /// Every list that leaves the target out.
    #[must_use]
    pub fn exclude(&self, target: &Target) -> Vec<Excluded> {
        let outside = |list: &Option<Vec<Pattern>>, text: &str| {
            list.as_ref()
                .is_some_and(|patterns| !patterns.iter().any(|pattern| pattern.matches(text)))
        };
        let mut excluded = Vec::new();
        match target {
            Target::Assignment {
                account,
                permission_set,
            } => {
                if self.accounts.as_ref().is_some_and(|known| !known.contains(account)) {
                    excluded.push(Excluded::Account);
                }
                if outside(&self.permission_sets, &permission_set.to_string()) {
                    excluded.push(Excluded::PermissionSet);
                }
            }
            Target::Group(group) => {
                if outside(&self.groups, &group.to_string()) {
                    excluded.push(Excluded::Group);
                }
            }
        }
        excluded
    }

    /// Each limit in a few words.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        fn list<T: fmt::Display>(singular: &str, values: impl ExactSizeIterator<Item = T>) -> String {
            match values.len() {
                0 => format!("no {singular}s"),
                1 => format!("only the {singular} {}", join(values)),
                _ => format!("only the {singular}s {}", join(values)),
            }
        }
        fn join<T: fmt::Display>(values: impl Iterator<Item = T>) -> String {
            values.map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
        }
        let mut words = Vec::new();
        words.extend(self.accounts.as_ref().map(|a| list("account", a.iter())));
        words.extend(self.permission_sets.as_ref().map(|p| list("permission set", p.iter())));
        words.extend(self.groups.as_ref().map(|g| list("group", g.iter())));
        words.extend(
            self.longest_membership
                .map(|longest| format!("memberships of at most {}", span(longest))),
        );
        if !self.may_drop_member {
            words.push("on-call rules keep the membership key".to_owned());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_or_none() {
        let cases = [
            ("ReadOnly", "ReadOnly", true),
            ("ReadOnly", "ReadOnlyAccess", false),
            ("ReadOnly", "readonly", false),
            ("ReadOnly*", "ReadOnly", true),
            ("ReadOnly*", "ReadOnlyAccess", true),
            ("*Admin", "DatabaseAdmin", true),
            ("*Admin", "AdminX", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("a**c", "abc", true),
            ("*", "", true),
            ("*", "anything", true),
            ("", "x", false),
            ("Žofie*", "Žofie 李", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Pattern(pattern.to_owned()).matches(text), expected, "{pattern} {text}");
        }
    }
}
