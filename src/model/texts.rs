//! Texts that many rows of the record repeat, each kept in memory once.

use std::collections::HashSet;

use smol_str::SmolStr;

use super::{Basis, Cause, EntitlementId, Origin, Person, PrincipalId, ResolvedTarget};

/// The texts met so far. Short ones are no more than a pointer and are not kept here.
#[derive(Debug, Default)]
pub(crate) struct Texts(HashSet<SmolStr>);

impl Texts {
    fn share(&mut self, text: &mut SmolStr) {
        if !text.is_heap_allocated() {
            return;
        }
        match self.0.get(text) {
            Some(known) => *text = known.clone(),
            None => drop(self.0.insert(text.clone())),
        }
    }

    pub(crate) fn entitlement(&mut self, entitlement: &mut EntitlementId) {
        self.share(&mut entitlement.project.0);
        self.share(&mut entitlement.name);
    }

    pub(crate) fn person(&mut self, person: &mut Person) {
        self.share(&mut person.0);
    }

    pub(crate) fn principal(&mut self, principal: &mut PrincipalId) {
        self.share(&mut principal.0);
    }

    pub(crate) fn target(&mut self, target: &mut ResolvedTarget) {
        match target {
            ResolvedTarget::Assignment {
                account,
                permission_set_arn,
            } => {
                self.share(account);
                self.share(permission_set_arn);
            }
            ResolvedTarget::Group { group_id } => self.share(group_id),
        }
    }

    pub(crate) fn cause(&mut self, cause: &mut Cause) {
        self.entitlement(&mut cause.entitlement);
        self.person(&mut cause.person);
        self.share(&mut cause.project.0);
        self.origin(&mut cause.rule);
        if let Some(member) = &mut cause.member {
            self.origin(&mut member.origin);
            if let Some(person) = &mut member.added_by {
                self.person(person);
            }
        }
        if let Some(delegation) = &mut cause.delegation {
            self.origin(delegation);
        }
        if let Basis::OnCall { schedule, user_id, .. } = &mut cause.basis {
            self.share(&mut schedule.source.0);
            self.share(&mut schedule.id);
            self.share(user_id);
        }
    }

    fn origin(&mut self, origin: &mut Origin) {
        self.share(&mut origin.file);
    }
}
