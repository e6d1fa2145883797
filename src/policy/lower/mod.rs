//! Turns the entries of one policy file into validated values, and reports every value that cannot be one.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use jiff::Timestamp;

use super::{
    CronWindow, Entitlement, Member, Rule,
    file::{EntitlementEntry, MemberEntry, PolicyFile},
};
use crate::{
    diagnostics::{Report, SourceFile},
    document::{At, Entry, Findings, Holes, Parsed, Until, identity_store_id, unprintable},
    model::{EntitlementId, GroupRef, Origin, PermissionSetRef, Person, ProjectName, ScheduleKey, Target},
};

mod rule;

/// One file: as written, and as far as its values make sense. The lists run parallel to those in `file`.
pub(super) struct Draft {
    pub(super) source: Arc<SourceFile>,
    pub(super) file: PolicyFile,
    pub(super) holes: Holes,
    /// Empty while the file names no project; then there is an error and no policy.
    pub(super) name: ProjectName,
    pub(super) owners: Vec<Person>,
    pub(super) entitlements: Vec<Option<Entitlement>>,
    pub(super) members: Vec<Option<Member>>,
    pub(super) rules: Vec<Option<Rule>>,
    /// What the rules name, whether or not the rest of the rule makes sense.
    pub(super) mentions: Mentions,
    pub(super) origin: Origin,
}

/// A window with the places of its pattern and of its length.
pub(super) struct WindowMention {
    pub(super) cron: Range<usize>,
    pub(super) length: Range<usize>,
    pub(super) window: CronWindow,
    /// As written, the same for the same window.
    pub(super) text: String,
}

/// Names and windows in the rules of one file, with their places.
#[derive(Default)]
pub(super) struct Mentions {
    pub(super) entitlements: Vec<(Range<usize>, EntitlementId)>,
    pub(super) schedules: Vec<(Range<usize>, ScheduleKey)>,
    pub(super) windows: Vec<WindowMention>,
    /// The trainings that rules require.
    pub(super) trainings: Vec<(Range<usize>, String)>,
}

/// What `requires` calls membership.
const MEMBER: &str = "member";

pub(super) fn lower(parsed: Parsed<PolicyFile>, origin_file: String, report: &mut Report) -> Draft {
    let Parsed { source, value, holes } = parsed;
    let project = value.project.as_ref();
    let name = project.and_then(|p| p.value.name.as_ref());
    let mut lowering = Lowering {
        found: Findings {
            source: &source,
            holes: &holes,
            report,
        },
        origin_file: &origin_file,
        project: ProjectName(name.map(|n| n.value.clone()).unwrap_or_default()),
        mentions: Mentions::default(),
    };
    let owners = lowering.project(&value);
    let entitlements = value.entitlement.iter().map(|e| lowering.entitlement(e)).collect();
    let members = value.member.iter().map(|m| lowering.member(m)).collect();
    let rules = value.rule.iter().map(|r| lowering.rule(r)).collect();
    let name = lowering.project.clone();
    let mentions = std::mem::take(&mut lowering.mentions);
    let origin = lowering.origin(project.map_or(&(0..0), Entry::span));
    Draft {
        source,
        file: value,
        holes,
        name,
        owners,
        entitlements,
        members,
        rules,
        mentions,
        origin,
    }
}

struct Lowering<'a> {
    found: Findings<'a>,
    origin_file: &'a str,
    project: ProjectName,
    mentions: Mentions,
}

