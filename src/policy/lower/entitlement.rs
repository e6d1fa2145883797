//! The values of one entitlement: what it grants in AWS, and to whom it is lent.

use super::{
    super::{Entitlement, file::EntitlementEntry},
    Lowering,
};
use crate::{
    document::{AccountId, At, Entry, identity_store_id},
    model::{EntitlementId, GroupRef, PermissionSetRef, Target},
};

/// The `priority` of an entitlement that states none: the middle, so that there is room on both sides.
pub(crate) const DEFAULT_PRIORITY: u8 = 5;

impl Lowering<'_> {
    pub(super) fn entitlement(&mut self, entry: &Entry<EntitlementEntry>) -> Option<Entitlement> {
        let at = entry.span();
        let e = &entry.value;
        let name = self
            .found
            .required(e.name.as_ref(), at, "[[entitlement]]", "name", "\"prod-admin\"");
        let name = name.and_then(|name| self.found.name(&name.value, name.span()));
        let target = self.target(entry);
        let id = EntitlementId {
            project: self.project.clone(),
            name: name.unwrap_or_default().into(),
        };
        let mut delegate_to = Vec::new();
        for value in e.delegate_to.iter().flat_map(|list| &list.value) {
            delegate_to.extend(self.delegation(&id, value));
        }
        let priority = e.priority.as_ref().map_or(Some(DEFAULT_PRIORITY), |priority| {
            let found = u8::try_from(priority.value).ok().filter(|p| (1..=9).contains(p));
            if found.is_none() {
                self.found.error(
                    "bad-priority",
                    priority.span(),
                    "`priority` is between 1 (goes first) and 9 (goes last)",
                    "leave it out for 5, the middle",
                );
            }
            found
        });
        name?;
        Some(Entitlement {
            id,
            target: target?,
            exclusive: e.exclusive.as_ref().is_some_and(|exclusive| exclusive.value),
            min_holders: e.min_holders.as_ref().map_or(0, |floor| floor.value),
            priority: priority?,
            delegate_to,
            origin: self.origin(at),
        })
    }

    fn target(&mut self, entry: &Entry<EntitlementEntry>) -> Option<Target> {
        let at = entry.span();
        let e = &entry.value;
        let account = e.account.as_ref().and_then(|account| self.account(account));
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

    pub(super) fn account(&mut self, account: &At<AccountId>) -> Option<String> {
        let valid = account.value.is_valid();
        if !valid {
            let hint = "an account id is twelve digits, with its leading zeros";
            self.found
                .error("bad-account", account.span(), "this is not an AWS account id", hint);
        }
        valid.then(|| account.value.0.clone())
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
}