impl Lowering<'_> {
    fn origin(&self, span: &Range<usize>) -> Origin {
        Origin {
            file: self.origin_file.to_owned(),
            line: u32::try_from(self.found.source.line(span.start)).unwrap_or(u32::MAX),
        }
    }

    /// Text that people are shown.
    fn text(&mut self, text: Option<&At<String>>) -> Option<String> {
        let text = text?;
        if unprintable(&text.value) {
            let hint = "only line breaks and tabs are allowed, because this is shown on terminals";
            self.found.error(
                "control-character",
                text.span(),
                "this text holds a control character",
                hint,
            );
        }
        Some(text.value.clone())
    }

    fn until(&mut self, until: Option<&At<Until>>) -> Option<Timestamp> {
        let until = until?;
        let instant = until.value.instant();
        if let Err(message) = instant {
            self.found.error("bad-date", until.span(), message, "");
        }
        instant.ok()
    }

    fn project(&mut self, file: &PolicyFile) -> Vec<Person> {
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

    fn entitlement(&mut self, entry: &Entry<EntitlementEntry>) -> Option<Entitlement> {
        let at = entry.span();
        let e = &entry.value;
        let name = self
            .found
            .required(e.name.as_ref(), at, "[[entitlement]]", "name", "\"prod-admin\"");
        let name = name.and_then(|name| self.found.name(&name.value, name.span()));
        let target = self.target(entry);
        let delegate_to = e.delegate_to.iter().flat_map(|list| &list.value);
        Some(Entitlement {
            id: EntitlementId {
                project: self.project.clone(),
                name: name?.to_owned(),
            },
            target: target?,
            exclusive: e.exclusive.as_ref().is_some_and(|exclusive| exclusive.value),
            min_holders: e.min_holders.as_ref().map_or(0, |floor| floor.value),
            delegate_to: delegate_to.map(|project| ProjectName(project.value.clone())).collect(),
            origin: self.origin(at),
        })
    }

    fn target(&mut self, entry: &Entry<EntitlementEntry>) -> Option<Target> {
        let at = entry.span();
        let e = &entry.value;
        let account = e.account.as_ref().and_then(|account| {
            let valid = account.value.is_valid();
            if !valid {
                let hint = "an account id is twelve digits, with its leading zeros";
                self.found
                    .error("bad-account", account.span(), "this is not an AWS account id", hint);
            }
            valid.then(|| account.value.0.clone())
        });
        let permission_set = e.permission_set.as_ref().and_then(|set| self.permission_set(set));
        let group = e.group.as_ref().and_then(|group| self.group(group));
        match (&e.group, &e.account, &e.permission_set) {
            (Some(both), Some(_), _) | (Some(both), _, Some(_)) => {
                let message = "an entitlement is a group or a permission set in an account, not both";
                self.found
                    .error("two-targets", both.span(), message, "make two entitlements of it");
                None
            }
            (Some(_), None, None) => group.map(Target::Group),
            (None, Some(_), Some(_)) => Some(Target::Assignment {
                account: account?,
                permission_set: permission_set?,
            }),
            (None, Some(_), None) => {
                let example = "\"AdministratorAccess\"";
                self.found.required(
                    None::<&()>,
                    at,
                    "[[entitlement]] with `account`",
                    "permission_set",
                    example,
                );
                None
            }
            (None, None, Some(_)) => {
                let example = "\"111122223333\"";
                self.found.required(
                    None::<&()>,
                    at,
                    "[[entitlement]] with `permission_set`",
                    "account",
                    example,
                );
                None
            }
            (None, None, None) => {
                if !["account", "permission_set", "group"]
                    .iter()
                    .any(|key| self.found.holes.explain(at, key))
                {
                    let hint = "add `account` and `permission_set`, or `group`";
                    self.found
                        .error("missing-key", at, "[[entitlement]] does not say what it grants", hint);
                }
                None
            }
        }
    }

    fn permission_set(&mut self, set: &At<String>) -> Option<PermissionSetRef> {
        let text = &set.value;
        if text.starts_with("arn:") {
            let valid = text.bytes().all(|b| b.is_ascii_graphic()) && text.contains(":permissionSet/");
            if !valid {
                let hint = "it looks like arn:aws:sso:::permissionSet/ssoins-1234567890abcdef/ps-1234567890abcdef";
                self.found.error(
                    "bad-permission-set",
                    set.span(),
                    "this is not a permission set's ARN",
                    hint,
                );
            }
            return valid.then(|| PermissionSetRef::Arn(text.clone()));
        }
        // The pattern of `PermissionSetName` in the IAM Identity Center API.
        let valid = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b));
        if !valid {
            let hint = "a name has up to 32 letters, digits and _+=,.@- characters";
            self.found.error(
                "bad-permission-set",
                set.span(),
                "this is not a permission set's name",
                hint,
            );
        }
        valid.then(|| PermissionSetRef::Name(text.clone()))
    }

    fn group(&mut self, group: &At<String>) -> Option<GroupRef> {
        let text = &group.value;
        if identity_store_id(text) {
            return Some(GroupRef::Id(text.clone()));
        }
        let valid = !text.trim().is_empty() && text.chars().count() <= 1024 && !text.chars().any(char::is_control);
        if !valid {
            let hint = "give the display name or the id of an Identity Center group";
            self.found
                .error("bad-group", group.span(), "this is not a group's name", hint);
        }
        valid.then(|| GroupRef::Name(text.clone()))
    }

    fn member(&mut self, entry: &Entry<MemberEntry>) -> Option<Member> {
        let at = entry.span();
        let m = &entry.value;
        let email = self
            .found
            .required(m.email.as_ref(), at, "[[member]]", "email", "\"alice@example.com\"");
        let person = email.and_then(|email| self.found.person(email));
        let added_by = m.added_by.as_ref().and_then(|email| self.found.person(email));
        let reason = self.text(m.reason.as_ref());
        let until = self.until(m.until.as_ref());
        let mut completed = BTreeSet::new();
        for training in m.completed.iter().flat_map(|list| &list.value) {
            if training.value == MEMBER {
                let message = "`member` is no training: being listed here is the membership";
                self.found.error("bad-training", training.span(), message, "remove it");
            }
            completed.extend(self.training(training));
        }
        Some(Member {
            person: person?,
            added_by,
            reason,
            until,
            completed,
            origin: self.origin(at),
        })
    }

    fn training(&mut self, training: &At<String>) -> Option<String> {
        let valid = !training.value.trim().is_empty() && !training.value.chars().any(char::is_control);
        if !valid {
            self.found.error(
                "bad-training",
                training.span(),
                "this is not the name of a training",
                "",
            );
        }
        valid.then(|| training.value.clone())
    }
}
